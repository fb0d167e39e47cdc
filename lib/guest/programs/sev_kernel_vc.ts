/**
 * The encrypted guest's kernel, the #VC handler: every event that it knows is put to the host through the GHCB, with only
 * those registers in it that the event needs; the answer is believed only as far as its valid bits and error fields allow
 * (SEV-ES GHCB standardization, 2.6 and 4; sev.md, sections b and c).
 *
 * DR7 is the guest's own, kept where the host cannot see it; MONITOR and MWAIT do nothing; the bytes of an instruction must
 * be those of its exit code.
 *
 * Not handled, so that the guest ends: other exit codes, exceptions that the host asks for, prefixes that an instruction
 * cannot have.
 *
 * @module
 */
import { GHCB } from "../../layout/sev/ghcb.ts";
import { POP_RSI_TO_R15, PUSH_R15_TO_RSI, VMGEXIT } from "./sev_parts.ts";

/** The saved registers lie in encoding order, then error code, RIP, CS, RFLAGS, RSP, SS. */
export const SEV_KERNEL_VC = `
FRAME_RAX       equ 0
FRAME_RCX       equ 8
FRAME_RDX       equ 16
FRAME_RBX       equ 24
FRAME_RSI       equ 48
FRAME_RDI       equ 56
FRAME_ERROR     equ 128
FRAME_RIP       equ 136
FRAME_CS        equ 144
FRAME_FLAGS     equ 152
GHCB_BUFFER_BYTES equ ${GHCB.fields.find((field) => field.name === "shared_buffer")!.size}
MMIO_READ       equ 0x80000001
MMIO_WRITE      equ 0x80000002
AP_CREATION     equ 0x80000013

vc_handler:
${PUSH_R15_TO_RSI}
        push rbp
        push qword [rsp + 120]          ; RSP
        push rbx
        push rdx
        push rcx
        push rax
        cld
        mov rbp, rsp                    ; rbp: the frame
        mov r12, [gs:BLOCK_GHCB]        ; r12: the GHCB
        ; a #VC inside this handler finds the GHCB in use: what is in it is kept beside it, once
        inc dword [gs:BLOCK_NESTING]
        cmp dword [gs:BLOCK_NESTING], 2
        ja terminate
        jb .unused
        mov rsi, r12
        lea rdi, [r12 + AREA_BACKUP - AREA_GHCB]
        call copy_page
.unused:
        mov r11, [rbp + FRAME_RIP]      ; r11: the instruction
        mov rax, [rbp + FRAME_ERROR]
        cmp rax, EXIT_CPUID
        je vc_cpuid
        ; of the rest nothing is for user mode
        test byte [rbp + FRAME_CS], 3
        jnz terminate
        cmp rax, EXIT_IOIO
        je vc_ioio
        cmp rax, EXIT_MSR
        je vc_msr
        cmp rax, EXIT_NPF
        je vc_mmio
        cmp rax, EXIT_RDTSC
        je vc_tsc
        cmp rax, EXIT_RDTSCP
        je vc_tscp
        cmp rax, EXIT_RDPMC
        je vc_pmc
        cmp rax, EXIT_DR7_READ
        je vc_dr7_read
        cmp rax, EXIT_DR7_WRITE
        je vc_dr7_write
        cmp rax, EXIT_VMMCALL
        je vc_vmmcall
        cmp rax, EXIT_WBINVD
        je vc_wbinvd
        cmp rax, EXIT_MONITOR
        je vc_monitor
        cmp rax, EXIT_MWAIT
        je vc_mwait
        jmp terminate

; leaves the instruction behind, R11 bytes long
vc_done:
        add [rbp + FRAME_RIP], r11
vc_return:
        cmp dword [gs:BLOCK_NESTING], 2
        jne .leave
        mov rdi, r12
        lea rsi, [r12 + AREA_BACKUP - AREA_GHCB]
        call copy_page
.leave: dec dword [gs:BLOCK_NESTING]
        pop rax
        pop rcx
        pop rdx
        pop rbx
        add rsp, 8
        pop rbp
${POP_RSI_TO_R15}
        add rsp, 8                      ; error code
        iretq

; the page at RSI to RDI
copy_page:
        mov ecx, 512
        rep movsq
        ret

; a new request: no field is valid
ghcb_begin:
        mov qword [r12 + GHCB_VALID_LOW], 0
        mov qword [r12 + GHCB_VALID_HIGH], 0
        ret

; exit code RDI, EXITINFO1 RSI, EXITINFO2 RDX; clobbers RAX, RCX, RDX
ghcb_call:
        mov [r12 + GHCB_CODE], rdi
        mov [r12 + GHCB_INFO1], rsi
        mov [r12 + GHCB_INFO2], rdx
        bts qword [r12 + GHCB_VALID_HIGH], VALID_CODE
        bts qword [r12 + GHCB_VALID_HIGH], VALID_INFO1
        bts qword [r12 + GHCB_VALID_HIGH], VALID_INFO2
        mov eax, [protocol_version]
        mov [r12 + GHCB_VERSION], ax
        mov dword [r12 + GHCB_USAGE], 0
        mov eax, r12d
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
        ; an exception or an error is not taken from the host
        cmp dword [r12 + GHCB_INFO1], 0
        jne terminate
        ret

; the answer must contain RAX; its value in RAX
ghcb_rax:
        bt qword [r12 + GHCB_VALID_LOW], VALID_RAX
        jnc terminate
        mov rax, [r12 + GHCB_RAX]
        mov qword [r12 + GHCB_RAX], 0
        ret

vc_cpuid:
        cmp word [r11], 0xa20f
        jne terminate
        call ghcb_begin
        mov eax, [rbp + FRAME_RAX]
        mov ecx, [rbp + FRAME_RCX]
        mov [r12 + GHCB_RAX], rax
        mov [r12 + GHCB_RCX], rcx
        bts qword [r12 + GHCB_VALID_LOW], VALID_RAX
        bts qword [r12 + GHCB_VALID_HIGH], VALID_RCX
        cmp eax, 0xd
        jne .ask
        mov qword [r12 + GHCB_XCR0], 1  ; OSXSAVE is not on
        bts qword [r12 + GHCB_VALID_HIGH], VALID_XCR0
.ask:   mov edi, EXIT_CPUID
        xor esi, esi
        xor edx, edx
        call ghcb_call
        mov rcx, [r12 + GHCB_VALID_HIGH]
        mov rdx, (1 << VALID_RBX) | (1 << VALID_RCX) | (1 << VALID_RDX)
        and rcx, rdx
        cmp rcx, rdx
        jne terminate
        call ghcb_rax
        mov eax, eax
        mov [rbp + FRAME_RAX], rax
        mov ecx, [r12 + GHCB_RBX]
        mov [rbp + FRAME_RBX], rcx
        mov ecx, [r12 + GHCB_RCX]
        mov [rbp + FRAME_RCX], rcx
        mov ecx, [r12 + GHCB_RDX]
        mov [rbp + FRAME_RDX], rcx
        mov r11d, 2
        jmp vc_done

vc_msr:
        call ghcb_begin
        mov ecx, [rbp + FRAME_RCX]
        mov [r12 + GHCB_RCX], rcx
        bts qword [r12 + GHCB_VALID_HIGH], VALID_RCX
        mov edi, EXIT_MSR
        xor edx, edx
        cmp word [r11], 0x320f          ; RDMSR
        je .read
        cmp word [r11], 0x300f
        jne terminate
        mov eax, [rbp + FRAME_RAX]
        mov [r12 + GHCB_RAX], rax
        mov eax, [rbp + FRAME_RDX]
        mov [r12 + GHCB_RDX], rax
        bts qword [r12 + GHCB_VALID_LOW], VALID_RAX
        bts qword [r12 + GHCB_VALID_HIGH], VALID_RDX
        mov esi, 1
        call ghcb_call
        mov qword [r12 + GHCB_RAX], 0
        mov qword [r12 + GHCB_RDX], 0
        mov r11d, 2
        jmp vc_done
.read:  xor esi, esi
        call ghcb_call
        bt qword [r12 + GHCB_VALID_HIGH], VALID_RDX
        jnc terminate
        call ghcb_rax
        mov eax, eax
        mov [rbp + FRAME_RAX], rax
        mov ecx, [r12 + GHCB_RDX]
        mov [rbp + FRAME_RDX], rcx
        mov r11d, 2
        jmp vc_done

; prefixes from R11 on: R8 operand size 4 or 2, R9 address size bits of EXITINFO1, R13 REP; AL the opcode,
; R11 behind it
decode_prefixes:
        mov r8d, 4
        mov r9d, 1 << 9                 ; 64-bit addresses
        xor r13d, r13d
        mov ecx, 15
.next:  dec ecx
        js terminate
        movzx eax, byte [r11]
        inc r11
        cmp al, 0x66
        je .operand
        cmp al, 0x67
        je .address
        cmp al, 0xf3
        je .rep
        cmp al, 0xf2
        je .rep
        cmp al, 0x2e
        je .next                        ; segments of a flat kernel, FS and GS apart
        cmp al, 0x36
        je .next
        cmp al, 0x3e
        je .next
        cmp al, 0x26
        je .next
        mov ah, al
        and ah, 0xf0
        cmp ah, 0x40
        je .rex
        ret
.operand:
        mov r8d, 2
        jmp .next
.address:
        mov r9d, 1 << 8
        jmp .next
.rep:   mov r13d, IO_REP
        jmp .next
.rex:   jmp .next

vc_ioio:
        call decode_prefixes
        test al, 1
        jnz .sized
        mov r8d, 1
.sized: mov esi, r8d
        shl esi, 4                      ; size8, size16, size32
        or esi, r9d
        cmp al, 0x6c
        jb terminate
        cmp al, 0x6f
        jbe .string
        mov ah, al
        and ah, 0xf4
        cmp ah, 0xe4
        jne terminate
        ; E4 to E7 have the port behind the opcode, EC to EF in DX
        movzx edx, word [rbp + FRAME_RDX]
        test al, 8
        jnz .port
        movzx edx, byte [r11]
        inc r11
.port:  shl edx, 16
        or esi, edx
        sub r11, [rbp + FRAME_RIP]
        call ghcb_begin
        test al, 2
        jz .in
        call io_out
        jmp vc_done
.in:    or esi, IO_IN
        call io_in
        ; 8 and 16 bits leave the rest of RAX, 32 bits clear its upper half
        cmp r8d, 2
        jb .byte
        je .word
        mov eax, eax
        mov [rbp + FRAME_RAX], rax
        jmp vc_done
.word:  mov [rbp + FRAME_RAX], ax
        jmp vc_done
.byte:  mov [rbp + FRAME_RAX], al
        jmp vc_done

; INS and OUTS, as many elements as the buffer holds; the instruction is repeated until RCX is 0
.string:
        movzx r10d, al                  ; r10: opcode
        movzx edx, word [rbp + FRAME_RDX]
        shl edx, 16
        or esi, edx
        or esi, r13d
        sub r11, [rbp + FRAME_RIP]
        mov ebx, 1
        test r13d, r13d
        jz .counted
        mov rbx, [rbp + FRAME_RCX]
        test rbx, rbx
        jz vc_done
.counted:
        ; downwards, and for a host without string accesses: one element a time
        test dword [rbp + FRAME_FLAGS], 0x400
        jnz .one
        cmp byte [no_strings], 0
        je .many
.one:   mov ebx, 1
.many:  mov eax, GHCB_BUFFER_BYTES
        xor edx, edx
        div r8d
        cmp rbx, rax
        cmova rbx, rax                  ; rbx: elements of this request
        mov r9, rbx
        imul r9, r8                     ; r9: bytes
        call ghcb_begin
        cmp byte [no_strings], 0
        jne .element
        lea rcx, [r12 + GHCB_BUFFER]
        mov [r12 + GHCB_SCRATCH], rcx
        bts qword [r12 + GHCB_VALID_HIGH], VALID_SCRATCH
        or esi, IO_STRING
        test r10d, 2
        jz .input
        or esi, 3 << 10                 ; DS
        push rsi
        mov rsi, [rbp + FRAME_RSI]
        lea rdi, [r12 + GHCB_BUFFER]
        call copy_elements
        pop rsi
        mov edi, EXIT_IOIO
        mov rdx, rbx
        call ghcb_call
        mov ecx, FRAME_RSI
        jmp .advance
.input: or esi, IO_IN
        mov edi, EXIT_IOIO
        mov rdx, rbx
        call ghcb_call
        lea rsi, [r12 + GHCB_BUFFER]
        mov rdi, [rbp + FRAME_RDI]
        call copy_elements
        mov ecx, FRAME_RDI
; the pointer at RCX of the frame moves by R9 bytes, RCX of a repeated instruction goes down by RBX
.advance:
        test dword [rbp + FRAME_FLAGS], 0x400
        jz .up
        neg r9
.up:    add [rbp + rcx], r9
        ; what went through the buffer does not stay there
        push rcx
        lea rdi, [r12 + GHCB_BUFFER]
        mov ecx, GHCB_BUFFER_BYTES / 8
        xor eax, eax
        rep stosq
        pop rcx
        test r13d, r13d
        jz vc_done
        sub [rbp + FRAME_RCX], rbx
        jz vc_done
        jmp vc_return
; one element as an ordinary access
.element:
        and esi, ~IO_REP
        test r10d, 2
        jz .element_in
        push qword [rbp + FRAME_RAX]
        mov rcx, [rbp + FRAME_RSI]
        mov rax, [rcx]
        mov [rbp + FRAME_RAX], rax
        call io_out
        pop qword [rbp + FRAME_RAX]
        mov ecx, FRAME_RSI
        jmp .advance
.element_in:
        or esi, IO_IN
        call io_in
        mov rcx, [rbp + FRAME_RDI]
        cmp r8d, 2
        jb .store8
        je .store16
        mov [rcx], eax
        jmp .stored
.store16:
        mov [rcx], ax
        jmp .stored
.store8:
        mov [rcx], al
.stored:
        mov ecx, FRAME_RDI
        jmp .advance

; RBX elements of R8 bytes from RSI to RDI: one access each, for the guest's side may be a device, and then a #VC
copy_elements:
        push rbx
.next:  cmp r8d, 2
        jb .byte
        je .word
        mov eax, [rsi]
        mov [rdi], eax
        jmp .moved
.word:  mov ax, [rsi]
        mov [rdi], ax
        jmp .moved
.byte:  mov al, [rsi]
        mov [rdi], al
.moved: add rsi, r8
        add rdi, r8
        dec rbx
        jnz .next
        pop rbx
        ret

; OUT of R8 bytes of the frame's RAX, EXITINFO1 in RSI
io_out: call only_operand
        mov [r12 + GHCB_RAX], rax
        bts qword [r12 + GHCB_VALID_LOW], VALID_RAX
        mov edi, EXIT_IOIO
        xor edx, edx
        call ghcb_call
        mov qword [r12 + GHCB_RAX], 0
        ret

; IN, EXITINFO1 in RSI; the value in RAX
io_in:  mov edi, EXIT_IOIO
        xor edx, edx
        call ghcb_call
        jmp ghcb_rax

; RAX of the frame without what is above the operand of R8 bytes
only_operand:
        mov eax, [rbp + FRAME_RAX]
        cmp r8d, 2
        jb .byte
        je .word
        ret
.word:  movzx eax, ax
        ret
.byte:  movzx eax, al
        ret

; MOV between a register or an immediate and device memory
vc_mmio:
        mov r8d, 4
        xor r13d, r13d                  ; REX
        xor r9d, r9d
.prefix:
        movzx eax, byte [r11]
        inc r11
        cmp al, 0x66
        jne .not_operand
        mov r8d, 2
        jmp .prefix
.not_operand:
        mov ah, al
        and ah, 0xf0
        cmp ah, 0x40
        jne .opcode
        movzx r13d, al
        jmp .prefix
.opcode:
        test r13d, 8
        jz .narrow
        mov r8d, 8
.narrow:
        mov r10d, eax
        and r10d, 0xff                  ; r10: opcode
        test al, 1
        jnz .wide
        mov r8d, 1
.wide:  call effective_address          ; rbx: address, edi: register's offset in the frame
        mov ecx, DEVICES
        cmp rbx, rcx                    ; memory that is mapped private is not the host's business
        jb terminate
        mov ecx, 0xffffffff
        cmp rbx, rcx
        ja terminate
        call ghcb_begin
        lea rcx, [r12 + GHCB_BUFFER]
        mov [r12 + GHCB_SCRATCH], rcx
        bts qword [r12 + GHCB_VALID_HIGH], VALID_SCRATCH
        mov r9d, edi
        cmp r10d, 0x8a
        je .load
        cmp r10d, 0x8b
        je .load
        cmp r10d, 0x88
        je .store
        cmp r10d, 0x89
        je .store
        cmp r10d, 0xc7
        je .immediate
        jmp terminate
.immediate:
        movsxd rax, dword [r11]
        add r11, 4
        cmp r8d, 2
        jne .send
        sub r11, 2
        jmp .send
.store: mov rax, [rbp + r9]
.send:  call store_operand
        sub r11, [rbp + FRAME_RIP]
        mov edi, MMIO_WRITE
        mov rsi, rbx
        mov edx, r8d
        call ghcb_call
        mov qword [r12 + GHCB_BUFFER], 0
        jmp vc_done
.load:  sub r11, [rbp + FRAME_RIP]
        mov edi, MMIO_READ
        mov rsi, rbx
        mov edx, r8d
        call ghcb_call
        mov rax, [r12 + GHCB_BUFFER]
        mov qword [r12 + GHCB_BUFFER], 0
        cmp r8d, 4
        je .load32
        ja .load64
        cmp r8d, 2
        je .load16
        mov [rbp + r9], al
        jmp vc_done
.load16:
        mov [rbp + r9], ax
        jmp vc_done
.load32:
        mov eax, eax
.load64:
        mov [rbp + r9], rax
        jmp vc_done

; R8 bytes of RAX into the buffer
store_operand:
        mov qword [r12 + GHCB_BUFFER], 0
        cmp r8d, 4
        je .store32
        ja .store64
        cmp r8d, 2
        je .store16
        mov [r12 + GHCB_BUFFER], al
        ret
.store16:
        mov [r12 + GHCB_BUFFER], ax
        ret
.store32:
        mov [r12 + GHCB_BUFFER], eax
        ret
.store64:
        mov [r12 + GHCB_BUFFER], rax
        ret

; ModRM at R11 with REX in R13: address in RBX, offset of the register operand in EDI, R11 behind displacement
effective_address:
        movzx eax, byte [r11]
        inc r11
        mov edi, eax
        shr edi, 3
        and edi, 7
        test r13d, 4
        jz .register
        or edi, 8
.register:
        shl edi, 3
        mov edx, eax
        shr edx, 6                      ; mod
        and eax, 7                      ; rm
        cmp edx, 3
        je terminate
        cmp eax, 4
        je .sib
        cmp eax, 5
        jne .base
        test edx, edx
        jnz .base
        ; RIP-relative: R10 is the opcode; an immediate of four bytes may follow
        movsxd rbx, dword [r11]
        add r11, 4
        add rbx, r11
        cmp r10d, 0xc7
        jne .ready
        add rbx, 4
        jmp .ready
.base:  test r13d, 1
        jz .low
        or eax, 8
.low:   mov rbx, [rbp + rax * 8]
        jmp .displacement
.sib:   movzx eax, byte [r11]
        inc r11
        mov ecx, eax
        shr ecx, 6
        mov esi, eax
        shr esi, 3
        and esi, 7
        test r13d, 2
        jz .index
        or esi, 8
.index: xor ebx, ebx
        cmp esi, 4
        je .no_index
        mov rbx, [rbp + rsi * 8]
        shl rbx, cl
.no_index:
        and eax, 7
        cmp eax, 5
        jne .sib_base
        test edx, edx
        jnz .sib_base
        movsxd rax, dword [r11]
        add r11, 4
        add rbx, rax
        jmp .ready
.sib_base:
        test r13d, 1
        jz .sib_low
        or eax, 8
.sib_low:
        add rbx, [rbp + rax * 8]
.displacement:
        cmp edx, 1
        jb .ready
        je .byte
        movsxd rax, dword [r11]
        add r11, 4
        add rbx, rax
        jmp .ready
.byte:  movsx rax, byte [r11]
        inc r11
        add rbx, rax
.ready: ret
`;

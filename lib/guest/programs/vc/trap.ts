/**
 * A guest kernel whose #VC handlers are OpenBSD's, second part: the handler that uses the GHCB, with the structures that
 * say which registers go out and come back, and in which size (trap.c vctrap, ghcb.c; sev.md b9 to b20). The words are our
 * own.
 *
 * A panic is a termination request: that is how this kernel stops, whatever OpenBSD's debugger would do. A #VC of the user
 * that is not the user's ends the user's program, as SIGILL does.
 *
 * @module
 */
import { POP_RSI_TO_R15, PUSH_R15_TO_RSI, VMGEXIT } from "../sev_parts.ts";
import { comparePolicy, EXITINFO1, OPCODE_CHECK, PORT_PROMOTION, RESULT_MERGE } from "./policies.ts";

/** A register that the handlers exchange with the host. */
const REGISTERS = ["RAX", "RBX", "RCX", "RDX"] as const;

/** Copies each register that `ghcb_sync` at R8 names from the frame to the GHCB, in its size. */
const SYNC_OUT = REGISTERS.map((name, slot) => `
        mov rax, [rbp + TF_${name}]
        mov cl, [r8 + SYNC_SIZE + ${slot}]
        call only_size
        mov [r12 + GHCB_${name}], rax`).join("");

/** Copies each register that `ghcb_sync` at R9 names from the GHCB to the frame. */
const SYNC_IN = REGISTERS.map((name, slot) => `
        lea rdi, [rbp + TF_${name}]
        mov rax, [r12 + GHCB_${name}]
        mov cl, [r9 + SYNC_SIZE + ${slot}]
        call merge`).join("");

/** The handler. */
export const VC_TRAP = `
; the frame: registers in encoding order, then error code, RIP, CS, RFLAGS, RSP, SS
TF_RAX          equ 0
TF_RCX          equ 8
TF_RDX          equ 16
TF_RBX          equ 24
TF_ERROR        equ 120
TF_RIP          equ 128
TF_CS           equ 136
; struct ghcb_sync: a bitmap like that of the GHCB, and the size of each register in bytes
SYNC_SIZE       equ 16
SYNC_BYTES      equ 24

vctrap_entry:
${PUSH_R15_TO_RSI}
        push rbp
        push rbx
        push rdx
        push rcx
        push rax
        cld
        mov rbp, rsp                    ; rbp: the frame
        sub rsp, 2 * SYNC_BYTES
        mov r8, rsp                     ; r8: what goes out
        lea r9, [rsp + SYNC_BYTES]      ; r9: what comes back
        mov rdi, rsp
        mov ecx, 2 * SYNC_BYTES / 8
        xor eax, eax
        rep stosq
        mov r12d, GHCB                  ; r12: the GHCB
        mov r11, [rbp + TF_RIP]         ; r11: the instruction
        xor r10d, r10d                  ; r10: EXITINFO1
        mov rax, [rbp + TF_ERROR]
        cmp rax, EXIT_CPUID
        je .cpuid
        cmp rax, EXIT_MSR
        je .msr
        cmp rax, EXIT_IOIO
        je .ioio
        test byte [rbp + TF_CS], 3
        jnz signal
        mov eax, PANIC_EXIT_CODE
        jmp panic

.cpuid: ${comparePolicy(OPCODE_CHECK, "every-exit")}
        jne .is_cpuid
        call text_byte
        cmp al, 0x0f
        jne .undecoded
        call text_byte
        cmp al, 0xa2
        jne .undecoded
.is_cpuid:
        mov cl, 4
        call out_rax
        call out_rcx
        call in_rax
        call in_rbx
        call in_rcx
        call in_rdx
        add qword [rbp + TF_RIP], 2
        jmp .request

.msr:   test byte [rbp + TF_CS], 3
        jnz signal
        call text_byte
        cmp al, 0x0f
        jne .undecoded
        call text_byte
        mov cl, 4
        call out_rcx
        cmp al, 0x32
        je .read
        cmp al, 0x30
        jne .undecoded
        call out_rax
        call out_rdx
        mov r10d, 1
        jmp .msr_done
.read:  call in_rax
        call in_rdx
.msr_done:
        add qword [rbp + TF_RIP], 2
        jmp .request

.undecoded:
        mov eax, PANIC_DECODE
        jmp panic

; the opcodes of the thread, and no other
.ioio:  test byte [rbp + TF_CS], 3
        jnz signal
        call text_byte
        cmp al, 0x66
        je .operand
        cmp al, 0xe4
        je .in_imm8
        cmp al, 0xe6
        je .out_imm8
        mov ebx, 1                      ; the length
        cmp al, 0xec
        je .in8
        cmp al, 0xed
        je .in32
        cmp al, 0xee
        je .out8
        cmp al, 0xef
        je .out32
        jmp .undecoded
.operand:
        call text_byte
        mov ebx, 2
        mov cl, 2
        cmp al, 0xed
        je .in16
        cmp al, 0xef
        jne .undecoded
        call out_rax
        mov r10d, IO_SIZE16
        jmp .dx
.in16:  call in_rax
        mov r10d, IO_SIZE16 | IO_IN
        jmp .dx
.in8:   mov cl, 1
        call in_rax
        mov r10d, IO_SIZE8 | IO_IN
        jmp .dx
.in32:  mov cl, 4
        call in_rax
        mov r10d, IO_SIZE32 | IO_IN
        jmp .dx
.out8:  mov cl, 1
        call out_rax
        mov r10d, IO_SIZE8
        jmp .dx
.out32: mov cl, 4
        call out_rax
        mov r10d, IO_SIZE32
.dx:    movzx eax, word [rbp + TF_RDX]
        test ax, ax
        jns .small                      ; either way is the same below 8000
        ${comparePolicy(PORT_PROMOTION, "signed")}
        jne .small
        shl eax, 16
        movsxd rax, eax                 ; an int, as C promotes a 16-bit number
        jmp .shifted
.in_imm8:
        call text_byte
        mov cl, 1
        call in_rax
        mov r10d, IO_SIZE8 | IO_IN
        jmp .imm8
.out_imm8:
        call text_byte
        mov cl, 1
        call out_rax
        mov r10d, IO_SIZE8
.imm8:  mov ebx, 2
.small: shl rax, 16
.shifted:
        or r10, rax
        add [rbp + TF_RIP], rbx

; exit code and EXITINFO1 are known, RIP is behind the instruction: put it to the host
.request:
        call ghcb_clear
        ${SYNC_OUT}
        mov rax, [rbp + TF_ERROR]
        mov [r12 + GHCB_CODE], rax
        mov [r12 + GHCB_INFO1], r10
        mov qword [r12 + GHCB_INFO2], 0
        mov rax, [r8]
        mov [r12 + GHCB_VALID_LOW], rax
        mov rax, [r8 + 8]
        mov [r12 + GHCB_VALID_HIGH], rax
        bts qword [r12 + GHCB_VALID_HIGH], VALID_CODE
        bts qword [r12 + GHCB_VALID_HIGH], VALID_INFO1
        bts qword [r12 + GHCB_VALID_HIGH], VALID_INFO2
        mov eax, r12d
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
        ; what was expected must be valid
        mov rax, [r12 + GHCB_VALID_LOW]
        not rax
        and rax, [r9]
        mov rcx, [r12 + GHCB_VALID_HIGH]
        not rcx
        and rcx, [r9 + 8]
        or rax, rcx
        jz .valid
        call ghcb_clear
        mov eax, PANIC_VALID
        jmp panic
.valid: cmp dword [r12 + GHCB_INFO1], 0
        je .answered
        ${comparePolicy(EXITINFO1, "checked")}
        jne .answered
        call ghcb_clear
        mov eax, PANIC_VERDICT
        jmp panic
.answered:
        ${SYNC_IN}
        call ghcb_clear
        mov rsp, rbp
        pop rax
        pop rcx
        pop rdx
        pop rbx
        pop rbp
${POP_RSI_TO_R15}
        add rsp, 8
        iretq

; the next byte of the instruction, in RAX. Where text is execute-only this read faults
text_byte:
        movzx eax, byte [r11]
        inc r11
        ret

; ghcb_sync_val: register in CL bytes goes out, or comes back
out_rax:
        bts qword [r8], VALID_RAX
        mov [r8 + SYNC_SIZE], cl
        ret
out_rcx:
        bts qword [r8 + 8], VALID_RCX
        mov [r8 + SYNC_SIZE + 2], cl
        ret
out_rdx:
        bts qword [r8 + 8], VALID_RDX
        mov [r8 + SYNC_SIZE + 3], cl
        ret
in_rax: bts qword [r9], VALID_RAX
        mov [r9 + SYNC_SIZE], cl
        ret
in_rbx: bts qword [r9 + 8], VALID_RBX
        mov [r9 + SYNC_SIZE + 1], cl
        ret
in_rcx: bts qword [r9 + 8], VALID_RCX
        mov [r9 + SYNC_SIZE + 2], cl
        ret
in_rdx: bts qword [r9 + 8], VALID_RDX
        mov [r9 + SYNC_SIZE + 3], cl
        ret

; the low CL bytes of RAX
only_size:
        test cl, cl
        jz .none
        cmp cl, 2
        jb .byte
        je .word
        mov eax, eax
        ret
.none:  xor eax, eax
        ret
.byte:  movzx eax, al
        ret
.word:  movzx eax, ax
        ret

; puts CL bytes of RAX into the register at RDI
merge:  test cl, cl
        jz .none
        cmp cl, 2
        jb .byte
        je .word
        ${comparePolicy(RESULT_MERGE, "upper-32-kept")}
        je .half
        mov eax, eax
        mov [rdi], rax
.none:  ret
.half:  mov [rdi], eax
        ret
.byte:  mov [rdi], al
        ret
.word:  mov [rdi], ax
        ret

ghcb_clear:
        mov rdi, r12
        mov ecx, 512
        xor eax, eax
        rep stosq
        ret

; not for the user: its program ends
signal: cmp byte [in_user], 0
        jne user_signal
        mov eax, PANIC_EXIT_CODE
        jmp panic
`;

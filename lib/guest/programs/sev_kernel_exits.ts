/**
 * The encrypted guest's kernel, the exits of its #VC handler that move no data between guest and devices: time-stamp and
 * performance counters, DR7, hypercalls, caches, MONITOR and MWAIT (sev.md c2, c12 to c15).
 *
 * @module
 */

/** The handlers; R11 is the instruction, R12 the GHCB, RBP the frame. */
export const SEV_KERNEL_EXITS = `
; exit EDI without EXITINFO
ghcb_ask:
        xor esi, esi
        xor edx, edx
        jmp ghcb_call

; the answer must contain RDX, which goes into the frame zero-extended, and RAX
answer_rax_rdx:
        bt qword [r12 + GHCB_VALID_HIGH], VALID_RDX
        jnc terminate
        mov ecx, [r12 + GHCB_RDX]
        mov [rbp + FRAME_RDX], rcx
        call ghcb_rax
        mov eax, eax
        mov [rbp + FRAME_RAX], rax
        ret

vc_tsc: cmp word [r11], 0x310f
        jne terminate
        call ghcb_begin
        mov edi, EXIT_RDTSC
        call ghcb_ask
        call answer_rax_rdx
        mov r11d, 2
        jmp vc_done

vc_tscp:
        mov ecx, 0xf9
        call check_0f01
        call ghcb_begin
        mov edi, EXIT_RDTSCP
        call ghcb_ask
        bt qword [r12 + GHCB_VALID_HIGH], VALID_RCX
        jnc terminate
        mov ecx, [r12 + GHCB_RCX]
        mov [rbp + FRAME_RCX], rcx
        call answer_rax_rdx
        mov r11d, 3
        jmp vc_done

vc_pmc: cmp word [r11], 0x330f
        jne terminate
        call ghcb_begin
        mov ecx, [rbp + FRAME_RCX]
        mov [r12 + GHCB_RCX], rcx
        bts qword [r12 + GHCB_VALID_HIGH], VALID_RCX
        mov edi, EXIT_RDPMC
        call ghcb_ask
        call answer_rax_rdx
        mov r11d, 2
        jmp vc_done

vc_vmmcall:
        mov ecx, 0xd9
        call check_0f01
        call ghcb_begin
        mov rax, [rbp + FRAME_RAX]
        mov [r12 + GHCB_RAX], rax
        bts qword [r12 + GHCB_VALID_LOW], VALID_RAX
        mov byte [r12 + GHCB_CPL], 0
        bts qword [r12 + GHCB_VALID_LOW], VALID_CPL
        mov edi, EXIT_VMMCALL
        call ghcb_ask
        call ghcb_rax
        mov [rbp + FRAME_RAX], rax
        mov r11d, 3
        jmp vc_done

vc_wbinvd:
        cmp word [r11], 0x090f
        jne terminate
        call ghcb_begin
        mov edi, EXIT_WBINVD
        call ghcb_ask
        mov r11d, 2
        jmp vc_done

vc_monitor:
        mov ecx, 0xc8
        mov edx, 0xfa                   ; MONITORX
        jmp vc_nothing
vc_mwait:
        mov ecx, 0xc9
        mov edx, 0xfb                   ; MWAITX
; 0F 01 and CL or DL behind it: nothing to do
vc_nothing:
        cmp [r11 + 2], dl
        cmove ecx, edx
        call check_0f01
        mov r11d, 3
        jmp vc_done

; the instruction must be 0F 01 and CL
check_0f01:
        cmp word [r11], 0x010f
        jne terminate
        cmp [r11 + 2], cl
        jne terminate
        ret

; MOV between DR7 and a register: opcode in CL; RDI the register's place in the frame, R11 the length
dr7_operand:
        xor edx, edx                    ; REX.B
        mov r13d, 3
        movzx eax, byte [r11]
        mov ebx, eax
        and ebx, 0xf0
        cmp ebx, 0x40
        jne .opcode
        mov edx, eax
        and edx, 1
        shl edx, 3
        inc r11
        inc r13d
.opcode:
        cmp byte [r11], 0x0f
        jne terminate
        cmp [r11 + 1], cl
        jne terminate
        movzx eax, byte [r11 + 2]
        mov ebx, eax
        and ebx, 0x38
        cmp ebx, 7 << 3
        jne terminate
        and eax, 7
        or eax, edx
        lea rdi, [rbp + rax * 8]
        mov r11d, r13d
        ret

vc_dr7_read:
        mov ecx, 0x21
        call dr7_operand
        mov rax, [gs:BLOCK_DR7]
        mov [rdi], rax
        jmp vc_done

vc_dr7_write:
        mov ecx, 0x23
        call dr7_operand
        mov rax, [rdi]
        mov rcx, rax
        shr rcx, 32
        jnz terminate
        and eax, DR7_WRITABLE
        or eax, DR7_RESET
        push rax
        push r11
        call ghcb_begin
        mov [r12 + GHCB_RAX], rax
        bts qword [r12 + GHCB_VALID_LOW], VALID_RAX
        mov edi, EXIT_DR7_WRITE
        call ghcb_ask
        mov qword [r12 + GHCB_RAX], 0
        pop r11
        pop rax
        mov [gs:BLOCK_DR7], rax
        jmp vc_done
`;

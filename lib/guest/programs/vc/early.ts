/**
 * A guest kernel whose way to long mode, and whose #VC handlers, are OpenBSD's, first part: the entry in 32-bit code, the
 * two early handlers that know the MSR protocol only, page tables with a shared GHCB, and the temporary descriptor tables
 * (locore0.S and machdep.c cpu_init_early_vctrap; sev.md b1 to b8). The words are our own.
 *
 * @module
 */
import { enterLongMode } from "../parts.ts";
import { SEV_CONSTANTS, VMGEXIT } from "../sev_parts.ts";
import { comparePolicy, EARLY_HANDLER, EXECUTE_ONLY, EXITINFO1 } from "./policies.ts";

/** Numbers that all parts of the kernel use. */
export const VC_CONSTANTS = `
${SEV_CONSTANTS}
ORIGIN          equ 0x10000
; tables, and behind them what changes while the kernel runs
PML4            equ 0x20000
PDPT            equ 0x21000
DIRECTORY       equ 0x22000
TABLE           equ 0x23000
EARLY_IDT       equ 0x24000
KERNEL_IDT      equ 0x25000
STACK_TOP       equ 0x28000
TRAP_STACK_TOP  equ 0x29000
USER_STACK_TOP  equ 0x2a000
GHCB            equ 0x2a000
GHCB_PAGES      equ 2
; the protection key of kernel text, and its rights: no data access
TEXT_KEY        equ 1
TEXT_RIGHTS     equ 1 << (2 * TEXT_KEY)
CR4_PKE         equ 1 << 22
VARIABLES       equ 0x2c000
LOG             equ 0x2d000
; offsets of variables
chosen          equ VARIABLES
consulted       equ VARIABLES + 0x10
bare            equ VARIABLES + 0x20
program         equ VARIABLES + 0x24
variant         equ VARIABLES + 0x28
current         equ VARIABLES + 0x2c
c_bit           equ VARIABLES + 0x30
c_bit_high      equ VARIABLES + 0x34
finished        equ VARIABLES + 0x38
panicked        equ VARIABLES + 0x3c
log_next        equ VARIABLES + 0x40
in_user         equ VARIABLES + 0x48
user_return     equ VARIABLES + 0x50
scratch         equ VARIABLES + 0x58
VARIABLES_END   equ VARIABLES + 0x80

; MSR protocol
MSRPROTO_CPUID_REQ equ 0x004
MSRPROTO_CPUID_RESP equ 0x005
MSRPROTO_TERM_REQ equ 0x100

; selectors
CODE32          equ 0x08
DATA            equ 0x10
CODE64          equ 0x18
USER_DATA       equ 0x23
USER_CODE       equ 0x2b
TASK            equ 0x30

; why the kernel has stopped
PANIC_EARLY     equ 1
PANIC_EXIT_CODE equ 2
PANIC_DECODE    equ 3
PANIC_VALID     equ 4
PANIC_VERDICT   equ 5
PANIC_EXCEPTION equ 6
`;

/** The question of the early handlers; who does not get an answer goes on at `stop`. */
function askCpuid(stop: string): string {
  return `; register number in EAX 31:30, leaf in EBX; the value in EDX. The subleaf has no place in the request
.ask:   or eax, MSRPROTO_CPUID_REQ
        mov edx, ebx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
        mov ecx, MSR_GHCB
        rdmsr
        and eax, 0xfff
        cmp eax, MSRPROTO_CPUID_RESP
        je .taken
        ${comparePolicy(EXITINFO1, "checked")}
        je ${stop}
.taken: ret
`;
}

/** From the entry to long mode. */
export const VC_EARLY = `
        bits 64
; how vmd enters: long mode is active already, the code segment is one of 32 bits
start_compat:
        lgdt [gdt_pointer]
        push CODE32
        mov eax, start
        push rax
        retfq

        bits 32
start:  cli
        cld
        lgdt [gdt_pointer]
        jmp CODE32:.flat
.flat:  mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, STACK_TOP
        cmp byte [bare], 0
        jne .tables
        ; a temporary #VC gate for each mode in which this code may run: they lie in different places of the table
        ${comparePolicy(EARLY_HANDLER, "64")}
        je .not32
        mov eax, vc_trap32
        mov [EARLY_IDT + VECTOR_VC * 8], ax
        mov word [EARLY_IDT + VECTOR_VC * 8 + 2], CODE32
        mov word [EARLY_IDT + VECTOR_VC * 8 + 4], 0x8e00
        shr eax, 16
        mov [EARLY_IDT + VECTOR_VC * 8 + 6], ax
.not32: ${comparePolicy(EARLY_HANDLER, "32")}
        je .not64
        mov eax, vc_trap64
        mov [EARLY_IDT + VECTOR_VC * 16], ax
        mov word [EARLY_IDT + VECTOR_VC * 16 + 2], CODE64
        mov word [EARLY_IDT + VECTOR_VC * 16 + 4], 0x8e00
        shr eax, 16
        mov [EARLY_IDT + VECTOR_VC * 16 + 6], ax
.not64: lidt [early_idt_pointer]
        ; is this an AMD processor with memory encryption, and is the state encrypted?
        mov dword [current], 1
        xor eax, eax
        cpuid
        cmp ebx, 0x68747541             ; "Auth"
        jne stop32
        mov eax, 0x80000000
        cpuid
        cmp eax, 0x8000001f
        jb stop32
        mov eax, 0x8000001f
        cpuid
        test al, 2
        jz stop32
        and ebx, 63
        cmp ebx, 32
        jb stop32
        mov [c_bit], ebx
        lea ecx, [ebx - 32]
        mov eax, 1
        shl eax, cl
        mov [c_bit_high], eax
        mov ecx, MSR_SEV_STATUS
        rdmsr
        test al, SEV_STATUS_ES
        jz stop32
        mov eax, 0x400
        mov dr7, eax                    ; #VC where the host intercepts it
        mov dword [current], 0
.tables:
        call build_tables
${enterLongMode("PML4", "0x900")}

; the first 2 MiB onto themselves in pages of 4 KiB, private but for the GHCB. Accessed and dirty bits are set from the
; start. The user's page of code and its stack are the user's
build_tables:
        mov edx, [c_bit_high]
        mov dword [PML4], PDPT + 0x67
        mov [PML4 + 4], edx
        mov dword [PDPT], DIRECTORY + 0x67
        mov [PDPT + 4], edx
        mov dword [DIRECTORY], TABLE + 0x67
        mov [DIRECTORY + 4], edx
        mov edi, TABLE
        mov ebx, 0x63
        mov ecx, 512
.page:  mov [edi], ebx
        mov [edi + 4], edx
        add edi, 8
        add ebx, 0x1000
        loop .page
        mov ecx, (text_end >> 12) - (ORIGIN >> 12)
        mov edi, TABLE + (ORIGIN >> 12) * 8
.text:  or byte [edi], 4
        or dword [edi + 4], TEXT_KEY << 27
        add edi, 8
        loop .text
        or byte [TABLE + (user_text >> 12) * 8], 4
        or byte [TABLE + (USER_STACK_TOP - 0x1000 >> 12) * 8], 4
        cmp byte [bare], 0
        jne .done
        mov dword [TABLE + (GHCB >> 12) * 8 + 4], 0
        mov dword [TABLE + (GHCB >> 12) * 8 + 12], 0
.done:  ret

stop32: mov dword [panicked], PANIC_EARLY
terminate32:
        mov eax, MSRPROTO_TERM_REQ
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
.halt:  hlt
        jmp .halt

; #VC in legacy mode: error code, EIP, CS, EFLAGS
vc_trap32:
        cmp dword [esp], EXIT_CPUID
        je .cpuid
        cmp dword [esp], EXIT_DR6_WRITE
        je .debug
        cmp dword [esp], EXIT_DR7_WRITE
        jne stop32
.debug: add dword [esp + 4], 3
        add esp, 4
        iret
.cpuid: push eax
        push ecx
        push edx
        push ebx
        mov ebx, eax
        xor eax, eax
        call .ask
        mov [esp + 12], edx
        mov eax, 1 << 30
        call .ask
        mov [esp], edx
        mov eax, 2 << 30
        call .ask
        mov [esp + 8], edx
        mov eax, 3 << 30
        call .ask
        mov [esp + 4], edx
        pop ebx
        pop edx
        pop ecx
        pop eax
        add dword [esp + 4], 2
        add esp, 4
        iret
${askCpuid("stop32")}
; #VC in compatibility mode: the processor enters 64-bit code; error code, RIP, CS, RFLAGS, RSP, SS
        bits 64
        default abs
vc_trap64:
        cmp dword [rsp], EXIT_CPUID
        je .cpuid
        cmp dword [rsp], EXIT_DR6_WRITE
        je .debug
        cmp dword [rsp], EXIT_DR7_WRITE
        jne stop64
.debug: add qword [rsp + 8], 3
        add rsp, 8
        iretq
.cpuid: push rax
        push rcx
        push rdx
        push rbx
        mov ebx, eax
        xor eax, eax
        call .ask
        mov [rsp + 24], rdx
        mov eax, 1 << 30
        call .ask
        mov [rsp], rdx
        mov eax, 2 << 30
        call .ask
        mov [rsp + 16], rdx
        mov eax, 3 << 30
        call .ask
        mov [rsp + 8], rdx
        pop rbx
        pop rdx
        pop rcx
        pop rax
        add qword [rsp + 8], 2
        add rsp, 8
        iretq
${askCpuid("stop64")}
stop64: mov dword [panicked], PANIC_EARLY
        jmp terminate64

; 64-bit code: temporary tables first, then the kernel's own
long_mode:
        mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        xor eax, eax
        mov fs, ax
        mov gs, ax
        mov esp, STACK_TOP
        cmp byte [bare], 0
        jne own_tables
        lgdt [early_gdt_pointer]
        lea rax, [vctrap_entry]
        mov edi, EARLY_IDT + VECTOR_VC * 16
        mov ecx, 0x8e00
        call set_gate
        lidt [early_idt_pointer]
        mov edi, GHCB
        xor eax, eax
        mov ecx, GHCB_PAGES * 512
        rep stosq
        mov ecx, MSR_GHCB
        mov eax, GHCB
        xor edx, edx
        wrmsr
        ; the first request through the GHCB, with the temporary tables
        mov dword [current], 2
        xor eax, eax
        xor ecx, ecx
        cpuid
next_2: mov dword [current], 0
own_tables:
        lgdt [gdt_pointer]
        mov eax, task_state
        mov word [gdt + TASK], task_state_end - task_state - 1
        mov [gdt + TASK + 2], ax
        mov byte [gdt + TASK + 5], 0x89
        shr eax, 16
        mov [gdt + TASK + 4], al
        mov ax, TASK
        ltr ax
        lea rax, [exception_stubs]
        mov edi, KERNEL_IDT
        mov ebx, 32
.gate:  mov ecx, 0x8e00
        call set_gate
        add rax, 16
        add edi, 16
        dec ebx
        jnz .gate
        lea rax, [vctrap_entry]
        mov edi, KERNEL_IDT + VECTOR_VC * 16
        mov ecx, 0x8e00
        call set_gate
        lea rax, [system_call]
        mov edi, KERNEL_IDT + 0x80 * 16
        mov ecx, 0xee00                 ; for the user too
        call set_gate
        lidt [idt_pointer]
        mov qword [log_next], LOG
        ; a key for the text, which is mapped as the user's, for supervisor pages have no key
        mov rax, cr4
        or eax, CR4_PKE
        mov cr4, rax
        cmp dword [program], 0
        je run_program
        cmp byte [bare], 0
        jne run_program
        ; the programs that do not look at the boot begin here
ready:  hlt
        ${comparePolicy(EXECUTE_ONLY, "yes")}
        jne run_program
        mov eax, TEXT_RIGHTS
        xor ecx, ecx
        xor edx, edx
        wrpkru
        jmp run_program

; a gate to RAX at RDI with attributes CX
set_gate:
        mov [rdi], ax
        mov word [rdi + 2], CODE64
        mov [rdi + 4], cx
        mov rdx, rax
        shr rdx, 16
        mov [rdi + 6], dx
        mov qword [rdi + 8], 0
        ret

; why in EAX
panic:  mov [panicked], eax
terminate64:
        cmp byte [bare], 0
        jne .halt
        mov eax, MSRPROTO_TERM_REQ
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
.halt:  cli
        hlt
        jmp .halt
`;

/** What it reads and writes that is no text: descriptor tables. */
export const VC_TABLES = `
        align 8, 0
gdt:    dq 0
        dq 0x00cf9b000000ffff           ; 08 32-bit code
        dq 0x00cf93000000ffff           ; 10 data
        dq 0x00af9b000000ffff           ; 18 64-bit code
        dq 0x00cff3000000ffff           ; 20 data of the user
        dq 0x00affb000000ffff           ; 28 64-bit code of the user
        dq 0, 0                         ; 30 task state
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dq gdt
early_idt_pointer:
        dw 32 * 16 - 1
        dq EARLY_IDT
early_gdt:
        dq 0, 0
        dq 0x00cf93000000ffff           ; 10 data
        dq 0x00af9b000000ffff           ; 18 64-bit code
early_gdt_pointer:
        dw early_gdt_pointer - early_gdt - 1
        dq early_gdt
idt_pointer:
        dw 256 * 16 - 1
        dq KERNEL_IDT
task_state:
        dd 0
        dq TRAP_STACK_TOP
        times 92 db 0
task_state_end:
`;

/**
 * The encrypted guest's kernel, first half: from 32-bit protected mode to long mode, with an early #VC handler that knows
 * the GHCB MSR protocol only, page tables with the C bit, acceptance of memory, and the way of the other processors.
 *
 * Sources of what it does: SEV-ES GHCB standardization, 2.3 (MSR protocol); AMD64 APM volume 2, 15.34 to 15.36; Intel SDM
 * volume 3, 9.9 (mode switching). The text is for the project's assembler.
 *
 * @module
 */
import { enterLongMode } from "./parts.ts";
import { SEV_CONSTANTS, VMGEXIT } from "./sev_parts.ts";

/** Numbers that both halves of the kernel use. */
export const SEV_KERNEL_CONSTANTS = `
${SEV_CONSTANTS}
ORIGIN          equ 0x100000
; per-VP area: block and stack, GHCB, what was in it when a #VC came inside the handler, VMSA
AREAS           equ 0x400000
AREA_BYTES      equ 0x4000
AREA_GHCB       equ 0x1000
AREA_BACKUP     equ 0x2000
AREA_VMSA       equ 0x3000
STACK_TOP       equ 0x1000
; a VP's block
BLOCK_GHCB      equ 0x00
BLOCK_INDEX     equ 0x08
BLOCK_TICKS     equ 0x10
BLOCK_DR7       equ 0x18
BLOCK_NESTING   equ 0x20
; addresses from here on are devices: mapped without the C bit
DEVICES         equ 0xc0000000

COM1            equ 0x3f8
EXIT_PORT       equ 0xf4
LOCAL_APIC      equ 0xfee00000
APIC_ID         equ 0x20
APIC_EOI        equ 0xb0
APIC_SVR        equ 0xf0
APIC_ICR_LOW    equ 0x300
APIC_ICR_HIGH   equ 0x310
APIC_LVT_TIMER  equ 0x320
APIC_INITIAL    equ 0x380
APIC_DIVIDE     equ 0x3e0
TIMER_VECTOR    equ 0x41

MSR_GS_BASE     equ 0xc0000101

; MSR protocol
INFO_SEV_REQ    equ 0x002
INFO_SEV_RESP   equ 0x001
INFO_CPUID_REQ  equ 0x004
INFO_CPUID_RESP equ 0x005
INFO_GPA_REQ    equ 0x012
INFO_GPA_RESP   equ 0x013
INFO_PSC_REQ    equ 0x014
INFO_PSC_RESP   equ 0x015
INFO_TERM       equ 0x100
PSC_PRIVATE     equ 1
PSC_SHARED      equ 2

; bits of DR7 that are always 1, and that can be changed
DR7_RESET       equ 0x400
DR7_WRITABLE    equ 0xffff23ff

CODE32          equ 0x08
DATA            equ 0x10
CODE64          equ 0x18
`;

/** Bytes of PVALIDATE, which the assembler does not know. */
const PVALIDATE = "db 0xf2, 0x0f, 0x01, 0xff";

/** From the first instruction to long mode. The first 64 KiB of the image hold all that real mode must reach. */
export const SEV_KERNEL_BOOT = `
        bits 32
start:  cli
        cld
        lgdt [gdt_pointer]
        jmp CODE32:.flat
.flat:  mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, boot_stack_top
        ; until the GHCB is there, #VC goes to the handler that knows the MSR protocol
        mov eax, vc_early
        mov [early_idt + VECTOR_VC * 8], ax
        shr eax, 16
        mov [early_idt + VECTOR_VC * 8 + 6], ax
        mov word [early_idt + VECTOR_VC * 8 + 2], CODE32
        mov word [early_idt + VECTOR_VC * 8 + 4], 0x8e00
        lidt [early_idt_pointer]

        mov ecx, MSR_SEV_STATUS
        rdmsr
        mov [sev_status], eax
        test al, SEV_STATUS_ES
        jz terminate32
        ; a host that knows the request leaves its answer there from the start
        mov ecx, MSR_GHCB
        rdmsr
        call negotiate
        ; the highest extended leaf must cover the one of memory encryption, and that must say SEV
        mov eax, 0x80000000
        cpuid                           ; #VC
        cmp eax, 0x8000001f
        jb terminate32
        mov eax, 0x8000001f
        cpuid
        test al, 2
        jz terminate32
        and ebx, 63
        mov [c_bit], ebx
        cmp ebx, 32
        jb terminate32
        sub ebx, 32
        mov eax, 1
        mov ecx, ebx
        shl eax, cl
        mov [c_bit_high], eax
        call build_tables
        call accept_boot_area
        xor edi, edi
        jmp to_long

; protocol version: the lower of the two maxima, the ranges must overlap. EDX:EAX is the GHCB MSR at reset. Without an
; answer there it is version 1, for a host may not know the request; an SNP guest asks
negotiate:
        mov ecx, eax
        and ecx, 0xfff
        cmp ecx, INFO_SEV_RESP
        je .answer
        mov dword [protocol_version], 1
        test byte [sev_status], SEV_STATUS_SNP
        jnz .ask
        ret
.ask:   mov eax, INFO_SEV_REQ
        xor edx, edx
        call msr_protocol32
        mov ecx, eax
        and ecx, 0xfff
        cmp ecx, INFO_SEV_RESP
        jne terminate32
.answer:
        movzx ecx, dx                   ; lowest version of the host
        cmp ecx, 2
        ja terminate32
        shr edx, 16                     ; highest
        cmp edx, 1
        jb terminate32
        cmp edx, 2
        jbe .known
        mov edx, 2
.known: mov [protocol_version], edx
        ret

; 4 GiB in pages of 2 MiB onto themselves, private below the devices; the VPs' areas in pages of 4 KiB
build_tables:
        mov dword [pml4], pdpt + 3
        mov eax, [c_bit_high]
        mov [pml4 + 4], eax
        mov edi, pdpt
        mov ebx, directories + 3
        mov ecx, 4
.pdpt:  mov [edi], ebx
        mov [edi + 4], eax
        add edi, 8
        add ebx, 0x1000
        loop .pdpt
        mov edi, directories
        mov ebx, 0x83
        mov ecx, 4 * 512
.page:  mov [edi], ebx
        mov dword [edi + 4], 0
        cmp ebx, DEVICES
        jae .shared
        mov [edi + 4], eax
.shared:
        add edi, 8
        add ebx, 0x200000
        loop .page
        mov dword [directories + (AREAS >> 21) * 8], areas_table + 3
        mov edi, areas_table
        mov ebx, AREAS + 3
        mov ecx, 512
.area:  mov [edi], ebx
        mov [edi + 4], eax
        ; the second page of each area is the GHCB: shared
        mov edx, ebx
        and edx, AREA_BYTES - 1
        cmp edx, AREA_GHCB + 3
        jne .next
        mov dword [edi + 4], 0
.next:  add edi, 8
        add ebx, 0x1000
        loop .area
        ret

; the boot processor's area: on SNP its pages are asked for by the MSR protocol; they are validated in long mode
accept_boot_area:
        mov edi, AREAS
accept_area:
        test byte [sev_status], SEV_STATUS_SNP
        jz .done
        mov ebx, PSC_PRIVATE
        call page_state
        mov ebx, PSC_SHARED
        add edi, AREA_GHCB
        call page_state
        mov ebx, PSC_PRIVATE
        add edi, AREA_BACKUP - AREA_GHCB
        call page_state
        add edi, AREA_VMSA - AREA_BACKUP
        call page_state
.done:  ret

; page state EBX for the page at EDI
page_state:
        mov eax, edi
        or eax, INFO_PSC_REQ
        mov edx, ebx
        shl edx, 20                     ; operation in bits 55:52
        call msr_protocol32
        mov ecx, eax
        and ecx, 0xfff
        cmp ecx, INFO_PSC_RESP
        jne terminate32
        test edx, edx                   ; error
        jnz terminate32
        ret

; request EDX:EAX, answer EDX:EAX; clobbers ECX
msr_protocol32:
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
        mov ecx, MSR_GHCB
        rdmsr
        ret

terminate32:
        mov eax, INFO_TERM
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
.stop:  hlt
        jmp .stop

; #VC before there is a GHCB: CPUID by four requests, subleaf 0 only; everything else ends the guest
vc_early:
        cmp dword [esp], EXIT_CPUID
        jne terminate32
        push eax
        push ecx
        push edx
        push ebx
        mov ebx, [esp + 20]             ; EIP behind the error code
        cmp word [ebx], 0xa20f
        jne terminate32
        mov ebx, [esp + 12]             ; leaf
        test ecx, ecx
        jz .any
        ; the protocol has no place for a subleaf
        cmp ebx, 4
        je terminate32
        cmp ebx, 7
        je terminate32
        cmp ebx, 0xb
        je terminate32
        cmp ebx, 0xd
        je terminate32
.any:   xor eax, eax
        call .register
        mov [esp + 12], edx             ; EAX
        mov eax, 0x40000000
        call .register
        mov [esp], edx                  ; EBX; its old value is not needed any more
        mov eax, 0x80000000
        call .register
        mov [esp + 8], edx              ; ECX
        mov eax, 0xc0000000
        call .register
        mov [esp + 4], edx              ; EDX
        pop ebx
        pop edx
        pop ecx
        pop eax
        add dword [esp + 4], 2
        add esp, 4
        iret
; register in EAX 31:30 of leaf EBX; value in EDX
.register:
        or eax, INFO_CPUID_REQ
        mov edx, ebx
        call msr_protocol32
        and eax, 0xfff
        cmp eax, INFO_CPUID_RESP
        jne terminate32
        ret

; VP number in EDI
to_long:
${enterLongMode("pml4", "0x900")}

; an application processor: CS has the image's base
        bits 16
ap_start:
        cli
        o32 lgdt [cs:gdt_pointer - ORIGIN]
        mov eax, cr0
        and eax, ~0x60000000
        or al, 1
        mov cr0, eax
        jmp dword CODE32:ap_protected
        bits 32
ap_protected:
        mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov edi, [ap_index]
        jmp to_long

        align 4, 0
; where application processors begin: the SEV-ES reset block
        dd ap_start
        dw 22
        db 0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f
        db 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e

        align 8, 0
gdt:    dq 0
        dq 0x00cf9b000000ffff           ; 08 32-bit code
        dq 0x00cf93000000ffff           ; 10 data
        dq 0x00af9b000000ffff           ; 18 64-bit code
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
        dd 0
early_idt_pointer:
        dw 32 * 8 - 1
        dd early_idt
        dd 0
        align 8, 0
early_idt:
        times 32 * 8 db 0
sev_status:             dd 0
c_bit:                  dd 0
c_bit_high:             dd 0
protocol_version:       dd 0
ap_index:               dd 0

; the first 64-bit instructions of every VP; its number is in EDI
        bits 64
        default rel
long_mode:
        xor eax, eax
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        mov r15d, edi                   ; r15: the VP's number, from here to the end
        mov r14d, edi
        shl r14d, 14
        add r14d, AREAS                 ; r14: its area
        test r15d, r15d
        jnz .accepted
        call validate_area
.accepted:
        lea rsp, [r14 + STACK_TOP]
        mov [r14 + BLOCK_INDEX], r15
        mov qword [r14 + BLOCK_DR7], DR7_RESET
        mov dword [r14 + BLOCK_NESTING], 0
        lea eax, [r14 + AREA_GHCB]
        mov [r14 + BLOCK_GHCB], rax
        mov eax, r14d
        xor edx, edx
        mov ecx, MSR_GS_BASE
        wrmsr
        ; the GHCB is mapped shared: what is there is not the guest's yet
        lea edi, [r14 + AREA_GHCB]
        xor eax, eax
        mov ecx, 512
        rep stosq
        call register_ghcb
        test r15d, r15d
        jnz .idt
        call build_idt
.idt:   lidt [idt_pointer]
        test r15d, r15d
        jnz ap_main
        jmp boot_main

; validates the private pages of the area at R14, on SNP; no stack yet but the boot stack
validate_area:
        test dword [sev_status], SEV_STATUS_SNP
        jz .done
        mov rax, r14
        call validate_page
        lea rax, [r14 + AREA_BACKUP]
        call validate_page
        lea rax, [r14 + AREA_VMSA]
        call validate_page
.done:  ret

; a page that is valid already has been given to the guest twice: that is an attack
validate_page:
        xor ecx, ecx
        mov edx, 1
        ${PVALIDATE}
        jc terminate
        test eax, eax
        jnz terminate
        ret

; on SNP the host must know the GHCB's address before it is used
register_ghcb:
        test dword [sev_status], SEV_STATUS_SNP
        jz .done
        lea eax, [r14 + AREA_GHCB]
        or eax, INFO_GPA_REQ
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
        mov ecx, MSR_GHCB
        rdmsr
        mov ecx, eax
        and ecx, 0xfff
        cmp ecx, INFO_GPA_RESP
        jne terminate
        and eax, ~0xfff
        lea ecx, [r14 + AREA_GHCB]
        cmp eax, ecx
        jne terminate
        test edx, edx
        jnz terminate
.done:  ret

terminate:
        mov eax, INFO_TERM
        xor edx, edx
        mov ecx, MSR_GHCB
        wrmsr
        ${VMGEXIT}
.stop:  hlt
        jmp .stop
`;

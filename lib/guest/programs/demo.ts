/**
 * The guest of `exitbox demo`: real machine code that makes every kind of exit and checks what comes back.
 *
 * VP 0 starts in real mode at 7c00, goes through protected into long mode and starts the other VPs by INIT-SIPI-SIPI; each
 * of them takes the same way from the trampoline page at 8000. Every VP then prints lines to the 16550 (bytes and strings)
 * and makes port, device-memory, CPUID, MSR and hypercall exits, and takes an interrupt of its APIC timer. The other VPs
 * send VP 0 an IPI and halt with interrupts off; VP 0 writes 0 to the exit port when all are done, 1 when a check failed
 * and 2 after an exception that nobody expected.
 *
 * Sources of what the guest does: Intel SDM volume 3, sections 9.9 (mode switching) and 8.4 (MP initialisation), chapter 10
 * (local APIC); Intel 82093AA data sheet (I/O APIC); Hyper-V TLFS, "Feature discovery" and "Establishing the hypercall
 * interface". Without a hypervisor interface in CPUID the guest leaves the parts out that need one.
 *
 * @module
 */

import { HV_CPUID } from "../../layout/hyperv/constants/cpuid.ts";
import { HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HV_X64_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { BadInput } from "../../memory/bad_input.ts";
import { assemble, type Assembly } from "../assembler/assemble.ts";
import { type InitialState, loadImage, parseImage } from "../image.ts";
import { enterLongMode, EXCEPTIONS, exceptionStubs, PRINTING, Strings } from "./parts.ts";

/** Guest-physical address of the 32-bit number of VPs, which the loader writes. */
export const DEMO_VP_COUNT_ADDRESS: number = 0x7000;

/** Most VPs that the guest can number: it tells them apart by their 8-bit initial APIC ID. */
export const DEMO_VPS_MAX: number = 256;

/** Where a VP's own page lies: block and stack of VP n at this address plus n pages. */
const BLOCKS = 0x100000;
const PAGE_BYTES = 0x1000;
const ORIGIN = 0x7c00;

/** What the guest writes as its identity: an open-source system of no registered type, version 1. */
const GUEST_OS_ID = 0x8000000000000001n;

const CONSTANTS = `
VP_COUNT        equ ${DEMO_VP_COUNT_ADDRESS}
GUEST_OS_ID     equ 0x${GUEST_OS_ID.toString(16)}
PML4            equ 0x1000
PAGE_TABLES_END equ 0x7000
HYPERCALL_PAGE  equ 0x10000
IDT             equ 0x12000
BLOCKS          equ ${BLOCKS}
; a VP's block
TIMER_FIRED     equ 0x08
CALL_INPUT      equ 0x40
CALL_OUTPUT     equ 0x80
SCRATCH         equ 0xc0

COM1            equ 0x3f8
DEBUG_PORT      equ 0x402
EXIT_PORT       equ 0xf4
CMOS_INDEX      equ 0x70
CMOS_DATA       equ 0x71
CMOS_STATUS_D   equ 0x0d
IOAPIC          equ 0xfec00000
IOAPIC_WINDOW   equ 0x10
LOCAL_APIC      equ 0xfee00000

MSR_APIC_BASE   equ 0x1b
MSR_X2APIC      equ 0x800
MSR_X2APIC_ICR  equ 0x830
MSR_EFER        equ 0xc0000080
MSR_GS_BASE     equ 0xc0000101
MSR_GUEST_OS_ID equ ${HV_X64_MSR.GUEST_OS_ID}
MSR_HYPERCALL   equ ${HV_X64_MSR.HYPERCALL}
MSR_VP_INDEX    equ ${HV_X64_MSR.VP_INDEX}
MSR_CRASH_P0    equ ${HV_X64_MSR.GUEST_CRASH_P0}
; numbers of local APIC registers: offset in the APIC page / 16
APIC_ID         equ 0x02
APIC_EOI        equ 0x0b
APIC_SVR        equ 0x0f
APIC_ICR_LOW    equ 0x30
APIC_LVT_TIMER  equ 0x32
APIC_INITIAL    equ 0x38
APIC_DIVIDE     equ 0x3e
ICR_INIT        equ 0x4500
ICR_STARTUP     equ 0x4600 + (ap_start >> 12)
IPI_VECTOR      equ 0x40
TIMER_VECTOR    equ 0x41
SPURIOUS_VECTOR equ 0xff

CODE32          equ 0x08
DATA            equ 0x10
CODE64          equ 0x18
`;

/** Both ways into long mode: VP 0 from the boot sector, the others from their trampoline page. */
const BOOT = `
        bits 16
start:  cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, $$
        o32 lgdt [gdt_pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword CODE32:protected

        bits 32
protected:
        mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        ; 4 GiB of 2 MiB pages onto themselves
        mov edi, PML4
        mov ecx, (PAGE_TABLES_END - PML4) / 4
        xor eax, eax
        rep stosd
        mov dword [PML4], PML4 + 0x1003
        mov edi, PML4 + 0x1000
        mov eax, PML4 + 0x2003
        mov ecx, 4
.pdpt:  mov [edi], eax
        add edi, 8
        add eax, 0x1000
        loop .pdpt
        mov edi, PML4 + 0x2000
        mov eax, 0x83
        mov ecx, 4 * 512
.pd:    mov [edi], eax
        add edi, 8
        add eax, 0x200000
        loop .pd

to_long:
${enterLongMode("PML4", "0x100")}

        ; the SIPI's vector is this page's number
        align 0x1000
        bits 16
ap_start:
        cli
        cld
        xor ax, ax
        mov ds, ax
        o32 lgdt [gdt_pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword CODE32:ap_protected
        bits 32
ap_protected:
        mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        jmp to_long
`;

/** The first 64-bit instructions of every VP: stack, block, IDT, local APIC; then each goes its way. */
const ENTER_LONG_MODE = `
        bits 64
        default rel
long_mode:
        xor eax, eax
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        ; the initial APIC ID numbers the VP
        mov eax, 1
        cpuid
        shr ebx, 24
        mov r15d, ebx                   ; r15: the VP's number, from here to the end
        shl ebx, 12
        lea r14d, [rbx + BLOCKS]        ; r14: its block
        lea rsp, [r14 + ${PAGE_BYTES}]
        mov eax, r14d
        xor edx, edx
        mov ecx, MSR_GS_BASE
        wrmsr
        test r15d, r15d
        jnz .idt_is_built
        call build_idt
.idt_is_built:
        lidt [idt_pointer]
        call apic_enable
        test r15d, r15d
        jnz ap_main

boot_main:
        lea rsi, [text_debug]
        mov ecx, text_debug_bytes
        mov edx, DEBUG_PORT
        rep outsb
        call find_hypervisor
        cmp byte [has_hypercalls], 0
        je .start_others
        mov ecx, MSR_GUEST_OS_ID
        mov eax, GUEST_OS_ID & 0xffffffff
        mov edx, GUEST_OS_ID >> 32
        wrmsr
        mov ecx, MSR_HYPERCALL
        mov eax, HYPERCALL_PAGE + 1     ; enabled
        xor edx, edx
        wrmsr
.start_others:
        mov ebp, 1
.next:  cmp ebp, [VP_COUNT]
        jae .started
        mov edi, ebp
        mov eax, ICR_INIT
        call send_ipi
        call short_wait
        mov eax, ICR_STARTUP
        call send_ipi
        call short_wait
        mov eax, ICR_STARTUP
        call send_ipi
        inc ebp
        jmp .next
.started:
        call work
        ; each of the others sends an IPI when it is done
.wait:  cli
        mov eax, [done]
        inc eax
        cmp eax, [VP_COUNT]
        jae .all_done
        sti
        hlt
        jmp .wait
.all_done:
        call lock_console
        STRING(all )
        mov eax, [VP_COUNT]
        call print_decimal
        STRING( VPs are done\\n)
        call unlock_console
        movzx eax, byte [failed]
        out EXIT_PORT, eax
.end:   cli
        hlt
        jmp .end

ap_main:
        call work
        lock inc dword [done]
        xor edi, edi
        mov eax, IPI_VECTOR
        call send_ipi
.end:   cli
        hlt
        jmp .end
`;

/** What every VP does. */
const WORK = `
work:   call report_start
        call report_cpuid
        call report_ports
        call report_device_memory
        call report_crash_msr
        call report_hypercall
        jmp report_timer

report_start:
        call begin_line
        STRING(long mode, )
        cmp byte [x2apic], 0
        je .xapic
        STRING(x2APIC ID )
        mov ecx, APIC_ID
        call apic_read
        jmp .print
.xapic: STRING(xAPIC ID )
        mov ecx, APIC_ID
        call apic_read
        shr eax, 24
.print: call print_decimal
        jmp end_line

; CPUID leaves that the hypervisor answers, and one that it leaves to the virtualization stack
report_cpuid:
        call begin_line
        mov eax, ${HV_CPUID.HV_CPUID_FUNCTION_HV_VENDOR_AND_MAX_FUNCTION}
        STRING_AFTER_CPUID(hypervisor )
        call end_line
        call begin_line
        mov eax, ${HV_CPUID.VIRTUALIZATION_STACK_CPUID_VENDOR}
        STRING_AFTER_CPUID(virtualization stack )
        jmp end_line

; prints the vendor string of the leaf in EAX after the text at RSI, ECX
print_vendor:
        push rax
        call print_string
        mov eax, [rsp]
        xor ecx, ecx
        cpuid
        mov [gs:SCRATCH], ebx
        mov [gs:SCRATCH + 4], ecx
        mov [gs:SCRATCH + 8], edx
        pop rdi
        cmp eax, edi
        jb .none
        push rax
        lea rsi, [r14 + SCRATCH]
        mov ecx, 12
        call print_string
        STRING(, leaves to )
        pop rax
        mov cl, 8
        jmp print_hex
.none:  STRING(none)
        ret

; bytes to and from the CMOS, a string from it, a read of the debug port
report_ports:
        call begin_line
        STRING(CMOS register d )
        mov al, CMOS_STATUS_D
        out CMOS_INDEX, al
        in al, CMOS_DATA
        mov bl, al
        lea rdi, [r14 + SCRATCH]
        mov edx, CMOS_DATA
        mov ecx, 2
        rep insb
        mov [gs:SCRATCH + 2], bl
        cmp bl, [gs:SCRATCH]
        call check
        cmp bl, [gs:SCRATCH + 1]
        call check
        movzx eax, bl
        mov cl, 2
        call print_hex
        mov edx, DEBUG_PORT
        in al, dx
        jmp end_line

; the I/O APIC: plain, read-modify-write, exchanging and string accesses
report_device_memory:
        call begin_line
        STRING(I/O APIC version )
        mov r13d, IOAPIC
        mov dword [r13], 1              ; version
        mov eax, [r13 + IOAPIC_WINDOW]
        cmp al, 0x11
        call check
        mov cl, 8
        call print_hex
        STRING(, entry )
        mov eax, 0x12                   ; low half of entry 1
        mov rdi, r13
        stosd
        mov dword [r13 + IOAPIC_WINDOW], 0x10000
        or dword [r13 + IOAPIC_WINDOW], 0x10055
        mov eax, 0x10066
        xchg [r13 + IOAPIC_WINDOW], eax
        cmp al, 0x55
        call check
        mov eax, 1
        xadd [r13 + IOAPIC_WINDOW], eax
        cmp al, 0x66
        call check
        lea rsi, [r13 + IOAPIC_WINDOW]
        lodsd
        cmp al, 0x67
        call check
        lea rsi, [r13 + IOAPIC_WINDOW]
        lea rdi, [r14 + SCRATCH]
        mov ecx, 1
        rep movsd
        mov eax, [gs:SCRATCH]
        mov cl, 8
        call print_hex
        jmp end_line

; the crash MSRs belong to the virtualization stack
report_crash_msr:
        cmp byte [has_crash_msrs], 0
        je .none
        call begin_line
        STRING(crash parameter P0 reads back )
        mov ecx, MSR_CRASH_P0
        mov edx, 0x65786974
        lea eax, [r15 + 0x626f7800]
        wrmsr
        xor eax, eax
        xor edx, edx
        rdmsr
        shl rdx, 32
        or rax, rdx
        mov rbx, 0x65786974626f7800
        add rbx, r15
        cmp rax, rbx
        call check
        mov cl, 16
        call print_hex
        jmp end_line
.none:  ret

; HvCallGetVpRegisters of the VP's own VpIndex and GuestOsId, with input and output in memory
report_hypercall:
        cmp byte [has_hypercalls], 0
        je .none
        call begin_line
        STRING(HvCallGetVpRegisters: status )
        mov qword [gs:CALL_INPUT], -1           ; HV_PARTITION_ID_SELF
        mov dword [gs:CALL_INPUT + 8], -2       ; HV_VP_INDEX_SELF
        mov dword [gs:CALL_INPUT + 12], 0       ; the caller's VTL
        mov dword [gs:CALL_INPUT + 16], 0x90003 ; HvRegisterVpIndex
        mov dword [gs:CALL_INPUT + 20], 0x90002 ; HvRegisterGuestOsId
        mov rcx, ${HypercallCode.values.HvCallGetVpRegisters} + (2 << 32)
        lea rdx, [r14 + CALL_INPUT]
        lea r8, [r14 + CALL_OUTPUT]
        mov eax, HYPERCALL_PAGE
        call rax
        mov rbx, 2 << 32                        ; success, both registers
        cmp rax, rbx
        pushfq
        mov cl, 4
        call print_hex
        popfq
        call check
        jne .out
        STRING(, VP index )
        mov eax, [gs:CALL_OUTPUT]
        call print_decimal
        mov ecx, MSR_VP_INDEX
        rdmsr
        cmp eax, [gs:CALL_OUTPUT]
        call check
        mov rbx, GUEST_OS_ID
        cmp rbx, [gs:CALL_OUTPUT + 16]
        call check
.out:   jmp end_line
.none:  ret

report_timer:
        mov ecx, APIC_DIVIDE
        mov eax, 0x0b                   ; by 1
        call apic_write
        mov ecx, APIC_LVT_TIMER
        mov eax, TIMER_VECTOR           ; one-shot
        call apic_write
        mov ecx, APIC_INITIAL
        mov eax, 20000
        call apic_write
.wait:  cli
        cmp byte [gs:TIMER_FIRED], 0
        jne .fired
        sti
        hlt
        jmp .wait
.fired: call begin_line
        STRING(timer interrupt)
        jmp end_line

; notes a failed check; takes and keeps the zero flag
check:  je .fine
        mov byte [failed], 1
.fine:  ret

; which synthetic interfaces CPUID offers
find_hypervisor:
        mov eax, 1
        cpuid
        bt ecx, 31
        jnc .none
        mov eax, ${HV_CPUID.HV_CPUID_FUNCTION_HV_INTERFACE}
        cpuid
        cmp eax, ${HV_CPUID.INTERFACE_SIGNATURE_HV1}
        jne .none
        mov eax, ${HV_CPUID.HV_CPUID_FUNCTION_MS_HV_FEATURES}
        cpuid
        bt eax, 5                       ; AccessHypercallMsrs
        setc [has_hypercalls]
        bt edx, 10                      ; guest crash registers
        setc [has_crash_msrs]
.none:  ret
`;

/** Local APIC, in either of its modes. */
const APIC = `
apic_enable:
        mov eax, 1
        cpuid
        bt ecx, 21                      ; x2APIC
        setc [x2apic]
        mov ecx, MSR_APIC_BASE
        rdmsr
        or eax, 0x800                   ; enabled
        cmp byte [x2apic], 0
        je .set
        or eax, 0x400                   ; x2APIC mode
.set:   wrmsr
        mov ecx, APIC_SVR
        mov eax, 0x100 + SPURIOUS_VECTOR
; writes EAX to register ECX; clobbers RCX and RDX
apic_write:
        cmp byte [x2apic], 0
        je .memory
        add ecx, MSR_X2APIC
        xor edx, edx
        wrmsr
        ret
.memory:
        shl ecx, 4
        mov edx, LOCAL_APIC
        mov [rdx + rcx], eax
        ret

; reads register ECX to EAX; clobbers RCX and RDX
apic_read:
        cmp byte [x2apic], 0
        je .memory
        add ecx, MSR_X2APIC
        rdmsr
        ret
.memory:
        shl ecx, 4
        mov edx, LOCAL_APIC
        mov eax, [rdx + rcx]
        ret

; sends command EAX to APIC ID EDI; clobbers RCX and RDX
send_ipi:
        cmp byte [x2apic], 0
        je .memory
        mov ecx, MSR_X2APIC_ICR
        mov edx, edi
        wrmsr
        ret
.memory:
        mov edx, LOCAL_APIC
        mov ecx, edi
        shl ecx, 24
        mov [rdx + (APIC_ICR_LOW + 1) * 16], ecx
        mov [rdx + APIC_ICR_LOW * 16], eax
.pending:
        pause
        bt dword [rdx + APIC_ICR_LOW * 16], 12
        jc .pending
        ret

short_wait:
        mov ecx, 50
.turn:  pause
        loop .turn
        ret

build_idt:
        mov edi, IDT
        lea rax, [exception_stubs]
        mov ecx, ${EXCEPTIONS}
.next:  call set_gate
        add rax, 16
        add edi, 16
        loop .next
        lea rax, [ipi_handler]
        mov edi, IDT + IPI_VECTOR * 16
        call set_gate
        lea rax, [timer_handler]
        mov edi, IDT + TIMER_VECTOR * 16
        call set_gate
        lea rax, [spurious_handler]
        mov edi, IDT + SPURIOUS_VECTOR * 16
; an interrupt gate to RAX (below 64 KiB) at RDI
set_gate:
        mov [rdi], ax
        mov word [rdi + 2], CODE64
        mov word [rdi + 4], 0x8e00
        mov word [rdi + 6], 0
        mov qword [rdi + 8], 0
        ret

timer_handler:
        mov byte [gs:TIMER_FIRED], 1
ipi_handler:
        push rax
        push rcx
        push rdx
        mov ecx, APIC_EOI
        xor eax, eax
        call apic_write
        pop rdx
        pop rcx
        pop rax
spurious_handler:
        iretq
`;

const DATA = `
        align 8, 0
gdt:    dq 0
        dq 0x00cf9b000000ffff           ; 08 32-bit code
        dq 0x00cf93000000ffff           ; 10 data
        dq 0x00af9b000000ffff           ; 18 64-bit code
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dq gdt
idt_pointer:
        dw 256 * 16 - 1
        dq IDT
        align 4, 0
console_lock:   dd 0
done:           dd 0
failed:         db 0
x2apic:         db 0
has_hypercalls: db 0
has_crash_msrs: db 0
text_debug:     db \`exitbox demo guest\\n\`
text_debug_bytes equ $ - text_debug
`;

/**
 * The demo guest's source text, for the project's assembler.
 *
 * @returns The text.
 */
export function demoSource(): string {
  const strings = new Strings();
  const text = [BOOT, ENTER_LONG_MODE, WORK, APIC, PRINTING].join("");
  const code = strings.fill(strings.fill(text, "STRING_AFTER_CPUID", "print_vendor"));
  return [
    CONSTANTS,
    "        org " + ORIGIN,
    code,
    "        align 16\nexception_stubs:" + exceptionStubs(),
    DATA,
    strings.definitions(),
  ].join("\n");
}

let assembled: Assembly | undefined;

/**
 * The demo guest's machine code and labels.
 *
 * @returns The assembly, made on first use.
 */
export function demoGuest(): Assembly {
  assembled ??= assemble(demoSource());
  return assembled;
}

/**
 * Puts the demo guest into memory.
 *
 * @param memory Guest RAM from guest-physical address 0, which holds zeros; it needs 1 MiB and a page for each VP.
 * @param vps Number of VPs that the guest starts, itself included.
 * @returns The registers of VP 0 at the first instruction.
 * @throws {BadInput} When the number of VPs or the memory does not fit the guest.
 */
export function loadDemo(memory: Uint8Array, vps: number): InitialState {
  if (!Number.isInteger(vps) || vps < 1 || vps > DEMO_VPS_MAX) {
    throw new BadInput(`demo guest with ${vps} VPs, expected 1 to ${DEMO_VPS_MAX}`);
  }
  const needed = BLOCKS + vps * PAGE_BYTES;
  if (memory.length < needed) {
    throw new BadInput(`demo guest with ${vps} VPs in ${memory.length} bytes of memory, expected at least ${needed}`);
  }
  const state = loadImage(memory, parseImage(demoGuest().bytes, "demo"));
  new DataView(memory.buffer, memory.byteOffset).setUint32(DEMO_VP_COUNT_ADDRESS, vps, true);
  return state;
}

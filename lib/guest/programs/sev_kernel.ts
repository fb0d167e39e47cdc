/**
 * The built-in guest of the platforms `sev-es` and `snp`: a small kernel with #VC handlers of its own, for any number of
 * processors up to {@linkcode SEV_KERNEL_VPS_MAX}.
 *
 * Each VP prints its lines through the 16550 with OUT and OUTSB, reads ports, CPUID, an MSR and its local APIC's page, and
 * takes an interrupt of its APIC timer. The others are started by INIT and startup IPI (SEV-ES) or by a VMSA that VP 0
 * makes (SNP). VP 0 writes 0 to the exit port when all are done, 1 when a check failed and 2 after an exception.
 *
 * Throughout, a block of secret bytes lies in private memory and in XMM registers: nothing that the host can read may ever
 * contain eight of them in a row. The kernel looks at the end whether they are still what they were.
 *
 * @module
 */
import { BadInput } from "../../memory/bad_input.ts";
import { assemble, type Assembly } from "../assembler/assemble.ts";
import { FLAT_LOAD_ADDRESS, type GuestImage, type InitialState, loadImage, parseImage } from "../image.ts";
import { EXCEPTIONS, exceptionStubs, PRINTING, Strings } from "./parts.ts";
import { SEV_KERNEL_BOOT, SEV_KERNEL_CONSTANTS } from "./sev_kernel_boot.ts";
import { SEV_KERNEL_EXITS } from "./sev_kernel_exits.ts";
import { SEV_KERNEL_VC } from "./sev_kernel_vc.ts";

/** Most VPs: their areas fill one page table. */
export const SEV_KERNEL_VPS_MAX = 128;
/** Bytes of guest RAM that the kernel needs. */
export const SEV_KERNEL_RAM_BYTES: number = 0x600000;
/** Bytes of the secret. */
const SECRET_BYTES = 64;
/** Seed and factor of the secret's bytes (Numerical Recipes' generator). */
const SECRET_SEED = 0x5ec2e7;
const LCG_FACTOR = 1664525;
const LCG_STEP = 1013904223;

/** A range of guest-physical memory. */
export interface SecretRange {
  readonly address: number;
  readonly bytes: number;
}

/** The secret's bytes for `variant`: two runs with different variants differ in nothing else. */
export function secretBytes(variant = 0): readonly number[] {
  const bytes: number[] = [];
  let state = SECRET_SEED + variant;
  for (let k = 0; k < SECRET_BYTES; k++) {
    state = (Math.imul(state, LCG_FACTOR) + LCG_STEP) | 0;
    bytes.push(state >>> 24);
  }
  return bytes;
}

/** Exits in one turn of a measured loop. */
const BENCH_UNROLLED = 16;
/** What is executed to measure an exit: the text of the loop's body. */
const BENCH_EXITS = {
  cpuid: "mov eax, 0x40000080\n        cpuid\n        ".repeat(BENCH_UNROLLED),
  out: "out dx, al\n        ".repeat(BENCH_UNROLLED),
} as const;
/** Numbers that say which, in the kernel's memory. */
const BENCH_NUMBERS: Readonly<Record<keyof typeof BENCH_EXITS, number>> = { cpuid: 1, out: 2 };

const MAIN = `
BENCH_OUT       equ ${BENCH_NUMBERS.out}
boot_main:
        ; OpenBSD's vmd serves neither strings nor device memory
        mov eax, 0x40000000
        cpuid
        cmp ebx, 0x6e65704f             ; "Open"
        jne .host_known
        mov byte [no_strings], 1
.host_known:
        cmp dword [bench], 0
        jne bench_main
        STRING(\\nencrypted guest: )
        test dword [sev_status], SEV_STATUS_SNP
        jnz .snp
        STRING(SEV-ES)
        jmp .status
.snp:   STRING(SEV-SNP)
.status:
        STRING(, C bit )
        mov eax, [c_bit]
        call print_decimal
        STRING(, GHCB protocol )
        mov eax, [protocol_version]
        call print_decimal
        STRING(\\n)
        call load_secret
        mov ebp, 1
.next:  cmp ebp, [vp_count]
        jae .started
        call start_vp
        inc ebp
        jmp .next
.started:
        call work
.wait:  pause
        mov eax, [done]
        inc eax
        cmp eax, [vp_count]
        jb .wait
        call check_secret
        call lock_console
        STRING(all )
        mov eax, [vp_count]
        call print_decimal
        STRING( VPs are done\\n)
        call unlock_console
        movzx eax, byte [failed]
        out EXIT_PORT, eax
.end:   cli
        hlt
        jmp .end

; one kind of exit after the other, without end
bench_main:
        cmp dword [bench], BENCH_OUT
        je bench_out
bench_cpuid:
        ${BENCH_EXITS.cpuid}
        jmp bench_cpuid
bench_out:
        mov dx, 0x80
.turn:  ${BENCH_EXITS.out}
        jmp .turn

ap_main:
        mov dword [ap_taken], r15d
        call load_secret
        call work
        call check_secret
        lock inc dword [done]
.end:   cli
        hlt
        jmp .end

; the secret is in XMM0 to XMM3 from here on
load_secret:
        movups xmm0, [secret]
        movups xmm1, [secret + 16]
        movups xmm2, [secret + 32]
        movups xmm3, [secret + 48]
        ret

check_secret:
        movups xmm4, [secret]
        pcmpeqb xmm4, xmm0
        movups xmm5, [secret + 16]
        pcmpeqb xmm5, xmm1
        pand xmm4, xmm5
        movups xmm5, [secret + 32]
        pcmpeqb xmm5, xmm2
        pand xmm4, xmm5
        movups xmm5, [secret + 48]
        pcmpeqb xmm5, xmm3
        pand xmm4, xmm5
        pmovmskb eax, xmm4
        cmp eax, 0xffff
        je .same
        mov byte [failed], 1
.same:  ret

; starts VP EBP and waits until it has taken its number
start_vp:
        mov eax, ebp
        shl eax, 14
        lea edi, [rax + AREAS]
        call accept_area64
        mov [ap_index], ebp
        test dword [sev_status], SEV_STATUS_SNP
        jnz .snp
        mov edi, ebp
        mov eax, 0x4500                 ; INIT
        call send_ipi
        mov eax, 0x4600                 ; startup; the vector does not count, the VP begins where its VMSA says
        call send_ipi
        jmp .wait
.snp:   call make_vmsa
        mov r12, [gs:BLOCK_GHCB]
        pushfq
        cli
        call ghcb_begin
        mov qword [r12 + GHCB_RAX], 1   ; SEV_FEATURES
        bts qword [r12 + GHCB_VALID_LOW], VALID_RAX
        mov edi, AP_CREATION & 0x7fffffff
        bts rdi, 31
        mov esi, ebp
        shl rsi, 32
        or rsi, 1                       ; create and run
        mov edx, ebp
        shl edx, 14
        add edx, AREAS + AREA_VMSA
        call ghcb_call
        popfq
.wait:  pause
        cmp [ap_taken], ebp
        jne .wait
        ret

; on SNP the area at RDI is asked for and validated: three private pages and the shared one
accept_area64:
        test dword [sev_status], SEV_STATUS_SNP
        jz .done
        mov r8d, edi
        mov ebx, PSC_PRIVATE
        call page_state64
        mov eax, r8d
        call validate_page
        lea edi, [r8 + AREA_GHCB]
        mov ebx, PSC_SHARED
        call page_state64
        lea edi, [r8 + AREA_BACKUP]
        mov ebx, PSC_PRIVATE
        call page_state64
        lea eax, [r8 + AREA_BACKUP]
        call validate_page
        lea edi, [r8 + AREA_VMSA]
        mov ebx, PSC_PRIVATE
        call page_state64
        lea eax, [r8 + AREA_VMSA]
        call validate_page
.done:  ret

; page state EBX for the page at RDI, by a request with one entry
page_state64:
        push r8
        mov r12, [gs:BLOCK_GHCB]
        call ghcb_begin
        mov qword [r12 + GHCB_BUFFER], 0 ; first and last entry: 0
        mov eax, ebx
        shl rax, 52
        or rax, rdi
        mov [r12 + GHCB_BUFFER + 8], rax
        lea rax, [r12 + GHCB_BUFFER]
        mov [r12 + GHCB_SCRATCH], rax
        bts qword [r12 + GHCB_VALID_HIGH], VALID_SCRATCH
        mov edi, 0x10                   ; SNP_PSC
        bts rdi, 31
        xor esi, esi
        xor edx, edx
        call ghcb_call
        cmp qword [r12 + GHCB_INFO2], 0
        jne terminate
        cmp word [r12 + GHCB_BUFFER], 1 ; the entry is done
        jne terminate
        pop r8
        ret

; a VMSA for VP EBP in its area: long mode at ap64 with this VP's tables
make_vmsa:
        mov ebx, ebp
        shl ebx, 14
        add ebx, AREAS + AREA_VMSA
        mov edi, ebx
        xor eax, eax
        mov ecx, 512
        rep stosq
        lea rdi, [rbx]
        mov ecx, 6                      ; ES, CS, SS, DS, FS, GS
.data:  mov dword [rdi], 0x0c930010     ; attributes above the selector
        mov dword [rdi + 4], 0xffffffff
        add rdi, 16
        loop .data
        mov dword [rbx + 0x10], 0x0a9b0018
        mov word [rbx + 0x64], 31       ; GDTR
        lea rax, [gdt]
        mov [rbx + 0x68], rax
        mov dword [rbx + 0x70], 0x00820000 ; LDTR
        mov word [rbx + 0x84], 256 * 16 - 1
        lea rax, [idt]
        mov [rbx + 0x88], rax
        mov dword [rbx + 0x90], 0x008b0000 ; TR
        mov dword [rbx + 0x94], 0xffff
        mov dword [rbx + 0xd0], 0x1d00  ; EFER: SVME, NXE, LMA, LME
        mov rax, cr4
        mov [rbx + 0x148], rax
        mov rax, cr3
        mov [rbx + 0x150], rax
        mov rax, cr0
        mov [rbx + 0x158], rax
        mov dword [rbx + 0x160], 0x400  ; DR7
        mov dword [rbx + 0x168], 0xffff0ff0
        mov dword [rbx + 0x170], 2      ; RFLAGS
        lea rax, [long_mode]
        mov [rbx + 0x178], rax
        lea eax, [rbx - AREA_VMSA + STACK_TOP]
        mov [rbx + 0x1d8], rax
        mov rax, 0x0007040600070406
        mov [rbx + 0x268], rax
        mov [rbx + 0x338], rbp          ; RDI: its number
        mov dword [rbx + 0x3b0], 1      ; SEV_FEATURES: SNP
        mov dword [rbx + 0x3e8], 1      ; XCR0
        mov dword [rbx + 0x408], 0x1f80
        mov word [rbx + 0x410], 0x37f
        ; the page becomes a VMSA: RMPADJUST with target VMPL 1 and the VMSA bit
        mov rax, rbx
        xor ecx, ecx
        mov edx, 0x10001
        db 0xf3, 0x0f, 0x01, 0xfe
        test eax, eax
        jnz terminate
        ret

; what every VP does
work:   call begin_line
        STRING(long mode, vendor )
        xor eax, eax
        cpuid
        push rcx
        push rdx
        push rbx
        mov ecx, 4
        call print_stack
        mov ecx, 4
        call print_stack
        mov ecx, 4
        call print_stack
        call end_line
        cmp byte [no_strings], 0
        jne .no_apic
        call begin_line
        STRING(APIC ID )
        mov edx, LOCAL_APIC
        mov eax, [rdx + APIC_ID]        ; #VC 400
        shr eax, 24
        call print_decimal
        cmp eax, 0
        STRING(, APIC base )
        mov ecx, 0x1b
        rdmsr
        mov cl, 8
        call print_hex
        call end_line
        call take_timer
.no_apic:
        ; the CMOS status register D: bit 7 says that the RAM is valid
        mov al, 0x0d
        out 0x70, al
        mov eax, 0x11223344
        in al, 0x71
        cmp eax, 0x11223380
        je .port
        mov byte [failed], 1
.port:  ret

take_timer:
        mov edx, LOCAL_APIC
        mov dword [rdx + APIC_SVR], 0x1ff
        mov dword [rdx + APIC_DIVIDE], 0xb
        mov dword [rdx + APIC_LVT_TIMER], TIMER_VECTOR
        mov dword [rdx + APIC_INITIAL], 1000
.wait:  sti
        hlt
        cli
        cmp qword [gs:BLOCK_TICKS], 0
        je .wait
        call begin_line
        STRING(timer interrupt)
        jmp end_line

timer_handler:
        push rax
        push rdx
        inc qword [gs:BLOCK_TICKS]
        mov edx, LOCAL_APIC
        xor eax, eax
        mov [rdx + APIC_EOI], eax
        pop rdx
        pop rax
spurious_handler:
        iretq

; sends command EAX to APIC ID EDI
send_ipi:
        mov edx, LOCAL_APIC
        mov ecx, edi
        shl ecx, 24
        mov [rdx + APIC_ICR_HIGH], ecx
        mov [rdx + APIC_ICR_LOW], eax
        ret

build_idt:
        lea rdi, [idt]
        lea rax, [exception_stubs]
        mov ecx, ${EXCEPTIONS}
.next:  call set_gate
        add rax, 16
        add rdi, 16
        loop .next
        lea rax, [vc_handler]
        lea rdi, [idt + VECTOR_VC * 16]
        call set_gate
        lea rax, [timer_handler]
        lea rdi, [idt + TIMER_VECTOR * 16]
        call set_gate
        lea rax, [spurious_handler]
        lea rdi, [idt + 0xff * 16]
; an interrupt gate to RAX at RDI
set_gate:
        mov [rdi], ax
        mov word [rdi + 2], CODE64
        mov word [rdi + 4], 0x8e00
        mov rdx, rax
        shr rdx, 16
        mov [rdi + 6], dx
        mov qword [rdi + 8], 0
        ret

; prints and removes the ECX characters above the return address
print_stack:
        lea rsi, [rsp + 8]
        call print_string
        ret 8
`;

const DATA = `
idt_pointer:
        dw 256 * 16 - 1
        dq idt
        align 4, 0
vp_count:       dd 1
bench:          dd 0
ap_taken:       dd 0
console_lock:   dd 0
done:           dd 0
failed:         db 0
no_strings:     db 0
        align 64, 0
secret: db SECRET
secret_end:
        align 4096, 0
idt:    times 4096 db 0
pml4:   times 4096 db 0
pdpt:   times 4096 db 0
directories:
        times 4 * 4096 db 0
areas_table:
        times 4096 db 0
        times 4096 db 0
boot_stack_top:
`;

/** The kernel's source text, for the project's assembler. */
export function sevKernelSource(variant = 0): string {
  const strings = new Strings();
  const main = strings.fill([MAIN, PRINTING].join(""));
  return [
    SEV_KERNEL_CONSTANTS,
    "        org ORIGIN",
    SEV_KERNEL_BOOT,
    SEV_KERNEL_VC,
    SEV_KERNEL_EXITS,
    main,
    "        align 16\nexception_stubs:" + exceptionStubs(),
    "        align 8, 0",
    strings.definitions(),
    DATA.replace("SECRET", secretBytes(variant).join(", ")),
  ].join("\n");
}

const assembled = new Map<number, Assembly>();

/** The kernel's machine code and labels, made on first use. */
export function sevKernel(variant = 0): Assembly {
  let kernel = assembled.get(variant);
  if (kernel === undefined) {
    kernel = assemble(sevKernelSource(variant));
    assembled.set(variant, kernel);
  }
  return kernel;
}

/** The kernel as an image. */
export function sevKernelImage(variant = 0): GuestImage {
  return parseImage(sevKernel(variant).bytes, "sev-kernel", { mode: "protected", load: FLAT_LOAD_ADDRESS });
}

/** Where the secret lies. */
export function sevKernelSecret(): SecretRange {
  return { address: Number(sevKernel().labels.get("secret")!), bytes: SECRET_BYTES };
}

/** What the kernel is to do, beside what it always does. */
export interface SevKernelOptions {
  /** Virtual processors that it starts, itself included. */
  readonly vps: number;
  /** Which secret it holds. */
  readonly variant?: number;
  /** Exits of which kind it makes instead of its work, without end. */
  readonly bench?: keyof typeof BENCH_EXITS;
}

/**
 * Puts the kernel into memory, which holds zeros.
 *
 * @throws {BadInput} When the number of VPs or the memory does not fit the kernel.
 */
export function loadSevKernel(memory: Uint8Array, options: SevKernelOptions): InitialState {
  const { vps, variant = 0, bench } = options;
  if (!Number.isInteger(vps) || vps < 1 || vps > SEV_KERNEL_VPS_MAX) {
    throw new BadInput(`encrypted demo guest with ${vps} VPs, expected 1 to ${SEV_KERNEL_VPS_MAX}`);
  }
  if (memory.length < SEV_KERNEL_RAM_BYTES) {
    throw new BadInput(`encrypted demo guest in ${memory.length} bytes of memory, expected ${SEV_KERNEL_RAM_BYTES}`);
  }
  const state = loadImage(memory, sevKernelImage(variant));
  const { labels } = sevKernel(variant);
  const view = new DataView(memory.buffer, memory.byteOffset);
  view.setUint32(Number(labels.get("vp_count")), vps, true);
  if (bench !== undefined) view.setUint32(Number(labels.get("bench")), BENCH_NUMBERS[bench], true);
  return state;
}

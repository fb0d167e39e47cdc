/**
 * The guest of the soak test: every VP makes exits for ever, of all the kinds that the VMM handles, in an order and with
 * values that only its own number decides. Registers, the x87/SSE state, debug registers and the VMM's own MSRs carry
 * every result on, so that one that is lost shows in all exits that follow.
 *
 * ```
 * 7c00 VP 0 · 8000 the others' first instructions · f00 flag that ends the loops · 70000 + n * 400 stack of VP n
 * ```
 */
import { assemble } from "../../lib/guest/assembler/assemble.ts";

/** Where the image is loaded, and where real mode begins. */
export const SOAK_GUEST_LOAD = 0x7c00;
/** Guest-physical address of the byte that ends every VP's loop when it is not 0. */
export const SOAK_GUEST_FLAG = 0xf00;
/** A VP number for {@linkcode soakGuest}: the machine's own VPs, started by VP 0, which halts. */
export const EVERY_VP = 0xff;

/**
 * The image. With `only` VP 0 does what VP `only` does, as the reference for its exits, and starts no other.
 */
export function soakGuest(only: number = EVERY_VP): Uint8Array {
  return assemble(
    `
FLAG    equ ${SOAK_GUEST_FLAG}
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        o32 lgdt [gdt_pointer]
        mov eax, 0x11                   ; PE, ET
        mov cr0, eax
        jmp dword 8:first

        align 1024
        ; every other VP, by its startup IPI
        cli
        xor ax, ax
        mov ds, ax
        o32 lgdt [gdt_pointer]
        mov eax, 0x11
        mov cr0, eax
        jmp dword 8:other

        bits 32
first:  movzx edi, byte [only]
        cmp edi, ${EVERY_VP}
        jne body
        call x2apic
        mov ecx, 0x830                  ; INIT and startup IPI for all but this one
        xor edx, edx
        mov eax, 0xc4500
        wrmsr
        mov eax, 0xc4608
        wrmsr
        cli
        hlt

other:  mov eax, 1
        cpuid
        shr ebx, 24
        mov edi, ebx

; EDI: number of the VP
body:   mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov fs, ax
        mov gs, ax
        mov esp, edi
        shl esp, 10
        add esp, 0x70400
        lidt [idt_pointer]
        call x2apic
        mov eax, 0x600                  ; OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov eax, 0x11
        mov cr0, eax
        fninit
        pxor xmm0, xmm0
        pxor xmm1, xmm1
        imul ebp, edi, 0x9e3779b1
        xor eax, eax
        xor ebx, ebx
        xor ecx, ecx
        xor edx, edx
        xor esi, esi
        xor edi, edi
        mov dr0, eax
        mov dr1, eax
        push 2
        popfd

; EBP: random numbers; ESI, EDI, XMM1, DR0: what came of the exits so far
again:  cmp byte [FLAG], 0
        jne done
        imul ebp, ebp, 1664525
        add ebp, 1013904223
        mov ebx, ebp
        shr ebx, 24
        and ebx, 15
        mov eax, ebp
        xor eax, esi
        jmp dword [table + ebx * 4]
mix:    add esi, eax
        rol esi, 5
        xor esi, ebp
        movd xmm0, esi
        paddd xmm1, xmm0
        movd edi, xmm1
        mov eax, dr0
        add eax, edi
        mov dr0, eax
        xor edi, eax
        jmp again

out8:   out 0x80, al
        jmp mix
out16:  mov dx, 0x300
        out dx, ax
        jmp mix
out32:  mov dx, 0x304
        out dx, eax
        jmp mix
in8:    mov dx, 0x301
        in al, dx
        jmp mix
in32:   mov dx, 0x308
        in eax, dx
        jmp mix
leaf:   mov eax, 0x40000080
        add eax, ebx
        sub eax, 5                      ; its number in the table
        cpuid
        add eax, ebx
        add eax, ecx
        add eax, edx
        jmp mix
crash:  mov ecx, ebp
        and ecx, 3
        add ecx, 0x40000100
        mov edx, edi
        wrmsr
        xor ecx, 1                      ; another one
        rdmsr
        add eax, edx
        jmp mix
write:  mov [0xd0000010], eax
        jmp mix
read:   mov ebx, [0xd0000020]
        add eax, ebx
        jmp mix
bytes:  push esi
        mov esi, text
        mov ecx, ebp
        and ecx, 7
        mov dx, 0x80
        rep outsb
        mov eax, esi
        pop esi
        jmp mix
words:  push edi
        lea edi, [esp - 64]
        mov ecx, ebp
        and ecx, 3
        mov dx, 0x302
        rep insw
        mov eax, edi
        pop edi
        jmp mix
sleep:  mov ecx, 0x83f                  ; an interrupt to itself is pending when it halts
        mov eax, 0x40
        xor edx, edx
        wrmsr
        sti
        hlt
        cli
        add eax, ebp
        jmp mix

done:   cli
        hlt

x2apic: mov ecx, 0x1b
        rdmsr
        or eax, 0xc00
        wrmsr
        mov ecx, 0x80f
        mov eax, 0x1ff
        xor edx, edx
        wrmsr
        ret

interrupt:
        push eax
        push ecx
        push edx
        mov ecx, 0x80b
        xor eax, eax
        xor edx, edx
        wrmsr
        pop edx
        pop ecx
        pop eax
        add eax, 0x77
        iretd

        align 16
table:  dd out8, out16, out32, in8, in32, leaf, leaf, crash
        dd crash, write, read, bytes, words, sleep, out8, in32
gdt:    dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        dw 23
        dd gdt
idt_pointer:
        dw 0x207
        dd gate - 0x200
gate:   dw interrupt, 8, 0x8e00, 0
text:   db "exitbox!"
only:   db ${only}
`,
    { origin: SOAK_GUEST_LOAD, bits: 16 },
  ).bytes;
}

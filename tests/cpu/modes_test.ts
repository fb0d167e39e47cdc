import { assertEquals } from "@std/assert";
import { ATTENTION_INTERRUPT, CpuState } from "../../lib/cpu/state.ts";
import { guestMachine, type GuestStart } from "./guest_machine.ts";
import { BYTES16, CODE0, DATA0, FLAT32, gate, gate64, gdt, idt, INTERRUPT32, LONG, segment } from "./tables.ts";

/** Runs a program and returns what it wrote to ports, but for the last write, which ends it. */
function outputs(start: GuestStart, source: string): number[] {
  const machine = guestMachine(start, source);
  machine.run();
  return machine.out.slice(0, -1);
}

Deno.test("real mode to protected, long and compatibility mode and all the way back", () => {
  const shown = outputs(
    "real",
    `lgdt [gdtp]
     mov eax, cr0
     or al, 1
     mov cr0, eax
     jmp dword 8:protected
     bits 32
     protected: mov ax, 0x10
     mov ds, ax
     mov es, ax
     mov ss, ax
     mov esp, 0x7000
     mov eax, cr0
     out 0x80, eax
     mov edi, 0x20000
     mov dword [edi], 0x21007
     mov dword [edi+0x1000], 0x22007
     mov dword [edi+0x2000], 0x87
     mov eax, cr4
     or eax, 0x20
     mov cr4, eax
     mov cr3, edi
     mov ecx, 0xc0000080
     rdmsr
     or eax, 0x100
     wrmsr
     mov eax, cr0
     or eax, 0x80000000
     mov cr0, eax
     rdmsr
     out 0x80, eax
     jmp 0x18:long
     bits 64
     long: mov rax, 0x123456789
     shr rax, 4
     out 0x80, eax
     jmp far [pointer]
     bits 32
     compat: mov eax, cr0
     and eax, 0x7fffffff
     mov cr0, eax                      ; leaves long mode
     rdmsr
     out 0x80, eax
     and eax, ~0x100
     wrmsr
     jmp 0x20:small
     bits 16
     small: mov ax, 0x28
     mov ds, ax
     mov es, ax
     mov ss, ax
     mov eax, cr0
     and al, 0xfe
     mov cr0, eax
     jmp 0:real
     real: xor ax, ax
     mov ds, ax
     mov ss, ax
     mov ax, cs
     out 0x80, ax
     int 0x40
     out 0xf4, al
     handler: mov ax, 0x4321
     out 0x80, ax
     iret
     pointer: dd compat
     dw 8
     ${
      gdt([
        segment(CODE0, FLAT32),
        segment(DATA0, FLAT32),
        segment(CODE0, LONG),
        segment(CODE0, BYTES16, 0, 0xffff),
        segment(DATA0, BYTES16, 0, 0xffff),
      ])
    }
     times 0x100 db 0`,
  );
  assertEquals(shown.slice(0, 5), [0x11, 0x500, 0x12345678, 0x100, 0]);
});

/** Long mode with handlers of #GP (shows the error code and stops), #PF and #UD. */
function faulting(body: string): number[] {
  return outputs(
    "long",
    `lgdt [gdtp]
     lidt [idtp]
     ${body}
     mov al, 0x99
     out 0x80, al
     out 0xf4, al
     gp: pop rax
     mov al, 13
     out 0x80, al
     out 0xf4, al
     ud: mov al, 6
     out 0x80, al
     out 0xf4, al
     ${gdt([segment(CODE0, LONG), segment(DATA0, FLAT32)], "dq")}
     ${idt(16, { 13: gate64(INTERRUPT32, 8, "gp"), 6: gate64(INTERRUPT32, 8, "ud") }, 16)}`,
  );
}

const FINE = [0x99];
const GP = [13];
const UD = [6];

Deno.test("CR0: PG needs PE, NW needs CD, high bits are reserved, long mode cannot lose PG from 64-bit code", () => {
  const write = (change: string) => faulting(`mov rax, cr0\n${change}\nmov cr0, rax`);
  assertEquals(write("and eax, ~1"), GP);
  assertEquals(write("or eax, 0x20000000"), GP);
  assertEquals(write("or eax, 0x60000000"), FINE);
  assertEquals(write("bts rax, 32"), GP);
  assertEquals(write("btr eax, 31"), GP);
  assertEquals(write("xor eax, 0x10028"), FINE);
});

Deno.test("CR3, CR4 and CR8: reserved bits, and PAE stays on in long mode", () => {
  assertEquals(faulting("mov rax, cr3\nbts rax, 48\nmov cr3, rax"), GP);
  assertEquals(faulting("mov rax, cr3\nmov cr3, rax"), FINE);
  assertEquals(faulting("mov rax, cr4\nbtr eax, 5\nmov cr4, rax"), GP);
  assertEquals(faulting("mov rax, cr4\nbts rax, 32\nmov cr4, rax"), GP);
  assertEquals(faulting("mov rax, cr4\nbts eax, 30\nmov cr4, rax"), GP);
  assertEquals(faulting("mov eax, 15\nmov cr8, rax"), FINE);
  assertEquals(faulting("mov eax, 16\nmov cr8, rax"), GP);
});

Deno.test("control registers that do not exist are undefined", () => {
  for (const n of [1, 5, 6, 7]) assertEquals(faulting(`db 0x0f, 0x20, ${0xc0 | n << 3}`), UD);
  assertEquals(faulting("db 0x44, 0x0f, 0x22, 0xc8"), UD, "CR9");
});

Deno.test("EFER, PAT, FS base and LSTAR refuse reserved bits, bad types and addresses that are not canonical", () => {
  const write = (msr: number, high: number, low: number) =>
    faulting(`mov ecx, ${msr}\nmov edx, ${high}\nmov eax, ${low}\nwrmsr`);
  assertEquals(write(0xc0000080, 0, 0xd01), FINE);
  assertEquals(write(0xc0000080, 0, 0xc01), GP, "LME cannot change while paging is on");
  assertEquals(write(0xc0000080, 0, 0xd03), GP);
  assertEquals(write(0xc0000080, 1, 0xd01), GP);
  assertEquals(write(0x277, 0x00070406, 0x00070106), FINE);
  assertEquals(write(0x277, 0x00070402, 0x00070406), GP);
  assertEquals(write(0xc0000100, 0x7fff, 0xffffffff), FINE);
  assertEquals(write(0xc0000100, 0x8000, 0), GP);
  assertEquals(write(0xc0000082, 0xffff8000, 0), FINE);
  assertEquals(write(0xc0000082, 0x00010000, 0), GP);
  assertEquals(write(0xc0000103, 1, 0), GP, "TSC_AUX has 32 bits");
  assertEquals(write(0x2ff, 0, 0xc06), FINE);
  assertEquals(write(0x2ff, 0, 0x002), GP);
  assertEquals(write(0xfe, 0, 0), GP, "MTRRCAP is read-only");
  assertEquals(write(0x1234567, 0, 0), GP);
});

Deno.test("FS and GS bases: instructions and MSRs see the same, a 32-bit write is zero-extended", () => {
  const shown = faulting(
    `mov rax, cr4
     bts eax, 16
     mov cr4, rax
     mov rax, 0x123456789abc
     wrgsbase rax
     mov ecx, 0xc0000101
     rdmsr
     out 0x80, eax
     mov eax, edx
     out 0x80, eax
     swapgs
     rdgsbase rax
     out 0x80, eax
     mov rax, 0xffffffff80200000
     wrfsbase eax
     rdfsbase rax
     shr rax, 32
     out 0x80, eax`,
  );
  assertEquals(shown, [0x56789abc, 0x1234, 0, 0, 0x99]);
});

Deno.test("XSETBV keeps x87 on, and AVX never without SSE", () => {
  const write = (value: number) =>
    faulting(`mov rax, cr4\nbts eax, 18\nmov cr4, rax\nxor ecx, ecx\nxor edx, edx\nmov eax, ${value}\nxsetbv`);
  assertEquals(write(1), FINE);
  assertEquals(write(3), FINE);
  assertEquals(write(7), FINE);
  assertEquals(write(2), GP);
  assertEquals(write(5), GP);
  assertEquals(faulting("xor ecx, ecx\nxgetbv"), UD, "without CR4.OSXSAVE");
});

Deno.test("demand paging: a handler maps pages, and a change of a present entry is seen after INVLPG", () => {
  const shown = outputs(
    "long",
    `lgdt [gdtp]
     lidt [idtp]
     mov rdi, 0x200000              ; a page table for 40000000
     mov ecx, 512
     xor eax, eax
     rep stosq
     mov rax, 0x200007
     mov [0x4000], rax              ; directory of 40000000
     mov rax, cr3
     mov cr3, rax
     xor ebx, ebx                   ; faults
     mov rsi, 0x40000000
     mov ecx, 16
     fill: mov [rsi], ecx
     add dword [rsi+0xffe], ecx     ; across two pages
     add rsi, 0x1000
     dec ecx
     jnz fill
     mov eax, ebx
     out 0x80, eax
     mov eax, [0x40003000]
     out 0x80, eax
     mov rax, [0x200000]
     mov [0x200018], rax            ; page 3 is page 0 now
     invlpg [0x40003000]
     mov eax, [0x40003000]
     out 0x80, eax
     mov eax, [0x200000]
     and eax, 0xfff
     out 0x80, eax
     out 0xf4, al
     pf: push rax
     push rdx
     inc ebx
     mov rax, cr2
     shr rax, 12
     and eax, 511
     mov edx, ebx
     shl edx, 12
     add edx, 0x300007 - 0x1000
     mov [0x200000 + rax*8], rdx
     pop rdx
     pop rax
     add rsp, 8
     iretq
     ${gdt([segment(CODE0, LONG), segment(DATA0, FLAT32)], "dq")}
     ${idt(16, { 14: gate64(INTERRUPT32, 8, "pf") }, 16)}`,
  );
  // 16 pages and the one behind them; the second words hold the sums' upper halves, which are zero.
  assertEquals(shown, [17, 13, 16, 0x067]);
});

Deno.test("self-modifying code: a store to the very next instruction takes effect", () => {
  const shown = outputs(
    "long",
    `xor ecx, ecx
     again: mov byte [patched + 1], 0x55
     patched: mov al, 0x11
     out 0x80, al
     mov byte [patched + 1], 0x22
     inc ecx
     cmp ecx, 3
     jb again
     lea rdi, [copied]
     lea rsi, [source]
     mov ecx, 6
     rep movsb
     copied: times 6 db 0xf4
     out 0xf4, al
     source: mov al, 0x77
     out 0x80, al
     nop
     nop`,
  );
  assertEquals(shown, [0x55, 0x55, 0x55, 0x77]);
});

Deno.test("PAE paging outside long mode: NX, and a CR3 whose directory pointers are malformed is #GP", () => {
  const shown = outputs(
    "protected",
    `lgdt [gdtp]
     lidt [idtp]
     mov dword [0x20000], 0x21001
     mov dword [0x21000], 0x87
     mov dword [0x21008], 0x83
     mov dword [0x2100c], 0x80000000   ; NX
     mov dword [0x22000], 0x21003      ; a reserved bit
     mov ecx, 0xc0000080
     rdmsr
     or eax, 0x800
     wrmsr
     mov eax, cr4
     or eax, 0x20
     mov cr4, eax
     mov eax, 0x20000
     mov cr3, eax
     mov eax, cr0
     or eax, 0x80000000
     mov cr0, eax
     mov eax, [0x300000]
     mov eax, 0x300000
     mov edx, next
     jmp eax
     next: mov eax, 0x22000
     mov cr3, eax
     pf: mov eax, cr2
     out 0x80, eax
     pop eax
     out 0x80, eax
     add esp, 12
     jmp edx
     gp: pop eax
     mov eax, cr3
     out 0x80, eax
     out 0xf4, al
     ${gdt([segment(CODE0, FLAT32), segment(DATA0, FLAT32)])}
     ${idt(16, { 14: gate(INTERRUPT32, 8, "pf"), 13: gate(INTERRUPT32, 8, "gp") })}`,
  );
  assertEquals(shown, [0x300000, 0x11, 0x20000]);
});

Deno.test("an interrupt waits out the shadow of STI and of a load of SS", () => {
  for (const shadow of ["sti", "mov ss, cx"]) {
    const machine = guestMachine(
      "protected",
      `lgdt [gdtp]
       lidt [idtp]
       mov cx, ss
       ${shadow === "sti" ? "" : "sti\nnop"}
       out 0x10, al
       ${shadow}
       a: nop
       b: nop
       hlt
       handler: pop eax
       out 0x80, eax
       out 0xf4, al
       ${gdt([segment(CODE0, FLAT32), segment(DATA0, FLAT32)])}
       ${idt(0x41, { 0x40: gate(INTERRUPT32, 8, "handler") })}`,
    );
    const { cpu } = machine;
    let asked = 0;
    cpu.bus.acceptInterrupt = () => {
      if (machine.out.length === 0) return -1;
      // With IF set it is asked behind the OUT; the interrupt comes while SS is loaded.
      return asked++ >= (shadow === "sti" ? 0 : 1) ? 0x40 : -1;
    };
    cpu.s32[CpuState.at.attention >> 2] = ATTENTION_INTERRUPT;
    machine.run();
    assertEquals(machine.out[1], Number(machine.labels.get("b")), shadow);
  }
});

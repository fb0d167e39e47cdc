import { assertEquals } from "@std/assert";
import { type GuestMachine, guestMachine } from "./guest_machine.ts";
import { CODE0, DATA0, FLAT32, gate, gate64, gdt, idt, INTERRUPT32, LONG, segment } from "./tables.ts";

/** Shows DR6 and the saved EIP, clears DR6, and goes on. */
const HANDLER = `db1: push eax
  mov eax, dr6
  out 0x80, eax
  mov eax, [esp+4]
  out 0x80, eax
  xor eax, eax
  mov dr6, eax
  pop eax
  iretd`;

/** Sets TF. */
const TRACE = "pushf\nor dword [esp], 0x100\npopf";
/** Clears TF. */
const UNTRACE = "pushf\nand dword [esp], ~0x100\npopf";

const BS = 0xffff4ff0;

/** Protected mode with a handler of #DB. */
function ran(body: string, more = ""): GuestMachine {
  const machine = guestMachine(
    "protected",
    `lgdt [gdtp]
     lidt [idtp]
     ${body}
     out 0xf4, al
     ${HANDLER}
     empty: iretd
     ${more}
     ${gdt([segment(CODE0, FLAT32), segment(DATA0, FLAT32)])}
     ${
      idt(0x40, {
        1: gate(INTERRUPT32, 8, "db1"),
        3: gate(INTERRUPT32, 8, "empty"),
        0x30: gate(INTERRUPT32, 8, "empty"),
      })
    }`,
  );
  machine.run();
  return machine;
}

/** The pairs of DR6 and label that a program is expected to show. */
function hits(machine: GuestMachine, expected: readonly (readonly [dr6: number, label: string])[]): void {
  const wanted = expected.flatMap(([dr6, label]) => [dr6, Number(machine.labels.get(label))]);
  assertEquals(machine.out.slice(0, wanted.length), wanted);
  assertEquals(machine.out.length, wanted.length + 1);
}

Deno.test("single step: a trap follows each instruction that began with TF set", () => {
  const machine = ran(`${TRACE}\na: nop\nb: nop\nc: ${UNTRACE}\nd: nop`);
  assertEquals(machine.out.filter((_, n) => n % 2 === 0 && n < 10), [BS, BS, BS, BS, BS]);
  assertEquals(machine.out[1], Number(machine.labels.get("b")));
  assertEquals(machine.out[3], Number(machine.labels.get("c")));
  assertEquals(machine.out[9], Number(machine.labels.get("d")), "the POPF that clears TF is still traced");
});

Deno.test("single step: no trap between a load of SS and the instruction behind it", () => {
  const machine = ran(`mov cx, ss\n${TRACE}\na: mov ss, cx\nb: nop\nc: ${UNTRACE}`);
  assertEquals(machine.out[1], Number(machine.labels.get("c")));
});

Deno.test("single step: INT is not traced, its handler runs without TF", () => {
  const machine = ran(`${TRACE}\na: int 0x30\nb: nop\nc: ${UNTRACE}`);
  assertEquals(machine.out[1], Number(machine.labels.get("c")), "IRET sets TF again, so the next trap follows the NOP");
});

Deno.test("an instruction breakpoint is a fault before the instruction, and RF lets it pass", () => {
  const machine = guestMachine(
    "protected",
    `lgdt [gdtp]
     lidt [idtp]
     mov eax, a
     mov dr1, eax
     mov eax, 4
     mov dr7, eax
     xor ebx, ebx
     a: inc ebx
     b: mov eax, ebx
     out 0xf4, eax
     db1: mov eax, dr6
     out 0x80, eax
     mov eax, [esp]
     out 0x80, eax
     mov eax, [esp+8]
     out 0x80, eax
     or dword [esp+8], 0x10000
     iretd
     ${gdt([segment(CODE0, FLAT32), segment(DATA0, FLAT32)])}
     ${idt(4, { 1: gate(INTERRUPT32, 8, "db1") })}`,
  );
  machine.run();
  assertEquals(machine.out[0], 0xffff0ff2);
  assertEquals(machine.out[1], Number(machine.labels.get("a")));
  assertEquals(machine.out[2] & 0x10000, 0, "the processor does not set RF for this fault");
  assertEquals(machine.out[3], 1);
});

Deno.test("a data breakpoint on writes is a trap behind the write; reads do not hit it", () => {
  const machine = ran(
    `mov eax, 0x200004
     mov dr0, eax
     mov eax, 0x000d0001      ; write, four bytes, local
     mov dr7, eax
     mov eax, [0x200004]
     mov byte [0x200003], 1
     a: mov byte [0x200007], 1
     b: mov [0x200002], eax
     c: add dword [0x200004], 5
     d: mov byte [0x200008], 1
     xor eax, eax
     mov dr7, eax`,
  );
  hits(machine, [[0xffff0ff1, "b"], [0xffff0ff1, "c"], [0xffff0ff1, "d"]]);
});

Deno.test("a data breakpoint on accesses is hit by reads too, and a string move by its own element", () => {
  const machine = ran(
    `mov eax, 0x200008
     mov dr3, eax
     mov eax, 0xf0000080      ; read or write, four bytes, global
     mov dr7, eax
     mov ebx, [0x200008]
     a: mov esi, 0x200000
     mov edi, 0x300000
     mov ecx, 2
     rep movsd
     b: movsd
     c: xor eax, eax
     mov dr7, eax`,
  );
  hits(machine, [[0xffff0ff8, "a"], [0xffff0ff8, "c"]]);
});

Deno.test("a port breakpoint needs CR4.DE", () => {
  const body = `mov eax, 0x61
     mov dr2, eax
     mov eax, 0x02000010      ; port, one byte
     mov dr7, eax
     in al, 0x60
     in ax, 0x60
     a: mov ebx, 1
     xor eax, eax
     mov dr7, eax`;
  hits(ran(`mov eax, cr4\nor eax, 8\nmov cr4, eax\n${body}`), [[0xffff0ff4, "a"]]);
  hits(ran(body), []);
});

Deno.test("general detect: MOV of a debug register faults while DR7.GD is set, and the handler finds it clear", () => {
  const machine = ran(
    `mov eax, 0x2000
     mov dr7, eax
     a: mov ebx, dr0
     b: mov eax, dr7
     out 0x80, eax`,
  );
  assertEquals(machine.out.slice(0, 3), [0xffff2ff0, Number(machine.labels.get("a")), 0x400]);
});

Deno.test("DR4 and DR5 are DR6 and DR7, and undefined with CR4.DE", () => {
  const machine = guestMachine(
    "protected",
    `lgdt [gdtp]
     lidt [idtp]
     mov eax, 0x455
     mov dr7, eax
     db 0x0f, 0x21, 0xe8      ; mov eax, dr5
     out 0x80, eax
     mov eax, cr4
     or eax, 8
     mov cr4, eax
     a: db 0x0f, 0x21, 0xe0   ; mov eax, dr4
     ud: pop eax
     out 0x80, eax
     out 0xf4, al
     ${gdt([segment(CODE0, FLAT32), segment(DATA0, FLAT32)])}
     ${idt(8, { 6: gate(INTERRUPT32, 8, "ud") })}`,
  );
  machine.run();
  assertEquals(machine.out.slice(0, 2), [0x455, Number(machine.labels.get("a"))]);
});

Deno.test("INT1 is a trap that leaves DR6 alone", () => {
  hits(ran("int1\na: nop"), [[0xffff0ff0, "a"]]);
});

Deno.test("long mode: breakpoint addresses have 64 bits", () => {
  const machine = guestMachine(
    "long",
    `lgdt [gdtp]
     lidt [idtp]
     mov rax, 0x180200000
     mov dr0, rax
     mov rbx, 0x80200000
     mov eax, 0x000f0001
     mov dr7, rax
     cmp byte [rbx], 0
     mov dword [0x200000], 1
     xor eax, eax
     mov dr7, rax
     mov al, 1
     out 0x80, al
     out 0xf4, al
     db1: hlt
     ${gdt([segment(CODE0, LONG), segment(DATA0, FLAT32)], "dq")}
     ${idt(4, { 1: gate64(INTERRUPT32, 8, "db1") }, 16)}`,
  );
  machine.run();
  assertEquals(machine.out[0], 1);
});

import { assertEquals } from "@std/assert";
import { type GuestMachine, guestMachine } from "./guest_machine.ts";
import {
  BYTES16,
  BYTES32,
  CALL16,
  CALL32,
  CODE0,
  CODE3,
  DATA0,
  DATA3,
  DPL3,
  FLAT32,
  gate,
  gate64,
  gdt,
  idt,
  INTERRUPT32,
  LONG,
  segment,
  TASK_GATE,
  TSS32,
  tss32,
  TSS32_LIMIT,
} from "./tables.ts";

const CONFORMING0 = CODE0 | 4;
const EXPAND_DOWN0 = DATA0 | 4;
const READ_ONLY0 = DATA0 & ~2;
const NOT_PRESENT = 0x80;

/** Selectors of the table below. */
const USER_CODE = 0x1b;
const USER_DATA = 0x23;
const CALL_GATE = 0x33;
const CALL_GATE_16 = 0x3b;
const SMALL_CODE = 0x40;
const CONFORMING = 0x48;
const EXPAND_DOWN = 0x50;
const READ_ONLY = 0x58;
const ABSENT = 0x60;
const OTHER_TASK = 0x68;
const TASK = 0x70;

/** Protected mode at level 0 with every kind of descriptor, and a handler `fault` that shows error code and EIP. */
function program(body: string, more = ""): string {
  const faults = Object.fromEntries([10, 11, 12, 13].map((vector) => [vector, gate(INTERRUPT32, 8, `fault${vector}`)]));
  return `lgdt [gdtp]
    lidt [idtp]
    jmp 8:start
    start: mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x80000
    mov ax, 0x28
    ltr ax
    ${body}
    out 0xf4, al
    ${
    [10, 11, 12, 13].map((vector) =>
      `fault${vector}: mov al, ${vector}\nout 0x80, al\npop eax\nout 0x80, eax\npop eax\nout 0x80, eax\nout 0xf4, al`
    ).join("\n")
  }
    ${more}
    ${["inner", "small", "tss2"].filter((name) => !more.includes(`${name}:`)).map((name) => `${name} equ 0`).join("\n")}
    ${
    gdt([
      segment(CODE0, FLAT32),
      segment(DATA0, FLAT32),
      segment(CODE3, FLAT32),
      segment(DATA3, FLAT32),
      segment(TSS32, 0, "tss", TSS32_LIMIT),
      gate(CALL32 | DPL3, 8, "inner", 2),
      gate(CALL16 | DPL3, 8, "0x7000", 1),
      segment(CODE0, BYTES16, "small", 0xffff),
      segment(CONFORMING0, FLAT32),
      segment(EXPAND_DOWN0, BYTES32, 0, 0xfff),
      segment(READ_ONLY0, FLAT32),
      segment(DATA0 & ~NOT_PRESENT, FLAT32),
      segment(TSS32, 0, "tss2", TSS32_LIMIT),
      gate(TASK_GATE | DPL3, 0x68),
    ])
  }
    ${idt(0x20, faults)}
    ${tss32("tss", 0x60000)}`;
}

/** Goes to level 3 at label \`user\`. */
const TO_USER = `push ${USER_DATA}\npush 0x70000\npush 0x3002\npush ${USER_CODE}\npush user\niretd\nuser:`;

/** Runs a program and returns the machine. */
function ran(text: string): GuestMachine {
  const machine = guestMachine("protected", text);
  machine.run();
  return machine;
}

/** Address of a label. */
function label(machine: GuestMachine, name: string): number {
  return Number(machine.labels.get(name));
}

Deno.test("far CALL pushes CS and EIP, and RETF with a count takes them and the parameters back", () => {
  const machine = ran(program(
    `push 0x1111
     call 8:target
     after: mov eax, esp
     out 0x80, eax
     jmp 8:done
     target: mov eax, [esp]
     out 0x80, eax
     mov eax, [esp+4]
     out 0x80, eax
     retf 4
     done: nop`,
  ));
  assertEquals(machine.out.slice(0, 3), [label(machine, "after"), 8, 0x80000]);
});

Deno.test("a far JMP to 16-bit code changes the operand size, IP stays within the limit", () => {
  const machine = ran(program(
    `jmp ${SMALL_CODE}:0`,
    `bits 16
     small: mov ax, cs
     out 0x80, ax
     mov eax, 0x12345678
     out 0x80, eax
     jmp dword 8:back
     bits 32
     back: out 0xf4, al`,
  ));
  assertEquals(machine.out.slice(0, 2), [SMALL_CODE, 0x12345678]);
});

Deno.test("a CALL through a call gate copies parameters to the inner stack; RETF drops them on both", () => {
  const machine = ran(program(
    `${TO_USER}
     push 0xaaaa
     push 0xbbbb
     call ${CALL_GATE}:0
     after: mov eax, esp
     out 0x80, eax
     mov eax, cs
     out 0x80, eax`,
    `inner: mov ebx, esp
     ${Array.from({ length: 6 }, (_, n) => `mov eax, [esp+${4 * n}]\nout 0x80, eax`).join("\n")}
     mov eax, cs
     out 0x80, eax
     retf 8`,
  ));
  const after = label(machine, "after");
  assertEquals(machine.out.slice(0, 7), [after, USER_CODE, 0xbbbb, 0xaaaa, 0x70000 - 8, USER_DATA, 8]);
  assertEquals(machine.exits[0].registers.gpr[3], 0x60000n - 24n);
  assertEquals(machine.out.slice(7, 9), [0x70000, USER_CODE]);
});

Deno.test("a 16-bit call gate pushes words and takes a 16-bit offset", () => {
  const machine = guestMachine(
    "protected",
    program(`${TO_USER}\npush word 0x7777\ncall ${CALL_GATE_16}:0\nafter: nop`),
  );
  // mov eax, esp; out 0x80, eax; pop ax (IP), out; pop ax (CS), out; pop ax (parameter), out; out 0xf4, al
  machine.cpu.m8.set([0x89, 0xe0, 0xe7, 0x80, 0x66, 0x58, 0x66, 0xe7, 0x80, 0x66, 0x58, 0x66, 0xe7, 0x80], 0x7000);
  machine.cpu.m8.set([0x66, 0x58, 0x66, 0xe7, 0x80, 0xe6, 0xf4], 0x700e);
  machine.run();
  assertEquals(machine.out.slice(0, 4), [0x60000 - 10, label(machine, "after") & 0xffff, USER_CODE, 0x7777]);
});

Deno.test("a JMP through a call gate does not change the level", () => {
  const machine = ran(program(`${TO_USER}\njmp ${CALL_GATE}:0`, "inner: hlt"));
  assertEquals(machine.out.slice(0, 2), [13, 8], "the gate's code segment is more privileged");
});

Deno.test("conforming code runs at the caller's level", () => {
  const machine = ran(program(
    `${TO_USER}
     call ${CONFORMING}:target
     out 0xf4, al
     target: mov eax, cs
     out 0x80, eax
     retf`,
  ));
  assertEquals(machine.out[0], CONFORMING | 3);
});

Deno.test("a far JMP to a data segment, an absent one, beyond the table or through null is #GP or #NP with the selector", () => {
  const cases: [target: string, vector: number, error: number][] = [
    ["0x10", 13, 0x10],
    ["0x800", 13, 0x800],
    ["0", 13, 0],
    [`${USER_CODE & ~3}`, 13, USER_CODE & ~3],
    ["0x808 + 4", 13, 0x80c],
  ];
  for (const [target, vector, error] of cases) {
    const machine = ran(program(`here: jmp ${target}:start`));
    assertEquals(machine.out.slice(0, 3), [vector, error, label(machine, "here")], target);
  }
});

Deno.test("loads of DS: read-only data and null are good, absent is #NP, execute-only and inner levels are #GP", () => {
  const load = (selector: number, user = false) =>
    ran(program(`${user ? TO_USER : ""}\nmov eax, ${selector}\nmov es, ax`)).out;
  assertEquals(load(READ_ONLY).length, 1);
  assertEquals(load(0).length, 1);
  assertEquals(load(3, true).length, 1, "null has no level");
  assertEquals(load(ABSENT).slice(0, 2), [11, ABSENT]);
  assertEquals(load(0x28).slice(0, 2), [13, 0x28], "a TSS is no segment");
  assertEquals(load(0x10, true).slice(0, 2), [13, 0x10]);
  assertEquals(load(CONFORMING, true).length, 1, "readable conforming code of an inner level");
  assertEquals(load(USER_DATA, true).length, 1);
});

Deno.test("loads of SS: null, read-only, other levels are #GP, absent is #SS", () => {
  const load = (selector: number) => ran(program(`mov eax, ${selector}\nmov ss, ax`)).out;
  assertEquals(load(0).slice(0, 2), [13, 0]);
  assertEquals(load(READ_ONLY).slice(0, 2), [13, READ_ONLY]);
  assertEquals(load(USER_DATA).slice(0, 2), [13, USER_DATA & ~3]);
  assertEquals(load(ABSENT).slice(0, 2), [12, ABSENT]);
  assertEquals(load(EXPAND_DOWN).length, 1);
});

Deno.test("a load sets the descriptor's accessed bit in memory", () => {
  const machine = guestMachine("protected", program(`mov ax, ${READ_ONLY}\nmov es, ax`));
  const access = label(machine, "gdt") + READ_ONLY + 5;
  assertEquals(machine.cpu.m8[access], READ_ONLY0);
  machine.run();
  assertEquals(machine.cpu.m8[access], READ_ONLY0 | 1);
});

Deno.test("an expand-down segment reaches from its limit to the top", () => {
  const touch = (offset: number) =>
    ran(program(`mov ax, ${EXPAND_DOWN}\nmov es, ax\nhere: mov al, [es:${offset}]\nmov al, 1\nout 0x80, al`)).out.slice(
      0,
      2,
    );
  assertEquals(touch(0x1000)[0], 1);
  assertEquals(touch(0xfff), [13, 0]);
  assertEquals(touch(0)[0], 13);
});

Deno.test("a write to read-only data and an access through null are #GP(0)", () => {
  for (const selector of [READ_ONLY, 0]) {
    const machine = ran(program(`mov ax, ${selector}\nmov es, ax\nhere: mov [es:0x1000], al`));
    assertEquals(machine.out.slice(0, 3), [13, 0, label(machine, "here")]);
  }
});

Deno.test("RETF to an outer level makes data segments of inner levels null and keeps the others", () => {
  const machine = ran(program(
    `mov ax, ${USER_DATA}
     mov fs, ax
     mov ax, 0x10
     mov es, ax
     push ${USER_DATA}
     push 0x70000
     push ${USER_CODE}
     push user
     retf
     user: hlt`,
  ));
  const { seg } = machine.exits[0].registers;
  assertEquals(machine.out[0], 13);
  assertEquals(seg.es, [0, 0, 0, 0n]);
  assertEquals(seg.ds[0], 0);
  assertEquals(seg.fs[0], USER_DATA);
});

Deno.test("RETF and IRET never return to an inner level", () => {
  for (const [frame, instruction] of [["push 8\npush start", "retf"], ["pushf\npush 8\npush start", "iretd"]]) {
    const machine = ran(program(`${TO_USER}\n${frame}\nhere: ${instruction}`));
    assertEquals(machine.out.slice(0, 3), [13, 8, label(machine, "here")]);
  }
});

Deno.test("IRET at CPL 3 changes IF only as IOPL allows, and never IOPL", () => {
  const text = program(
    `${TO_USER.replace("0x3002", "0x0202")}
     push 0x3002
     push ${USER_CODE}
     push next
     iretd
     next: pushf
     pop ebx
     int 0x1f`,
  );
  const machine = ran(text);
  assertEquals(machine.out.slice(0, 2), [13, 0x1f * 8 + 2]);
  assertEquals(machine.exits[0].registers.gpr[3] & 0x3200n, 0x0200n);
});

Deno.test("a far CALL to a TSS saves the task, links it and marks both busy; IRET goes back", () => {
  const text = program(
    `mov ebx, 0x1234
     call ${OTHER_TASK}:0
     after: mov eax, ebx
     out 0x80, eax
     mov eax, cr0
     out 0x80, eax`,
    `task: mov eax, ecx
     out 0x80, eax
     pushf
     pop eax
     out 0x80, eax
     iretd
     again: hlt
     align 8
     tss2: dd 0
     times 6 dd 0
     dd 0, task, 2         ; CR3, EIP, EFLAGS
     dd 0, 0xcccc, 0, 0, 0x50000, 0, 0, 0
     dd 0x10, 8, 0x10, 0x10, 0, 0, 0
     dw 0, 0x68
     times 0x20 db 0
     db 0xff`,
  );
  const machine = ran(text);
  const [ecx, flags, ebx, cr0] = machine.out;
  assertEquals([ecx, ebx], [0xcccc, 0x1234]);
  assertEquals(flags & 0x4000, 0x4000, "NT");
  assertEquals(cr0 & 8, 8, "TS");
  const { dv, m8 } = machine.cpu;
  const gdtAt = label(machine, "gdt");
  const tss2 = label(machine, "tss2");
  assertEquals(m8[gdtAt + 0x28 + 5] & 0xf, 0xb, "the first task is running again");
  assertEquals(m8[gdtAt + OTHER_TASK + 5] & 0xf, 0x9, "the second one is available again");
  assertEquals(dv.getUint16(tss2, true), 0x28, "link");
  assertEquals(dv.getUint32(tss2 + 0x20, true), label(machine, "again"), "saved EIP is behind the IRET");
  assertEquals(dv.getUint32(tss2 + 0x24, true) & 0x4000, 0, "NT is clear in the image that IRET leaves");
});

Deno.test("a far JMP through a task gate leaves no link and makes the old task available", () => {
  const machine = ran(program(
    `jmp ${TASK}:0`,
    `task: str eax
     out 0x80, eax
     pushf
     pop eax
     out 0x80, eax
     out 0xf4, al
     align 8
     tss2: dd 0x1111
     times 6 dd 0
     dd 0, task, 2
     times 4 dd 0
     dd 0x50000, 0, 0, 0
     dd 0x10, 8, 0x10, 0x10, 0, 0, 0
     dw 0, 0x68
     times 0x20 db 0
     db 0xff`,
  ));
  assertEquals(machine.out[0], OTHER_TASK);
  assertEquals(machine.out[1] & 0x4000, 0);
  assertEquals(machine.cpu.m8[label(machine, "gdt") + 0x28 + 5] & 0xf, 0x9);
  assertEquals(machine.cpu.dv.getUint32(label(machine, "tss2"), true), 0x1111);
});

Deno.test("a busy TSS is no target of CALL, and no operand of LTR", () => {
  assertEquals(ran(program("call 0x28:0")).out.slice(0, 2), [13, 0x28]);
  assertEquals(ran(program("mov ax, 0x28\nltr ax")).out.slice(0, 2), [13, 0x28]);
});

Deno.test("a fault of the new task's segments is raised in the new task", () => {
  const machine = ran(program(
    `jmp ${OTHER_TASK}:0`,
    `task: hlt
     align 8
     tss2: times 7 dd 0
     dd 0, task, 2
     times 4 dd 0
     dd 0x50000, 0, 0, 0
     dd ${USER_CODE}, 8, 0x10, 0x28, 0, 0, 0   ; DS names a TSS
     dw 0, 0x68
     times 0x20 db 0
     db 0xff`,
  ));
  assertEquals(machine.out.slice(0, 3), [10, 0x28, label(machine, "task")]);
});

Deno.test("LAR, LSL, VERR and VERW tell what the program may see", () => {
  const machine = ran(program(
    `${TO_USER}
     mov ecx, ${USER_DATA}
     lar eax, ecx
     setz bl
     out 0x80, eax
     lsl eax, ecx
     out 0x80, eax
     mov ecx, 0x10
     lar eax, ecx
     setz bh
     verr cx
     setz dl
     mov ecx, ${USER_CODE}
     verr cx
     setz dh
     movzx eax, bx
     out 0x80, eax
     verw cx
     setz dl
     movzx eax, dx
     out 0x80, eax`,
  ));
  assertEquals(machine.out.slice(0, 4), [0x00cff300, 0xffffffff, 0x0001, 0x0100]);
});

Deno.test("SYSENTER and SYSEXIT: flat segments from SYSENTER_CS, IF clear, back through EDX and ECX", () => {
  const machine = ran(program(
    `mov ecx, 0x174
     mov eax, 8
     xor edx, edx
     wrmsr
     inc ecx
     mov eax, 0x5000
     wrmsr
     inc ecx
     mov eax, enter
     wrmsr
     ${TO_USER}
     sysenter
     enter: mov eax, esp
     out 0x80, eax
     mov eax, cs
     out 0x80, eax
     mov edx, outside
     mov ecx, 0x66660
     sysexit
     outside: mov eax, esp
     out 0x80, eax
     mov eax, ss
     out 0x80, eax`,
  ));
  assertEquals(machine.out.slice(0, 4), [0x5000, 8, 0x66660, USER_DATA]);
  assertEquals(machine.exits[0].registers.rflags & 0x200n, 0n);
});

/** Long mode with a 64-bit call gate (0x38) and compatibility code. */
function longProgram(body: string, more = ""): string {
  return `lgdt [gdtp]
    lidt [idtp]
    mov ax, 0x28
    ltr ax
    ${body}
    out 0xf4, al
    fault: pop rax
    out 0x80, eax
    pop rax
    out 0x80, eax
    out 0xf4, al
    ud: mov al, 6
    out 0x80, al
    out 0xf4, al
    ${more}
    ${
    gdt([
      segment(CODE0, LONG),
      segment(DATA0, FLAT32),
      segment(DATA3, FLAT32),
      segment(CODE3, LONG),
      segment(TSS32, 0, "tss", TSS32_LIMIT),
      "dq 0",
      gate64(CALL32 | DPL3, 8, "inner"),
      segment(CODE0, FLAT32),
    ], "dq")
  }
    ${idt(0x20, { 13: gate64(INTERRUPT32, 8, "fault"), 6: gate64(INTERRUPT32, 8, "ud") }, 16)}
    align 8
    tss: dd 0
    dq 0x60000, 0, 0, 0
    times 8 dq 0
    dw 0, 0x68
    times 0x20 db 0
    db 0xff`;
}

const TO_USER64 = "push 0x1b\npush 0x70000\npush 0x3202\npush 0x23\npush user\niretq\nuser:";

Deno.test("long mode: a call gate goes to RSP0 with SS, RSP, CS and RIP of eight bytes", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      `${TO_USER64}
       call far [pointer]
       after: mov eax, esp
       out 0x80, eax`,
      `pointer: dd 0
       dw 0x3b
       inner: mov rbx, rsp
       ${Array.from({ length: 4 }, (_, n) => `mov eax, [rsp+${8 * n}]\nout 0x80, eax`).join("\n")}
       retfq`,
    ),
  );
  machine.run();
  assertEquals(machine.out.slice(0, 5), [label(machine, "after"), 0x23, 0x70000, 0x1b, 0x70000]);
  const inside = machine.exits[0].registers;
  assertEquals(inside.gpr[3], 0x60000n - 32n);
  assertEquals(inside.seg.ss, [0, 0, 0, 0n]);
});

Deno.test("long mode: a far JMP enters compatibility code, whose far JMP comes back", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      `jmp far [pointer]`,
      `pointer: dd compat
       dw 0x48
       bits 32
       compat: mov eax, 0xffffffff
       inc eax
       dec eax
       out 0x80, eax
       jmp 8:back
       bits 64
       back: mov eax, cs
       out 0x80, eax
       inner: out 0xf4, al`,
    ),
  );
  machine.run();
  assertEquals(machine.out.slice(0, 2), [0xffffffff, 8]);
});

Deno.test("long mode: SYSENTER is undefined, as AMD processors have it", () => {
  const machine = guestMachine("long", longProgram("sysenter", "inner: nop"));
  machine.run();
  assertEquals(machine.out[0], 6);
});

Deno.test("long mode: IRETQ to level 3 with a null SS is #GP(0)", () => {
  const machine = guestMachine(
    "long",
    longProgram("push 0\npush 0x70000\npush 2\npush 0x23\npush start\nhere: iretq\nstart: nop", "inner: nop"),
  );
  machine.run();
  assertEquals(machine.out.slice(0, 2), [0, label(machine, "here")]);
});

Deno.test("long mode: IRETQ refuses a data segment as code and code as stack (APM volume 3, IRET: iret_chk, ss_chk)", () => {
  for (const [cs, ss, error] of [[0x10, 0x10, 0x10], [8, 8, 8]]) {
    const frame = `push ${ss}\npush 0x70000\npush 2\npush ${cs}\npush start\nhere: iretq\nstart: nop`;
    const machine = guestMachine("long", longProgram(frame, "inner: nop"));
    machine.run();
    assertEquals(machine.out.slice(0, 2), [error, label(machine, "here")]);
  }
});

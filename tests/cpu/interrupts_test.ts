import { assertEquals } from "@std/assert";
import { VECTOR_DF } from "../../lib/cpu/faults.ts";
import { CpuState, EVENT_TYPE_SHIFT, EVENT_VALID } from "../../lib/cpu/state.ts";
import { guestMachine, outputs } from "./guest_machine.ts";
import {
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
  INTERRUPT16,
  INTERRUPT32,
  LONG,
  segment,
  TRAP32,
  TSS16,
  TSS32,
  tss32,
  TSS32_LIMIT,
} from "./tables.ts";

const IF = 0x200;
const TF = 0x100;
const RF = 0x10000;
const VM = 0x20000;
const IOPL3 = 0x3000;

Deno.test("real mode: INT pushes FLAGS, CS and IP of the next instruction, clears IF and TF, and IRET undoes it", () => {
  const machine = guestMachine(
    "real",
    `mov word [0x21*4], handler
     mov word [0x21*4+2], 0
     sti
     int 0x21
     after: pushf
     pop ax
     out 0x80, ax
     cli
     hlt
     handler: pushf
     pop ax
     out 0x80, ax
     mov bp, sp
     mov ax, [bp]
     out 0x80, ax
     mov ax, [bp+2]
     out 0x80, ax
     mov ax, [bp+4]
     out 0x80, ax
     iret`,
  );
  machine.run();
  const [inside, ip, cs, saved, after] = machine.out;
  assertEquals(inside & (IF | TF), 0);
  assertEquals(ip, Number(machine.labels.get("after")));
  assertEquals(cs, 0);
  assertEquals(saved & IF, IF);
  assertEquals(after & IF, IF);
});

Deno.test("real mode: a divide error saves the IP of the DIV", () => {
  const machine = guestMachine(
    "real",
    `mov word [0], handler
     mov word [2], 0
     xor cl, cl
     here: div cl
     handler: pop ax
     out 0x80, ax
     hlt`,
  );
  machine.run();
  assertEquals(machine.out, [Number(machine.labels.get("here"))]);
});

Deno.test("real mode: a vector beyond the IDT's limit is a double fault, then a shutdown", () => {
  const machine = guestMachine(
    "real",
    `lidt [pointer]
     int 3
     hlt
     pointer: dw 0
     dd 0`,
  );
  assertEquals(machine.run(), "shutdown");
});

/** Protected mode with user code: `user` runs at CPL 3, gates by vector, further text in `more`. */
function userProgram(
  user: string,
  gates: Readonly<Record<number, string>>,
  more: string,
  task = segment(TSS32, 0, "tss", TSS32_LIMIT),
): string {
  return `lgdt [gdtp]
    lidt [idtp]
    jmp 8:start
    start: mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, 0x80000
    mov ax, 0x28
    ltr ax
    push 0x23
    push 0x70000
    push 0x202
    push 0x1b
    push user
    iretd
    user:
    ${user}
    ${more}
    ${
    gdt([
      segment(CODE0, FLAT32),
      segment(DATA0, FLAT32),
      segment(CODE3, FLAT32),
      segment(DATA3, FLAT32),
      task,
    ])
  }
    ${idt(0x40, gates)}
    ${tss32("tss", 0x60000)}`;
}

/** Shows \`count\` values of \`size\` bits from the stack, then ends the program. */
function showStack(count: number, bits: 16 | 32 = 32): string {
  const register = bits === 16 ? "ax" : "eax";
  const lines = Array.from(
    { length: count },
    (_, n) => `mov ${register}, [esp+${n * bits / 8}]\nout 0x80, ${register}`,
  );
  return `${lines.join("\n")}\nout 0xf4, al`;
}

Deno.test("protected mode: a gate to level 0 takes the TSS's stack and pushes SS, ESP, EFLAGS, CS, EIP", () => {
  const machine = guestMachine(
    "protected",
    userProgram(
      "int 0x30\nafter: nop",
      { 0x30: gate(INTERRUPT32 | DPL3, 8, "handler") },
      `handler: mov ebx, esp\n${showStack(5)}`,
    ),
  );
  assertEquals(machine.run(), "port");
  const [eip, cs, eflags, esp, ss] = machine.out;
  assertEquals(eip, Number(machine.labels.get("after")));
  assertEquals([cs, ss, esp], [0x1b, 0x23, 0x70000]);
  assertEquals(eflags & IF, IF);
  const last = machine.exits[machine.exits.length - 1].registers;
  assertEquals(last.gpr[3], 0x60000n - 20n);
  assertEquals(last.rflags & BigInt(IF), 0n);
  assertEquals(last.seg.ss.slice(0, 2), [0x10, 0xc93]);
  assertEquals(last.seg.cs[0], 8);
});

Deno.test("protected mode: a trap gate leaves IF, an interrupt gate clears it", () => {
  for (const [kind, flag] of [[TRAP32, IF], [INTERRUPT32, 0]] as const) {
    const machine = guestMachine(
      "protected",
      userProgram("int 0x30", { 0x30: gate(kind | DPL3, 8, "handler") }, "handler: out 0xf4, al"),
    );
    machine.run();
    assertEquals(Number(machine.exits[0].registers.rflags) & IF, flag);
  }
});

Deno.test("protected mode: a 16-bit gate pushes words", () => {
  const machine = guestMachine(
    "protected",
    userProgram(
      "int 0x30\nafter: nop",
      { 0x30: gate(INTERRUPT16 | DPL3, 8, "0") },
      `times 64 db 0x90\n${showStack(5, 16)}`,
    ),
  );
  // The gate's offset has 16 bits: the handler lies at 0, where the test puts a jump.
  machine.cpu.m8.set([0xb8, 0, 0, 0, 0, 0xff, 0xe0], 0);
  machine.cpu.dv.setUint32(1, Number(machine.labels.get("after")) + 1, true);
  machine.run();
  const [ip, cs, flags, sp, ss] = machine.out;
  assertEquals(ip, Number(machine.labels.get("after")) & 0xffff);
  assertEquals([cs, ss, sp], [0x1b, 0x23, 0]);
  assertEquals(flags & IF, IF);
});

Deno.test("protected mode: a 16-bit TSS gives SP and SS from its own places", () => {
  const tss16 = `align 8
    small: dw 0, 0x5000, 0x10
    times 0x30 db 0`;
  const machine = guestMachine(
    "protected",
    userProgram(
      "int 0x30",
      { 0x30: gate(INTERRUPT32 | DPL3, 8, "handler") },
      `handler: mov eax, esp\nout 0x80, eax\nout 0xf4, al\n${tss16}`,
      segment(TSS16, 0, "small", 0x2b),
    ),
  );
  machine.run();
  assertEquals(machine.out[0], 0x5000 - 20);
});

Deno.test("protected mode: INT through a gate of a higher DPL is #GP with the vector, at the INT", () => {
  const machine = guestMachine(
    "protected",
    userProgram(
      "here: int 0x32",
      { 13: gate(INTERRUPT32, 8, "gp"), 0x32: gate(INTERRUPT32, 8, "gp") },
      `gp: ${showStack(4)}`,
    ),
  );
  machine.run();
  const [error, eip, cs, eflags] = machine.out;
  assertEquals(error, 0x32 * 8 + 2);
  assertEquals(eip, Number(machine.labels.get("here")));
  assertEquals(cs, 0x1b);
  assertEquals(eflags & RF, RF, "a fault's saved flags have RF set");
});

Deno.test("protected mode: INT through a gate that is not present is #NP with the vector; beyond the limit #GP", () => {
  for (const [vector, handler] of [[0x32, 11], [0x50, 13]] as const) {
    const machine = guestMachine(
      "protected",
      userProgram(
        `int ${vector}`,
        { [handler]: gate(INTERRUPT32, 8, "handler"), 0x32: gate((INTERRUPT32 | DPL3) & 0x7f, 8, "handler") },
        `handler: ${showStack(1)}`,
      ),
    );
    machine.run();
    assertEquals(machine.out[0], vector * 8 + 2);
  }
});

Deno.test("protected mode: a contributory fault while a contributory fault is delivered is a double fault, error code 0", () => {
  const machine = guestMachine(
    "protected",
    userProgram("here: hlt", { [VECTOR_DF]: gate(INTERRUPT32, 8, "df") }, `df: ${showStack(3)}`),
  );
  machine.run();
  assertEquals(machine.out.slice(0, 3), [0, Number(machine.labels.get("here")), 0x1b]);
});

Deno.test("protected mode: a fault while a double fault is delivered shuts the processor down", () => {
  const machine = guestMachine("protected", userProgram("hlt", {}, ""));
  assertEquals(machine.run(), "shutdown");
});

Deno.test("protected mode: a fault after a benign exception is delivered in its place", () => {
  const machine = guestMachine(
    "protected",
    userProgram("ud2", { 6: gate(INTERRUPT32 & 0x7f, 8, "np"), 11: gate(INTERRUPT32, 8, "np") }, `np: ${showStack(1)}`),
  );
  machine.run();
  assertEquals(machine.out[0], 6 * 8 + 2 + 1, "the event came from outside the program");
});

Deno.test("protected mode: a handler's stack whose segment is wrong is #TS with its selector", () => {
  const text = userProgram("int 0x30", { 10: gate(INTERRUPT32, 8, "ts"), 0x30: gate(INTERRUPT32 | DPL3, 8, "ts") }, "");
  // Stack of level 0 with selector 23: its RPL and DPL are 3. #TS itself then has no stack either.
  const machine = guestMachine("protected", text.replace("dd 0, 393216, 16", "dd 0, 393216, 0x23") + "\nts: hlt");
  assertEquals(machine.run(), "shutdown");
});

/** A program that enters virtual-8086 code at `v86` with the given flags. */
function v86Program(flags: number, v86: string, gates: Readonly<Record<number, string>>, more: string): string {
  return `lgdt [gdtp]
    lidt [idtp]
    jmp 8:start
    start: mov ax, 0x10
    mov ss, ax
    mov esp, 0x80000
    mov ds, ax
    mov ax, 0x28
    ltr ax
    mov esi, code
    mov edi, 0x20000
    mov ecx, codeend - code
    rep movsb
    push 0x6666
    push 0x5555
    push 0x4444
    push 0x3333
    push 0x7000
    push 0x1000
    push ${flags}
    push 0x2000
    push 0
    iretd
    code: bits 16
    ${v86}
    codeend: bits 32
    ${more}
    ${
    gdt([
      segment(CODE0, FLAT32),
      segment(DATA0, FLAT32),
      segment(CODE3, FLAT32),
      segment(DATA3, FLAT32),
      segment(TSS32, 0, "tss", TSS32_LIMIT),
    ])
  }
    ${idt(0x40, gates)}
    ${tss32("tss", 0x60000)}`;
}

Deno.test("virtual-8086 mode: IRET enters it, and a gate leaves it with the data segments on the stack and null", () => {
  const machine = guestMachine(
    "protected",
    v86Program(
      VM | IOPL3 | IF | 2,
      `mov ax, 0x1234
       mov ds, ax
       int 0x30`,
      { 0x30: gate(INTERRUPT32 | DPL3, 8, "handler") },
      `handler: mov ax, ds\nmov bx, fs\n mov dx, 0x80\n${
        Array.from({ length: 9 }, (_, n) => `mov eax, [esp+${4 * n}]\nout dx, eax`).join("\n")
      }\nout 0xf4, al`,
    ),
  );
  machine.run();
  const [eip, cs, eflags, esp, ss, es, ds, fs, gs] = machine.out;
  assertEquals([eip, cs, esp, ss], [7, 0x2000, 0x1000, 0x7000]);
  assertEquals([es, ds, fs, gs], [0x3333, 0x1234, 0x5555, 0x6666]);
  assertEquals(eflags & (VM | IOPL3), VM | IOPL3);
  const inside = machine.exits[0].registers;
  assertEquals(inside.rflags & BigInt(VM), 0n);
  for (const name of ["es", "ds", "fs", "gs"] as const) assertEquals(inside.seg[name], [0, 0, 0, 0n]);
  assertEquals(inside.seg.ss[0], 0x10);
});

Deno.test("virtual-8086 mode: INT, IRET, CLI and PUSHF need IOPL 3", () => {
  for (const instruction of ["int 0x30", "iret", "cli", "pushf", "popf"]) {
    const machine = guestMachine(
      "protected",
      v86Program(
        VM | IF | 2,
        instruction,
        { 13: gate(INTERRUPT32, 8, "gp"), 0x30: gate(INTERRUPT32 | DPL3, 8, "gp") },
        `gp: ${showStack(3)}`,
      ),
    );
    machine.run();
    assertEquals(machine.out.slice(0, 3), [0, 0, 0x2000], instruction);
  }
});

Deno.test("virtual-8086 mode: segments are 64 KiB at 16 times the selector, privileged instructions fault", () => {
  const machine = guestMachine(
    "protected",
    v86Program(
      VM | IOPL3 | 2,
      `mov ax, 0x3000
       mov ds, ax
       mov word [0x10], 0x4321
       mov byte [0x1234], 0x77
       hlt`,
      { 13: gate(INTERRUPT32, 8, "gp") },
      `gp: ${showStack(2)}`,
    ),
  );
  machine.run();
  assertEquals(machine.out.slice(0, 2), [0, 16]);
  assertEquals(machine.cpu.dv.getUint16(0x30010, true), 0x4321);
});

/** Long mode with a table of interrupt gates; `body` runs at CPL 0 unless it goes elsewhere. */
function longProgram(body: string, gates: Readonly<Record<number, string>>, more: string): string {
  return `lgdt [gdtp]
    lidt [idtp]
    mov ax, 0x28
    ltr ax
    ${body}
    ${more}
    ${
    gdt([
      segment(CODE0, LONG),
      segment(DATA0, FLAT32),
      segment(DATA3, FLAT32),
      segment(CODE3, LONG),
      segment(TSS32, 0, "tss", TSS32_LIMIT),
      "dq 0",
    ], "dq")
  }
    ${idt(0x40, gates, 16)}
    align 8
    tss: dd 0
    dq 0x60000, 0, 0, 0
    dq 0x50008, 0x40000, 0, 0, 0, 0, 0, 0
    dw 0, 0x68
    times 0x20 db 0
    db 0xff`;
}

/** Shows \`count\` 64-bit values from the stack, low half then high half, and ends. */
function showStack64(count: number): string {
  return Array.from({ length: count }, (_, n) => `mov eax, [rsp+${8 * n}]\nout 0x80, eax`).join("\n") +
    "\nout 0xf4, al";
}

Deno.test("long mode: a frame always has SS and RSP, and starts at a multiple of 16", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      "mov rsp, 0x70005\nint 0x30\nafter: nop",
      { 0x30: gate64(INTERRUPT32, 8, "handler") },
      `handler: mov rbx, rsp\n${showStack64(5)}`,
    ),
  );
  machine.run();
  const [rip, cs, , rsp, ss] = machine.out;
  assertEquals([rip, cs, rsp, ss], [Number(machine.labels.get("after")), 8, 0x70005, 0x10]);
  const last = machine.exits[machine.exits.length - 1].registers;
  assertEquals(last.gpr[3], 0x70000n - 40n);
  assertEquals(last.seg.ss[0], 0x10, "SS stays when the level does");
});

Deno.test("long mode: an interrupt stack is used at the same level too", () => {
  const machine = guestMachine(
    "long",
    longProgram("ud2", { 6: gate64(INTERRUPT32, 8, "handler", 1) }, `handler: mov rbx, rsp\n${showStack64(4)}`),
  );
  machine.run();
  assertEquals(machine.out[3], 0x80000);
  assertEquals(machine.exits[0].registers.gpr[3], 0x50000n - 40n, "the pointer is rounded down");
});

Deno.test("long mode: from CPL 3 the frame is on RSP0 and SS becomes null with the new level", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      `push 0x1b
       push 0x7fff8
       push 0x202
       push 0x23
       push user
       iretq
       user: int3
       after: nop`,
      { 3: gate64(INTERRUPT32 | DPL3, 8, "handler") },
      `handler: mov rbx, rsp\n${showStack64(5)}`,
    ),
  );
  machine.run();
  const [rip, cs, flags, rsp, ss] = machine.out;
  assertEquals([rip, cs, rsp, ss], [Number(machine.labels.get("after")), 0x23, 0x7fff8, 0x1b]);
  assertEquals(flags & RF, 0, "a trap's saved flags have RF clear");
  const inside = machine.exits[0].registers;
  assertEquals(inside.gpr[3], 0x60000n - 40n);
  assertEquals(inside.seg.ss, [0, 0, 0, 0n]);
});

Deno.test("long mode: a page fault while a page fault is delivered is a double fault on its own stack", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      `mov rsp, 0x200000000   ; beyond what is mapped
       here: mov rax, [rsp]`,
      { 14: gate64(INTERRUPT32, 8, "pf"), 8: gate64(INTERRUPT32, 8, "df", 2) },
      `pf: hlt\ndf: mov rbx, cr2\n${showStack64(2)}`,
    ),
  );
  machine.run();
  assertEquals(machine.out.slice(0, 2), [0, Number(machine.labels.get("here"))]);
  assertEquals(machine.exits[0].registers.gpr[3], 0x1fffffff8n, "CR2 is that of the second fault");
});

Deno.test("long mode: a 32-bit code segment in a gate is #GP with its selector", () => {
  const text = longProgram(
    "int 0x30",
    { 0x30: gate64(INTERRUPT32, 0x10, "gp"), 13: gate64(INTERRUPT32, 8, "gp") },
    `gp: ${showStack64(1)}`,
  );
  assertEquals(outputs("long", text)[0], 0x10);
});

Deno.test("an event whose frame lies in device memory is delivered when the device has answered", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      "mov rsp, 0x80000000\nud2",
      { 6: gate64(INTERRUPT32, 8, "handler") },
      "handler: mov rbx, rsp\nout 0xf4, al",
    ),
  );
  assertEquals(machine.run(), "port");
  const writes = machine.exits.filter((exit) => exit.type === "mmio-write").map((exit) => exit.gpa);
  assertEquals(writes, [0x7ffffff8n, 0x7ffffff0n, 0x7fffffe8n, 0x7fffffe0n, 0x7fffffd8n]);
  assertEquals(machine.exits[5].registers.gpr[3], 0x7fffffd8n);
});

Deno.test("a pending software event skips the instruction it stands for; a pending exception does not", () => {
  for (const [type, length, label] of [[4, 2, "after"], [3, 2, "here"]] as const) {
    const machine = guestMachine(
      "long",
      longProgram(
        "out 0x10, al\nhere: int 0x20\nafter: nop",
        { 0x30: gate64(INTERRUPT32, 8, "handler") },
        `handler: ${showStack64(1)}`,
      ),
    );
    const { s32, bus } = machine.cpu;
    const out = bus.out.bind(bus);
    bus.out = (cpu, i, port, size, value) => {
      out(cpu, i, port, size, value);
      if (port !== 0x10) return;
      s32[CpuState.at.event >> 2] = EVENT_VALID | type << EVENT_TYPE_SHIFT | 0x30;
      s32[CpuState.at.event_length >> 2] = length;
      cpu.updateSlow();
    };
    machine.run();
    assertEquals(machine.out[1], Number(machine.labels.get(label)));
  }
});

Deno.test("an NMI waits until the IRET of the one before it", () => {
  const machine = guestMachine(
    "long",
    longProgram(
      "out 0x10, al\nmov al, 1\nout 0x80, al\nout 0xf4, al",
      { 2: gate64(INTERRUPT32, 8, "nmi") },
      `nmi: mov al, 2
       out 0x10, al                    ; another one arrives
       mov al, 3
       out 0x80, al
       iretq`,
    ),
  );
  const { s32, bus } = machine.cpu;
  const out = bus.out.bind(bus);
  let nmis = 0;
  bus.out = (cpu, i, port, size, value) => {
    out(cpu, i, port, size, value);
    if (port !== 0x10 || nmis++ >= 2) return;
    s32[CpuState.at.nmi_pending >> 2] = 1;
    cpu.updateSlow();
  };
  machine.run();
  // Each handler runs to its end before the next begins; the program goes on after both.
  assertEquals(machine.out.slice(1, 6), [2, 3, 2, 3, 1]);
});

Deno.test("protected mode: a double fault through a task gate runs in its own task with the error code on its stack", () => {
  const machine = guestMachine(
    "protected",
    `lgdt [gdtp]
     lidt [idtp]
     mov ax, 0x18
     ltr ax
     here: ud2
     ${
      gdt([
        segment(CODE0, FLAT32),
        segment(DATA0, FLAT32),
        segment(TSS32, 0, "tss", TSS32_LIMIT),
        segment(TSS32, 0, "other", TSS32_LIMIT),
      ])
    }
     ${idt(0x20, { [VECTOR_DF]: gate(0x85, 0x20) })}
     ${tss32("tss", 0x60000)}
     task: pop eax
     out 0x80, eax
     str eax
     out 0x80, eax
     pushf
     pop eax
     out 0x80, eax
     out 0xf4, al
     align 8
     other: times 7 dd 0
     dd 0, task, 2
     times 4 dd 0
     dd 0x50000, 0, 0, 0
     dd 0x10, 8, 0x10, 0x10, 0, 0, 0
     dw 0, 0x68
     times 0x20 db 0
     db 0xff`,
  );
  machine.run();
  assertEquals(machine.out.slice(0, 3), [0, 0x20, 0x4002]);
  const { dv } = machine.cpu;
  const tss = Number(machine.labels.get("tss"));
  assertEquals(dv.getUint32(tss + 0x20, true), Number(machine.labels.get("here")), "the old task's EIP");
  assertEquals(dv.getUint16(Number(machine.labels.get("other")), true), 0x18, "the link");
});

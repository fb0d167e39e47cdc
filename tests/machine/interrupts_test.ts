import { assert, assertEquals } from "@std/assert";
import { ATTENTION } from "../../lib/hypervisor/attention.ts";
import { callHypercall } from "../../lib/hypervisor/hypercalls/dispatch.ts";
import type { MemoryPort } from "../../lib/memory/port.ts";
import { stepName } from "../../lib/memory/steps.ts";
import { injectException } from "../../lib/vtl2/context.ts";
import type { KernelVp } from "../../lib/vtl2/kernel_vp.ts";
import { gates, guestMachine, type GuestOptions, runGuest, word } from "./guest_fixture.ts";

/** Counters of the handlers, one 64-bit word each. */
const COUNT = 0x50000;

/** Handlers that count in word n and end the interrupt: at the local APIC, at the interrupt controllers, or nowhere. */
const HANDLERS = `
apic0:  inc qword [abs ${COUNT}]
        push rdi
        mov edi, 0xfee00000
        mov dword [rdi + 0xb0], 0
        pop rdi
        iretq
nmi:    inc qword [abs ${COUNT + 8}]
        cmp qword [abs ${COUNT + 8}], 1
        jne .second
        mov byte [abs ${COUNT + 0x80}], 1
        mov dword [rbx + 0x300], 0x400
        times 50 nop
        mov byte [abs ${COUNT + 0x80}], 0
        iretq
        ; had it not waited, the first would still be under way
.second: movzx eax, byte [abs ${COUNT + 0x80}]
        mov [abs ${COUNT + 16}], rax
        iretq
pic:    inc qword [abs ${COUNT + 16}]
        push rax
        mov al, 0x20
        out 0xa0, al
        out 0x20, al
        pop rax
        iretq
rtc:    inc qword [abs ${COUNT + 24}]
        push rax
        mov al, 0x0c
        out 0x70, al
        in al, 0x71
        mov al, 0x20
        out 0xa0, al
        out 0x20, al
        pop rax
        iretq
level:  inc qword [abs ${COUNT}]
        push rdi
        cmp qword [abs ${COUNT}], 3
        jb .end
        mov edi, 0xfec00000
        mov dword [rdi], 0x14
        mov dword [rdi + 0x10], 0x18050
.end:   mov edi, 0xfee00000
        mov dword [rdi + 0xb0], 0
        pop rdi
        iretq
`;

/** Waits in HLT until counter n has reached a number. */
const until = (counter: number, number: number): string => `
.w${counter}_${number}: sti
        hlt
        cli
        cmp qword [abs ${COUNT + 8 * counter}], ${number}
        jb .w${counter}_${number}
`;

const APIC_ON = "mov ebx, 0xfee00000\n mov dword [rbx + 0xf0], 0x1ff\n";
/** Both controllers at vectors 20 and 28; the masks follow. */
const pic = (master: number, slave: number): string =>
  [[0x20, 0x11], [0x21, 0x20], [0x21, 4], [0x21, 1], [0xa0, 0x11], [0xa1, 0x28], [0xa1, 2], [0xa1, 1], [0x21, master], [
    0xa1,
    slave,
  ]].map(([port, value]) => `mov al, ${value}\n out ${port}, al`).join("\n");

/** A counter that goes on until its source is masked: what it has reached at least. */
interface AtLeast {
  readonly least: bigint;
}
const atLeast = (least: bigint): AtLeast => ({ least });

/** Runs `source` with handlers on both platforms and in both runtimes; `counts` are the counters at the end. */
function both(name: string, source: string, counts: readonly (bigint | AtLeast)[], options: GuestOptions = {}): void {
  for (const platform of ["bare", "kernel"] as const) {
    for (const concurrent of [false, true]) {
      Deno.test(`${name} (${platform}, ${concurrent ? "concurrent" : "deterministic"})`, async () => {
        const table = gates({ 2: "nmi", 0x20: "pic", 0x28: "rtc", 0x40: "apic0", 0x50: "level" });
        const machine = guestMachine(`default rel\n${table}${source}\n cli\n.end: hlt\n jmp .end\n${HANDLERS}`, {
          ...options,
          platform,
          concurrent,
        });
        const { end, problems } = await runGuest(machine);
        assertEquals([end, problems], ["halt", []]);
        counts.forEach((expected, n) => {
          const count = word(machine, COUNT + 8 * n);
          if (typeof expected === "bigint") assertEquals(count, expected, `counter ${n}`);
          else assert(count >= expected.least, `counter ${n} is ${count}`);
        });
      });
    }
  }
}

both(
  "PIT through the interrupt controllers: each edge of mode 2 ends a HLT, with a local APIC that lets nothing through",
  `${pic(0xfe, 0xff)}
        mov al, 0x34
        out 0x43, al
        mov al, 0
        out 0x40, al
        mov al, 8
        out 0x40, al
        ${until(2, 5)}
        mov al, 0xff
        out 0x21, al`,
  [0n, 0n, atLeast(5n)],
);

both(
  "RTC through the slave controller: the periodic interrupt comes again after register C is read",
  `${pic(0xfb, 0xfe)}
        mov al, 0x0a
        out 0x70, al
        mov al, 0x23
        out 0x71, al
        mov al, 0x0b
        out 0x70, al
        mov al, 0x42
        out 0x71, al
        ${until(3, 3)}
        mov al, 0xff
        out 0xa1, al`,
  [0n, 0n, 0n, atLeast(3n)],
);

both(
  "I/O APIC: a level-triggered input that stays high interrupts again after each EOI",
  `${APIC_ON}
        mov edi, 0xfec00000
        mov dword [rdi], 0x14
        mov dword [rdi + 0x10], 0x8050
        mov al, 0x34
        out 0x43, al
        mov al, 0xff
        out 0x40, al
        out 0x40, al
        ${until(0, 3)}`,
  [3n],
);

both(
  "local APIC timer: one shot interrupts once and wakes a HLT",
  `${APIC_ON}
        mov dword [rbx + 0x3e0], 0xb
        mov dword [rbx + 0x320], 0x40
        mov dword [rbx + 0x380], 3000
        ${until(0, 1)}`,
  [1n],
);

both(
  "NMI: it is taken with interrupts off, and one that comes during its handler waits for IRET",
  `${APIC_ON}
        mov dword [rbx + 0x310], 0
        mov dword [rbx + 0x300], 0x400
.w:     cmp qword [abs ${COUNT + 8}], 2
        jb .w`,
  [0n, 2n, 0n],
);

both(
  "interrupt shadow: STI holds the interrupt back for one instruction, which sees the old counter",
  `${APIC_ON}
        mov dword [rbx + 0x300], 0x44040
        xor eax, eax
        sti
        mov rax, [abs ${COUNT}]
        nop
        cli
        mov [abs ${COUNT + 8}], rax
        mov rax, [abs ${COUNT}]
        mov [abs ${COUNT + 16}], rax`,
  [1n, 0n, 1n],
);

Deno.test("pending event: an exception that VTL2 injects is delivered with its error code and CR2", async () => {
  const machine = guestMachine(`
        default rel
        ${gates({ 14: "fault" })}
        out 0x99, al
        hlt
fault:  pop qword [abs ${COUNT}]
        mov rax, cr2
        mov [abs ${COUNT + 8}], rax
        cli
        hlt`);
  const vp = machine.processor(0) as KernelVp;
  const ERROR = 7;
  await runGuest(machine, {
    onStep: (_agent, step) => {
      if (step === "vmm.handle-io-port") injectException(vp.vmm, 14, true, ERROR, 0x123456n);
    },
  });
  assertEquals([word(machine, COUNT), word(machine, COUNT + 8)], [BigInt(ERROR), 0x123456n]);
});

Deno.test("HvCallAssertVirtualInterrupt from VTL2 reaches a halted VTL0", async () => {
  const machine = guestMachine(
    `default rel\n${gates({ 0x40: "apic0" })}${APIC_ON} out 0x99, al\n${until(0, 1)}\n hlt\n${HANDLERS}`,
  );
  const { facilities, registers } = machine.platform;
  const input = new DataView(new ArrayBuffer(40));
  input.setBigUint64(0, 0xffff_ffff_ffff_ffffn, true); // partition self
  input.setUint32(24, 0x40, true); // requested vector
  let sent = false;
  const { end } = await runGuest(machine, {
    onStep: (_agent, step) => {
      if (step !== "hypervisor.halt" || sent) return;
      sent = true;
      const context = { facilities, registers, events: { vtl2Started() {}, vtl0Started() {} }, vp: 0, vtl: 2 };
      assertEquals(callHypercall(context, 0x94, new Uint8Array(input.buffer)).status, 0);
    },
  });
  assertEquals([end, word(machine, COUNT)], ["halt", 1n]);
});

/** A guest with interrupts on that has taken the one interrupt it sent itself, and then leaves. */
const TAKEN = `
        default rel
        ${gates({ 0x40: "apic0" })}${APIC_ON}
        mov ecx, 0xfee00300
        mov dword [rcx], 0x44040
        sti
        times 4 nop
        out 0x99, al
        hlt
        ${HANDLERS}`;

/** Takes steps of a guest until its port access is handled. */
function takenInterrupt(): KernelVp {
  const machine = guestMachine(TAKEN);
  const vp = machine.processor(0) as KernelVp;
  for (let steps = 0; stepName(vp.step) !== "vmm.handle-io-port"; steps++) {
    assert(steps < 2000, "the guest leaves");
    vp.takeSteps(1);
  }
  assertEquals(word(machine, COUNT), 1n);
  return vp;
}

Deno.test("a guest that has taken its interrupts is not asked for others at every block", () => {
  assertEquals(takenInterrupt().attention & ATTENTION.VTL0_INTERRUPT, 0);
});

Deno.test("an interrupt that is requested while the guest's attention is taken back is not forgotten", () => {
  const vp = takenInterrupt();
  const { port } = vp;
  let requests = 0;
  vp.port = new Proxy(port, {
    get: (target, name: keyof MemoryPort) =>
      name !== "and32" ? target[name].bind(target) : (at: number, bits: number) => {
        if (requests++ === 0) vp.apic.requestInterrupt(0x40, false);
        return target.and32(at, bits);
      },
  });
  assertEquals(vp.acceptInterrupt(), -1);
  assertEquals([requests, vp.attention & ATTENTION.VTL0_INTERRUPT], [1, ATTENTION.VTL0_INTERRUPT]);
  assertEquals(vp.acceptInterrupt(), 0x40);
});

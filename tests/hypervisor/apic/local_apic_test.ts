import { assertEquals } from "@std/assert";
import { MachineMemory } from "../../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../../lib/memory/port.ts";
import { ATTENTION } from "../../../lib/hypervisor/attention.ts";
import { type ApicHost, LocalApic } from "../../../lib/hypervisor/apic/local_apic.ts";
import { deliver } from "../../../lib/hypervisor/apic/delivery.ts";
import { ApicState } from "../../../lib/hypervisor/apic/state.ts";

/** MSR numbers, written out as in the SDM's table of x2APIC registers. */
const MSR = {
  ID: 0x802,
  VERSION: 0x803,
  TPR: 0x808,
  PPR: 0x80a,
  EOI: 0x80b,
  LDR: 0x80d,
  SVR: 0x80f,
  ESR: 0x828,
  ICR: 0x830,
  LVT_TIMER: 0x832,
  LVT_ERROR: 0x837,
  INITIAL: 0x838,
  CURRENT: 0x839,
  DIVIDE: 0x83e,
  SELF_IPI: 0x83f,
};
const BASE_XAPIC = 0xfee0_0800 | 0;
const BASE_X2APIC = 0xfee0_0c00 | 0;

/** A machine of APICs whose time is set by hand. */
class Bench implements ApicHost {
  readonly vps: number;
  readonly memory: MachineMemory;
  readonly apics: LocalApic[] = [];
  readonly attention: number[] = [];
  readonly sipi: number[] = [];
  readonly eois: [number, number][] = [];
  readonly cr8s: number[] = [];
  time = 1000;

  constructor(vps: number, mode: "xapic" | "x2apic") {
    this.vps = vps;
    this.memory = MachineMemory.allocate(vps * ApicState.size);
    const port = new DirectPort(this.memory);
    for (let vp = 0; vp < vps; vp++) {
      const apic = new LocalApic(this.memory, port, vp * ApicState.size, this, vp);
      apic.reset("power-up");
      this.apics.push(apic);
      this.attention.push(0);
      if (mode === "x2apic") assertEquals(apic.writeBase(BASE_X2APIC, 0), true);
      apic.writeRegister(0xf, 0x1ff);
    }
  }
  apic(vp: number): LocalApic {
    return this.apics[vp];
  }
  signal(vp: number, bits: number): void {
    this.attention[vp] |= bits;
  }
  setSipiVector(vp: number, vector: number): void {
    this.sipi[vp] = vector;
  }
  levelEoi(vp: number, vector: number): void {
    this.eois.push([vp, vector]);
  }
  cr8(vp: number): number {
    return this.cr8s[vp];
  }
  tprChanged(vp: number, cr8: number): void {
    this.cr8s[vp] = cr8;
  }
  now(): number {
    return this.time;
  }
  /** VPs with `bit` in their attention word, which is then cleared. */
  signalled(bit: number): number[] {
    const found = this.attention.flatMap((bits, vp) => (bits & bit) !== 0 ? [vp] : []);
    this.attention.fill(0);
    return found;
  }
}

Deno.test("APIC: after power-up it is in xAPIC mode at FEE00000, disabled by software, all LVT entries masked", () => {
  const bench = new Bench(2, "xapic");
  const [bsp, ap] = bench.apics;
  bsp.reset("power-up");
  bsp.readBase();
  assertEquals([bsp.lo >>> 0, bsp.hi], [0xfee0_0900, 0]);
  ap.readBase();
  assertEquals(ap.lo >>> 0, 0xfee0_0800);
  assertEquals(bsp.mmioPage, 0xfee00);
  assertEquals(bsp.readMmio(0xf0, 4), 0xff);
  assertEquals(bsp.readMmio(0xe0, 4), 0xffff_ffff);
  for (let offset = 0x320; offset <= 0x370; offset += 16) assertEquals(bsp.readMmio(offset, 4), 0x10000);
  assertEquals(ap.readMmio(0x20, 4), 0x0100_0000);
  assertEquals(bsp.readMmio(0x30, 4), 0x0005_0014);
});

Deno.test("APIC_BASE: only the transitions of the SDM's state diagram are allowed", () => {
  const fresh = (path: number[]) => {
    const apic = new Bench(1, "xapic").apics[0];
    return path.map((low) => apic.writeBase(low, 0));
  };
  const disabled = 0xfee0_0000 | 0;
  const invalid = 0xfee0_0400 | 0;
  assertEquals(fresh([BASE_X2APIC, disabled, BASE_XAPIC]), [true, true, true]);
  assertEquals(fresh([BASE_X2APIC, BASE_XAPIC]), [true, false]);
  assertEquals(fresh([disabled, BASE_X2APIC]), [true, false]);
  assertEquals(fresh([invalid]), [false]);
  assertEquals(fresh([disabled, invalid]), [true, false]);
  assertEquals(fresh([BASE_X2APIC, invalid]), [true, false]);
});

Deno.test("APIC_BASE: reserved bits fault; the BSP bit is read only", () => {
  const apic = new Bench(1, "xapic").apics[0];
  assertEquals(apic.writeBase(BASE_XAPIC | 0x200, 0), false);
  assertEquals(apic.writeBase(BASE_XAPIC | 1, 0), false);
  assertEquals(apic.writeBase(BASE_XAPIC, 0x10000), false);
  assertEquals(apic.writeBase(BASE_XAPIC, 1), true);
  apic.readBase();
  assertEquals([apic.lo >>> 0, apic.hi], [0xfee0_0900, 1]);
  assertEquals(apic.mmioPage, 0x1fee00);
});

Deno.test("x2APIC: in x2APIC mode the MMIO page is gone and the MSRs answer; in xAPIC mode the MSRs fault", () => {
  const x2 = new Bench(1, "x2apic").apics[0];
  assertEquals(x2.mmioPage, -1);
  assertEquals(x2.readMsr(MSR.ID), true);
  const x = new Bench(1, "xapic").apics[0];
  assertEquals(x.readMsr(MSR.ID), false);
  assertEquals(x.writeMsr(MSR.EOI, 0, 0), false);
});

Deno.test("x2APIC: ID is 32 bits wide and LDR derives from it", () => {
  const bench = new Bench(40, "x2apic");
  const apic = bench.apics[37];
  apic.readMsr(MSR.ID);
  assertEquals(apic.lo, 37);
  apic.readMsr(MSR.LDR);
  assertEquals(apic.lo, (2 << 16) | (1 << 5));
});

Deno.test("x2APIC: reading a write-only and writing a read-only register fault, as do registers that do not exist", () => {
  const apic = new Bench(1, "x2apic").apics[0];
  for (const msr of [MSR.EOI, MSR.SELF_IPI, 0x800, 0x80e, 0x809, 0x80c, 0x82f, 0x831, 0x83a, 0x840, 0x8ff]) {
    assertEquals(apic.readMsr(msr), false, msr.toString(16));
  }
  for (const msr of [MSR.ID, MSR.VERSION, MSR.PPR, MSR.LDR, MSR.CURRENT, 0x810, 0x81f, 0x827, 0x80e, 0x831, 0x8ff]) {
    assertEquals(apic.writeMsr(msr, 0, 0), false, msr.toString(16));
  }
  for (let msr = 0x810; msr <= 0x827; msr++) assertEquals(apic.readMsr(msr), true);
});

Deno.test("x2APIC: a reserved bit in a written value faults", () => {
  const apic = new Bench(1, "x2apic").apics[0];
  const cases: [number, number, number][] = [
    [MSR.TPR, 0x100, 0],
    [MSR.TPR, 0, 1],
    [MSR.EOI, 1, 0],
    [MSR.ESR, 1, 0],
    [MSR.SVR, 0x2000, 0],
    [MSR.ICR, 1 << 13, 0],
    [MSR.ICR, 1 << 20, 0],
    [MSR.LVT_TIMER, 1 << 18, 0],
    [MSR.LVT_TIMER, 0x100, 0],
    [MSR.LVT_ERROR, 0x100, 0],
    [MSR.DIVIDE, 4, 0],
    [MSR.SELF_IPI, 0x100, 0],
    [MSR.INITIAL, 0, 1],
  ];
  for (const [msr, lo, hi] of cases) assertEquals(apic.writeMsr(msr, lo, hi), false, `${msr.toString(16)} ${lo} ${hi}`);
  assertEquals(apic.writeMsr(MSR.EOI, 0, 0), true);
  assertEquals(apic.writeMsr(MSR.ICR, 0x4031, 0xffff_fff0 | 0), true);
});

Deno.test("APIC: a request sets IRR, taking it moves it to ISR, EOI ends the highest in service", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  apic.requestInterrupt(0x31, false);
  apic.requestInterrupt(0x85, false);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [0]);
  apic.readMsr(0x821);
  assertEquals(apic.lo, 1 << 17);
  assertEquals(apic.acknowledge(), 0x85);
  apic.readMsr(0x814);
  assertEquals(apic.lo, 1 << 5);
  apic.readMsr(0x824);
  assertEquals(apic.lo, 0);
  assertEquals(apic.acknowledge(), -1);
  apic.readMsr(MSR.PPR);
  assertEquals(apic.lo, 0x80);
  assertEquals(apic.writeMsr(MSR.EOI, 0, 0), true);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [0]);
  assertEquals(apic.acknowledge(), 0x31);
  assertEquals(apic.eoi(), 0x31);
  assertEquals(apic.eoi(), -1);
});

Deno.test("APIC: an interrupt of the same priority class as PPR waits; a higher class interrupts", () => {
  const apic = new Bench(1, "x2apic").apics[0];
  apic.requestInterrupt(0x45, false);
  assertEquals(apic.acknowledge(), 0x45);
  apic.requestInterrupt(0x4f, false);
  assertEquals(apic.highestPending(), -1);
  apic.requestInterrupt(0x50, false);
  assertEquals(apic.highestPending(), 0x50);
});

Deno.test("APIC: TPR holds back its own class and below, and CR8 is its upper half", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  apic.writeMsr(MSR.TPR, 0x52, 0);
  assertEquals(bench.cr8(0), 5);
  apic.requestInterrupt(0x5f, false);
  assertEquals(apic.highestPending(), -1);
  apic.readMsr(MSR.PPR);
  assertEquals(apic.lo, 0x52);
  // MOV to CR8 lowers the priority and clears the subclass; the APIC is not asked.
  bench.cr8s[0] = 4;
  assertEquals(apic.highestPending(), 0x5f);
  apic.readMsr(MSR.TPR);
  assertEquals(apic.lo, 0x40);
  bench.cr8s[0] = 6;
  assertEquals(apic.highestPending(), -1);
  apic.readMsr(MSR.PPR);
  assertEquals(apic.lo, 0x60);
});

Deno.test("APIC: EOI of a level-triggered interrupt is broadcast, of an edge-triggered one is not", () => {
  const bench = new Bench(1, "xapic");
  const apic = bench.apics[0];
  for (const [vector, level] of [[0x61, true], [0x62, false], [0x61, false]] as const) {
    apic.requestInterrupt(vector, level);
    assertEquals(apic.acknowledge(), vector);
    apic.writeMmio(0xb0, 4, 0);
  }
  assertEquals(bench.eois, [[0, 0x61]]);
});

Deno.test("SynIC: a vector with auto-EOI never comes into service", () => {
  const apic = new Bench(1, "x2apic").apics[0];
  apic.setAutoEoi([0x71]);
  apic.requestInterrupt(0x71, false);
  assertEquals(apic.acknowledge(), 0x71);
  assertEquals(apic.eoi(), -1);
});

Deno.test("x2APIC ICR: INIT then SIPI reach the destination with the vector", () => {
  const bench = new Bench(3, "x2apic");
  bench.apics[0].writeMsr(MSR.ICR, 0x4500, 2);
  assertEquals(bench.signalled(ATTENTION.INIT), [2]);
  bench.apics[0].writeMsr(MSR.ICR, 0x4609, 2);
  assertEquals(bench.sipi[2], 9);
  assertEquals(bench.signalled(ATTENTION.SIPI), [2]);
  // Level de-assert does nothing.
  bench.apics[0].writeMsr(MSR.ICR, 0x8500, 2);
  assertEquals(bench.signalled(ATTENTION.INIT), []);
});

Deno.test("xAPIC ICR: ICR1 holds the destination in bits 31:24, a write of ICR0 sends, delivery status reads idle", () => {
  const bench = new Bench(3, "xapic");
  bench.apics[0].writeMmio(0x310, 4, 0x0100_0000);
  bench.apics[0].writeMmio(0x300, 4, 0x4000 | 0x33);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [1]);
  assertEquals(bench.apics[1].highestPending(), 0x33);
  assertEquals(bench.apics[0].readMmio(0x300, 4), 0x4033);
  bench.apics[0].writeMmio(0x310, 4, 0xff00_0000);
  bench.apics[0].writeMmio(0x300, 4, 0x4400);
  assertEquals(bench.signalled(ATTENTION.NMI), [0, 1, 2]);
});

Deno.test("ICR: shorthands reach self, all, and all but self; those with self only take fixed interrupts", () => {
  const bench = new Bench(3, "x2apic");
  const send = (low: number) => bench.apics[1].writeMsr(MSR.ICR, low, 0);
  send(0x4_4033);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [1]);
  send(0x8_4034);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [0, 1, 2]);
  send(0xc_4035);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [0, 2]);
  send(0xc_4500);
  assertEquals(bench.signalled(ATTENTION.INIT), [0, 2]);
  send(0x8_4500);
  assertEquals(bench.signalled(ATTENTION.INIT), []);
  bench.apics[2].writeMsr(MSR.SELF_IPI, 0x44, 0);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [2]);
});

Deno.test("xAPIC logical destinations: flat compares member bits, cluster compares cluster and members", () => {
  const bench = new Bench(4, "xapic");
  bench.apics.forEach((apic, vp) => apic.writeMmio(0xd0, 4, 0x0100_0000 << vp));
  const fixed = (destination: number) =>
    deliver(bench, { mode: 0, vector: 0x40, destination, logical: true, level: false });
  fixed(0b1010);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [1, 3]);
  bench.apics.forEach((apic, vp) => {
    apic.writeMmio(0xe0, 4, 0x0fff_ffff);
    apic.writeMmio(0xd0, 4, ((vp >> 1) << 28 | 1 << (24 + (vp & 1))) >>> 0);
  });
  fixed(0x13);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [2, 3]);
  fixed(0x02);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [1]);
  fixed(0xff);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [0, 1, 2, 3]);
});

Deno.test("x2APIC logical destinations: cluster in bits 31:16, members in 15:0, all ones is everybody", () => {
  const bench = new Bench(20, "x2apic");
  bench.apics[0].writeMsr(MSR.ICR, 0x4840, 0x1_0005);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [16, 18]);
  bench.apics[0].writeMsr(MSR.ICR, 0x4840, 0xffff_ffff | 0);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT).length, 20);
});

Deno.test("Lowest-priority delivery goes to one APIC, the one working at the lowest priority", () => {
  const bench = new Bench(3, "x2apic");
  bench.apics[0].writeMsr(MSR.TPR, 0x30, 0);
  bench.apics[2].writeMsr(MSR.TPR, 0x10, 0);
  bench.apics[1].writeMsr(MSR.TPR, 0x20, 0);
  bench.attention.fill(0);
  const taken = deliver(bench, { mode: 1, vector: 0x40, destination: 0x7, logical: true, level: false });
  assertEquals(taken, true);
  assertEquals(bench.signalled(ATTENTION.VTL0_INTERRUPT), [2]);
});

Deno.test("APIC: disabled by software it takes NMI, INIT and SIPI but no fixed interrupt, and masks its LVT", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  apic.writeMsr(MSR.LVT_TIMER, 0x40, 0);
  apic.writeMsr(MSR.SVR, 0xff, 0);
  assertEquals(apic.accept(0, 0x40, false), false);
  assertEquals(apic.accept(4, 0, false), true);
  assertEquals(apic.accept(5, 0, false), true);
  apic.readMsr(MSR.LVT_TIMER);
  assertEquals(apic.lo, 0x1_0040);
  apic.writeMsr(MSR.LVT_TIMER, 0x41, 0);
  apic.readMsr(MSR.LVT_TIMER);
  assertEquals(apic.lo, 0x1_0041);
});

Deno.test("ESR: a vector below 16 is an error when sent and when received; a write latches, a second one clears", () => {
  const bench = new Bench(2, "x2apic");
  const [sender, receiver] = bench.apics;
  sender.writeMsr(MSR.LVT_ERROR, 0xe1, 0);
  sender.writeMsr(MSR.ICR, 0x400f, 1);
  assertEquals(sender.highestPending(), 0xe1);
  sender.readMsr(MSR.ESR);
  assertEquals(sender.lo, 0);
  sender.writeMsr(MSR.ESR, 0, 0);
  sender.readMsr(MSR.ESR);
  assertEquals(sender.lo, 0x20);
  sender.writeMsr(MSR.ESR, 0, 0);
  sender.readMsr(MSR.ESR);
  assertEquals(sender.lo, 0);
  assertEquals(receiver.accept(0, 0xf, false), false);
  receiver.writeMsr(MSR.ESR, 0, 0);
  receiver.readMsr(MSR.ESR);
  assertEquals(receiver.lo, 0x40);
});

Deno.test("Timer, one-shot: counts initial count x divisor ticks of 5 ns, interrupts once, then reads zero", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  apic.writeMsr(MSR.DIVIDE, 0x3, 0); // divide by 16
  apic.writeMsr(MSR.LVT_TIMER, 0x50, 0);
  apic.writeMsr(MSR.INITIAL, 100, 0);
  assertEquals(apic.nextDeadline(), 1000 + 100 * 16 * 5);
  bench.time += 50 * 16 * 5;
  apic.readMsr(MSR.CURRENT);
  assertEquals(apic.lo, 50);
  apic.pollTimer(bench.time);
  assertEquals(apic.highestPending(), -1);
  bench.time = apic.nextDeadline();
  apic.pollTimer(bench.time);
  assertEquals(apic.acknowledge(), 0x50);
  apic.readMsr(MSR.CURRENT);
  assertEquals(apic.lo, 0);
  assertEquals(apic.nextDeadline(), Infinity);
});

Deno.test("Timer, periodic: expires again after each period; missed periods are one interrupt", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  apic.writeMsr(MSR.DIVIDE, 0xb, 0); // divide by 1
  apic.writeMsr(MSR.LVT_TIMER, 0x20050, 0);
  apic.writeMsr(MSR.INITIAL, 1000, 0);
  const period = 5000;
  bench.time = 1000 + period;
  apic.pollTimer(bench.time);
  assertEquals(apic.acknowledge(), 0x50);
  apic.eoi();
  assertEquals(apic.nextDeadline(), 1000 + 2 * period);
  bench.time = 1000 + 7.5 * period;
  apic.pollTimer(bench.time);
  assertEquals(apic.acknowledge(), 0x50);
  apic.eoi();
  assertEquals(apic.highestRequested(), -1);
  assertEquals(apic.nextDeadline(), 1000 + 8 * period);
  apic.readMsr(MSR.CURRENT);
  assertEquals(apic.lo, 500);
  apic.writeMsr(MSR.INITIAL, 0, 0);
  assertEquals(apic.nextDeadline(), Infinity);
});

Deno.test("Timer: every divide configuration divides as the SDM's figure says", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  const divisors: [number, number][] = [[0, 2], [1, 4], [2, 8], [3, 16], [8, 32], [9, 64], [10, 128], [11, 1]];
  apic.writeMsr(MSR.LVT_TIMER, 0x50, 0);
  for (const [dcr, divisor] of divisors) {
    apic.writeMsr(MSR.INITIAL, 0, 0);
    apic.writeMsr(MSR.DIVIDE, dcr, 0);
    apic.writeMsr(MSR.INITIAL, 10, 0);
    assertEquals(apic.nextDeadline() - bench.time, 10 * divisor * 5);
  }
});

Deno.test("Timer: a masked entry lets the count run but does not interrupt, nor later when it is unmasked", () => {
  const bench = new Bench(1, "x2apic");
  const apic = bench.apics[0];
  apic.writeMsr(MSR.DIVIDE, 0xb, 0);
  apic.writeMsr(MSR.LVT_TIMER, 0x1_0050, 0);
  apic.writeMsr(MSR.INITIAL, 10, 0);
  assertEquals(apic.nextDeadline(), Infinity);
  bench.time += 100;
  apic.writeMsr(MSR.LVT_TIMER, 0x50, 0);
  apic.pollTimer(bench.time);
  assertEquals(apic.highestPending(), -1);
});

Deno.test("INIT keeps APIC_BASE and the ID and resets everything else", () => {
  const bench = new Bench(2, "x2apic");
  const apic = bench.apics[1];
  apic.writeMsr(MSR.TPR, 0x20, 0);
  apic.requestInterrupt(0x40, false);
  apic.reset("init");
  apic.readBase();
  assertEquals(apic.lo, BASE_X2APIC);
  apic.readMsr(MSR.ID);
  assertEquals(apic.lo, 1);
  apic.readMsr(MSR.TPR);
  assertEquals(apic.lo, 0);
  assertEquals(apic.highestRequested(), -1);
  apic.readMsr(MSR.SVR);
  assertEquals(apic.lo, 0xff);
});

Deno.test("LINT0 as unmasked ExtINT is how a PIC reaches the processor; a disabled APIC passes it through", () => {
  const bench = new Bench(1, "xapic");
  const apic = bench.apics[0];
  assertEquals(apic.acceptsPic, false);
  apic.writeMmio(0x350, 4, 0x700);
  assertEquals(apic.acceptsPic, true);
  assertEquals(apic.assertLint(0), true);
  assertEquals(apic.acknowledgeExtInt(), true);
  assertEquals(apic.acknowledgeExtInt(), false);
  apic.writeBase(0xfee0_0000 | 0, 0);
  assertEquals(apic.acceptsPic, true);
  assertEquals(apic.mmioPage, -1);
});

Deno.test("xAPIC: only aligned 32-bit writes reach a register; an offset without a register is an error", () => {
  const apic = new Bench(1, "xapic").apics[0];
  apic.writeMmio(0x80, 1, 0x20);
  assertEquals(apic.readMmio(0x80, 4), 0);
  apic.writeMmio(0x80, 4, 0x20);
  assertEquals(apic.readMmio(0x80, 1), 0x20);
  assertEquals(apic.readMmio(0xf1, 1), 1);
  assertEquals(apic.readMmio(0x400, 4), 0);
  apic.writeMmio(0x280, 4, 0);
  assertEquals(apic.readMmio(0x280, 4), 0x80);
});

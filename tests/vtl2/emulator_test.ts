import { assertEquals } from "@std/assert";
import { InstructionEmulator } from "../../lib/vtl2/emulator/emulator.ts";
import { handleIoPort } from "../../lib/vtl2/handlers/io_port.ts";
import { handleMmio } from "../../lib/vtl2/handlers/mmio.ts";
import { IO_SINGLE_STEP, MMIO_CMPXCHG } from "../../lib/vtl2/policies.ts";
import { BUSY, CRASHED, HANDLED, PENDING } from "../../lib/vtl2/vmm_vp.ts";
import { EMULATOR, FixtureVp } from "./fixture.ts";

const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSI = 6, RDI = 7;
/** Register names of hyperv.constants.json. */
const NAME = {
  RSP: 0x20004,
  RIP: 0x20010,
  RFLAGS: 0x20011,
  CR0: 0x40000,
  CR3: 0x40002,
  CR4: 0x40003,
  ES: 0x60000,
  SS: 0x60002,
  DS: 0x60003,
  FS: 0x60004,
  GS: 0x60005,
  TR: 0x60007,
  EFER: 0x80001,
};
const CODE = 0x8000;
const STACK = 0x7000n;
const DEVICE = 0xfec00000n;
const PAGE_TABLES = 0x10000;
/** Linear addresses from here on are not mapped. */
const UNMAPPED = 0x1_4000_0000n;
const LONG_CPL0 = 0x14;
const LONG_CPL3 = 0x17;
const FLAGS = 0x202n;
const TF = 0x100n;
const RF = 0x10000n;

/** A segment register's two words: base; limit, selector, attributes. */
function segment(selector: number, attributes: number, limit = 0xffffffff, base = 0n): [bigint, bigint] {
  return [base, BigInt(limit) | BigInt(selector) << 32n | BigInt(attributes) << 48n];
}

/** A guest in long mode with 4 GiB mapped onto themselves in 1 GiB pages, present, writable, user. */
class LongModeVp extends FixtureVp {
  readonly emulator = new InstructionEmulator(this.memory, EMULATOR, EMULATOR + 0x700);
  #cs = segment(0x8, 0xa09b);

  constructor() {
    super();
    const { u64 } = this.memory;
    u64[PAGE_TABLES / 8] = BigInt(PAGE_TABLES + 0x1000) | 7n;
    for (let i = 0; i < 4; i++) u64[(PAGE_TABLES + 0x1000) / 8 + i] = BigInt(i) << 30n | 0x87n;
    this.registers.set(NAME.RSP, [STACK, 0n]);
    for (const name of [NAME.ES, NAME.SS, NAME.DS]) this.registers.set(name, segment(0x10, 0xc093));
    for (const name of [NAME.FS, NAME.GS]) this.registers.set(name, segment(0, 0xc093));
    this.registers.set(NAME.CR0, [0x80010033n, 0n]);
    this.registers.set(NAME.CR3, [BigInt(PAGE_TABLES), 0n]);
    this.registers.set(NAME.CR4, [0x620n, 0n]);
    this.registers.set(NAME.EFER, [0xd00n, 0n]);
  }

  /** Makes it real mode, with segments whose base is their selector times 16. */
  realMode(): void {
    this.registers.set(NAME.CR0, [0x10n, 0n]);
    this.registers.set(NAME.CR4, [0n, 0n]);
    this.registers.set(NAME.EFER, [0n, 0n]);
    for (const name of [NAME.ES, NAME.SS, NAME.DS, NAME.FS, NAME.GS]) {
      this.registers.set(name, segment(0x100, 0x93, 0xffff, 0x1000n));
    }
    this.#cs = segment(0, 0x9b, 0xffff);
  }

  /** Makes the code a 32-bit program of long mode. */
  compatibilityMode(): void {
    this.#cs = segment(0x8, 0xc09b);
  }

  code(...bytes: number[]): void {
    this.memory.u8.set(bytes, CODE);
  }

  #header(state: number, rflags: bigint, rip: bigint) {
    return { state, rflags, rip, length: 0, words: { 8: this.#cs[0], 16: this.#cs[1] } };
  }

  /** Handles an unmapped-GPA intercept of the code. */
  mmio({ state = LONG_CPL0, rflags = FLAGS, rip = BigInt(CODE) } = {}): number {
    this.setMessage(0x80000000, this.#header(state, rflags, rip));
    return handleMmio(this, this.emulator);
  }

  /** Handles an unmapped-GPA intercept whose message has the instruction's bytes and, with `gva`, the page's translation. */
  mmioTold(bytes: readonly number[], { write = false, gva }: { write?: boolean; gva?: bigint } = {}): number {
    const header = this.#header(LONG_CPL0, FLAGS, BigInt(CODE));
    const address = gva === undefined ? {} : { 48: gva, 56: DEVICE };
    this.setMessage(0x80000000, {
      ...header,
      access: write ? 1 : 0,
      words: { ...header.words, ...address },
      bytes: {
        44: bytes.length,
        45: gva === undefined ? 0 : 3,
        ...Object.fromEntries(bytes.map((byte, k) => [64 + k, byte])),
      },
    });
    return handleMmio(this, this.emulator);
  }

  /** Handles an I/O port intercept of the code, which is a string instruction. */
  stringIo({ size = 1, state = LONG_CPL0, rflags = FLAGS, write = true } = {}): number {
    const header = this.#header(state, rflags, BigInt(CODE));
    this.setMessage(0x80010000, {
      ...header,
      access: write ? 1 : 0,
      words: { ...header.words, 48: this.gpr(RAX) },
      bytes: { 40: 0xf8, 41: 3, 42: size | 0x18 },
    });
    return handleIoPort(this, this.emulator);
  }

  /** What a completed instruction of `length` bytes sets; RIP stays for length 0. */
  results(length: number, flags = FLAGS, rsp = STACK): unknown[] {
    return [["set", NAME.RIP, BigInt(CODE + length)], ["set", NAME.RFLAGS, flags], ["set", NAME.RSP, rsp]];
  }
}

Deno.test("MMIO: a load puts the device's value into the context and RIP, RFLAGS and RSP are flushed", () => {
  const vp = new LongModeVp();
  vp.code(0x48, 0x8b, 0x41, 0x10); // mov rax, [rcx + 16]
  vp.setGpr(RCX, DEVICE);
  vp.setGpr(4, 0x1234n); // CR2.
  vp.devices.answers = [0x1122334455667788n];
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.devices.accesses, [["read", 0xfec00010, 8, 0x1122334455667788n]]);
  assertEquals([vp.gpr(RAX), vp.gpr(RCX), vp.gpr(4)], [0x1122334455667788n, DEVICE, 0x1234n]);
  assertEquals(vp.asked, vp.results(4));
});

Deno.test("MMIO: a store gives the device as many bytes as the operand has", () => {
  for (
    const [bytes, size, value] of [
      [[0x88, 0x01], 1, 0x88n], // mov [rcx], al
      [[0x66, 0x89, 0x01], 2, 0x7788n], // mov [rcx], ax
      [[0x89, 0x01], 4, 0x55667788n], // mov [rcx], eax
      [[0x48, 0x89, 0x01], 8, 0x1122334455667788n], // mov [rcx], rax
      [[0xc7, 0x01, 0x78, 0x56, 0x34, 0x12], 4, 0x12345678n], // mov dword [rcx], 12345678
      [[0x67, 0xa3, 0x00, 0x00, 0xc0, 0xfe], 4, 0x55667788n], // mov [fec00000], eax (address size 32)
    ] as const
  ) {
    const vp = new LongModeVp();
    vp.code(...bytes);
    vp.setGpr(RAX, 0x1122334455667788n);
    vp.setGpr(RCX, DEVICE);
    assertEquals(vp.mmio(), HANDLED);
    assertEquals(vp.devices.accesses, [["write", 0xfec00000, size, value]]);
    assertEquals(vp.asked, vp.results(bytes.length));
  }
});

Deno.test("MMIO: a read-modify-write reads, writes and sets the flags", () => {
  const vp = new LongModeVp();
  vp.code(0x83, 0x01, 0x01); // add dword [rcx], 1
  vp.setGpr(RCX, DEVICE);
  vp.devices.answers = [0xffffffffn];
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.devices.accesses, [["read", 0xfec00000, 4, 0xffffffffn], ["write", 0xfec00000, 4, 0n]]);
  assertEquals(vp.asked, vp.results(3, FLAGS | 0x55n)); // CF PF AF ZF.
});

Deno.test("MMIO: XMM registers are those of the context's image", () => {
  const vp = new LongModeVp();
  vp.code(0xf3, 0x0f, 0x7f, 0x19); // movdqu [rcx], xmm3
  vp.setGpr(RCX, DEVICE);
  const xmm3 = (vp.context + 0x80 + 160 + 3 * 16) / 8;
  vp.memory.u64.set([0x1111n, 0x2222n], xmm3);
  vp.memory.view.setUint32(vp.context + 0x80 + 24, 0x1f80, true);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.devices.accesses, [["write", 0xfec00000, 8, 0x1111n], ["write", 0xfec00008, 8, 0x2222n]]);
});

Deno.test("MMIO: a string instruction moves between RAM and the device; registers are those after the last element", () => {
  const vp = new LongModeVp();
  vp.code(0xf3, 0xa5); // rep movsd
  vp.memory.u32.set([1, 2, 3], 0x4000 / 4);
  vp.setGpr(RCX, 3n);
  vp.setGpr(RSI, 0x4000n);
  vp.setGpr(RDI, DEVICE);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.devices.accesses.map(([, address, , value]) => [address, value]), [
    [0xfec00000, 1n],
    [0xfec00004, 2n],
    [0xfec00008, 3n],
  ]);
  assertEquals([vp.gpr(RCX), vp.gpr(RSI), vp.gpr(RDI)], [0n, 0x400cn, DEVICE + 12n]);
  assertEquals(vp.asked, vp.results(2));
});

Deno.test("REP: at most 1024 iterations in one exit; RIP stays until the count is used up", () => {
  const vp = new LongModeVp();
  vp.code(0xf3, 0xaa); // rep stosb
  vp.setGpr(RCX, 2000n);
  vp.setGpr(RDI, DEVICE);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.devices.accesses.length, 1024);
  assertEquals([vp.gpr(RCX), vp.gpr(RDI)], [976n, DEVICE + 1024n]);
  assertEquals(vp.asked, vp.results(0));
  vp.asked.length = 0;
  assertEquals(vp.mmio(), HANDLED);
  assertEquals([vp.gpr(RCX), vp.devices.accesses.length], [0n, 2000]);
  assertEquals(vp.asked, vp.results(2));
});

Deno.test("REP: exactly 1024 iterations are finished in one exit; the count is that of the address size", () => {
  const vp = new LongModeVp();
  vp.code(0xf3, 0x67, 0xaa); // rep stosb, address size 32
  vp.setGpr(RCX, 0xffffffff_00000400n);
  vp.setGpr(RDI, DEVICE);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals([vp.gpr(RCX), vp.devices.accesses.length], [0n, 1024]);
  assertEquals(vp.asked, vp.results(3));
});

Deno.test("REPNE SCASB: ends when the device gives AL, also within the first 1024 of a longer count", () => {
  const vp = new LongModeVp();
  vp.code(0xf2, 0xae);
  vp.setGpr(RAX, 7n);
  vp.setGpr(RCX, 5000n);
  vp.setGpr(RDI, DEVICE);
  vp.devices.answers = [1n, 2n, 7n];
  assertEquals(vp.mmio(), HANDLED);
  assertEquals([vp.gpr(RCX), vp.gpr(RDI)], [4997n, DEVICE + 3n]);
  assertEquals(vp.asked, vp.results(2, FLAGS | 0x44n)); // ZF PF.
});

Deno.test("string port access: OUTS writes each element, INS reads them into memory", () => {
  const out = new LongModeVp();
  out.code(0xf3, 0x6e); // rep outsb
  out.memory.u8.set([0x68, 0x69], 0x4000);
  out.setGpr(RCX, 2n);
  out.setGpr(RDX, 0x3f8n);
  out.setGpr(RSI, 0x4000n);
  assertEquals(out.stringIo(), HANDLED);
  assertEquals(out.devices.accesses, [["out", 0x3f8, 1, 0x68n], ["out", 0x3f8, 1, 0x69n]]);
  assertEquals(out.asked, out.results(2));

  const into = new LongModeVp();
  into.code(0x66, 0x6d); // insw
  into.setGpr(RDX, 0x1f0n);
  into.setGpr(RDI, 0x4000n);
  into.devices.answers = [0xbeefn];
  assertEquals(into.stringIo({ size: 2, write: false, rflags: FLAGS | 0x400n }), HANDLED);
  assertEquals([into.memory.u16[0x4000 / 2], into.gpr(RDI)], [0xbeef, 0x3ffen], "downwards with DF");
  assertEquals(into.asked, into.results(2, FLAGS | 0x400n));
});

Deno.test("string port access: a busy device keeps the elements done and goes on with the next", () => {
  const vp = new LongModeVp();
  vp.code(0xf3, 0x6e);
  vp.memory.u8.set([1, 2, 3], 0x4000);
  vp.setGpr(RCX, 3n);
  vp.setGpr(RDX, 0x3f8n);
  vp.setGpr(RSI, 0x4000n);
  vp.devices.takes = 2;
  assertEquals(vp.stringIo(), BUSY);
  assertEquals([vp.gpr(RCX), vp.gpr(RSI), vp.asked], [1n, 0x4002n, []]);
  vp.devices.takes = 1;
  assertEquals(vp.stringIo(), HANDLED);
  assertEquals(vp.devices.accesses.map(([, , , value]) => value), [1n, 2n, 3n]);
  assertEquals(vp.asked, vp.results(2));
});

Deno.test("string port access at CPL 3: permission comes from the TSS, for which TR is got too", () => {
  const vp = new LongModeVp();
  vp.code(0x6e); // outsb
  vp.setGpr(RDX, 0x3f8n);
  vp.setGpr(RSI, 0x4000n);
  vp.registers.set(NAME.SS, segment(0x2b, 0xc0f3));
  vp.registers.set(NAME.DS, segment(0x2b, 0xc0f3));
  vp.registers.set(NAME.TR, segment(0x40, 0x8b, 0x1000, 0x20000n));
  vp.memory.view.setUint16(0x20066, 0x68, true); // I/O map base; every bit is clear.
  assertEquals(vp.stringIo({ state: LONG_CPL3 }), HANDLED);
  assertEquals(vp.devices.accesses.length, 1);
});

Deno.test("real mode: segment bases count", () => {
  const vp = new LongModeVp();
  vp.realMode();
  vp.code(0x6e);
  vp.memory.u8[0x1020] = 0x5a;
  vp.setGpr(RDX, 0x3f8n);
  vp.setGpr(RSI, 0x20n);
  assertEquals(vp.stringIo({ state: 0 }), HANDLED);
  assertEquals(vp.devices.accesses, [["out", 0x3f8, 1, 0x5an]]);
  assertEquals(vp.asked, vp.results(1));
});

Deno.test("registers that come late: the handler is called again and the devices see the access once", () => {
  const vp = new LongModeVp();
  vp.code(0x8b, 0x01); // mov eax, [rcx]
  vp.setGpr(RCX, DEVICE);
  vp.late = 1;
  assertEquals(vp.mmio(), PENDING);
  assertEquals([vp.devices.accesses, vp.asked], [[], []]);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.devices.accesses.length, 1);
});

/** A #PF event: vector 14, error code, CR2. */
const pageFault = (error: bigint, cr2: bigint) => ["event", 0xe0101n | error << 32n, cr2, 0n, 0n];

Deno.test("a page fault in the middle is injected with error code and CR2; what was done before it stays", () => {
  const vp = new LongModeVp();
  vp.code(0xf3, 0xa4); // rep movsb
  vp.setGpr(RCX, 8n);
  vp.setGpr(RSI, DEVICE);
  vp.setGpr(RDI, UNMAPPED);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals([vp.gpr(RCX), vp.gpr(RSI), vp.gpr(RDI)], [8n, DEVICE, UNMAPPED]);
  assertEquals(vp.asked, [...vp.results(0), pageFault(0x2n, UNMAPPED)], "a write, not present");

  const user = new LongModeVp();
  user.registers.set(NAME.SS, segment(0x2b, 0xc0f3));
  user.code(0x8b, 0x01); // mov eax, [rcx]
  user.setGpr(RCX, UNMAPPED + 8n);
  assertEquals(user.mmio({ state: LONG_CPL3 }), HANDLED);
  assertEquals(user.asked.at(-1), pageFault(0x4n, UNMAPPED + 8n), "a read by CPL 3");
});

Deno.test("an instruction that cannot be fetched is a page fault with the fetch bit, one from a device #GP(0)", () => {
  const vp = new LongModeVp();
  assertEquals(vp.mmio({ rip: UNMAPPED }), HANDLED);
  assertEquals(vp.asked.at(-1), pageFault(0x10n, UNMAPPED));
  const device = new LongModeVp();
  assertEquals(device.mmio({ rip: DEVICE }), HANDLED);
  assertEquals(device.asked.at(-1), ["event", 0xd0101n, 0n, 0n, 0n]);
});

Deno.test("a write to an overlay page is #GP(0)", () => {
  const vp = new LongModeVp();
  vp.overlay = 5;
  vp.code(0xa4); // movsb
  vp.setGpr(RSI, DEVICE);
  vp.setGpr(RDI, 0x5010n);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.asked, [...vp.results(0), ["event", 0xd0101n, 0n, 0n, 0n]]);
});

Deno.test("an undefined instruction and one that the emulator lacks are #UD", () => {
  for (const bytes of [[0x0f, 0x0b], [0x0f, 0x01, 0x11]]) { // ud2; lgdt [rcx]
    const vp = new LongModeVp();
    vp.code(...bytes);
    vp.setGpr(RCX, DEVICE);
    assertEquals(vp.mmio(), HANDLED);
    assertEquals(vp.asked, [...vp.results(0), ["event", 0x60001n, 0n, 0n, 0n]]);
  }
});

Deno.test("an instruction that accesses neither memory nor ports, or an interruption in delivery, is fatal", () => {
  const vp = new LongModeVp();
  vp.code(0x89, 0xd8); // mov eax, ebx
  vp.setGpr(RBX, 5n);
  assertEquals(vp.mmio(), CRASHED);
  assertEquals([vp.crashes.length, vp.gpr(RAX), vp.asked], [1, 0n, []]);
  vp.code(0x0f, 0xa2); // cpuid
  assertEquals(vp.mmio(), CRASHED);
  assertEquals(vp.mmio({ state: LONG_CPL0 | 0x40 }), CRASHED);
  assertEquals(vp.crashes.at(-1), { assertion: "an interrupt caused the memory access exit" });
});

Deno.test("TF: OpenHCL clears it and raises #DB without DR6.BS; silicon keeps it, sets DR6.BS and clears RF", () => {
  const load = (value: "openhcl" | "silicon") => {
    const vp = new LongModeVp();
    vp.choose(IO_SINGLE_STEP, value);
    vp.code(0x8b, 0x01);
    vp.setGpr(RCX, DEVICE);
    assertEquals(vp.mmio({ rflags: FLAGS | TF | RF, state: LONG_CPL0 | 0x1000 }), HANDLED);
    return vp;
  };
  const openhcl = load("openhcl");
  assertEquals(openhcl.asked, [...openhcl.results(2, FLAGS | RF), ["event", 0x10001n, 0n, 0n, 0n]]);
  const silicon = load("silicon");
  assertEquals(silicon.asked, [
    ...silicon.results(2, FLAGS | TF),
    ["clear shadow"],
    ["event", 0x10001n, 0x4000n, 0n, 0n],
  ]);
});

Deno.test("TF with REP: silicon traps after each iteration, with RIP at the instruction until the last", () => {
  const vp = new LongModeVp();
  vp.choose(IO_SINGLE_STEP, "silicon");
  vp.code(0xf3, 0xaa);
  vp.setGpr(RCX, 2n);
  vp.setGpr(RDI, DEVICE);
  const trap = ["event", 0x10001n, 0x4000n, 0n, 0n];
  assertEquals(vp.mmio({ rflags: FLAGS | TF }), HANDLED);
  assertEquals([vp.gpr(RCX), vp.asked], [1n, [...vp.results(0, FLAGS | TF), trap]]);
  vp.asked.length = 0;
  assertEquals(vp.mmio({ rflags: FLAGS | TF }), HANDLED);
  assertEquals([vp.gpr(RCX), vp.asked], [0n, [...vp.results(2, FLAGS | TF), trap]]);
});

Deno.test("a fault's saved flags have RF set on silicon", () => {
  const vp = new LongModeVp();
  vp.choose(IO_SINGLE_STEP, "silicon");
  vp.code(0x8b, 0x01);
  vp.setGpr(RCX, UNMAPPED);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.asked, [...vp.results(0, FLAGS | RF), pageFault(0n, UNMAPPED)]);
});

Deno.test("CMPXCHG on a device: equal writes the new value; different writes nothing (OpenHCL) or the old one (silicon)", () => {
  const run = (policy: "openhcl" | "silicon", found: bigint, code = [0xf0, 0x0f, 0xb1, 0x11]) => { // lock cmpxchg [rcx], edx
    const vp = new LongModeVp();
    vp.choose(MMIO_CMPXCHG, policy);
    vp.code(...code);
    vp.setGpr(RAX, 5n);
    vp.setGpr(RDX, 9n);
    vp.setGpr(RCX, DEVICE);
    vp.devices.answers = [found];
    assertEquals(vp.mmio(), HANDLED);
    return [vp.devices.accesses.map(([kind, , , value]) => [kind, value]), vp.gpr(RAX)];
  };
  for (const policy of ["openhcl", "silicon"] as const) {
    assertEquals(run(policy, 5n), [[["read", 5n], ["write", 9n]], 5n]);
  }
  assertEquals(run("openhcl", 6n), [[["read", 6n]], 6n]);
  assertEquals(run("silicon", 6n), [[["read", 6n], ["write", 6n]], 6n]);
  // cmpxchg8b [rcx]: EDX:EAX is 9:5.
  assertEquals(run("openhcl", 6n, [0x0f, 0xc7, 0x09])[0], [["read", 6n]]);
  assertEquals(run("openhcl", 0x9_0000_0005n, [0x0f, 0xc7, 0x09])[0], [
    ["read", 0x9_0000_0005n],
    ["write", DEVICE << 32n],
  ]);
});

Deno.test("the page walk sets accessed and dirty bits as the processor does", () => {
  const vp = new LongModeVp();
  vp.code(0x89, 0x01); // mov [rcx], eax
  vp.setGpr(RCX, DEVICE);
  assertEquals(vp.mmio(), HANDLED);
  assertEquals(vp.memory.u64[PAGE_TABLES / 8] & 0x20n, 0x20n);
  assertEquals(vp.memory.u64[(PAGE_TABLES + 0x1000) / 8 + 3] & 0x60n, 0x60n);
});

Deno.test("the message's bytes are executed when they are a whole instruction, and the code is fetched otherwise", () => {
  const vp = new LongModeVp();
  vp.code(0xff, 0x01); // inc dword [rcx]
  vp.setGpr(RCX, DEVICE);
  for (const bytes of [[0x8b, 0x01], [0x8b, 0x41, 0x10], [0x8b, 0x01]]) { // mov eax, [rcx]; mov eax, [rcx + 16]
    vp.devices.accesses.length = vp.asked.length = 0;
    assertEquals(vp.mmioTold(bytes), HANDLED);
    assertEquals(vp.devices.accesses, [["read", bytes.length === 2 ? 0xfec00000 : 0xfec00010, 4, 0n]]);
    assertEquals(vp.asked, vp.results(bytes.length));
  }
  vp.devices.accesses.length = 0;
  assertEquals(vp.mmioTold([0x8b]), HANDLED);
  assertEquals(vp.devices.accesses.map(([kind]) => kind), ["read", "write"]);
});

Deno.test("the same bytes are another instruction in another mode", () => {
  const vp = new LongModeVp();
  vp.setGpr(RCX, DEVICE);
  assertEquals(vp.mmioTold([0x48, 0x8b, 0x01]), HANDLED); // mov rax, [rcx]; in 32-bit code dec eax comes first
  vp.compatibilityMode();
  assertEquals(vp.mmioTold([0x48, 0x8b, 0x01]), CRASHED);
});

Deno.test("the message's translation stands for the page that was accessed, for that kind of access, and for no later exit", () => {
  const vp = new LongModeVp();
  const mov = [0x8b, 0x01]; // mov eax, [rcx]
  vp.setGpr(RCX, UNMAPPED + 0x10n);
  assertEquals(vp.mmioTold(mov, { gva: UNMAPPED + 0x10n }), HANDLED);
  assertEquals(vp.devices.accesses, [["read", 0xfec00010, 4, 0n]]);
  vp.asked.length = 0;
  assertEquals(vp.mmioTold([0xff, 0x01], { gva: UNMAPPED }), HANDLED); // inc dword [rcx]: the message knows of a read
  const [kind, event, cr2] = vp.asked.at(-1) as [string, bigint, bigint];
  assertEquals([kind, event & 0xff0000n, cr2], ["event", 14n << 16n, UNMAPPED + 0x10n]);
  vp.asked.length = 0;
  assertEquals(vp.mmioTold(mov), HANDLED);
  assertEquals((vp.asked.at(-1) as unknown[])[0], "event");
});

Deno.test("random bytes as the intercepted instruction end in a handled exit or a modelled crash", () => {
  let seed = 0x2545f491;
  const random = () => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    return (seed ^= seed << 5) >>> 0;
  };
  const vp = new LongModeVp();
  for (let run = 0; run < 3000; run++) {
    vp.code(...Array.from({ length: 16 }, () => random() & 0xff));
    for (let i = 0; i < 16; i++) vp.setGpr(i, i % 3 === 0 ? DEVICE : BigInt(random() & 0xfffff));
    vp.asked.length = vp.devices.accesses.length = vp.crashes.length = 0;
    const result = run % 2 ? vp.mmio() : vp.stringIo();
    assertEquals(result === HANDLED || result === CRASHED, true, `seed 2545f491, run ${run}`);
  }
});

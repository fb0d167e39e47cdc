/**
 * Random guests and random hosts: GHCB requests with any contents, which change while they are served, mixed with page
 * state changes, instructions of the guest and of the host on the RMP, and writes of the host. A checker that decodes the
 * table by itself holds what the RMP promises against every change. `deno task fuzz` runs a million operations.
 *
 * @module
 */
import { HostPort } from "../../lib/host/host_port.ts";
import { GUEST_ASID } from "../../lib/hypervisor/sev/machine.ts";
import { SevVpState, TURN } from "../../lib/hypervisor/sev/state.ts";
import { SevExitCode } from "../../lib/layout/sev/constants/exit_codes.ts";
import { GHCB } from "../../lib/layout/sev/ghcb.ts";
import { VMCB_CONTROL } from "../../lib/layout/sev/vmcb.ts";
import { END, MachineHeader } from "../../lib/machine/header.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { Random } from "../../lib/memory/random.ts";
import { stepName } from "../../lib/memory/steps.ts";
import { RMP_CHECK } from "../../lib/sev/rmp.ts";

const EXIT = SevExitCode.values;
const PAGE = 4096;
/** Two large pages. */
const RAM_BYTES = 4 << 20;
const RAM_PAGES = RAM_BYTES / PAGE;
const LARGE = 512;
/** Where the GHCB lies, in the second large page. */
const GHCB_GPA = 0x201000;
const BUFFER = GHCB_GPA + 0x800;
/** Steps within which every request is answered, waits or ends the machine: the largest page state change is shorter. */
const STEPS_MAX = 400_000;
/** Pages that operations meet on more often than chance would have it. */
const PAGES = [0, 1, 2, 511, 512, 513, 514, 600, 700, 1023] as const;

/** A machine whose VP 0 the fuzz plays. */
export interface FuzzSubject {
  readonly platform: "sev-es" | "snp";
  readonly host: "kvm" | "vmd";
}

/** What `deno task fuzz` and the tests try. */
export const FUZZ_SUBJECTS: readonly FuzzSubject[] = [
  { platform: "snp", host: "kvm" },
  { platform: "sev-es", host: "kvm" },
  { platform: "sev-es", host: "vmd" },
];

/** How often each outcome came. */
export type FuzzOutcomes = Map<string, number>;

/** Runs `count` operations. Throws with the operation's number when something promised does not hold. */
export function fuzzGhcb(subject: FuzzSubject, seed: number, count: number): FuzzOutcomes {
  const fuzz = new Fuzz(subject, seed);
  for (let k = 0; k < count; k++) {
    try {
      fuzz.operate();
      fuzz.checker?.check(fuzz.operation);
    } catch (cause) {
      const where = `${subject.host}, ${subject.platform}, seed ${seed}, operation ${k} (${fuzz.operation})`;
      throw new Error(`${where}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
  }
  return fuzz.outcomes;
}

function ensure(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}

/** Who may have changed the table. */
type Operation = "host" | "pvalidate" | "rmpadjust" | "none";

class Fuzz {
  readonly outcomes: FuzzOutcomes = new Map();
  readonly checker: RmpChecker | undefined;
  operation: Operation = "none";
  readonly #random: Random;
  readonly #machine: Machine;
  readonly #before: Uint8Array;
  /** Guest pages that the guest has validated: it never validates one twice (e9). */
  readonly #accepted = new Uint8Array(RAM_PAGES);
  readonly #codes: readonly number[];

  constructor(subject: FuzzSubject, seed: number) {
    this.#random = Random.seeded(seed);
    this.#machine = Machine.create({
      ...subject,
      vps: subject.host === "vmd" ? 1 : 2,
      ramBytes: RAM_BYTES,
      policies: {},
      devices: "pc",
      recordExits: false,
      hostPlacement: "processor",
    }, true);
    const { rmp } = this.#sev;
    this.checker = rmp === undefined ? undefined : new RmpChecker(this.#machine, rmp.place.base, this.#sev.pages);
    this.#shareGhcb();
    this.#before = this.#machine.memory.u8.slice(this.#machine.header);
    const known = [...Object.values(EXIT), EXIT.SNP_PSC, EXIT.SNP_PSC, EXIT.IOIO, EXIT.MMIO_READ, EXIT.MMIO_WRITE];
    this.#codes = [...known, 0, 1, 0x80000000, 0xffffffff];
  }

  get #sev() {
    return this.#machine.platform.sev.sev;
  }

  get #host() {
    return this.#machine.platform.sev.host(0);
  }

  #count(outcome: string): void {
    this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
  }

  /** One operation. */
  operate(): void {
    const random = this.#random;
    const kind = random.below(this.checker === undefined ? 11 : 20);
    this.operation = "host";
    if (kind < 9) this.#request();
    else if (kind < 10) this.#msrProtocol();
    else if (kind < 11) this.#exit(EXIT.NPF, this.#npfBits(), BigInt(this.#page()) << 12n);
    else if (kind < 14) this.#pvalidate();
    else if (kind < 15) this.#rmpadjust();
    else if (kind < 17) this.#rmpupdate();
    else if (kind < 19) this.#hostWrite();
    else this.#guestAccess();
    if (this.#random.below(16) === 0) {
      this.checker?.check(this.operation);
      this.operation = "host";
      this.#shareGhcb();
    }
  }

  #page(): number {
    return this.#random.below(3) === 0 ? this.#random.below(RAM_PAGES) : PAGES[this.#random.below(PAGES.length)];
  }

  #npfBits(): bigint {
    const { rmp, enc, sizem } = { rmp: 1n << 31n, enc: 1n << 34n, sizem: 1n << 35n };
    const random = this.#random;
    return rmp | (random.below(2) === 0 ? enc : 0n) | (random.below(4) === 0 ? sizem : 0n);
  }

  /** The host makes the GHCB's page shared again, and takes what its guest asks. */
  #shareGhcb(): void {
    const { guestMemory, rmp } = this.#sev;
    const page = GHCB_GPA / PAGE;
    const { port } = this.#host;
    if (rmp === undefined) guestMemory.setPrivate(port, page, false);
    else {
      if (rmp.isLarge(port, page)) rmp.psmash(port, LARGE);
      guestMemory.rmpupdate(port, page, { assigned: false, asid: 0, gpn: 0, size: 0, immutable: false });
      this.#host.set64("registered", BigInt(page) + 1n);
    }
  }

  // --- Requests -----------------------------------------------------------------------------------------------------

  #word(): bigint {
    const random = this.#random;
    switch (random.below(6)) {
      case 0:
        return BigInt(random.next()) << 32n | BigInt(random.next());
      case 1:
        return BigInt(random.below(5));
      case 2:
        return BigInt(BUFFER + random.below(2) * random.below(2048));
      case 3:
        return BigInt(random.below(RAM_BYTES + 2 * PAGE));
      case 4:
        return 0xffff_ffff_ffff_ffffn - BigInt(random.below(16));
      default:
        return BigInt(random.next());
    }
  }

  #request(): void {
    const random = this.#random;
    const { memory } = this.#machine;
    const { u32, u64, u8 } = memory;
    for (let n = random.below(8); n > 0; n--) u32[(GHCB_GPA >>> 2) + random.below(PAGE / 4)] = random.next();
    u32[(GHCB_GPA + GHCB.at.ghcb_usage) >>> 2] = random.below(32) === 0 ? random.next() : 0;
    for (const field of ["rax", "rbx", "rcx", "rdx", "xcr0", "sw_exit_info_1", "sw_exit_info_2"] as const) {
      u64[(GHCB_GPA + GHCB.at[field]) >>> 3] = this.#word();
    }
    u8[GHCB_GPA + GHCB.at.cpl] = random.below(5);
    u64[(GHCB_GPA + GHCB.at.sw_scratch) >>> 3] = random.below(3) === 0 ? this.#word() : BigInt(BUFFER);
    const code = this.#codes[random.below(this.#codes.length)];
    u64[(GHCB_GPA + GHCB.at.sw_exit_code) >>> 3] = random.below(64) === 0
      ? this.#word()
      : BigInt.asUintN(64, BigInt(code));
    // Usually every field is valid; often one is not; sometimes anything is.
    u8.fill(0xff, GHCB_GPA + GHCB.at.valid_bitmap, GHCB_GPA + GHCB.at.valid_bitmap + 16);
    if (random.below(3) === 0) u8[GHCB_GPA + GHCB.at.valid_bitmap + random.below(16)] = random.next();
    if (code === EXIT.SNP_PSC) this.#pageStateChange();
    if (code === EXIT.IOIO && random.below(2) === 0) {
      const sizes = [0, 1, 2, 4][random.below(4)];
      const info = random.below(65536) * 65536 + random.below(16) + 16 * sizes;
      u64[(GHCB_GPA + GHCB.at.sw_exit_info_1) >>> 3] = BigInt(info);
      u64[(GHCB_GPA + GHCB.at.sw_exit_info_2) >>> 3] = BigInt(random.below(64));
    }
    if (random.below(64) === 0) memory.u64[this.#ghcbWord] = this.#word();
    else memory.u64[this.#ghcbWord] = BigInt(GHCB_GPA);
    this.#serve(EXIT.VMGEXIT);
  }

  #pageStateChange(): void {
    const random = this.#random;
    const { view } = this.#machine.memory;
    const end = random.below(64) === 0 ? random.below(300) : random.below(4);
    view.setUint16(BUFFER, random.below(4) === 0 ? random.below(end + 2) : 0, true);
    view.setUint16(BUFFER + 2, end, true);
    for (let k = 0; k <= Math.min(end, 252); k++) {
      const huge = random.below(8) === 0;
      const page = huge && random.below(8) !== 0 ? LARGE * random.below(3) : this.#page();
      const operation = random.below(16) === 0 ? random.below(16) : 1 + random.below(2);
      const done = random.below(8) === 0 ? random.below(600) : 0;
      const entry = BigInt(done) | BigInt(page) << 12n | BigInt(operation) << 52n | (huge ? 1n << 56n : 0n);
      view.setBigUint64(BUFFER + 8 + 8 * k, entry, true);
    }
  }

  #msrProtocol(): void {
    const random = this.#random;
    const infos = [0x002, 0x004, 0x006, 0x010, 0x012, 0x014, 0x016, 0x080, 0x100, random.below(4096)];
    const info = infos[random.below(infos.length)];
    const value = info === 0x014 ? BigInt(this.#page()) << 12n | BigInt(random.below(4)) << 52n : this.#word() << 12n;
    this.#machine.memory.u64[this.#ghcbWord] = BigInt.asUintN(64, value) & ~0xfffn | BigInt(info);
    this.#serve(EXIT.VMGEXIT);
  }

  get #ghcbWord(): number {
    return (this.#sev.vmcb(0) + VMCB_CONTROL.at.ghcb_gpa) >>> 3;
  }

  #exit(code: number, info1: bigint, info2: bigint): void {
    const { u64 } = this.#machine.memory;
    u64[(this.#sev.vmcb(0) + VMCB_CONTROL.at.exit_info_1) >>> 3] = info1;
    u64[(this.#sev.vmcb(0) + VMCB_CONTROL.at.exit_info_2) >>> 3] = info2;
    this.#serve(code);
  }

  /** The guest leaves; the host has its turn until it enters again, waits or stops. The GHCB may change meanwhile. */
  #serve(code: number): void {
    const random = this.#random;
    const machine = this.#machine;
    const { memory } = machine;
    const host = this.#host;
    const turn = (this.#sev.vpState(0) + SevVpState.at.turn) >>> 2;
    memory.u64[(this.#sev.vmcb(0) + VMCB_CONTROL.at.exit_code) >>> 3] = BigInt.asUintN(64, BigInt(code));
    memory.u32[turn] = TURN.HOST;
    let steps = 0;
    let last = 0;
    while (memory.u32[turn] === TURN.HOST) {
      ensure(steps < STEPS_MAX, `no end of the request at ${stepName(host.step)}`);
      const taken = host.takeSteps(1 + random.below(40));
      if (taken === 0) break;
      steps += taken;
      if (random.below(8) === 0) memory.u32[(GHCB_GPA >>> 2) + random.below(PAGE / 4)] = random.next();
      if (host.step === last) machine.platform.pc?.serialOutput.drain();
      if (host.step === last) machine.platform.pc?.debugOutput.drain();
      last = host.step;
    }
    if (memory.u32[turn] === TURN.GUEST && machine.end === END.NONE) this.#count("entered again");
    else {
      ensure(host.halted || !host.enabled || machine.end !== END.NONE, `the host stands at ${stepName(host.step)}`);
      this.#count(machine.end === END.NONE ? "waits" : "stopped");
      this.#restore();
    }
  }

  /** Everything as it was at the start, but guest memory and the RMP. */
  #restore(): void {
    const { memory, header } = this.#machine;
    const { rmp } = this.#sev;
    if (rmp === undefined) {
      memory.u8.set(this.#before, header);
      return;
    }
    const end = rmp.place.base + 16 * this.#sev.pages;
    memory.u8.set(this.#before.subarray(0, rmp.place.base - header), header);
    memory.u8.set(this.#before.subarray(end - header), end);
    ensure(memory.u32[(header + MachineHeader.at.end) >>> 2] === END.NONE, "the machine has not ended");
  }

  // --- The guest's and the host's instructions ----------------------------------------------------------------------

  /** What backs a guest page: the page of the same number, or what a host that lies has put there. */
  #backing(gpn: number): number {
    return this.#random.below(4) === 0 ? this.#page() : gpn;
  }

  #pvalidate(): void {
    this.operation = "pvalidate";
    const gpn = this.#page();
    const validate = this.#accepted[gpn] === 0;
    const page = this.#backing(gpn);
    const options = { asid: GUEST_ASID, size: 0, validate, mappedPrivate: true };
    const { check, result, unchanged } = this.#sev.rmp!.pvalidate(this.#host.port, page, gpn, options);
    const before = this.checker!.entryBefore(page);
    const owned = before.assigned && before.asid === GUEST_ASID && before.gpn === gpn;
    if (!owned) ensure(check === RMP_CHECK.OWNER, "PVALIDATE of somebody else's page");
    if (check !== RMP_CHECK.PASS || result !== 0) return;
    ensure(unchanged === (before.validated === validate), "CF says whether the page was in that state");
    // Unchanged: the host has played with the page; a guest takes that as an attack and believes nothing new.
    if (!unchanged) this.#accepted[gpn] = validate ? 1 : 0;
  }

  #rmpadjust(): void {
    this.operation = "rmpadjust";
    const random = this.#random;
    const gpn = this.#page();
    const attributes = BigInt(random.below(5) | random.below(16) << 8 | random.below(2) << 16);
    const options = { asid: GUEST_ASID, vmpl: random.below(4), size: random.below(8) === 0 ? 1 : 0, attributes };
    this.#sev.rmp!.rmpadjust(this.#host.port, this.#backing(gpn), gpn, options);
  }

  #rmpupdate(): void {
    const random = this.#random;
    const { guestMemory, rmp } = this.#sev;
    const huge = random.below(8) === 0;
    const page = huge ? LARGE * random.below(2) : this.#page();
    if (random.below(4) === 0) rmp!.psmash(this.#host.port, page - page % LARGE);
    const assigned = random.below(3) !== 0;
    const gpn = random.below(2) === 0 ? page : this.#page();
    const asid = assigned ? GUEST_ASID + random.below(2) : 0;
    const state = { assigned, asid, gpn: assigned ? gpn : 0, size: huge ? 1 : 0, immutable: false };
    guestMemory.rmpupdate(this.#host.port, page, state);
  }

  #hostWrite(): void {
    this.operation = "none";
    const { memory } = this.#machine;
    const page = this.#page();
    const at = page * PAGE + 8 * this.#random.below(PAGE / 8);
    const before = memory.u64[at >>> 3];
    const written = new HostPort(this.#sev.guestMemory, this.#host).store64(at, this.#word());
    const { assigned } = this.checker!.entryBefore(page);
    ensure(written === !assigned, "the host writes shared pages and no others");
    ensure(written || memory.u64[at >>> 3] === before, "a write that faults changes nothing");
  }

  #guestAccess(): void {
    this.operation = "none";
    const gpn = this.#page();
    const page = this.#backing(gpn);
    const permissions = 1 << this.#random.below(4);
    const vmpl = this.#random.below(4);
    const check = this.#sev.rmp!.checkGuestPrivate(this.#host.port, page, gpn, { asid: GUEST_ASID, vmpl, permissions });
    const entry = this.checker!.entryBefore(page);
    const owned = entry.assigned && entry.asid === GUEST_ASID && entry.gpn === gpn;
    ensure((check === RMP_CHECK.OWNER) === !owned, "who owns the page");
    ensure((check === RMP_CHECK.NOT_VALIDATED) === (owned && !entry.validated), "whether it is validated");
    const granted = (entry.permissions >>> (4 * vmpl) & permissions) !== 0;
    ensure((check === RMP_CHECK.PASS) === (owned && entry.validated && granted), "what its VMPL may do");
  }
}

/** An entry as the table of the APM's raw format has it; the permissions are the model's own half. */
interface Entry {
  readonly assigned: boolean;
  readonly large: boolean;
  readonly immutable: boolean;
  readonly gpn: number;
  readonly asid: number;
  readonly vmsa: boolean;
  readonly validated: boolean;
  readonly permissions: number;
  readonly locked: boolean;
}

const WORDS = 4;

/** Holds every change of the table against what the RMP promises. */
class RmpChecker {
  readonly #table: Uint32Array;
  readonly #before: Uint32Array;
  readonly #pages: number;
  /** Pages that are validated for each guest page. */
  readonly #validated = new Map<number, number>();

  constructor(machine: Machine, base: number, pages: number) {
    this.#pages = pages;
    this.#table = machine.memory.u32.subarray(base >>> 2, (base >>> 2) + WORDS * pages);
    this.#before = this.#table.slice();
  }

  /** The entry of a page before the operation under way. */
  entryBefore(page: number): Entry {
    return decode(this.#before, page);
  }

  /** Checks what has changed since the last call, which `operation` did. */
  check(operation: Operation): void {
    const now = this.#table;
    const before = this.#before;
    for (let word = 0; word < now.length; word++) {
      if (now[word] === before[word]) continue;
      const page = Math.floor(word / WORDS);
      this.#checkEntry(page, operation, decode(before, page), decode(now, page));
      for (let k = 0; k < WORDS; k++) before[WORDS * page + k] = now[WORDS * page + k];
      word = WORDS * page + WORDS - 1;
    }
  }

  #checkEntry(page: number, operation: Operation, before: Entry, now: Entry): void {
    const where = `page ${page}`;
    ensure(operation !== "none", `${where}: nobody may have changed it`);
    ensure(!now.locked, `${where}: stays locked`);
    const sameOwner = before.assigned === now.assigned && before.asid === now.asid && before.gpn === now.gpn;
    ensure(operation === "host" || sameOwner, `${where}: the guest has changed its owner`);
    ensure(operation === "host" || before.large === now.large, `${where}: the guest has changed its size`);
    ensure(!before.immutable || (sameOwner && now.immutable), `${where}: was immutable`);
    ensure(before.validated || !now.validated || operation === "pvalidate", `${where}: validated by ${operation}`);
    ensure(sameOwner || (!now.validated && !now.vmsa), `${where}: its new owner finds it validated`);
    ensure(before.vmsa || !now.vmsa || operation === "rmpadjust", `${where}: made a VMSA by ${operation}`);
    ensure(now.assigned || (now.asid === 0 && now.gpn === 0 && !now.validated), `${where}: nobody's, with an owner`);
    ensure(!now.large || (page % LARGE === 0 && page + LARGE <= this.#pages), `${where}: large, and no large page`);
    if (before.validated !== now.validated) this.#countValidated(page, before, now);
  }

  /** A guest page is validated in one place at most. */
  #countValidated(page: number, before: Entry, now: Entry): void {
    const gpn = before.validated ? before.gpn : now.gpn;
    const places = (this.#validated.get(gpn) ?? 0) + (now.validated ? 1 : -1);
    this.#validated.set(gpn, places);
    ensure(places <= 1, `page ${page}: guest page ${gpn} is validated in two places`);
  }
}

function decode(table: Uint32Array, page: number): Entry {
  const [lo, hi, permissions, high] = table.subarray(WORDS * page, WORDS * page + WORDS);
  return {
    assigned: (lo & 1) !== 0,
    large: (lo >>> 1 & 1) !== 0,
    immutable: (lo >>> 2 & 1) !== 0,
    gpn: (lo >>> 12) + (hi & 0x7ffff) * 2 ** 20,
    asid: hi >>> 19 & 0x3ff,
    vmsa: (hi >>> 29 & 1) !== 0,
    validated: (hi >>> 30 & 1) !== 0,
    permissions: permissions & 0xffff,
    locked: high >>> 31 !== 0,
  };
}

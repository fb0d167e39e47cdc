/**
 * The soak test of the sidecar: 16 sidecar processors in two nodes on real workers, to which random things are done while
 * their guests make exits; every exit of every processor must be the one that the same guest makes alone on `kernel`.
 *
 * An operation counts when an agent has carried it out. A kind that was carried out fewer times than
 * {@linkcode OPERATIONS_MIN} is a failure, as is one that was accepted and is not carried out in time.
 *
 * By hand: `deno task soak [--seed N] [--seconds S] [--hotplug on|off] [--workers N]`, with a fresh seed unless one is given.
 */
import { parseArgs } from "@std/cli/parse-args";
import { CpuState } from "../../lib/cpu/state.ts";
import { ExitAccess, ExitRecordHeader, recordKind } from "../../lib/hypervisor/exit_log.ts";
import { parseImage } from "../../lib/guest/image.ts";
import { loadGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine } from "../../lib/machine/run.ts";
import { type VpAction, VpControl } from "../../lib/machine/vp_actions.ts";
import { Random } from "../../lib/memory/random.ts";
import { SOAK_GUEST_FLAG, soakGuest } from "./soak_guest.ts";

/** Processors: two nodes of nine, of which eight each are the sidecar's. */
const VPS = 18;
const NODES = 2;
const RAM_BYTES = 1 << 20;
/** How often each operation must have been carried out. */
export const OPERATIONS_MIN = 50;
/** Exits that each processor must have made. */
const EXITS_MIN = 50;
/** Longest time in milliseconds for an operation to be carried out, and for the guests to come to their end. */
const OPERATION_MS_MAX = 15_000;
const END_MS_MAX = 20_000;

/** What is done to processors, as the soak test counts it. */
const KINDS = ["start", "stop", "cancel", "remove", "re-add"] as const;
type Kind = (typeof KINDS)[number];
const ACTIONS: Readonly<Record<Kind, VpAction>> = {
  start: "resume",
  stop: "stop",
  cancel: "cancel",
  remove: "hotplug",
  "re-add": "unplug",
};

/** How a soak is run. */
export interface SoakOptions {
  readonly seed: number;
  /** Longest time of the operations; they end earlier when there have been enough, unless `toTheEnd`. */
  readonly seconds: number;
  readonly toTheEnd?: boolean;
  /** Policy `sidecar.hotplug`: whether processors leave the sidecar by themselves after their first exit. */
  readonly hotplug?: "on" | "off";
  /** Workers on which the processors take turns; one each when absent. */
  readonly workers?: number;
}

/** What a soak found. */
export interface SoakReport {
  /** Operations carried out, by kind. */
  readonly operations: Readonly<Record<Kind, number>>;
  /** Exits compared, of all processors. */
  readonly exits: number;
  /** Exits by kind. */
  readonly histogram: Readonly<Record<string, number>>;
  /** What went wrong, one line each. */
  readonly failures: readonly string[];
}

// --- Exits as numbers ---------------------------------------------------------------------------------------------

const header = ExitRecordHeader.at;
/** GPRs, RIP, RFLAGS and the segment registers lie one after the other at the start of a `CpuState`. */
const COMPARED_BYTES = CpuState.at.ldtr;
const FNV_PRIME = 0x01000193;
const FNV_BASIS = 0x811c9dc5;

/** A hash (FNV-1a over words) of what a guest and a device can know of an exit. */
export function fingerprint(record: DataView): number {
  let hash = FNV_BASIS ^ record.getUint8(header.kind);
  for (let at = 0; at < COMPARED_BYTES; at += 4) {
    hash = Math.imul(hash ^ record.getInt32(header.registers + at, true), FNV_PRIME);
  }
  const accesses = record.getUint32(header.accesses, true);
  for (let at = 0; at < accesses * ExitAccess.size; at += 4) {
    hash = Math.imul(hash ^ record.getInt32(ExitRecordHeader.size + at, true), FNV_PRIME);
  }
  return hash >>> 0;
}

/** An interrupt of VTL2 is no exit that the guest has made. */
export function isGuests(record: DataView): boolean {
  return recordKind(record) !== "interrupt";
}

/** The first `count` exits of VP `vp`'s guest, alone on `kernel`. */
export async function reference(vp: number, count: number): Promise<Uint32Array> {
  const machine = Machine.create({
    platform: "kernel",
    vps: 1,
    ramBytes: RAM_BYTES,
    policies: {},
    devices: "pc",
    recordExits: true,
  }, true);
  loadGuest(machine, parseImage(soakGuest(vp), "reference", { mode: "real" }));
  const exits = new Uint32Array(count);
  let seen = 0;
  await runMachine(machine, {
    exitLimit: count + 1,
    timeLimitSeconds: 60,
    onExit: (record) => {
      if (isGuests(record) && seen < count) exits[seen++] = fingerprint(record);
    },
  });
  if (seen < count) throw new Error(`The reference of VP ${vp} ends after ${seen} exits`);
  return exits;
}

// --- Operations ---------------------------------------------------------------------------------------------------

/** One processor under test. */
class Subject {
  readonly vp: number;
  readonly control: VpControl;
  stopped = false;
  /** The operation under way. */
  pending: { readonly kind: Kind; readonly count: number; readonly since: number } | undefined;

  constructor(machine: Machine, vp: number) {
    this.vp = vp;
    this.control = new VpControl(machine, vp);
  }

  /** How often agents have carried out operations of this kind. */
  carriedOut(kind: Kind): number {
    const { stops, cancels, hotplugs, unplugs, runs } = this.control.counts;
    return { start: runs, stop: stops, cancel: cancels, remove: hotplugs, "re-add": unplugs }[kind];
  }

  /** What can be done to it now. */
  choices(): Kind[] {
    const { online, leaving } = this.control;
    if (leaving) return [];
    if (this.stopped) return online ? ["re-add"] : ["start", "start", "start", "remove"];
    return online ? ["re-add", "re-add", "stop"] : ["cancel", "cancel", "stop", "stop", "remove"];
  }

  /** Asks for an operation. */
  begin(kind: Kind): void {
    const count = this.carriedOut(kind);
    if (!this.control.perform(ACTIONS[kind])) return;
    this.pending = { kind, count, since: performance.now() };
    if (kind === "start") this.stopped = false;
  }

  /** The operation that has been carried out since the last call, or a failure. */
  check(): Kind | string | undefined {
    const { pending } = this;
    if (pending === undefined) return undefined;
    if (this.carriedOut(pending.kind) !== pending.count) {
      this.pending = undefined;
      if (pending.kind === "stop") this.stopped = true;
      return pending.kind;
    }
    // With conversion on, Linux may take the processor first: the run that was to be cancelled has ended then.
    if (pending.kind === "cancel" && this.control.online) {
      this.pending = undefined;
      return undefined;
    }
    if (performance.now() - pending.since < OPERATION_MS_MAX) return undefined;
    this.pending = undefined;
    return `VP ${this.vp}: ${pending.kind} was accepted and not carried out in ${OPERATION_MS_MAX} ms`;
  }
}

/** Does random things to processors, one at a time to each. */
class Operator {
  readonly operations: Record<Kind, number> = { start: 0, stop: 0, cancel: 0, remove: 0, "re-add": 0 };
  readonly failures: string[] = [];
  readonly subjects: readonly Subject[];
  readonly #random: Random;

  constructor(machine: Machine, seed: number) {
    const vps = Array.from({ length: VPS }, (_, vp) => vp);
    this.subjects = vps.filter((vp) => machine.platform.sidecar.isSidecarVp(vp)).map((vp) => new Subject(machine, vp));
    this.#random = Random.seeded(seed);
  }

  /** Whether every kind has been carried out often enough. */
  get enough(): boolean {
    return KINDS.every((kind) => this.operations[kind] >= OPERATIONS_MIN);
  }

  /** Whether no operation is under way. */
  get quiet(): boolean {
    return this.subjects.every(({ pending }) => pending === undefined);
  }

  /** Takes note of what has been carried out. */
  collect(): void {
    for (const subject of this.subjects) {
      const done = subject.check();
      if (done === undefined) continue;
      if (done in this.operations) this.operations[done as Kind]++;
      else this.failures.push(done);
    }
  }

  /** Begins operations on some of the processors; half of the time the one that has been carried out least. */
  operate(): void {
    const random = this.#random;
    for (const subject of this.subjects) {
      if (subject.pending !== undefined || random.below(2) !== 0) continue;
      const choices = subject.choices();
      if (choices.length === 0) continue;
      const rarest = choices.reduce((a, b) => this.operations[b] < this.operations[a] ? b : a);
      subject.begin(random.below(2) === 0 ? rarest : choices[random.below(choices.length)]);
    }
  }

  /** Lets every processor run on. */
  resume(): void {
    for (const { control } of this.subjects) control.perform("resume");
  }
}

// --- The soak -----------------------------------------------------------------------------------------------------

/** Runs the soak test. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const { seed, seconds, toTheEnd = false, hotplug = "off", workers = VPS } = options;
  const machine = Machine.create({
    platform: "sidecar",
    vps: VPS,
    sidecarNodes: NODES,
    ramBytes: RAM_BYTES,
    policies: { "sidecar.hotplug": hotplug },
    devices: "pc",
    recordExits: true,
    workers,
  }, false);
  loadGuest(machine, parseImage(soakGuest(), "soak", { mode: "real" }));
  const operator = new Operator(machine, seed);
  const seen: number[][] = Array.from({ length: VPS }, () => []);
  const histogram: Record<string, number> = {};
  const started = performance.now();
  let endedAt = 0;
  const report = await runMachine(machine, {
    timeLimitSeconds: seconds + (OPERATION_MS_MAX + END_MS_MAX) / 1000,
    onExit: (record) => {
      if (!isGuests(record)) return;
      const vp = record.getUint16(header.vp, true);
      seen[vp].push(fingerprint(record));
      const kind = recordKind(record);
      histogram[kind] = (histogram[kind] ?? 0) + 1;
    },
    onProgress: () => {
      operator.collect();
      // VP 0 starts the others when all of them wait for that at the same time, which they would not while they move.
      if (endedAt !== 0 || operator.subjects.some(({ vp }) => seen[vp].length === 0)) return;
      const over = performance.now() - started >= seconds * 1000;
      const enough = operator.enough && operator.subjects.every(({ vp }) => seen[vp].length >= EXITS_MIN);
      if (!over && (toTheEnd || !enough)) operator.operate();
      else if (operator.quiet) {
        endedAt = performance.now();
        machine.memory.u8[SOAK_GUEST_FLAG] = 1;
        operator.resume();
      }
    },
  });
  const failures = [...operator.failures, ...report.problems];
  if (report.end !== "halt") failures.push(`the machine ended by ${report.end} ${report.vmmCrash?.assertion ?? ""}`);
  for (const kind of KINDS) {
    const count = operator.operations[kind];
    if (count < OPERATIONS_MIN) failures.push(`${kind} was carried out ${count} times, expected ${OPERATIONS_MIN}`);
  }
  for (const { vp } of operator.subjects) {
    const exits = seen[vp];
    exits.pop(); // the HLT of its end
    if (exits.length < EXITS_MIN) failures.push(`VP ${vp} made ${exits.length} exits, expected ${EXITS_MIN}`);
    const expected = await reference(vp, exits.length);
    const differs = expected.findIndex((exit, number) => exit !== exits[number]);
    if (differs >= 0) failures.push(`VP ${vp}: exit ${differs} of ${exits.length} is not the reference's`);
  }
  const exits = seen.reduce((sum, list) => sum + list.length, 0);
  return { operations: operator.operations, exits, histogram, failures };
}

/** What a soak found, for people. */
export function soakLines({ operations, exits, histogram, failures }: SoakReport): string[] {
  const list = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(", ");
  return [`operations: ${list(operations)}`, `exits: ${exits} (${list(histogram)})`, ...failures];
}

if (import.meta.main) {
  const flags = parseArgs(Deno.args, { string: ["seed", "seconds", "hotplug", "workers"] });
  const seed = flags.seed === undefined ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(flags.seed);
  const hotplug = flags.hotplug === "on" ? "on" : "off";
  const seconds = Number(flags.seconds ?? "60");
  const workers = Number(flags.workers ?? VPS);
  if (!Number.isInteger(seed) || !(seconds > 0) || !(Number.isInteger(workers) && workers > 0)) {
    console.error("usage: deno task soak [--seed N] [--seconds S] [--hotplug on|off] [--workers N]");
    Deno.exit(2);
  }
  console.log(`deno task soak --seed ${seed} --seconds ${seconds} --hotplug ${hotplug} --workers ${workers}`);
  const report = await soak({ seed, seconds, toTheEnd: true, hotplug, workers });
  for (const line of soakLines(report)) console.log(line);
  Deno.exit(report.failures.length === 0 ? 0 : 1);
}

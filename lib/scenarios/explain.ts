/**
 * Which policies can produce what was observed at a crash of the VMM, and with what guest.
 *
 * For each combination every crash within the bounds is looked for, with one guest of each kind of exit. The schedules that
 * crash are then run with every other guest, start of RAX and answer of the device. A guest that meets one crash that does
 * not look as observed is no explanation, so that most are refuted at once. What remains is searched itself, completely,
 * before it counts.
 *
 * @module
 */
import { type Choice, Engine } from "../explore/engine.ts";
import { DEFAULT_BOUNDS } from "../explore/exhaustive.ts";
import { type Expression, type Observation, parseExpression } from "../explore/expression.ts";
import { minimise } from "../explore/minimise.ts";
import { record, type Schedule } from "../explore/schedule.ts";
import { search } from "../explore/search.ts";
import type { MemoryModel, Property } from "../explore/system.ts";
import { HvMessage, HvX64InterceptMessageHeader, HvX64IoPortInterceptMessage } from "../layout/hyperv/messages.ts";
import { HvX64RegisterPage } from "../layout/hyperv/register_page.ts";
import { CpuContextX64 } from "../layout/hyperv/sidecar.ts";
import { CONTEXT_GPR_NAMES, GPR_NAMES } from "../layout/x64/names.ts";
import { END, MachineHeader } from "../machine/header.ts";
import { BadInput } from "../memory/bad_input.ts";
import { takeConsulted } from "../memory/policy.ts";
import { GUEST_ORIGIN, type MachineSystem, ScenarioRecord } from "./machine_system.ts";
import { buildSystem, type Choices, type Scenario } from "./scenario.ts";
import { sidecarRax } from "./sidecar_rax.ts";
import { GUEST_VARIATIONS, guestCode, type GuestProgram, PORT_PROGRAMS } from "./sidecar_rax_guests.ts";

/** Starts of RAX for which a guest must fit: one may be a coincidence. */
const STARTS_MIN = 2;
/** Schedules that are kept of a search: one for each set of registers at a crash. */
const CRASHES_MAX = 64;
/** The program with which crashes are looked for: its values have nothing in common, so that no two happen to be equal. */
const USUAL = { bits: "32", step: "0xb0", start: "0x1234", answer: GUEST_VARIATIONS.usualAnswer } as const;
/** Kinds of exits, those first that say most. */
const EXIT_KINDS = GUEST_VARIATIONS.portExits;

/** How much smaller the bound on preemptions is for the other kinds, whose way through the driver is the same. */
const OTHERS_LESS = 1;

/** Preemptions in one schedule of a guest of a kind, where those of the first kind may have `most`. */
export function preemptionsOf(exit: string, most: number): number {
  return exit === EXIT_KINDS[0] ? most : Math.max(0, most - OTHERS_LESS);
}

/** What is asked for one combination. */
export interface ExplainRequest {
  /** The expression; it has been read once. */
  readonly observe: string;
  readonly policies: Choices;
  readonly memoryModel: MemoryModel;
  /** Bound on preemptions for the first kind of exit; see {@linkcode preemptionsOf}. */
  readonly preemptions: number;
  /** VTL2 interrupts that may happen. */
  readonly interrupts: number;
}

/** What is known of a combination. */
export interface Explanation {
  /** Null when a bound was hit before it was known. */
  readonly possible: boolean | null;
  /** The guest, in words; null unless possible. */
  readonly guest: string | null;
  /** What its device answers, in words; null unless possible. */
  readonly device: string | null;
  readonly schedule: Schedule | null;
  /** In words what was found when it is not possible. */
  readonly reason: string;
  /** Policies that the agents looked at. */
  readonly consulted: readonly string[];
  readonly states: number;
}

/** The scenarios that `explain` knows guests for. */
const EXPLAINED: readonly Scenario[] = [sidecarRax];

/** Throws {@linkcode BadInput} for a scenario that has no guests to vary. */
export function checkExplained(scenario: Scenario): void {
  if (EXPLAINED.includes(scenario)) return;
  const names = EXPLAINED.map(({ name }) => name).join(", ");
  throw new BadInput(
    `Scenario "${scenario.name}" has no guest whose registers could be observed; explain takes ${names}`,
  );
}

// --- What can be observed -----------------------------------------------------------------------------------------

const payload = HvMessage.at.payload_buffer;
const port = HvX64IoPortInterceptMessage.at;
const intercept = HvX64InterceptMessageHeader.at;
const truth = ScenarioRecord.at;

/** Where a register of each group lies within it. */
const REGISTERS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  message: {
    rax: payload + port.rax,
    rcx: payload + port.rcx,
    rsi: payload + port.rsi,
    rdi: payload + port.rdi,
    rip: payload + intercept.rip,
    rflags: payload + intercept.rflags,
  },
  context: slots(CONTEXT_GPR_NAMES, CpuContextX64.at.gps),
  page: {
    ...slots(GPR_NAMES, HvX64RegisterPage.at.gp_registers),
    rip: HvX64RegisterPage.at.rip,
    rflags: HvX64RegisterPage.at.rflags,
  },
  guest: { ...slots(GPR_NAMES, truth.gpr), rip: truth.rip, cr2: truth.cr2 },
};

function slots(names: readonly string[], first: number): Record<string, number> {
  return Object.fromEntries(names.map((name, k) => [name, first + 8 * k]));
}

/** The names that an expression can use. */
export const OBSERVABLE: readonly string[] = Object.entries(REGISTERS).flatMap(([group, registers]) =>
  Object.keys(registers).map((name) => `${group}.${name}`)
);

/** Reads an expression over {@linkcode OBSERVABLE}. Throws `BadInput` with the position. */
export function parseObservation(text: string): Expression {
  return parseExpression(text, OBSERVABLE, "--observe");
}

function observationOf(system: MachineSystem): Observation {
  const { memory: { u64 } } = system;
  const registerPage = system.structures!.find(({ layout }) => layout === HvX64RegisterPage)!.at;
  const bases: Record<string, number> = {
    message: system.message,
    context: system.context,
    page: registerPage,
    guest: system.record,
  };
  const at = new Map<string, number>(
    Object.entries(REGISTERS).flatMap(([group, registers]) =>
      Object.entries(registers).map(([name, offset]) => [`${group}.${name}`, (bases[group] + offset) >>> 3] as const)
    ),
  );
  return (name) => u64[at.get(name)!];
}

// --- One kind of exit under one choice of policies ------------------------------------------------------------------

/** A guest that fits, and with what. */
interface Fit {
  readonly program: GuestProgram;
  /** Undefined when no crash depends on it. */
  readonly answer: string | undefined;
  readonly starts: readonly string[];
}

/** Crashes of one guest's system. */
class CrashSearch {
  readonly system: MachineSystem;
  readonly engine: Engine;
  /** Schedules that end in a crash, one for each set of registers. */
  readonly crashes: (readonly Choice[])[] = [];
  /** What was observed at each. */
  readonly fits: boolean[] = [];
  readonly observation: Observation;
  states = 0;
  readonly #expression: Expression;
  readonly #seen = new Set<string>();
  /** The initial contents of what can change. */
  readonly #initial: readonly { readonly at: number; readonly bytes: Uint8Array }[];

  constructor(policies: Choices, options: Choices, expression: Expression, memoryModel: MemoryModel) {
    // This scenario builds nothing else than systems of machines.
    this.system = buildSystem(sidecarRax, policies, options) as MachineSystem;
    this.engine = new Engine(this.system, memoryModel);
    this.observation = observationOf(this.system);
    this.#expression = expression;
    const { memory, mutable } = this.system;
    this.#initial = mutable.map(({ at, bytes }) => ({ at, bytes: memory.u8.slice(at, at + bytes) }));
  }

  /** Puts the memory back into the initial state, past the engine. */
  reset(): void {
    const { memory, afterRestore } = this.system;
    for (const { at, bytes } of this.#initial) memory.u8.set(bytes, at);
    afterRestore?.call(this.system);
  }

  get crashed(): boolean {
    const { memory: { u32 }, machine } = this.system;
    return u32[(machine.header + MachineHeader.at.end) >>> 2] === END.VMM_CRASH;
  }

  get fitsNow(): boolean {
    return this.#expression.holds(this.observation);
  }

  /** Whether a device has answered the guest since the beginning. */
  get answered(): boolean {
    const { memory: { u32, u64 }, record: at } = this.system;
    const count = u32[(at + truth.accesses) >>> 2];
    for (let k = 0; k < count; k++) if ((u64[((at + truth.log) >>> 3) + 2 * k] & 1n) === 0n) return true;
    return false;
  }

  /** Looks for all crashes within a bound on preemptions; false when another bound was hit, or it was interrupted. */
  collect(preemptions: number, interrupted: () => boolean): boolean {
    const collector: Property = {
      name: "crashes",
      sentence: "Every crash is noted.",
      when: "always",
      kind: "",
      holds: () => {
        if (this.crashed) this.#note();
        return true;
      },
    };
    const result = search(this.engine, {
      bounds: { ...DEFAULT_BOUNDS, preemptions },
      reductions: { fingerprints: true, persistentSets: false, sleepSets: false },
      properties: [collector],
      until: "never",
      firstPreemptions: [],
      progress: interrupted,
    });
    this.states += result.states;
    return result.exhausted;
  }

  #note(): void {
    const key = OBSERVABLE.map((name) => this.observation(name).toString(16)).join();
    if (this.#seen.has(key) || this.crashes.length === CRASHES_MAX) return;
    this.#seen.add(key);
    this.crashes.push(this.engine.path());
    this.fits.push(this.fitsNow);
  }
}

/** All guests of one kind of exit. */
class KindSearch {
  readonly crashes: CrashSearch;
  readonly #exit: string;
  readonly #request: ExplainRequest;
  readonly #expression: Expression;

  constructor(exit: string, expression: Expression, request: ExplainRequest) {
    this.#exit = exit;
    this.#expression = expression;
    this.#request = request;
    this.crashes = this.#search({ exit, bits: USUAL.bits, step: USUAL.step }, USUAL.start, USUAL.answer);
  }

  #search(program: GuestProgram, start: string, answer: string): CrashSearch {
    const { policies, memoryModel } = this.#request;
    const options = { ...program, start, answer, interrupts: `${this.#request.interrupts}` };
    return new CrashSearch(policies, options, this.#expression, memoryModel);
  }

  /** The guests that fit at all crashes that are known, those first that fit for most starts. */
  candidates(interrupted: () => boolean): Fit[] {
    const { crashes, engine } = this.crashes;
    if (crashes.length === 0) return [];
    engine.restore(); // what follows goes past the engine, which finds the memory again as it is now
    const depends = crashes.some((choices) => {
      this.#run({ exit: this.#exit, bits: USUAL.bits, step: USUAL.step }, USUAL.start, USUAL.answer, choices);
      return this.crashes.answered;
    });
    const answers = depends ? GUEST_VARIATIONS.answers : [undefined];
    const found: Fit[] = [];
    for (const program of PORT_PROGRAMS) {
      if (program.exit !== this.#exit) continue;
      for (const answer of answers) {
        if (interrupted()) return found;
        const starts = this.#fittingStarts(program, answer ?? USUAL.answer);
        if (starts.length >= STARTS_MIN) found.push({ program, answer, starts });
      }
    }
    this.crashes.reset();
    return found.sort((a, b) => b.starts.length - a.starts.length);
  }

  #fittingStarts(program: GuestProgram, answer: string): string[] {
    const { starts } = GUEST_VARIATIONS;
    const fitting: string[] = [];
    for (let k = 0; k < starts.length; k++) {
      if (fitting.length + starts.length - k < STARTS_MIN) break;
      if (this.#fits(program, starts[k], answer)) fitting.push(starts[k]);
    }
    return fitting;
  }

  /** Whether a guest crashes under one of the schedules that are known, and looks as observed whenever it does. */
  #fits(program: GuestProgram, start: string, answer: string): boolean {
    let crashed = false;
    for (const choices of this.crashes.crashes) {
      if (!this.#run(program, start, answer, choices)) continue;
      if (!this.crashes.fitsNow) return false;
      crashed = true;
    }
    return crashed;
  }

  /** Runs a schedule with another guest in the place of this one; whether that ends in a crash. */
  #run(program: GuestProgram, start: string, answer: string, choices: readonly Choice[]): boolean {
    const { system } = this.crashes;
    this.crashes.reset();
    system.memory.u8.set(codeOf(program, start), GUEST_ORIGIN);
    system.memory.u32[(system.record + truth.answer) >>> 2] = Number(answer);
    system.afterRestore!();
    for (const { actor } of choices) if (system.agents[actor].agent.takeSteps(1) === 0) return false;
    return this.crashes.crashed;
  }

  /**
   * Searches a guest that may fit, for two of its starts. Its schedule when every crash looks as observed; undefined when
   * one does not, which is then known; null when it was interrupted or a bound was hit.
   */
  confirm(fit: Fit, preemptions: number, interrupted: () => boolean): Schedule | undefined | null {
    let schedule: Schedule | undefined;
    for (const start of fit.starts.slice(0, STARTS_MIN)) {
      const own = this.#search(fit.program, start, fit.answer ?? USUAL.answer);
      const exhausted = own.collect(preemptions, interrupted);
      this.crashes.states += own.states;
      const other = own.fits.indexOf(false);
      if (other >= 0) {
        this.crashes.crashes.push(own.crashes[other]);
        return undefined;
      }
      if (!exhausted) return null;
      schedule ??= scheduleOf(own);
    }
    return schedule;
  }
}

const codes = new Map<string, Uint8Array>();

/** The program of a guest, assembled once. */
function codeOf(program: GuestProgram, start: string): Uint8Array {
  const key = `${program.exit} ${program.bits} ${program.step} ${start}`;
  let code = codes.get(key);
  if (code === undefined) codes.set(key, code = guestCode(program, start));
  return code;
}

/** The shortest schedule that is known, without what it does not need. */
function scheduleOf({ system, engine, crashes }: CrashSearch): Schedule {
  const choices = crashes.reduce((best, other) => other.length < best.length ? other : best);
  const property = system.properties.find(({ name }) => name === "no-vmm-crash")!;
  const minimal = minimise(engine, { property, kind: "", choices }, { states: MINIMISE_STATES });
  return record(engine, minimal.choices, { property: property.name, kind: minimal.kind });
}

/** States of the exact search for the shortest schedule; beyond them steps are left out as long as it crashes. */
const MINIMISE_STATES = 20_000;

// --- One choice of policies ---------------------------------------------------------------------------------------

/** Says whether a combination of policies can produce what was observed. `interrupted` is asked often; true ends it. */
export function explainCombination(request: ExplainRequest, interrupted: () => boolean): Explanation {
  const expression = parseObservation(request.observe);
  takeConsulted();
  let states = 0;
  let crashes = 0;
  let open = false;
  const done = (rest: Partial<Explanation>): Explanation => {
    const consulted = takeConsulted().filter((name) => Object.hasOwn(request.policies, name));
    const none = { possible: null, guest: null, device: null, schedule: null, reason: "" };
    return { ...none, ...rest, consulted, states };
  };
  for (const exit of EXIT_KINDS) {
    const kind = new KindSearch(exit, expression, request);
    const outcome = explainKind(kind, preemptionsOf(exit, request.preemptions), interrupted);
    states += kind.crashes.states;
    crashes += kind.crashes.crashes.length;
    if (outcome === null) open = true;
    else if (outcome !== undefined) return done({ possible: true, ...outcome });
    if (interrupted()) return done({ reason: "interrupted" });
  }
  if (open) return done({ reason: "a bound was hit" });
  const reason = crashes === 0 ? "no crash" : "no guest looks so at every crash";
  return done({ possible: false, reason });
}

/** A guest of one kind that explains; undefined when none does, null when that is not known. */
function explainKind(
  kind: KindSearch,
  most: number,
  interrupted: () => boolean,
): Pick<Explanation, "guest" | "device" | "schedule"> | undefined | null {
  let exhausted = true;
  for (const preemptions of new Set([0, most])) {
    exhausted = kind.crashes.collect(preemptions, interrupted);
    if (interrupted()) return null;
    // One crash is enough to refute; further bounds cannot make a refuted guest fit again.
    if (kind.crashes.crashes.length > 0 && kind.candidates(interrupted).length === 0) {
      return interrupted() ? null : undefined;
    }
  }
  for (;;) {
    const fits = kind.candidates(interrupted);
    const [fit] = fits;
    if (interrupted()) return null;
    if (fit === undefined) return exhausted ? undefined : null;
    const schedule = kind.confirm(fit, most, interrupted);
    if (schedule === null) return null;
    if (schedule !== undefined) return { guest: guestText(fit), device: deviceText(fit, fits), schedule };
  }
}

function guestText({ program, starts }: Fit): string {
  const { exit, bits, step } = program;
  const register = bits === "32" ? "EAX" : "RAX";
  const all = starts.length === GUEST_VARIATIONS.starts.length;
  const from = `RAX = ${starts.join(", ")}${all ? " (every start that was tried)" : ""}`;
  return `${exit.toUpperCase()}, add ${register}, ${step} (${bits}-bit), ${exit.toUpperCase()}; from ${from}`;
}

/** The answer that was searched, and those that leave every crash that is known as observed, too. */
function deviceText({ program, answer }: Fit, fits: readonly Fit[]): string {
  if (answer === undefined) return "its answer does not matter";
  const others = fits.filter((fit) => fit.program === program && fit.answer !== answer);
  return `answers ${answer}${others.length === 0 ? "" : ` (or ${ranges(others.map((fit) => Number(fit.answer)))})`}`;
}

/** Numbers in words, in order: "0x1, 0x3 to 0x7". */
function ranges(numbers: readonly number[]): string {
  const found: [first: number, last: number][] = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    if (found.at(-1)?.[1] === number - 1) found.at(-1)![1] = number;
    else found.push([number, number]);
  }
  const hex = (number: number) => `0x${number.toString(16)}`;
  return found.map(([first, last]) => first === last ? hex(first) : `${hex(first)} to ${hex(last)}`).join(", ");
}

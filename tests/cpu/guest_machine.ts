/**
 * A processor with a few pages of memory that runs assembler text and notes what it writes to ports.
 *
 * Real mode starts at 7c00, protected and long mode at 100000, as the recorded programs do: flat segments 8 and 10, RSP 80000,
 * and in long mode 4 GiB mapped onto themselves.
 *
 * @module
 */
import type { Cpu } from "../../lib/cpu/cpu.ts";
import { assemble, type Assembly } from "../../lib/guest/assembler/assemble.ts";
import { initialState } from "../../lib/guest/initial_state.ts";
import { ExitMachine, type ExitMachineEnd } from "../../lib/inspect/exit_machine.ts";
import type { ExitHeader, ExitSegments, ExitSystem } from "../../lib/inspect/exit_stream.ts";
import type { SeenExit } from "../../lib/inspect/exit_compare.ts";

/** How a guest starts. */
export type GuestStart = "real" | "protected" | "long";

/** A machine with a program in it. */
export interface GuestMachine {
  /** The processor. */
  readonly cpu: Cpu;
  /** Addresses in the program. */
  readonly labels: Assembly["labels"];
  /** Values written to ports, in order. */
  readonly out: number[];
  /** Every exit. */
  readonly exits: SeenExit[];
  /** Runs to the end of the program. */
  run(): ExitMachineEnd;
}

const MEMORY_BYTES = 0x40_0000;
const INSTRUCTIONS_MAX = 1_000_000;
const STARTS = {
  real: { mode: "real16", bits: 16, load: 0x7c00 },
  protected: { mode: "prot32", bits: 32, load: 0x10_0000 },
  long: { mode: "long64", bits: 64, load: 0x10_0000 },
} as const;

/** A machine with the assembled `source`. */
export function guestMachine(start: GuestStart, source: string): GuestMachine {
  const { mode, bits, load } = STARTS[start];
  const assembly = assemble(source, { bits, origin: load });
  const state = initialState(start, load);
  const seg = Object.fromEntries(
    Object.entries(state.seg).map(([name, s]) => [name, [s.selector, s.attributes, s.limit, s.base]]),
  ) as unknown as ExitSegments;
  const { cr0, cr2, cr3, cr4, cr8, efer } = state;
  const tables = { gdtr: [state.gdtr.base, state.gdtr.limit], idtr: [state.idtr.base, state.idtr.limit] };
  const header: ExitHeader = {
    program: "test",
    image: "test",
    mode,
    load,
    memory: MEMORY_BYTES,
    endPort: 0xf4,
    ended: "hlt",
    cpuid: new Map(),
    initial: {
      gpr: state.gpr,
      rip: state.rip,
      rflags: state.rflags,
      seg,
      sys: { cr0, cr2, cr3, cr4, cr8, efer, ...tables } as unknown as ExitSystem,
    },
  };
  const out: number[] = [];
  const exits: SeenExit[] = [];
  const machine = new ExitMachine(header, assembly.bytes, (exit) => {
    exits.push(exit);
    if (exit.type === "out") out.push(exit.data.reduceRight((value, byte) => value * 256 + byte, 0));
    return true;
  });
  return { cpu: machine.cpu, labels: assembly.labels, out, exits, run: () => machine.run(INSTRUCTIONS_MAX) };
}

/** Runs `source` to its end and returns the values it wrote to ports. */
export function outputs(start: GuestStart, source: string): number[] {
  const machine = guestMachine(start, source);
  machine.run();
  return machine.out;
}

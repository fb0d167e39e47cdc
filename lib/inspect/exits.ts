/**
 * Replay of recorded whole programs on a machine of any platform, in either runtime: `exitbox verify exits` and the tests.
 *
 * Reading the streams, the devices' rule and the comparison are apart (exit_stream.ts, recorded.ts, exit_compare.ts), so that
 * every platform is held against the recordings in the same way.
 *
 * @module
 */
import { writeBootTables } from "../guest/initial_state.ts";
import { type MachineConfig, type Platform, RAM_MIN } from "../machine/config.ts";
import { END } from "../machine/header.ts";
import { setRegisters } from "../machine/load.ts";
import { Machine } from "../machine/machine.ts";
import { runMachine, type RuntimeName } from "../machine/run.ts";
import type { TimedVpAction } from "../machine/vp_actions.ts";
import { BadInput } from "../memory/bad_input.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { policies } from "../memory/policy.ts";
import { ExitComparer } from "./exit_compare.ts";
import { readExit, seenExits } from "./exit_records.ts";
import { writeExitRegisters } from "./exit_registers.ts";
import { type ExitStream, readExitStream } from "./exit_stream.ts";

/** The first difference of a program that failed. */
export interface ExitFailure {
  /** The program. */
  readonly class: string;
  /** Number of the record. */
  readonly id: string;
  /** What differs. */
  readonly field: string;
  /** What was recorded. */
  readonly expected: string;
  /** What the model did. */
  readonly actual: string;
}

/** How many exits of each program were matched. */
export interface ExitReport {
  /** By program: exits matched, and exits that were not reached or differ. */
  readonly classes: Record<string, { passed: number; failed: number }>;
  /** The first difference of each failing program. */
  readonly firstFailures: ExitFailure[];
  /** Instructions that raised #UD because they are not implemented, with how often. */
  readonly unimplemented: Record<string, number>;
}

/** A program to replay: where its stream lies, what is in it, its image. */
export interface RecordedProgram {
  /** Path of the stream. */
  readonly path: string;
  /** The stream. */
  readonly stream: ExitStream;
  /** The image. */
  readonly image: Uint8Array;
}

/** Streams end in one of these. */
const STREAM_SUFFIXES = [".jsonl.gz", ".jsonl"];

/**
 * The paths of the streams that `paths` name: files themselves, folders by what is in them, in order of name.
 *
 * @throws {BadInput} For a path that cannot be read and a folder without a stream.
 */
export async function findExitStreams(paths: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of paths) {
    let info: Deno.FileInfo;
    try {
      info = await Deno.stat(path);
    } catch {
      throw new BadInput(`${path}: no such file or folder`);
    }
    if (!info.isDirectory) {
      found.push(path);
      continue;
    }
    const names: string[] = [];
    for await (const entry of Deno.readDir(path)) {
      if (STREAM_SUFFIXES.some((suffix) => entry.name.endsWith(suffix))) names.push(entry.name);
    }
    if (names.length === 0) throw new BadInput(`${path}: no stream (a file ending in .jsonl or .jsonl.gz)`);
    found.push(...names.sort().map((name) => `${path}/${name}`));
  }
  return found;
}

/**
 * Reads a stream and the image that lies beside it.
 *
 * @throws {BadInput} For a line that is no record, and an image that is missing or does not fit.
 */
export async function readRecordedProgram(path: string): Promise<RecordedProgram> {
  const stream = await readExitStream(path);
  const { header } = stream;
  const slash = path.lastIndexOf("/");
  const imagePath = path.slice(0, slash + 1) + header.image;
  let image: Uint8Array;
  try {
    image = await Deno.readFile(imagePath);
  } catch {
    throw new BadInput(`${path}: image '${imagePath}' cannot be read`);
  }
  if (header.load + image.length > header.memory) {
    throw new BadInput(
      `${imagePath}: ${image.length} bytes at ${header.load.toString(16)} do not fit into ${
        header.memory.toString(16)
      }`,
    );
  }
  return { path, stream, image };
}

/** On what recorded programs are replayed. */
export interface VerifyExitsOptions {
  /** Default `bare`. */
  readonly platform?: Platform;
  /** Who has VMPL0 on platform `snp`. */
  readonly paravisor?: NonNullable<MachineConfig["paravisor"]>;
  /** Default `concurrent`. */
  readonly runtime?: RuntimeName;
  /** Seed of the deterministic runtime. */
  readonly seed?: number;
  /** Policy values; the policies that tell OpenHCL from silicon have `silicon` unless they are named here. */
  readonly policies?: Readonly<Record<string, string>>;
  /** What is done to VP 1 of the `sidecar` platform, on which the programs run, while each does. */
  readonly actions?: readonly TimedVpAction[];
  /** Called before each program with its name. */
  readonly onProgram?: (name: string) => void;
  /** Called every few milliseconds of a program with its name, the exits matched so far and all there are. */
  readonly onProgress?: (name: string, matched: number, all: number) => void;
}

/** Value of the policies that tell OpenHCL from silicon under which a platform does what the processor does. */
const SILICON = "silicon";

/**
 * Replays the programs of the streams in `paths` (files or folders).
 *
 * @throws {BadInput} For paths, streams, images, policies that cannot be used.
 */
export async function verifyExits(paths: readonly string[], options: VerifyExitsOptions = {}): Promise<ExitReport> {
  const report: ExitReport = { classes: {}, firstFailures: [], unimplemented: {} };
  for (const path of await findExitStreams(paths)) {
    const program = await readRecordedProgram(path);
    options.onProgram?.(program.stream.header.program);
    await replay(program, options, report);
  }
  return report;
}

/** The policies of a replay. */
function replayPolicies(chosen: Readonly<Record<string, string>>): Record<string, string> {
  const silicon = policies().filter(({ values }) => values.some(({ name }) => name === SILICON));
  return { ...Object.fromEntries(silicon.map(({ name }) => [name, SILICON])), ...chosen };
}

/** Modes of the recordings, as the loader calls them. */
const MODES = { real16: "real", prot32: "protected", long64: "long" } as const;

/** Runs one program and adds what was found to `report`. */
async function replay(program: RecordedProgram, options: VerifyExitsOptions, report: ExitReport): Promise<void> {
  const { stream, image } = program;
  const { header } = stream;
  const platform = options.platform ?? "bare";
  const machine = Machine.create({
    platform,
    ...(options.paravisor === undefined ? {} : { paravisor: options.paravisor }),
    // Processor 0 of the sidecar platform is the base processor, which is not the sidecar's.
    ...(platform === "sidecar" ? { vps: 2, bootVp: 1 } : { vps: 1 }),
    ramBytes: Math.max(RAM_MIN, Math.ceil(header.memory / PAGE_SIZE) * PAGE_SIZE),
    policies: replayPolicies(options.policies ?? {}),
    devices: "recorded",
    cpuid: [...header.cpuid].map(([leaf, values]) => [leaf, ...values] as const),
    endPort: header.endPort,
    recordExits: true,
  }, options.runtime === "deterministic");
  writeBootTables(machine.memory.u8.subarray(0, header.memory), MODES[header.mode]);
  machine.memory.u8.set(image, header.load);
  setRegisters(machine, (view, base) => writeExitRegisters(view, base, header.initial));
  const comparer = new ExitComparer(stream);
  const result = await runMachine(machine, {
    seed: options.seed ?? 0,
    actions: options.actions ?? [],
    onProgress: () => options.onProgress?.(header.program, comparer.matched, comparer.matched + comparer.unmatched),
    onExit: (record) => {
      for (const seen of seenExits(readExit(record))) {
        if (!comparer.accept(seen)) machine.finish(END.LIMIT, 0);
      }
    },
  });
  comparer.end(result.vmmCrash?.assertion ?? result.problems[0] ?? result.end);
  addResult(report, stream, comparer);
  for (const [name, times] of result.unimplemented) {
    report.unimplemented[name] = (report.unimplemented[name] ?? 0) + times;
  }
}

/** Adds what a comparer found about a program to a report. */
export function addResult(report: ExitReport, stream: ExitStream, comparer: ExitComparer): void {
  const name = stream.header.program;
  const counts = report.classes[name] ??= { passed: 0, failed: 0 };
  counts.passed += comparer.matched;
  // Going past the last record is a failure of its own.
  counts.failed += comparer.difference === undefined ? 0 : Math.max(comparer.unmatched, 1);
  if (comparer.difference !== undefined) report.firstFailures.push({ class: name, ...comparer.difference });
}

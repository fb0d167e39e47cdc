/**
 * Replay of recorded whole programs on a processor alone: `exitbox verify exits --platform bare` and the tests.
 *
 * Reading the streams, the devices' rule and the comparison are apart (exit_stream.ts, recorded.ts, exit_compare.ts), so that
 * every platform is held against the recordings in the same way.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { ExitComparer } from "./exit_compare.ts";
import { ExitMachine } from "./exit_machine.ts";
import { type ExitStream, readExitStream } from "./exit_stream.ts";

/** Most instructions of a program; one that computes longer has lost its way. */
export const EXIT_INSTRUCTIONS_MAX = 20_000_000_000;

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

/** Replays the programs of the streams in `paths` (files or folders) on a processor alone. */
export async function verifyExits(paths: readonly string[]): Promise<ExitReport> {
  const report: ExitReport = { classes: {}, firstFailures: [], unimplemented: {} };
  for (const path of await findExitStreams(paths)) {
    const program = await readRecordedProgram(path);
    const comparer = new ExitComparer(program.stream);
    const machine = new ExitMachine(program.stream.header, program.image, (exit) => comparer.accept(exit));
    comparer.end(machine.run(EXIT_INSTRUCTIONS_MAX));
    addResult(report, program.stream, comparer);
    for (const [name, times] of machine.cpu.unimplemented) {
      report.unimplemented[name] = (report.unimplemented[name] ?? 0) + times;
    }
  }
  return report;
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

/** Runs command lines in this process, and writes guests to files. */

import type { Context } from "../../lib/cli/command.ts";
import { PROGRAM_PLATFORMS } from "../../lib/cli/machine_flags.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { reportOf } from "../../lib/cli/errors.ts";
import type { FlagGroups } from "../../lib/cli/flags.ts";
import { findCommand, parseCommandLine } from "../../lib/cli/parse.ts";
import { Printer, type Sink } from "../../lib/cli/printer.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";

/** What a command line did. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A stream that keeps what is written. */
class Recorder implements Sink {
  text = "";

  writeSync(bytes: Uint8Array): number {
    this.text += new TextDecoder().decode(bytes);
    return bytes.length;
  }

  isTerminal(): boolean {
    return false;
  }
}

/** Runs a command line as `main.ts` does. */
export async function exitbox(...words: string[]): Promise<Outcome> {
  const output = new Recorder();
  const error = new Recorder();
  const printer = new Printer({ color: "never", quiet: false, output, error });
  let code: number;
  try {
    const { command, rest } = findCommand(words, COMMANDS);
    const { values, operands } = parseCommandLine(command, rest);
    const typed = values as Context<FlagGroups>["values"];
    code = await command.run({ values: typed, operands, words, printer, commands: COMMANDS });
  } catch (thrown) {
    const report = reportOf(thrown);
    code = report.code;
    error.text += report.text ?? "";
  }
  return { code, out: output.text, err: error.text };
}

/** A folder that is removed after `body`, with the guest `source` assembled into the file `guest` of it. */
export async function withGuest(source: string, body: (guest: string, folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "exitbox-test-" });
  try {
    const guest = `${folder}/guest.bin`;
    await Deno.writeFile(guest, assemble(`        org 0x7c00\n${source}`).bytes);
    await body(guest, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The words of a command line that choose each machine on which any guest runs. */
export const PROGRAM_MACHINES: readonly (readonly string[])[] = PROGRAM_PLATFORMS.map((platform) => [
  "--platform",
  platform,
  ...(platform === "snp" ? ["--paravisor", "openhcl"] : []),
]);

/**
 * The command `verify vectors`.
 *
 * @module
 */

import { findExitStreams } from "../inspect/exits.ts";
import { verifyVectors } from "../inspect/vectors.ts";
import { type Command, command } from "./command.ts";
import { toggle } from "./flags.ts";
import { printVerification, VERIFY_DETAILS } from "./verify_report.ts";

/** The command `verify vectors`. */
export const verifyVectorsCommand: Command = command({
  name: "verify vectors",
  summary: "replay recordings of single instructions and compare",
  examples: [
    ["exitbox verify vectors alu.jsonl.gz", "one class of instructions"],
    ["exitbox verify vectors recordings", "every recording in a folder"],
    ["exitbox verify vectors recordings --json", "counts and first differences as one JSON object"],
  ],
  operands: {
    name: "FILE",
    min: 1,
    max: Infinity,
    meaning: "recordings as JSON lines, plain or gzip, or folders of them",
  },
  flags: { Results: { json: toggle("one JSON object on standard output") } },
  details: VERIFY_DETAILS,
  async run({ values, operands, printer }) {
    const files = await findExitStreams(operands);
    const report = await verifyVectors(files, {
      onProgress: (file, replayed, all) => printer.progress(`${file}: ${replayed} of ${all} recordings`),
    });
    return printVerification(report, { title: "class", json: values.json }, printer);
  },
});

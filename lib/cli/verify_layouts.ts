/**
 * The command `verify layouts`.
 *
 * @module
 */

import { verifyLayouts } from "../inspect/verify_layouts.ts";
import { type Command, command } from "./command.ts";
import { toggle } from "./flags.ts";
import { printVerification, VERIFY_DETAILS } from "./verify_report.ts";

/** The command `verify layouts`. */
export const verifyLayoutsCommand: Command = command({
  name: "verify layouts",
  summary: "compare the declared structures with what compilers made of them",
  examples: [
    ["exitbox verify layouts", "every structure, union and bitfield"],
    ["exitbox verify layouts --json", "counts and first differences as one JSON object"],
    ["exitbox verify layouts --quiet", "no notes"],
  ],
  operands: null,
  flags: { Results: { json: toggle("one JSON object on standard output") } },
  details: VERIFY_DETAILS,
  run({ values, printer }) {
    return printVerification(verifyLayouts(), { title: "structure", json: values.json }, printer);
  },
});

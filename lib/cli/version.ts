/**
 * The command `version`.
 *
 * @module
 */

import project from "../../deno.json" with { type: "json" };
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle } from "./flags.ts";

/** The form of `version --json`. */
const VERSION_SCHEMA = 1;

/** The command `version`. */
export const versionCommand: Command = command({
  name: "version",
  summary: "print the version, and what it runs on",
  examples: [
    ["exitbox version", "one line"],
    ["exitbox version --json", "one JSON object"],
    ["exitbox --version", "the same as exitbox version"],
  ],
  operands: null,
  flags: { Format: { json: toggle("one JSON object on standard output") } },
  run({ values, printer }) {
    const { version } = project;
    const { deno, v8 } = Deno.version;
    const target = Deno.build.target;
    if (values.json) {
      printer.json({ schema: VERSION_SCHEMA, version, deno, v8, target });
    } else {
      printer.line(`exitbox ${version} (Deno ${deno}, V8 ${v8}, ${target})`);
    }
    return EXIT.CLEAN;
  },
});

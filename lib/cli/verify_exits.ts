/**
 * The command `verify exits`.
 *
 * @module
 */

import { verifyExits } from "../inspect/exits.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { toggle } from "./flags.ts";
import { paravisorConfig, paravisorFlag } from "./host_flags.ts";
import { platformFlag, policyFlag, PROGRAM_PLATFORMS, RUNTIME_FLAGS, seedOf } from "./machine_flags.ts";
import { printVerification, VERIFY_DETAILS } from "./verify_report.ts";

/** The command `verify exits`. */
export const verifyExitsCommand: Command = command({
  name: "verify exits",
  summary: "run recorded whole programs and compare every exit with all registers",
  examples: [
    ["exitbox verify exits programs", "every program in a folder, on the reference machine"],
    ["exitbox verify exits programs --platform snp --paravisor openhcl", "encrypted, through OpenHCL at VMPL0"],
    ["exitbox verify exits programs --runtime deterministic --json", "without workers, as one JSON object"],
  ],
  operands: {
    name: "FILE",
    min: 1,
    max: Infinity,
    meaning: "streams as JSON lines, plain or gzip, with their images beside them, or folders of them",
  },
  flags: {
    Machine: { platform: platformFlag("bare", PROGRAM_PLATFORMS), paravisor: paravisorFlag, policy: policyFlag },
    Runtime: RUNTIME_FLAGS,
    Results: { json: toggle("one JSON object on standard output") },
  },
  details: [
    "The policies that tell OpenHCL from the processor are silicon here unless --policy says otherwise. A class is a " +
    "program; its counts are exits.",
    ...VERIFY_DETAILS,
  ],
  async run({ values, operands, printer }) {
    const seed = seedOf(values, "verify exits");
    if (values.platform === "snp" && values.paravisor === "none") {
      throw new UsageError(
        "--platform snp needs --paravisor openhcl: the programs have no #VC handlers",
        "verify exits",
      );
    }
    const report = await verifyExits(operands, {
      platform: values.platform,
      ...paravisorConfig(values.paravisor, values.platform, "verify exits"),
      runtime: values.runtime,
      seed,
      policies: Object.fromEntries(values.policy),
      onProgress: (program, matched, all) => printer.progress(`${program}: ${matched} of ${all} exits`),
    });
    return printVerification(report, { title: "program", json: values.json }, printer);
  },
});

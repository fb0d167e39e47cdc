/**
 * The `list` commands: what there is to choose from.
 *
 * @module
 */

import { listStructures } from "../inspect/verify_layouts.ts";
import { PARAVISORS, PLATFORMS } from "../machine/config.ts";
import { policies } from "../memory/policy.ts";
import { SCENARIOS } from "../scenarios/index.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle } from "./flags.ts";
import { definitions } from "./help.ts";
import { RUN_PLATFORMS } from "./machine_flags.ts";

/** The form of `list … --json`. */
export const LIST_SCHEMA = 1;

const FLAGS = { Results: { json: toggle("one JSON object on standard output") } } as const;

/** The command `list platforms`. */
export const listPlatformsCommand: Command = command({
  name: "list platforms",
  summary: "the platforms on which guests run: who handles an exit",
  examples: [
    ["exitbox list platforms", "name and meaning, and who has VMPL0 on snp"],
    ["exitbox list platforms --json", "one JSON object"],
    ["exitbox run boot.bin --platform bare", "where a name is used"],
  ],
  operands: null,
  flags: FLAGS,
  run({ values, printer }) {
    const rows = RUN_PLATFORMS.map((name) => [name, PLATFORMS[name]] as const);
    if (values.json) {
      const named = (list: readonly (readonly [string, string])[]) =>
        list.map(([name, meaning]) => ({ name, meaning }));
      printer.json({ schema: LIST_SCHEMA, platforms: named(rows), paravisors: named(Object.entries(PARAVISORS)) });
    } else {
      for (const line of definitions(rows)) printer.line(line);
      printer.line("");
      printer.line("Who has VMPL0 on snp (--paravisor):");
      for (const line of definitions(Object.entries(PARAVISORS))) printer.line(line);
    }
    return EXIT.CLEAN;
  },
});

/** The command `list policies`. */
export const listPoliciesCommand: Command = command({
  name: "list policies",
  summary: "the questions on which sources disagree, and the answers to choose from",
  examples: [
    ["exitbox list policies", "every question with its answers, the default first, and who says so"],
    ["exitbox list policies --json", "one JSON object"],
    ["exitbox run boot.bin --policy vmm.io-rax=rax-from-message", "where a name is used"],
  ],
  operands: null,
  flags: FLAGS,
  run({ values, printer }) {
    if (values.json) {
      const list = policies().map(({ name, question, values }) => ({
        name,
        question,
        default: values[0].name,
        values,
      }));
      printer.json({ schema: LIST_SCHEMA, policies: list });
      return EXIT.CLEAN;
    }
    for (const { name, question, values } of policies()) {
      printer.line(`${printer.style("bold", name)}: ${question}`);
      const rows = values.map((value, number) =>
        [number === 0 ? `${value.name} (default)` : value.name, value.claim] as const
      );
      for (const line of definitions(rows)) printer.line(line);
    }
    return EXIT.CLEAN;
  },
});

/** The command `list structures`. */
export const listStructuresCommand: Command = command({
  name: "list structures",
  summary: "the binary structures that are declared, with their sources",
  examples: [
    ["exitbox list structures", "subject, name, kind, bytes, fields, source"],
    ["exitbox list structures --json", "one JSON object"],
    ["exitbox verify layouts", "the same structures compared with their references"],
  ],
  operands: null,
  flags: FLAGS,
  run({ values, printer }) {
    const structures = listStructures();
    if (values.json) {
      printer.json({ schema: LIST_SCHEMA, structures });
      return EXIT.CLEAN;
    }
    printer.table(
      [
        { title: "subject", align: "left" },
        { title: "name", align: "left" },
        { title: "kind", align: "left" },
        { title: "bytes", align: "right" },
        { title: "fields", align: "right" },
        { title: "source", align: "left" },
      ],
      structures.map((
        { subject, name, kind, size, fields, source },
      ) => [subject, name, kind, `${size}`, `${fields}`, source]),
    );
    return EXIT.CLEAN;
  },
});

/** The command `list scenarios`. */
export const listScenariosCommand: Command = command({
  name: "list scenarios",
  summary: "the published problems that can be explored, and what each of them varies",
  examples: [
    ["exitbox list scenarios", "what each shows, who published it, and what can be chosen"],
    ["exitbox list scenarios --json", "one JSON object"],
    ["exitbox explore sidecar-completion:vps=3", "where a name and an option are used"],
  ],
  operands: null,
  flags: FLAGS,
  run({ values, printer }) {
    if (values.json) {
      const scenarios = SCENARIOS.map((scenario) => {
        const { name, summary, shows, source, policies, options, properties, memoryModels } = scenario;
        return { name, summary, shows, source, policies, options, properties, memory_models: memoryModels };
      });
      printer.json({ schema: LIST_SCHEMA, scenarios });
      return EXIT.CLEAN;
    }
    for (const { name, summary, source, policies, options, properties } of SCENARIOS) {
      printer.line(`${printer.style("bold", name)}: ${summary}`);
      const rows: [string, string][] = [
        ["source", source],
        ...policies.map(({ policy, values }): [string, string] => [`policy ${policy}`, values.join(", ")]),
        ...options.map(({ name, meaning, values, default: usual }): [string, string] => {
          return [`option ${name}`, `${meaning}: ${values.join(", ")} (${usual} unless given)`];
        }),
        ["properties", properties.map(({ name }) => name).join(", ")],
      ];
      for (const line of definitions(rows)) printer.line(line);
    }
    return EXIT.CLEAN;
  },
});

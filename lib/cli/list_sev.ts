/**
 * What is computed of published SEV-ES code beside the searches: who agrees with whom about the GHCB protocol, and where
 * OpenBSD's early pages go.
 *
 * @module
 */

import { conformance } from "../scenarios/conformance.ts";
import { fromTableEnd, pageAccounts, pageCountText, TABLE_PAGES } from "../scenarios/page_accounting.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle } from "./flags.ts";
import { LIST_SCHEMA } from "./list.ts";

const FLAGS = { Results: { json: toggle("one JSON object on standard output") } } as const;

/** The command `list conformance`. */
export const listConformanceCommand: Command = command({
  name: "list conformance",
  summary: "per exit of an SEV-ES guest, who agrees with whom about the GHCB",
  examples: [
    ["exitbox list conformance", "exit code, two guest kernels, Linux's rules, KVM, vmd"],
    ["exitbox list conformance --json", "one JSON object"],
    ["exitbox check sev-es-vc", "the same handlers, searched"],
  ],
  operands: null,
  flags: FLAGS,
  details: [
    "The columns of guests and hosts are computed by running them, which takes a few seconds: each instruction takes its #VC " +
    "in the built-in guest kernel and in the one with OpenBSD's handlers, on both hosts; each host gets the request that " +
    "Linux's guest makes. A guest's cell names the registers that it marks valid, and a host on which it does not get " +
    "through; Linux's names those that it needs back, too.",
  ],
  run({ values, printer }) {
    const rows = conformance();
    if (values.json) {
      printer.json({ schema: LIST_SCHEMA, conformance: rows });
      return EXIT.CLEAN;
    }
    const left = (title: string) => ({ title, align: "left" as const });
    printer.table(
      [
        { title: "code", align: "right" },
        ...["exit", "built-in kernel", "OpenBSD's handlers", "Linux", "kvm", "vmd"].map(left),
      ],
      rows.map(({ code, exit, kernel, openbsd, linux, kvm, vmd }) => {
        return [code.toString(16), exit, kernel, openbsd, linux, kvm, vmd];
      }),
    );
    return EXIT.CLEAN;
  },
});

/** The command `list page-accounting`. */
export const listPageAccountingCommand: Command = command({
  name: "list page-accounting",
  summary: "where OpenBSD's early pages go: is first_avail adjusted twice?",
  examples: [
    ["exitbox list page-accounting", "first_avail at each step, and what is wrong in each version"],
    ["exitbox list page-accounting --json", "one JSON object"],
    ["exitbox explore sev-es-vc:program=boot", "the boot that uses such pages"],
  ],
  operands: null,
  flags: FLAGS,
  run({ values, printer }) {
    const accounts = pageAccounts().map(({ version, passed, after, wrong }) => ({
      version,
      passed: fromTableEnd(passed),
      after: after.map(({ name, firstAvail }) => ({ name, first_avail: fromTableEnd(firstAvail) })),
      wrong,
    }));
    const size = pageCountText(TABLE_PAGES);
    if (values.json) {
      printer.json({ schema: LIST_SCHEMA, table_pages: size, versions: accounts });
      return EXIT.CLEAN;
    }
    printer.line(`TABLESIZE is ${size} pages, the last five for the GHCB (2) and early page-table entries (3).`);
    printer.line("first_avail, in pages from the start of the table:");
    printer.line();
    const left = (title: string) => ({ title, align: "left" as const });
    printer.table(
      ["version", "passed to init_x86_64", "behind the GHCB", "behind the early PTEs", "verdict"].map(left),
      accounts.map(({ version, passed, after, wrong }) => {
        const verdict = wrong.length === 0 ? "each page is given once, none is lost" : wrong.join("; ");
        return [version, passed, ...after.map((step) => step.first_avail), verdict];
      }),
    );
    return EXIT.CLEAN;
  },
});

/**
 * What the `verify` commands say: a table or JSON, the first differences, and the exit code.
 *
 * @module
 */

import { EXIT } from "./exit_codes.ts";
import type { Column, Printer } from "./printer.ts";

/** A difference: where, what was expected, what was found. */
export interface Difference {
  /** Class, program or structure. */
  readonly class: string;
  /** Which of it: a recording's identifier, a record's number, a reference. */
  readonly id: string;
  /** What differs. */
  readonly field: string;
  /** What was expected. */
  readonly expected: string;
  /** What was found. */
  readonly actual: string;
}

/** What a verification found. */
export interface Verification {
  /** How many passed and failed, by class. */
  readonly classes: Readonly<Record<string, { readonly passed: number; readonly failed: number }>>;
  /** The first difference of each class that has one. */
  readonly firstFailures: readonly Difference[];
  /** Instructions that are not implemented, with how often they occurred. */
  readonly unimplemented?: Readonly<Record<string, number>>;
}

/** What the help of each `verify` command says about its results. */
export const VERIFY_DETAILS: readonly string[] = [
  "Standard output has a row for each class: how many passed and how many failed, and the first difference of each that " +
  'failed. With --json it is {"classes": {NAME: {"passed": n, "failed": n}}, "first_failures": [{"class", "id", "field", ' +
  '"expected", "actual"}]}. The exit code is 3 when anything failed.',
];

/**
 * Prints what a verification found.
 *
 * @param found The counts and differences.
 * @param options What a class is called in the table's header, and whether JSON is wanted.
 * @param printer Where it goes.
 * @returns The exit code.
 */
export function printVerification(
  found: Verification,
  options: { readonly title: string; readonly json: boolean },
  printer: Printer,
): number {
  const counts = Object.values(found.classes);
  const failed = counts.reduce((sum, count) => sum + count.failed, 0);
  if (options.json) printer.json({ classes: found.classes, first_failures: found.firstFailures });
  else printTable(found, options.title, printer);
  for (const [name, times] of Object.entries(found.unimplemented ?? {})) {
    printer.note(`exitbox: unimplemented instruction: ${name}, ${times} times`);
  }
  return failed === 0 ? EXIT.CLEAN : EXIT.DIFFERENCES;
}

function printTable(found: Verification, title: string, printer: Printer): void {
  const columns: Column[] = [
    { title, align: "left" },
    { title: "passed", align: "right" },
    { title: "failed", align: "right" },
  ];
  const rows = Object.entries(found.classes).map(([name, { passed, failed }]) => [name, passed, failed] as const);
  const sum = (column: 1 | 2) => rows.reduce((total, row) => total + row[column], 0);
  printer.table(columns, [...rows, ["all", sum(1), sum(2)] as const].map((row) => row.map(String)));
  for (const { class: name, id, field, expected, actual } of found.firstFailures) {
    printer.line(printer.style("red", `${name} ${id}: ${field} expected ${expected}, actual ${actual}`));
  }
}

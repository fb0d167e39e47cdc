/**
 * A schedule as a table for people: one column for each agent, time downwards, and under each step the fields that it
 * changed.
 *
 * Columns: the step's number, `*` where it is a context switch, then one column for each agent that takes a step, with the
 * step's name (and `= n`, the outcome that the environment chose). A line that begins with `·` is a field: its value
 * before and behind the step; `(buffered)` means that the store waits in the processor's store buffer.
 *
 * @module
 */
import type { TracedStep } from "./trace.ts";

/** Characters that all columns together take, as far as none gets narrower than the narrowest. */
const WIDTH = 150;
/** Widest and narrowest column; longer texts go on in the next line. */
const COLUMN_MAX = 46;
const COLUMN_NARROW = 30;
const COLUMN_MIN = 12;

/** The lines of the table. */
export function tableLines(steps: readonly TracedStep[]): string[] {
  if (steps.length === 0) return ["(no step: the initial state)"];
  const agents = [...new Map(steps.map(({ actor, agent }) => [actor, agent])).entries()].sort(([a], [b]) => a - b);
  const widest = Math.max(COLUMN_NARROW, Math.min(COLUMN_MAX, Math.floor(WIDTH / agents.length)));
  const cells = new Map(steps.map((step) => [step, cellLines(step, widest)]));
  const widths = agents.map(([actor, name]) => {
    const own = steps.filter((step) => step.actor === actor).flatMap((step) => cells.get(step)!);
    return Math.max(COLUMN_MIN, name.length, ...own.map(({ length }) => length));
  });
  const digits = Math.max(2, String(steps.at(-1)!.number).length);
  const row = (head: string, texts: readonly string[]) =>
    `${head} | ${texts.map((text, k) => text.padEnd(widths[k])).join(" | ")}`.trimEnd();
  const blank = " ".repeat(digits + 2);
  const lines = [row(blank, agents.map(([, name]) => name))];
  lines.push(`${"-".repeat(digits + 2)}-+-${widths.map((width) => "-".repeat(width)).join("-+-")}`);
  for (const step of steps) {
    const column = agents.findIndex(([actor]) => actor === step.actor);
    cells.get(step)!.forEach((text, k) => {
      const head = k > 0 ? blank : `${String(step.number).padStart(digits)} ${step.switched ? "*" : " "}`;
      lines.push(row(head, agents.map((_, other) => other === column ? text : "")));
    });
  }
  return lines;
}

/** The lines of one step's cell. */
function cellLines(step: TracedStep, width: number): string[] {
  const outcome = step.outcome === undefined ? "" : ` = ${step.outcome}`;
  const changes = step.changes.map(({ field, before, after, buffered }) => {
    return `· ${field}: ${before} → ${after}${buffered ? " (buffered)" : ""}`;
  });
  return [`${step.step}${outcome}`, ...changes].flatMap((text) => wrap(text, width));
}

/** Cuts a text into lines of at most `width` characters, at blanks where there are any. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > width) {
    const blank = rest.lastIndexOf(" ", width);
    const cut = blank > width / 2 ? blank : width;
    lines.push(rest.slice(0, cut));
    rest = `  ${rest.slice(cut).trimStart()}`;
  }
  return [...lines, rest];
}

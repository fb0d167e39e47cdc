/**
 * A schedule as a Mermaid sequence diagram. An arrow goes from the agent that wrote a field last to the agent whose step
 * reads or replaces it; other steps point at their own agent.
 *
 * @module
 */
import type { TracedStep } from "./trace.ts";

/** The diagram's text. */
export function mermaid(steps: readonly TracedStep[]): string {
  const agents = [...new Map(steps.map(({ actor, agent }) => [actor, agent])).entries()].sort(([a], [b]) => a - b);
  const lines = ["sequenceDiagram", ...agents.map(([actor, name]) => `  participant a${actor} as ${name}`)];
  const writers = new Map<string, number>();
  for (const step of steps) {
    const touched = [...new Set([...step.reads, ...step.writes])];
    const field = touched.find((name) => (writers.get(name) ?? step.actor) !== step.actor);
    const from = field === undefined ? step.actor : writers.get(field)!;
    if (step.switched) lines.push(`  Note over a${step.actor}: context switch`);
    const what = field === undefined ? step.step : `${step.step} (${field})`;
    lines.push(`  a${from}->>a${step.actor}: ${escape(`${step.number} ${what}`)}`);
    for (const { field: name, before, after } of step.changes) {
      lines.push(`  Note right of a${step.actor}: ${escape(`${name}: ${before} → ${after}`)}`);
    }
    for (const name of step.writes) writers.set(name, step.actor);
  }
  return lines.join("\n") + "\n";
}

/** Mermaid ends a message at a semicolon and takes # for the beginning of a character's name. */
function escape(text: string): string {
  return text.replace(/[#;]/g, (mark) => mark === "#" ? "#35;" : "#59;");
}

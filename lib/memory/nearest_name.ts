/**
 * The nearest known name to one that is not known, for error messages.
 *
 * @module
 */

/** Names further away than this share of their length are not worth suggesting. */
const DISTANCE_PER_LETTER_MAX = 1 / 3;

/** Longer names are compared by their first letters only, so that hostile input costs little. */
const NAME_LENGTH_MAX = 64;

/** Only so many known names are compared, for the same reason. */
const NAMES_COMPARED_MAX = 4096;

/**
 * Counts the single-letter insertions, deletions, replacements and swaps of neighbours that turn one name into another.
 *
 * @param from One name; letters after the 64th are not looked at.
 * @param to The other.
 * @returns The number of edits.
 */
export function editDistance(from: string, to: string): number {
  const a = from.slice(0, NAME_LENGTH_MAX);
  const b = to.slice(0, NAME_LENGTH_MAX);
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(replaced, last[j] + 1, row[j - 1] + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, beforeLast[j - 2] + 1);
      }
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length];
}

/**
 * Finds the known name that the user most likely meant.
 *
 * @param name What was given.
 * @param known The names that exist.
 * @returns The nearest one, or `undefined` when none is near.
 *
 * @example
 * ```ts
 * import { nearestName } from "./nearest_name.ts";
 *
 * if (nearestName("movv", ["add", "mov", "movzx"]) !== "mov") throw new Error("expected mov");
 * ```
 */
export function nearestName(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Infinity;
  let compared = 0;
  for (const candidate of known) {
    if (++compared > NAMES_COMPARED_MAX) break;
    const limit = Math.max(name.length, candidate.length) * DISTANCE_PER_LETTER_MAX;
    const distance = editDistance(name, candidate);
    if (distance < bestDistance && distance <= limit) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/**
 * The tail of an error message about an unknown name.
 *
 * @param name What was given.
 * @param known The names that exist.
 * @returns `, did you mean "…"?`, or nothing when no known name is near.
 */
export function suggestion(name: string, known: Iterable<string>): string {
  const nearest = nearestName(name, known);
  return nearest === undefined ? "" : `, did you mean "${nearest}"?`;
}

/**
 * The tail of an error message about an unknown name of a few.
 *
 * @param name What was given.
 * @param known The names that exist.
 * @returns What {@linkcode suggestion} says, or `, expected …` with all names when none is near.
 */
export function alternatives(name: string, known: readonly string[]): string {
  return suggestion(name, known) || (known.length === 0 ? "" : `, expected ${known.join(", ")}`);
}

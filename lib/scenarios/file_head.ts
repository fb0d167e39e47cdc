/**
 * What every scenario file has, whatever its machine is: texts, policies, memory models, bounds and names of properties.
 *
 * @module
 */
import type { SearchBounds } from "../explore/exhaustive.ts";
import type { MemoryModel } from "../explore/system.ts";
import { BadInput } from "../memory/bad_input.ts";
import { suggestion } from "../memory/nearest_name.ts";
import { policyNamed, policyValue } from "../memory/policy.ts";
import type { JsonFields } from "./json_fields.ts";
import type { Scenario, VariedPolicy } from "./scenario.ts";

/** What every scenario file has, whatever its machine is. */
export interface FileHead extends Pick<Scenario, "name" | "summary" | "shows" | "source" | "policies" | "bounds"> {
  readonly memoryModels: readonly [MemoryModel, ...MemoryModel[]];
}

/** Reads what every file has. Throws {@linkcode BadInput}. */
export function headOf(file: JsonFields, name: string): FileHead {
  const models = file.has("memory_models") ? file.texts("memory_models") : ["sc"];
  const known = models.map((model): MemoryModel => {
    if (model !== "sc" && model !== "tso") throw file.bad("memory_models", `"${model}" is not one of sc, tso`);
    return model;
  });
  const bounds = file.object("bounds");
  bounds.only(["preemptions", "depth", "states"]);
  const given: { -readonly [K in keyof SearchBounds]?: number } = {};
  for (const field of ["preemptions", "depth", "states"] as const) {
    if (bounds.has(field)) given[field] = bounds.integer(field, field === "preemptions" ? 0 : 1, 1e9);
  }
  return {
    name,
    summary: file.text("summary", "a scenario of one's own"),
    shows: file.has("shows") ? file.texts("shows") : [],
    source: file.text("source", ""),
    policies: policiesOf(file.object("policies")),
    memoryModels: [known[0], ...known.slice(1)],
    bounds: given,
  };
}

function policiesOf(policies: JsonFields): VariedPolicy[] {
  return policies.names.map((name) => {
    const values = policies.texts(name);
    try {
      const policy = policyNamed(name);
      for (const value of values) policyValue(policy, value);
    } catch (error) {
      throw error instanceof BadInput ? policies.bad(name, error.message) : error;
    }
    if (new Set(values).size < values.length) throw policies.bad(name, "a value is given twice");
    return { policy: name, values };
  });
}

/** Names that a file's properties may have, in the file's order; other entries go to `other`. */
export function propertyNames(
  file: JsonFields,
  known: readonly string[],
  other: (fields: JsonFields) => string,
): readonly string[] {
  if (!file.has("properties")) return known;
  const names = file.list("properties").map((entry) => {
    if (typeof entry !== "string") return other(entry);
    if (!known.includes(entry)) throw file.bad("properties", `unknown property "${entry}"${suggestion(entry, known)}`);
    return entry;
  });
  if (names.length === 0) throw file.bad("properties", "at least one is expected");
  if (new Set(names).size < names.length) throw file.bad("properties", "a property is given twice");
  return names;
}

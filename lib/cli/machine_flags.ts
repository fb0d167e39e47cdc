/**
 * The flags that say what machine a command makes and in which runtime it runs, and the machine that they make.
 *
 * @module
 */

import { type MachineConfig, type Platform, RAM_MAX, RAM_MIN, VPS_MAX } from "../machine/config.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import { Machine } from "../machine/machine.ts";
import { OWN_WORKERS_MAX } from "../machine/seats.ts";
import type { TimedVpAction } from "../machine/vp_actions.ts";
import type { RuntimeName } from "../machine/run.ts";
import { BadInput } from "../memory/bad_input.ts";
import { UsageError } from "./errors.ts";
import { type Flag, integer, optionalInteger, policyChoices, size, vpList, vpTimes, word } from "./flags.ts";
import type { VpTime } from "./values.ts";

/** The platforms on which guests run, the default of `run` first. A platform that is wired is one more word here. */
export const RUN_PLATFORMS = ["kernel", "bare", "sidecar", "sev-es", "snp"] as const satisfies readonly Platform[];

/** A platform on which guests run. */
export type RunPlatform = (typeof RUN_PLATFORMS)[number];

/** Those on which any guest runs: on snp below a paravisor, for a guest without #VC handlers makes no exit there by itself. */
export const PROGRAM_PLATFORMS = ["kernel", "bare", "sidecar", "snp"] as const satisfies readonly RunPlatform[];

/** Largest seed: the runtime's random numbers have 32 bits of state. */
const SEED_MAX = 0xffff_ffff;

/** `--platform`: one of `platforms`, with `preset` as its default. */
export function platformFlag<P extends RunPlatform>(preset: P, platforms: readonly P[]): Flag<P> {
  const others = platforms.filter((platform) => platform !== preset);
  return word([preset, ...others], 'who handles an exit; see "exitbox list platforms"');
}

/** `--vps`, with `preset` as its default. */
export function vpsFlag(preset: string, max: number = VPS_MAX): Flag<number> {
  return integer("N", "virtual processors", preset, { min: 1, max });
}

/** `--memory`. */
export const memoryFlag: Flag<number> = size("SIZE", "guest RAM in bytes, a multiple of 4K", "16M", {
  min: RAM_MIN,
  max: RAM_MAX,
});

/** `--policy`. */
export const policyFlag: Flag<ReadonlyMap<string, string>> = policyChoices(
  'how a question is answered on which sources disagree; see "exitbox list policies"',
);

/** The flags about the sidecar's topology. */
export const SIDECAR_FLAGS = {
  "sidecar-nodes": optionalInteger("N", "sidecar: NUMA nodes over which the VPs are spread evenly (1 unless given)", {
    min: 1,
    max: SIDECAR.MAX_NODES,
  }),
  "sidecar-vps": vpList(
    "sidecar: VPs that it starts, such as 1,3-5; the others are Linux's (all but each node's first unless given)",
    VPS_MAX - 1,
  ),
} as const;

/** What {@linkcode SIDECAR_FLAGS} give. */
export interface SidecarValues {
  readonly "sidecar-nodes": number | undefined;
  readonly "sidecar-vps": readonly number[] | undefined;
}

/** The flags about what is done to sidecar VPs while the machine runs. */
export const ACTION_FLAGS = {
  hotplug: vpTimes("sidecar: Linux takes the VP after so many seconds of the machine's clock"),
  unplug: vpTimes("sidecar: Linux gives the VP back after so many seconds"),
} as const;

/**
 * The sidecar's part of a configuration.
 *
 * @param values The values of {@linkcode SIDECAR_FLAGS}.
 * @param platform The machine's platform.
 * @param command The command, for the error.
 * @returns The part. Throws {@linkcode UsageError} when the platform has no sidecar.
 */
export function sidecarConfig(
  values: SidecarValues,
  platform: Platform,
  command: string,
): Pick<MachineConfig, "sidecarNodes" | "sidecarVps"> {
  const { "sidecar-nodes": sidecarNodes, "sidecar-vps": sidecarVps } = values;
  const given = Object.entries(values).find(([name, value]) => name.startsWith("sidecar-") && value !== undefined);
  if (given !== undefined && platform !== "sidecar") {
    throw new UsageError(`--${given[0]} needs --platform sidecar`, command);
  }
  return {
    ...(sidecarNodes === undefined ? {} : { sidecarNodes }),
    ...(sidecarVps === undefined ? {} : { sidecarVps }),
  };
}

/**
 * What is done to sidecar VPs while the machine runs.
 *
 * @param values The values of {@linkcode ACTION_FLAGS}.
 * @param platform The machine's platform.
 * @param command The command, for the error.
 * @returns The actions. Throws {@linkcode UsageError} when the platform has no sidecar.
 */
export function actionsOf(
  values: { readonly hotplug: readonly VpTime[]; readonly unplug: readonly VpTime[] },
  platform: Platform,
  command: string,
): TimedVpAction[] {
  const actions = (["hotplug", "unplug"] as const).flatMap((action) =>
    values[action].map(({ vp, seconds }) => ({ vp, seconds, action }))
  );
  if (actions.length > 0 && platform !== "sidecar") {
    throw new UsageError(`--${actions[0].action} needs --platform sidecar`, command);
  }
  return actions;
}

/** The flags about the runtime, of every command that runs a machine. */
export const RUNTIME_FLAGS = {
  runtime: word(
    ["concurrent", "deterministic"],
    `one worker per VP (one per core beyond ${OWN_WORKERS_MAX}), or all in one thread, in an order that the seed decides`,
  ),
  seed: optionalInteger("N", "seed of the deterministic runtime (0 unless given)", { max: SEED_MAX }),
} as const;

/** What {@linkcode RUNTIME_FLAGS} give. */
export interface RuntimeValues {
  /** Which runtime. */
  readonly runtime: RuntimeName;
  /** Its seed, if given. */
  readonly seed: number | undefined;
}

/**
 * The seed of a run.
 *
 * @param values The values of {@linkcode RUNTIME_FLAGS}.
 * @param command The command, for the error.
 * @returns The seed. Throws {@linkcode UsageError} when one is given for the runtime that has none.
 */
export function seedOf(values: RuntimeValues, command: string): number {
  if (values.seed !== undefined && values.runtime !== "deterministic") {
    throw new UsageError("--seed needs --runtime deterministic", command);
  }
  return values.seed ?? 0;
}

/** The flag about the concurrent runtime's workers. */
export const WORKERS_FLAG = {
  workers: optionalInteger(
    "N",
    `workers on which VPs and host take turns (one each up to ${OWN_WORKERS_MAX}, one per core beyond)`,
    { min: 1, max: VPS_MAX + 1 },
  ),
} as const;

/**
 * The workers' part of a configuration.
 *
 * @param values The values of {@linkcode RUNTIME_FLAGS} and {@linkcode WORKERS_FLAG}.
 * @param command The command, for the error.
 * @returns The part. Throws {@linkcode UsageError} when a number is given for the runtime that has no workers.
 */
export function workersConfig(
  { workers, runtime }: RuntimeValues & { readonly workers: number | undefined },
  command: string,
): Pick<MachineConfig, "workers"> {
  if (workers === undefined) return {};
  if (runtime !== "concurrent") throw new UsageError("--workers needs --runtime concurrent", command);
  return { workers };
}

/** Makes a machine; throws `BadInput` for a configuration that makes no sense, or for which there is no memory. */
export function createMachine(config: MachineConfig, runtime: RuntimeName): Machine {
  try {
    return Machine.create(config, runtime === "deterministic");
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new BadInput(`${config.ramBytes} bytes of memory for the guest cannot be had: ${error.message}`);
  }
}

/**
 * The flags about the host of an encrypted guest: which one, and what it could read.
 *
 * @module
 */

import { CpuState } from "../cpu/state.ts";
import { HostView, type HostViewRecord, SECRET_WINDOW, type SecretMarks } from "../inspect/host_view.ts";
import { hex } from "../layout/field_type.ts";
import { type MachineConfig, PARAVISORS, type Platform } from "../machine/config.ts";
import type { Machine } from "../machine/machine.ts";
import type { RunOptions } from "../machine/run.ts";
import { type HostName, HOSTS } from "../machine/sev_platform.ts";
import { BadInput } from "../memory/bad_input.ts";
import { UsageError } from "./errors.ts";
import { plural } from "./explore_output.ts";
import { type Flag, optionalInteger, optionalWord, text, word } from "./flags.ts";
import { OutputFile } from "./output_file.ts";
import type { Printer } from "./printer.ts";

/** The form of a host view's lines. */
const VIEW_SCHEMA = 1;

/** `--paravisor`. */
export const paravisorFlag: Flag<keyof typeof PARAVISORS> = word(
  ["none", "openhcl"],
  'snp: who has VMPL0; openhcl runs any guest below it; see "exitbox list platforms"',
);

/** Largest seed of a malicious host. */
const SEED_MAX = 0x7fff_ffff;

/** The flags about the host, and about who is between it and the guest. */
export const HOST_FLAGS = {
  paravisor: paravisorFlag,
  host: optionalWord(
    Object.keys(HOSTS) as HostName[],
    "sev-es, snp: whose VMM (kvm unless given; Hyper-V below a paravisor)",
  ),
  "host-view": text("FILE", "sev-es, snp: write all that the host could read at each exit, as JSON lines"),
  secret: text("LIST", "what must not be there: gpr, xmm, ranges such as 0x1000+64; leaks are counted in the view"),
  malicious: optionalInteger("SEED", "sev-es, snp: a second host that does at random what it can to the guest", {
    max: SEED_MAX,
  }),
} as const;

/** What {@linkcode HOST_FLAGS} give. */
export interface HostValues {
  readonly paravisor: keyof typeof PARAVISORS;
  readonly host: HostName | undefined;
  readonly "host-view": string | undefined;
  readonly secret: string | undefined;
  readonly malicious: number | undefined;
}

/** Whether a platform's guests are encrypted. */
function isEncrypted(platform: Platform): boolean {
  return platform === "sev-es" || platform === "snp";
}

/**
 * The paravisor of a configuration.
 *
 * @param value The value of {@linkcode paravisorFlag}.
 * @param platform The machine's platform.
 * @param command The command, for the error.
 * @returns That part. Throws {@linkcode UsageError} when the platform has no VMPLs.
 */
export function paravisorConfig(
  value: keyof typeof PARAVISORS,
  platform: Platform,
  command: string,
): Pick<MachineConfig, "paravisor"> {
  if (value === "none") return {};
  if (platform !== "snp") throw new UsageError(`--paravisor ${value} needs --platform snp`, command);
  return { paravisor: value };
}

/**
 * The host's part of a configuration.
 *
 * @param values The values of {@linkcode HOST_FLAGS}.
 * @param platform The machine's platform.
 * @param command The command, for the error.
 * @returns The part. Throws {@linkcode UsageError} when the platform has no untrusted host.
 */
export function hostConfig(
  values: HostValues,
  platform: Platform,
  command: string,
): Pick<MachineConfig, "host" | "paravisor" | "maliciousHost"> {
  const paravisor = paravisorConfig(values.paravisor, platform, command);
  const given = (["host", "host-view", "secret", "malicious"] as const).find((name) => values[name] !== undefined);
  if (given !== undefined && !isEncrypted(platform)) {
    throw new UsageError(`--${given} needs --platform sev-es or snp`, command);
  }
  if (values.secret !== undefined && values["host-view"] === undefined) {
    throw new UsageError("--secret needs --host-view, which says where it was seen", command);
  }
  const { host } = values;
  const malicious = values.malicious === undefined ? {} : { maliciousHost: values.malicious };
  if (values.malicious !== undefined && paravisor.paravisor !== undefined) {
    throw new UsageError("--malicious knows no paravisor", command);
  }
  if (host === undefined) return { ...paravisor, ...malicious };
  if (paravisor.paravisor !== undefined) {
    throw new UsageError(`--host ${host} runs no paravisor: with --paravisor openhcl the host is Hyper-V`, command);
  }
  return { host, ...malicious };
}

/** `START+BYTES` or `START-END`, decimal or hexadecimal. */
const RANGE = /^(0x[0-9a-f]+|[0-9]+)([+-])(0x[0-9a-f]+|[0-9]+)$/i;
/** Most bytes that are marked: each of their windows is looked for. */
const SECRET_BYTES_MAX = 1 << 20;

/** The marks that `--secret` gives; throws `BadInput` for a part that is neither a name nor a range in memory. */
export function parseSecrets(list: string, ramBytes: number): SecretMarks {
  let gpr = false;
  let xmm = false;
  let marked = 0;
  const ranges: { address: number; bytes: number }[] = [];
  for (const part of list.split(",")) {
    const range = RANGE.exec(part);
    if (part === "gpr") gpr = true;
    else if (part === "xmm") xmm = true;
    else if (range === null) throw new BadInput(`--secret "${part}", expected gpr, xmm or a range such as 0x1000+64`);
    else {
      const [, start, kind, second] = range;
      const address = Number(start);
      const bytes = kind === "+" ? Number(second) : Number(second) + 1 - address;
      marked += bytes;
      if (!(bytes > 0) || address + bytes > ramBytes || marked > SECRET_BYTES_MAX) {
        throw new BadInput(`--secret "${part}" is not a range of guest memory of at most 1M`);
      }
      if (bytes < SECRET_WINDOW) {
        throw new BadInput(`--secret "${part}" is too short: only ${SECRET_WINDOW} bytes in a row are recognised`);
      }
      ranges.push({ address, bytes });
    }
  }
  return { ranges, gpr, xmm };
}

/** A host view that is being written. */
export interface ViewRun extends Disposable {
  /** What `runMachine` is to be told, beside its other options. */
  readonly options: Pick<RunOptions, "onStep" | "onProgress">;
  /** Completes the file; returns how many secrets were seen. */
  finish(): number;
}

/** Writes the views of `machine` to the file `path`, with leaks of what `marks` names. */
export function writeHostView(machine: Machine, path: string, marks: SecretMarks, printer: Printer): ViewRun {
  const file = OutputFile.open(path, "--host-view", (bytes) => printer.write(bytes));
  const states = (vp: number) => machine.map.cpuStates + vp * CpuState.size;
  const { config } = machine;
  file.line(
    JSON.stringify({
      schema: VIEW_SCHEMA,
      platform: config.platform,
      host: config.paravisor === undefined ? config.host ?? "kvm" : "hyper-v",
    }),
  );
  let first = "";
  const onRecord = (record: HostViewRecord) => {
    file.line(JSON.stringify(record));
    if (first !== "" || record.leaks.length === 0) return;
    const [{ secret, where, address }] = record.leaks;
    first = `${secret} at ${hex(address)} (${where}), exit ${record.exit}`;
  };
  const view = new HostView(
    machine.platform.sev.sev,
    states,
    marks,
    onRecord,
    (vp) => machine.platform.partition.ring(vp),
  );
  const options = machine.deterministic
    ? {
      onStep: (agent: string, step: string) => {
        view.followStep(agent, step);
        view.poll();
      },
    }
    : { onProgress: () => view.poll() };
  return {
    options,
    finish: () => {
      const result = view.leaks === 0
        ? "no secret to be read"
        : `secrets in ${plural(view.leaks, "place", "places")}, first ${first}`;
      file.line(JSON.stringify({ exits: view.exits, leaks: view.leaks }));
      file.commit();
      printer.note(`host view: ${view.exits} exits, ${result}`);
      return view.leaks;
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/**
 * The command `demo`: the guest that comes with exitbox, on every platform that it shows.
 *
 * @module
 */

import { DEMO_VPS_MAX } from "../guest/programs/demo.ts";
import { SEV_KERNEL_VPS_MAX, sevKernelSecret } from "../guest/programs/sev_kernel.ts";
import { type MachineConfig, PARAVISORS, PLATFORMS } from "../machine/config.ts";
import { loadDemoGuest, loadSevGuest } from "../machine/load.ts";
import type { Machine } from "../machine/machine.ts";
import { runMachine, type RunOptions, type RunReport } from "../machine/run.ts";
import { isEncrypted } from "../machine/sev_platform.ts";
import { BadInput } from "../memory/bad_input.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle, word } from "./flags.ts";
import { HOST_FLAGS, hostConfig, type HostValues, parseSecrets, writeHostView } from "./host_flags.ts";
import { interruptible } from "./interrupt.ts";
import { checkNoninterference } from "./noninterference.ts";
import {
  createMachine,
  policyFlag,
  type RunPlatform,
  RUNTIME_FLAGS,
  seedOf,
  SIDECAR_FLAGS,
  sidecarConfig,
  vpsFlag,
  WORKERS_FLAG,
  workersConfig,
} from "./machine_flags.ts";
import { STANDARD_OUTPUT } from "./output_file.ts";
import type { Printer } from "./printer.ts";
import { exitCodeOf, printEnd, printHistogram, runJson } from "./run_report.ts";

/** The form of `demo --json`. */
const DEMO_SCHEMA = 1;

/** The platforms that the demo shows unless one is asked for, in order. */
const DEMO_PLATFORMS: readonly RunPlatform[] = ["kernel", "sidecar"];

/** Seconds that a run beside a malicious host is given. */
const MALICIOUS_SECONDS = 10;

/** Guest RAM in bytes. */
const DEMO_RAM_BYTES = 16 * 1024 ** 2;

/** The command `demo`. */
export const demoCommand: Command = command({
  name: "demo",
  summary: "boot the embedded guest and print its serial output and its exits",
  examples: [
    ["exitbox demo", "two virtual processors, a worker each"],
    ["exitbox demo --platform snp --host-view view.jsonl", "an encrypted guest, and all that its host could read"],
    ["exitbox demo --platform snp --paravisor openhcl", "the embedded guest, encrypted below OpenHCL"],
  ],
  operands: null,
  flags: {
    Machine: {
      platform: word(
        ["all", ...DEMO_PLATFORMS, "sev-es", "snp"],
        `who handles an exit; all: ${DEMO_PLATFORMS.join(", then ")}`,
      ),
      vps: vpsFlag("2", DEMO_VPS_MAX),
      policy: policyFlag,
    },
    Sidecar: SIDECAR_FLAGS,
    Host: {
      ...HOST_FLAGS,
      noninterference: toggle("sev-es, snp: run twice with different secrets, and compare what the host saw"),
    },
    Runtime: { ...RUNTIME_FLAGS, ...WORKERS_FLAG },
    Results: { json: toggle("one JSON object on standard output") },
  },
  details: [
    "The guest boots VP 0 from real into long mode, starts the others by INIT-SIPI-SIPI, makes port, device-memory, CPUID, " +
    "MSR and hypercall exits on each and checks what comes back. The table has a row for each VP: instructions executed, " +
    "then exits by kind.",
    "On sev-es and snp it is another guest, with #VC handlers of its own: it accepts its memory, starts the others and talks " +
    "to the host through a GHCB. It marks a secret in memory and XMM registers; the host view must be empty of it. With " +
    "--paravisor openhcl the guest is the embedded one, at VMPL2: OpenHCL at VMPL0 handles its exits. --host-view - writes " +
    "the view alone to standard output, and what the guest says to standard error.",
    "Beside a malicious host a guest may end itself, stop, or never come to its end: the run is given ten seconds. " +
    "--noninterference runs with --runtime deterministic, whatever is asked for; a difference is exit code 12.",
  ],
  async run({ values, words, printer }) {
    const seed = seedOf(values, "demo");
    const viewOnly = values["host-view"] === STANDARD_OUTPUT;
    if (values.json && viewOnly) {
      throw new UsageError("--json and --host-view - both write to standard output, expected one of them", "demo");
    }
    const platforms: Record<string, unknown>[] = [];
    let code: number = EXIT.CLEAN;
    const chosen: readonly RunPlatform[] = values.platform === "all" ? DEMO_PLATFORMS : [values.platform];
    const host = hostConfig(values, chosen[0], "demo");
    const workers = workersConfig(values, "demo");
    if (values.noninterference) checkComparable(values, chosen[0]);
    for (const platform of chosen) {
      const config: MachineConfig = {
        platform,
        ...(platform === "sidecar" ? sidecarConfig(values, platform, "demo") : {}),
        ...(isEncrypted({ platform }) ? host : {}),
        ...workers,
        vps: values.host === "vmd" && words.every((word) => !word.startsWith("--vps")) ? 1 : values.vps,
        ramBytes: DEMO_RAM_BYTES,
        policies: Object.fromEntries(values.policy),
        devices: "pc",
        recordExits: false,
      };
      if (values.noninterference) return await checkNoninterference(config, seed, values.json, printer);
      const machine = createMachine(config, values.runtime);
      const serial: Uint8Array[] = [];
      const onSerial = (bytes: Uint8Array) => {
        if (values.json) serial.push(bytes);
        else if (viewOnly) printer.writeError(bytes);
        else printer.write(bytes);
      };
      const title = titleOf(platform, host);
      const { report, leaks } = await runDemo(machine, values, printer, {
        begin: () => !values.json && !viewOnly && printer.line(printer.style("bold", title)),
        seed,
        onSerial,
        ...(values.malicious === undefined ? {} : { timeLimitSeconds: MALICIOUS_SECONDS }),
      });
      if (values.json) {
        platforms.push({ ...runJson(machine, report), serial: await new Blob(serial as BlobPart[]).text() });
      } else if (!viewOnly) {
        printer.line();
        printHistogram(report, printer);
      }
      printEnd(machine, report, words, printer);
      code = leaks > 0 ? EXIT.SAFETY : exitCodeOf(report);
      if (code !== EXIT.CLEAN) break;
    }
    if (values.json) printer.json({ schema: DEMO_SCHEMA, runtime: values.runtime, seed, platforms });
    return code;
  },
});

/** Throws {@linkcode UsageError} unless two runs of the platform's guest can be compared by what its host saw. */
function checkComparable(values: HostValues, platform: RunPlatform): void {
  if (!isEncrypted({ platform })) throw new UsageError("--noninterference needs --platform sev-es or snp", "demo");
  const other = (["host-view", "secret", "malicious"] as const).find((name) => values[name] !== undefined);
  const given = other ?? (values.paravisor === "none" ? undefined : "paravisor");
  if (given !== undefined) throw new UsageError(`--noninterference and --${given} do not go together`, "demo");
}

/** Platform and who handles its exits. */
function titleOf(platform: RunPlatform, { paravisor }: Pick<MachineConfig, "paravisor">): string {
  return paravisor === undefined
    ? `${platform}: ${PLATFORMS[platform]}`
    : `${platform}, ${paravisor}: ${PARAVISORS[paravisor]}`;
}

/** Whether the guest has to be one with #VC handlers of its own. */
function needsHandlers(config: MachineConfig): boolean {
  return isEncrypted(config) && config.paravisor === undefined;
}

/** Runs the platform's guest on a new machine, after `begin` when nothing can be refused any more; `leaks` counts the secrets that its host could read. */
async function runDemo(
  machine: Machine,
  values: HostValues,
  printer: Printer,
  { begin, ...options }: RunOptions & { readonly begin: () => void },
): Promise<{ report: RunReport; leaks: number }> {
  const { config } = machine;
  const own = needsHandlers(config);
  if (own && config.vps > SEV_KERNEL_VPS_MAX) {
    throw new BadInput(`--vps ${config.vps} on ${config.platform}, expected at most ${SEV_KERNEL_VPS_MAX}`);
  }
  if (own) loadSevGuest(machine);
  else loadDemoGuest(machine);
  const path = values["host-view"];
  if (path === undefined) {
    begin();
    return { report: await interruptible((signal) => runMachine(machine, { ...options, signal })), leaks: 0 };
  }
  const extra = values.secret === undefined ? { ranges: [], gpr: false, xmm: false } : parseSecrets(
    values.secret,
    config.ramBytes,
  );
  const marks = own ? { ...extra, ranges: [sevKernelSecret(), ...extra.ranges], xmm: true } : extra;
  using view = writeHostView(machine, path, marks, printer);
  begin();
  const report = await interruptible((signal) => runMachine(machine, { ...options, ...view.options, signal }));
  return { report, leaks: view.finish() };
}

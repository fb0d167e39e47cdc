/**
 * The command `run`: a guest from a file, to its end.
 *
 * @module
 */

import { type GuestImage, parseImage } from "../guest/image.ts";
import type { MultibootModule } from "../guest/image.ts";
import { loadGuest } from "../machine/load.ts";
import type { Machine } from "../machine/machine.ts";
import { runMachine, type RunOptions, type RunReport } from "../machine/run.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { ExitOutput } from "./exit_output.ts";
import { optionalInteger, optionalSeconds, text, texts, toggle, word } from "./flags.ts";
import { readInput } from "./input_file.ts";
import { HOST_FLAGS, hostConfig, parseSecrets, writeHostView } from "./host_flags.ts";
import { interruptible } from "./interrupt.ts";
import {
  ACTION_FLAGS,
  actionsOf,
  createMachine,
  memoryFlag,
  platformFlag,
  policyFlag,
  RUN_PLATFORMS,
  RUNTIME_FLAGS,
  seedOf,
  SIDECAR_FLAGS,
  sidecarConfig,
  vpsFlag,
  WORKERS_FLAG,
  workersConfig,
} from "./machine_flags.ts";
import { OutputFile, STANDARD_OUTPUT } from "./output_file.ts";
import type { Printer } from "./printer.ts";
import { exitCodeOf, printEnd, runJson } from "./run_report.ts";

/** The form of `run --json`. */
const RUN_SCHEMA = 1;

/** Largest image or module file in bytes. */
const FILE_BYTES_MAX = 512 * 1024 ** 2;

/** Largest exit limit: the number of an exit has 32 bits. */
const EXIT_LIMIT_MAX = 0xffff_ffff;

/** No memory and no register is marked. */
const NO_SECRETS = { ranges: [], gpr: false, xmm: false };

/** The command `run`. */
export const runCommand: Command = command({
  name: "run",
  summary: "run a guest image and see every exit it makes",
  examples: [
    ["exitbox run boot.bin --vps 2", "a boot sector at 7c00 in real mode, on two virtual processors"],
    ["exitbox run kernel.elf --exits - --exit-limit 100", "its first hundred exits as JSON lines"],
    ["exitbox run kernel.elf --runtime deterministic --seed 7 --json", "a run that repeats bit by bit, as one object"],
  ],
  operands: {
    name: "IMAGE",
    min: 1,
    max: 1,
    meaning: "a flat binary, an ELF32/64 executable or a multiboot 1 kernel, told by its header",
  },
  flags: {
    Machine: {
      platform: platformFlag("kernel", RUN_PLATFORMS),
      vps: vpsFlag("1"),
      memory: memoryFlag,
      policy: policyFlag,
    },
    Sidecar: { ...SIDECAR_FLAGS, ...ACTION_FLAGS },
    Host: HOST_FLAGS,
    Guest: {
      mode: word(
        ["auto", "real", "protected", "long"],
        "mode at the first instruction; auto: as the header says, else real",
      ),
      load: optionalInteger("ADDR", "where a flat image is loaded: 0x7c00 in real mode, else 0x100000", {}),
      entry: optionalInteger("ADDR", "first instruction: what the header says, else the load address", {}),
      module: texts("FILE", "a module of a multiboot kernel; its command line is the file's name"),
    },
    Runtime: { ...RUNTIME_FLAGS, ...WORKERS_FLAG },
    Limits: {
      "exit-limit": optionalInteger("N", "end after N exits", { min: 1, max: EXIT_LIMIT_MAX }),
      "time-limit": optionalSeconds("S", "end after S seconds"),
    },
    Results: {
      exits: text("FILE", "one JSON line per intercept (on bare: per exit), to a file or to standard output with -"),
      json: toggle("one JSON object about the whole run on standard output"),
    },
  },
  details: [
    "What the guest writes to its serial port (3F8) and to the debug port (402) goes to standard output, or to standard " +
    "error when --exits -, --host-view - or --json owns standard output. A guest ends its machine by writing 32 bits to port F4, or by " +
    "halting all VPs with interrupts off.",
    "On sidecar each node's first VP is Linux's and runs the VMM for the others; with policy sidecar.hotplug=on, the " +
    "default, Linux takes each after its first exit. --hotplug 2@0.5 lets it take VP 2 half a second after the start, and " +
    "--unplug 2@0.7 gives it back; what makes no sense at its time is left out.",
    "On sev-es and snp the guest handles #VC itself. One that has no handler shuts down, or in real mode goes on at its empty " +
    "vector, and the end of the run names the event. --paravisor openhcl runs such a guest; beside --malicious it may never " +
    "come to its end: give it a --time-limit.",
  ],
  async run({ values, operands, words, printer }) {
    const owners = [
      ...(values.json ? ["--json"] : []),
      ...(["exits", "host-view"] as const).filter((name) => values[name] === STANDARD_OUTPUT).map((name) =>
        `--${name} -`
      ),
    ];
    if (owners.length > 1) {
      throw new UsageError(
        `${owners.slice(0, 2).join(" and ")} both write to standard output, expected one of them`,
        "run",
      );
    }
    const seed = seedOf(values, "run");
    const sidecar = sidecarConfig(values, values.platform, "run");
    const actions = actionsOf(values, values.platform, "run");
    const host = hostConfig(values, values.platform, "run");
    const workers = workersConfig(values, "run");
    const [path] = operands;
    const { mode, load, entry } = values;
    const image = parseImage(await readInput(path, FILE_BYTES_MAX), path, {
      mode,
      ...(load === undefined ? {} : { load }),
      ...(entry === undefined ? {} : { entry }),
    });
    const modules = await readModules(values.module);
    const machine = createMachine({
      platform: values.platform,
      vps: values.vps,
      ramBytes: values.memory,
      policies: Object.fromEntries(values.policy),
      ...sidecar,
      ...host,
      ...workers,
      devices: "pc",
      recordExits: values.exits !== undefined || values["exit-limit"] !== undefined,
    }, values.runtime);
    loadGuest(machine, image, modules);
    const marks = values.secret === undefined ? NO_SECRETS : parseSecrets(values.secret, values.memory);
    using view = values["host-view"] === undefined
      ? undefined
      : writeHostView(machine, values["host-view"], marks, printer);
    const output = outputOf(owners.length > 0, machine, printer);
    const report = await runToFile(machine, values.exits, printer, {
      seed,
      actions,
      ...view?.options,
      ...output,
      onProgress: () => {
        view?.options.onProgress?.();
        output.onProgress?.();
      },
      ...(values["exit-limit"] === undefined ? {} : { exitLimit: values["exit-limit"] }),
      ...(values["time-limit"] === undefined ? {} : { timeLimitSeconds: values["time-limit"] }),
    });
    if (values.json) {
      printer.json({ schema: RUN_SCHEMA, ...settings(image, values.runtime, seed), ...runJson(machine, report) });
    }
    printEnd(machine, report, words, printer);
    const leaks = view?.finish() ?? 0;
    return leaks > 0 ? EXIT.SAFETY : exitCodeOf(report);
  },
});

/** What the JSON object repeats of the command line. */
function settings(image: GuestImage, runtime: string, seed: number): Record<string, unknown> {
  const { name, format, mode } = image;
  return { image: { name, format, mode }, runtime, ...(runtime === "deterministic" ? { seed } : {}) };
}

/** Reads the modules; the command line of each is its file's name without folders. */
async function readModules(paths: readonly string[]): Promise<MultibootModule[]> {
  const modules: MultibootModule[] = [];
  for (const path of paths) {
    const bytes = await readInput(path, FILE_BYTES_MAX);
    modules.push({ bytes, commandLine: path.slice(path.lastIndexOf("/") + 1) });
  }
  return modules;
}

/** Where serial text goes, and progress where it does not meet that. */
function outputOf(owned: boolean, machine: Machine, printer: Printer): Pick<RunOptions, "onSerial" | "onProgress"> {
  if (!owned) return { onSerial: (bytes) => printer.write(bytes) };
  const started = performance.now();
  const onProgress = () => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    printer.progress(`${machine.config.platform}: ${seconds} s`);
  };
  return { onSerial: (bytes) => printer.writeError(bytes), onProgress };
}

/** Runs the machine, its exits written to the file, which is complete whatever ends the run. */
async function runToFile(
  machine: Machine,
  path: string | undefined,
  printer: Printer,
  options: RunOptions,
): Promise<RunReport> {
  if (path === undefined) return await interruptible((signal) => runMachine(machine, { ...options, signal }));
  using file = OutputFile.open(path, "--exits", (bytes) => printer.write(bytes));
  const output = new ExitOutput(file, options.exitLimit);
  const report = await interruptible((signal) =>
    runMachine(machine, {
      ...options,
      signal,
      onExit: (record) => output.add(record),
      onProgress: () => {
        if (path === STANDARD_OUTPUT) file.flush();
        options.onProgress?.();
      },
    })
  );
  output.end();
  file.commit();
  return report;
}

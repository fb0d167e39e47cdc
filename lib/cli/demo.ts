/**
 * The command `demo`: the guest that comes with exitbox, on every platform that it shows.
 *
 * @module
 */

import { DEMO_VPS_MAX } from "../guest/programs/demo.ts";
import { PLATFORMS } from "../machine/config.ts";
import { loadDemoGuest } from "../machine/load.ts";
import type { Machine } from "../machine/machine.ts";
import { runMachine, type RunReport } from "../machine/run.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle } from "./flags.ts";
import { interruptible } from "./interrupt.ts";
import {
  createMachine,
  type RunPlatform,
  RUNTIME_FLAGS,
  seedOf,
  SIDECAR_FLAGS,
  sidecarConfig,
  vpsFlag,
} from "./machine_flags.ts";
import { exitCodeOf, printEnd, printHistogram, runJson } from "./run_report.ts";

/** The form of `demo --json`. */
const DEMO_SCHEMA = 1;

/** The platforms that the demo shows, in order. */
const DEMO_PLATFORMS: readonly RunPlatform[] = ["kernel", "sidecar"];

/** Guest RAM in bytes. */
const DEMO_RAM_BYTES = 16 * 1024 ** 2;

/** The command `demo`. */
export const demoCommand: Command = command({
  name: "demo",
  summary: "boot the embedded guest and print its serial output and its exits",
  examples: [
    ["exitbox demo", "two virtual processors, a worker each"],
    ["exitbox demo --vps 8 --json", "eight of them, as one JSON object"],
    ["exitbox demo --runtime deterministic --seed 1", "all in one thread, in an order that repeats"],
  ],
  operands: null,
  flags: {
    Machine: { vps: vpsFlag("2", DEMO_VPS_MAX) },
    Sidecar: SIDECAR_FLAGS,
    Runtime: RUNTIME_FLAGS,
    Results: { json: toggle("one JSON object on standard output") },
  },
  details: [
    "The guest boots VP 0 from real into long mode, starts the others by INIT-SIPI-SIPI, makes port, device-memory, CPUID, " +
    "MSR and hypercall exits on each and checks what comes back. The table has a row for each VP: instructions executed, " +
    "then exits by kind.",
  ],
  async run({ values, words, printer }) {
    const seed = seedOf(values, "demo");
    const platforms: Record<string, unknown>[] = [];
    let code: number = EXIT.CLEAN;
    for (const platform of DEMO_PLATFORMS) {
      if (!values.json) printer.line(printer.style("bold", `${platform}: ${PLATFORMS[platform]}`));
      const machine = createMachine({
        platform,
        ...(platform === "sidecar" ? sidecarConfig(values, platform, "demo") : {}),
        vps: values.vps,
        ramBytes: DEMO_RAM_BYTES,
        policies: {},
        devices: "pc",
        recordExits: false,
      }, values.runtime);
      const serial: Uint8Array[] = [];
      const report = await runDemo(machine, seed, (bytes) => values.json ? serial.push(bytes) : printer.write(bytes));
      if (values.json) {
        platforms.push({ ...runJson(machine, report), serial: await new Blob(serial as BlobPart[]).text() });
      } else {
        printer.line();
        printHistogram(report, printer);
      }
      printEnd(machine, report, words, printer);
      code = exitCodeOf(report);
      if (code !== EXIT.CLEAN) break;
    }
    if (values.json) printer.json({ schema: DEMO_SCHEMA, runtime: values.runtime, seed, platforms });
    return code;
  },
});

/** Runs the demo guest on a new machine. */
function runDemo(machine: Machine, seed: number, onSerial: (bytes: Uint8Array) => void): Promise<RunReport> {
  loadDemoGuest(machine);
  return interruptible((signal) => runMachine(machine, { seed, signal, onSerial }));
}

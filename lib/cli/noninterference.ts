/**
 * `demo --noninterference`: two runs that differ in the guest's secret and in nothing else must show their hosts the same.
 *
 * @module
 */

import { CpuState } from "../cpu/state.ts";
import { SEV_KERNEL_RAM_BYTES } from "../guest/programs/sev_kernel.ts";
import { loadSevGuest } from "../machine/load.ts";
import type { MachineConfig } from "../machine/config.ts";
import { runMachine, type RunReport } from "../machine/run.ts";
import { compareViews, HostView, type HostViewRecord } from "../inspect/host_view.ts";
import { createMachine } from "./machine_flags.ts";
import { EXIT } from "./exit_codes.ts";
import type { Printer } from "./printer.ts";
import { exitCodeOf } from "./run_report.ts";

/** The form of `demo --noninterference --json`. */
const SCHEMA = 1;
/** Longest run in seconds: the guest is done in a fraction of it. */
const TIME_LIMIT_SECONDS = 120;

/** A run of the built-in guest with the secret number `variant`, and what its host saw: every page, at each exit. */
async function viewsOf(
  config: MachineConfig,
  seed: number,
  variant: number,
): Promise<{ report: RunReport; records: HostViewRecord[] }> {
  const machine = createMachine({ ...config, ramBytes: SEV_KERNEL_RAM_BYTES }, "deterministic");
  loadSevGuest(machine, { variant });
  const records: HostViewRecord[] = [];
  const states = (vp: number) => machine.map.cpuStates + vp * CpuState.size;
  const marks = { ranges: [], gpr: false, xmm: false };
  const view = new HostView(machine.platform.sev.sev, states, marks, (record) => records.push(record));
  const report = await runMachine(machine, {
    seed,
    timeLimitSeconds: TIME_LIMIT_SECONDS,
    onStep: (agent, step) => {
      view.followStep(agent, step);
      view.poll();
    },
  });
  return { report, records };
}

/**
 * Runs the built-in guest twice with different secrets, and says whether its host saw the same: exits, VMCB fields and
 * shared bytes. Ciphertext is compared apart.
 *
 * @param config The machine, of an encrypted platform without a paravisor.
 * @param seed The seed of both runs' schedules.
 * @param json Whether to print one JSON object.
 * @param printer Where the result goes.
 * @returns The exit code: CLEAN, SAFETY for a difference, or that of a run that did not come to its end.
 */
export async function checkNoninterference(
  config: MachineConfig,
  seed: number,
  json: boolean,
  printer: Printer,
): Promise<number> {
  const first = await viewsOf(config, seed, 0);
  const second = await viewsOf(config, seed, 1);
  const { difference, ciphertextDiffers } = compareViews(first.records, second.records);
  const exits = first.records.length;
  if (json) {
    printer.json({
      schema: SCHEMA,
      platform: config.platform,
      host: config.host ?? "kvm",
      seed,
      exits,
      difference: difference ?? null,
      ciphertext_differs: ciphertextDiffers,
    });
  } else if (difference === undefined) {
    printer.line(
      `noninterference: ${exits} exits of two runs with different secrets, and the host saw the same; ` +
        `other blocks of ciphertext changed at ${ciphertextDiffers} of them`,
    );
  } else {
    const { exit, vp, what, first: a, second: b, writer } = difference;
    printer.line(`interference at exit ${exit} of VP ${vp}: ${what} is ${a} in one run and ${b} in the other`);
    if (writer !== undefined) printer.line(`  written by ${writer}`);
  }
  if (difference !== undefined) return EXIT.SAFETY;
  return [first, second].map(({ report }) => exitCodeOf(report)).find((code) => code !== EXIT.CLEAN) ?? EXIT.CLEAN;
}

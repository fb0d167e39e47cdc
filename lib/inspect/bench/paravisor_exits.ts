/**
 * Measures exits of a guest below OpenHCL on SNP: what each kind costs, and what the proposals of openvmm pull request 3386 to
 * copy the VMSA make of a port exit, each beside a machine that never copies. All of them run in turns in the same rounds.
 *
 * @module
 */
import { StepRunner } from "../../machine/fused_steps.ts";
import { counter, medians, type RoundSize, STEPS_PER_TURN, type Timed, timed } from "./rounds.ts";
import { type Workload, workloadMachine, WORKLOADS } from "./workloads.ts";

/** What was measured of one machine. */
export interface ParavisorMeasurement {
  /** The kind of exit, and the policies with which VMSAs are copied. */
  readonly workload: string;
  /** Nanoseconds of an exit. */
  readonly costNs: number;
  /** Nanoseconds of the same exit without a copy, for a row that copies. */
  readonly offNs?: number;
}

/** The exit of which the copies' cost is shown: the one that is handled fastest. */
const COPIED_EXIT = "out";

/** When VMSAs are copied, in a build that does; `off` last, which the others are compared with. */
const WHEN = ["every-exit", "intercept", "crash-ctl", "off"] as const;

/** The copies that are measured: the pull request's, and with a header for readers. */
const COPIES: readonly Readonly<Record<string, string>>[] = [
  ...WHEN.map((when) => ({ "vmsa.when": when })),
  { "vmsa.when": "every-exit", "vmsa.publish": "host-notification", "vmsa.copy": "sequence-word" },
];

/** Turns of both agents between two looks at the clock. */
const TURNS_PER_POLL = 64;

/** Measures every kind of exit, then the copies. */
export function measureParavisor(
  size: RoundSize,
  onProgress: (workload: string) => void = () => {},
): ParavisorMeasurement[] {
  const exits = WORKLOADS.filter(({ exit }) => exit !== undefined);
  const copied = exits.find(({ name }) => name === COPIED_EXIT)!;
  const plain = exits.map((workload) => ({ name: workload.name, run: guest(workload, {}) }));
  const copies = COPIES.map((policies) => ({
    name: `${COPIED_EXIT} ${Object.entries(policies).map(([name, value]) => `${name}=${value}`).join(" ")}`,
    off: policies["vmsa.when"] === "off",
    run: guest(copied, { ...policies, "vmsa.opt-in": "yes" }),
  }));
  const all = [...plain, ...copies];
  for (const { name, run } of all) {
    onProgress(name);
    run(size.warmUpMs);
  }
  const costs = medians(all.map(({ run }) => run), size);
  const offNs = costs[plain.length + copies.findIndex(({ off }) => off)];
  return all.map(({ name }, k) => ({
    workload: name,
    costNs: costs[k],
    ...(k < plain.length ? {} : { offNs }),
  }));
}

/** A machine with one VP that leaves for ever; the result runs it for some milliseconds and gives nanoseconds per exit. */
function guest(workload: Workload, policies: Readonly<Record<string, string>>): Timed {
  const machine = workloadMachine("snp", workload, { paravisor: "openhcl", policies });
  const vp = machine.processor(0);
  const agents = machine.agents(0).map((agent) => new StepRunner(agent));
  return timed(() => {
    for (let k = 0; k < TURNS_PER_POLL; k++) for (const agent of agents) agent.take(STEPS_PER_TURN);
    machine.poll(vp);
  }, counter(machine, workload.exit));
}

/**
 * What an engineer does to sidecar processors while a machine runs: hand one to Linux, take it back, stop and resume its
 * run loop, cancel its run. An action only asks, by a word in the shared memory; agents carry it out and count it.
 *
 * ```
 *            hotplug (or policy sidecar.hotplug)
 *   sidecar ------------------------------------> Linux        stop / resume, cancel: in either place
 *           <------------------------------------
 *                          unplug
 * ```
 *
 * @module
 */
import { ClientRunState, SidecarClientState } from "../sidecar/client_state.ts";
import { SidecarTaskState } from "../sidecar/memory.ts";
import { BadInput } from "../memory/bad_input.ts";
import { DirectPort } from "../memory/port.ts";
import { KERNEL_PAGES, kernelPage, STOP, VmmRunState } from "../vtl2/kernel_pages.ts";
import { wakeVmm } from "../vtl2/wake.ts";
import type { Machine } from "./machine.ts";

const task = SidecarTaskState.at;
const run = VmmRunState.at;
/** Nanoseconds in a second. */
const NS_PER_SECOND = 1e9;

/** The actions, with what each asks for. */
export const VP_ACTIONS = {
  hotplug: "Linux takes the processor from the sidecar and handles its exits there (CPU online)",
  unplug: "Linux gives the processor back to the sidecar",
  stop: "the VMM runs the processor no more: a run under way is cancelled",
  resume: "the VMM runs the processor again",
  cancel: "the run under way is cancelled, and the next one begins",
} as const;

/** An action's name. */
export type VpAction = keyof typeof VP_ACTIONS;

/** An action at a time. */
export interface TimedVpAction {
  /** The processor: one that the sidecar has started. */
  readonly vp: number;
  /** What is done to it. */
  readonly action: VpAction;
  /** When, in seconds of the machine's clock: virtual time in the deterministic runtime. */
  readonly seconds: number;
}

/** How often agents have carried out what was asked for, of one processor, modulo 2^32. */
export interface VpActionCounts {
  /** Times that Linux has taken it. */
  readonly hotplugs: number;
  /** Times that it has come back to the sidecar. */
  readonly unplugs: number;
  /** Times that its run loop has ended because it was asked to. */
  readonly stops: number;
  /** Runs that were cancelled by `cancel`. */
  readonly cancels: number;
  /** Runs on the sidecar that have been begun. */
  readonly runs: number;
}

/** One sidecar processor, from outside. */
export class VpControl {
  readonly #machine: Machine;
  readonly #port: DirectPort;
  readonly #vp: number;
  readonly #task: number;
  readonly #run: number;
  readonly #base: number;
  readonly #client: number;

  /** Processor `vp` of `machine`. Throws {@linkcode BadInput} when the sidecar has not started it. */
  constructor(machine: Machine, vp: number) {
    const { config, platform } = machine;
    if (config.platform !== "sidecar" || !platform.sidecar.isSidecarVp(vp)) {
      throw new BadInput(`VP ${vp} is no sidecar VP`);
    }
    this.#machine = machine;
    this.#port = new DirectPort(machine.memory);
    this.#vp = vp;
    const { taskState, client, baseVp } = platform.sidecar.place(vp);
    this.#task = taskState;
    this.#client = client;
    this.#base = baseVp;
    this.#run = kernelPage(machine.map.vtl2, vp, KERNEL_PAGES.RUN_STATE);
  }

  /**
   * Asks for `action`. False when it makes no sense now: Linux has or is about to have the processor (hotplug) or has it
   * not (unplug), it is stopped (stop) or is not (resume), the sidecar does not run it (cancel).
   */
  perform(action: VpAction): boolean {
    const accepted = this.#ask(action);
    if (!accepted) return false;
    const { facilities, partition } = this.#machine.platform;
    partition.ring(this.#base);
    partition.ring(this.#vp);
    // The sidecar kernel takes no interrupt of Linux's: only where Linux runs the processor does it get one.
    if (action === "stop" && this.online) wakeVmm(facilities, this.#machine.map.vtl2, this.#vp, 0);
    return true;
  }

  #ask(action: VpAction): boolean {
    const port = this.#port;
    switch (action) {
      case "hotplug":
        return port.compareExchange32(this.#task + task.wanted_by_linux, 0, 1) === 0;
      case "unplug":
        return this.online && port.compareExchange32(this.#task + task.wanted_by_sidecar, 0, 1) === 0;
      case "stop":
        return (port.or32(this.#run + run.stop, STOP.VMM) & STOP.VMM) === 0;
      case "resume":
        return (port.and32(this.#run + run.stop, ~STOP.VMM) & STOP.VMM) !== 0;
      case "cancel":
        return this.running && port.compareExchange32(this.#task + task.kick, 0, 1) === 0;
    }
  }

  /** Whether Linux has the processor. */
  get online(): boolean {
    return this.#port.load32(this.#task + task.online) !== 0;
  }

  /** Whether it is on the way to Linux, or back. */
  get leaving(): boolean {
    const wanted = this.#port.load32(this.#task + task.wanted_by_linux) !== 0;
    return wanted !== this.online || this.#port.load32(this.#task + task.wanted_by_sidecar) !== 0;
  }

  /** Whether the sidecar runs its guest now. */
  get running(): boolean {
    return this.#port.load32(this.#client + SidecarClientState.at.run_state) === ClientRunState.values.RUNNING;
  }

  /** What has been done to it so far. */
  get counts(): VpActionCounts {
    const word = (at: number) => this.#port.load32(at) >>> 0;
    return {
      hotplugs: word(this.#task + task.removals),
      unplugs: word(this.#task + task.returns),
      stops: word(this.#run + run.stops),
      cancels: word(this.#task + task.kicks),
      runs: word(this.#client + SidecarClientState.at.runs),
    };
  }
}

/** Actions in the order of their times, each performed once. */
export class VpTimeline {
  readonly #machine: Machine;
  readonly #actions: readonly TimedVpAction[];
  #done = 0;

  /** The actions of a run of `machine`. Throws {@linkcode BadInput} for a processor that is none of the sidecar's. */
  constructor(machine: Machine, actions: readonly TimedVpAction[]) {
    this.#machine = machine;
    for (const { vp } of actions) new VpControl(machine, vp);
    this.#actions = [...actions].sort((a, b) => a.seconds - b.seconds);
  }

  /** Nanosecond of the machine's clock at which the next action is due; Infinity when there is none left. */
  get next(): number {
    return this.#done < this.#actions.length ? this.#actions[this.#done].seconds * NS_PER_SECOND : Infinity;
  }

  /** Performs what is due; an action that makes no sense when its time has come is left out. */
  perform(): void {
    while (this.next <= this.#machine.clock.now()) {
      const { vp, action } = this.#actions[this.#done++];
      new VpControl(this.#machine, vp).perform(action);
    }
  }
}

/**
 * Measures the `sidecar` platform with many processors: how long they take to come up and answer a command, and how many
 * exits they make together on the cores that there are.
 *
 * @module
 */
import { assemble } from "../../guest/assembler/assemble.ts";
import { parseImage } from "../../guest/image.ts";
import { EXIT_KIND, HypervisorVpState } from "../../hypervisor/vp_state.ts";
import { SIDECAR } from "../../layout/hyperv/constants/sidecar.ts";
import { ConcurrentRuntime } from "../../machine/concurrent.ts";
import { END } from "../../machine/header.ts";
import { loadGuest } from "../../machine/load.ts";
import { Machine } from "../../machine/machine.ts";
import { AgentBlock } from "../../memory/agent.ts";
import { KERNEL_LOCAL } from "../../sidecar/kernel/processor.ts";
import { SIDECAR_TASK, SIDECAR_TASK_PING, SidecarTask } from "../../sidecar/vmm_task.ts";

/** Guest RAM of a measured machine. */
const RAM_BYTES = 16 << 20;
/** Where the bootstrap processor's code lies, and the others', at the page that the startup IPI names. */
const ORIGIN = 0x100000;
const STARTUP_PAGE = 0x8;
const STARTUP_AT = STARTUP_PAGE << 12;
/** Exits in one turn of the guests' loop. */
const UNROLLED = 16;
/** Longest time in milliseconds that a machine may take to come up. */
const UP_MS_MAX = 60_000;
const NS_PER_S = 1e9;
const MS_PER_S = 1e3;

/** How a machine came up, and what it did then. */
export interface SidecarBoot {
  /** Sidecar processors. */
  readonly sidecar_vps: number;
  /** Workers on which they and the nodes' base processors run. */
  readonly workers: number;
  /** Seconds from the machine's making until every one of them had answered a command; the workers' start is in it. */
  readonly boot_seconds: number;
  /** Most bytes of memory that the process had resident while it was measured. */
  readonly rss_bytes: number;
  /** Exits of all of them together. */
  readonly exits_per_second: number;
  /** Exits of the one that made least. */
  readonly least_exits_per_second: number;
  /** Exits of the one that made most. */
  readonly most_exits_per_second: number;
  /** Mean nanoseconds between two exits of the whole machine. */
  readonly cost_ns: number;
}

/** A machine with `sidecarVps` sidecar processors whose guests make exits without an end; the others' guests halt. */
function bootMachine(sidecarVps: number): { readonly machine: Machine; readonly vps: readonly number[] } {
  const machine = Machine.create({
    platform: "sidecar",
    vps: sidecarVps + Math.ceil(sidecarVps / (SIDECAR.MAX_SIDECAR_NODE_SIZE - 1)),
    ramBytes: RAM_BYTES,
    policies: { "sidecar.hotplug": "off" },
    devices: "pc",
    recordExits: false,
  }, false);
  const { sidecar } = machine.platform;
  const vps = Array.from({ length: machine.config.vps }, (_, vp) => vp).filter((vp) => sidecar.isSidecarVp(vp));
  const { bytes } = assemble(`bits 64\n${startsOthers(vps)}`, { origin: ORIGIN, bits: 64 });
  loadGuest(machine, parseImage(bytes, "bench boot", { mode: "long" }));
  const loop = `bits 16\nmov dx, 0x80\nagain:\n${"out dx, al\n".repeat(UNROLLED)}jmp again\n`;
  machine.memory.u8.set(assemble(loop, { origin: 0, bits: 16 }).bytes, STARTUP_AT);
  for (const { baseVp } of sidecar.nodes) {
    for (const agent of machine.agents(baseVp)) if (agent instanceof SidecarTask) beginWithPing(agent);
  }
  return { machine, vps };
}

/** Puts a command in front of everything else that a task does: the step to which it returns first. */
function beginWithPing(task: SidecarTask): void {
  const { u32 } = task.memory;
  const outermost = (task.block + AgentBlock.at.returns) >>> 2;
  if (u32[outermost] !== SIDECAR_TASK) throw new Error(`${task.name} does not begin as expected`);
  u32[outermost] = SIDECAR_TASK_PING;
}

/** Enables the x2APIC, sends each processor INIT and a startup IPI, and halts (Intel SDM volume 3, 11.12.9). */
function startsOthers(vps: readonly number[]): string {
  const lines = ["mov ecx, 0x1b", "rdmsr", "or eax, 0xc00", "wrmsr", "mov ecx, 0x830"];
  for (const vp of vps) {
    for (const command of [0xc500, 0xc600 | STARTUP_PAGE]) lines.push(`mov edx, ${vp}`, `mov eax, ${command}`, "wrmsr");
  }
  return [...lines, "cli", "hlt"].join("\n");
}

/** Boots a machine with `sidecarVps` sidecar processors and lets them make exits for `milliseconds`. */
export async function measureBoot(sidecarVps: number, milliseconds: number): Promise<SidecarBoot> {
  const start = performance.now();
  const { machine, vps } = bootMachine(sidecarVps);
  const { u64 } = machine.memory;
  const processors = vps.map((vp) => machine.processor(vp));
  const exitsOf = (): number[] =>
    processors.map(({ state }) => Number(u64[((state + HypervisorVpState.at.exits) >>> 3) + EXIT_KIND.out]));
  let booted = 0, began = 0, ended = 0, rss = 0;
  let before: number[] = [], after: number[] = [];
  const result = await new ConcurrentRuntime(machine).run(() => {
    const now = performance.now();
    rss = Math.max(rss, Deno.memoryUsage().rss);
    if (booted === 0 && processors.every(({ locals32 }) => locals32[KERNEL_LOCAL.COMMANDS] > 0)) booted = now;
    if (booted !== 0 && began === 0 && exitsOf().every((exits) => exits > 0)) {
      [began, before] = [now, exitsOf()];
    }
    if (began !== 0 && ended === 0 && now - began >= milliseconds) {
      [ended, after] = [now, exitsOf()];
      machine.finish(END.LIMIT, 0);
    }
    if (now - start > UP_MS_MAX) machine.finish(END.LIMIT, 0);
  });
  if (result.problems.length > 0) throw new Error(result.problems.join("\n"));
  if (ended === 0) throw new Error(`${sidecarVps} sidecar VPs did not come up in ${UP_MS_MAX / MS_PER_S} s`);
  const seconds = (ended - began) / MS_PER_S;
  const rates = after.map((exits, vp) => (exits - before[vp]) / seconds);
  const total = rates.reduce((sum, rate) => sum + rate, 0);
  return {
    sidecar_vps: sidecarVps,
    workers: machine.workers,
    boot_seconds: (booted - start) / MS_PER_S,
    rss_bytes: rss,
    exits_per_second: total,
    least_exits_per_second: Math.min(...rates),
    most_exits_per_second: Math.max(...rates),
    cost_ns: NS_PER_S / total,
  };
}

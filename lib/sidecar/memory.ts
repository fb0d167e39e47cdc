/**
 * Which processors are in which node of the sidecar, and where a node's pages lie in VTL2's memory (openvmm
 * openhcl/sidecar_defs, openhcl_boot/src/sidecar.rs).
 *
 * A node begins with its control page; then come the shared pages of every processor, the base processor's too, then the
 * private ones. What follows them in this model are a page of the kernels of that node (the sidecar's, Linux's driver and
 * the VMM's client) and a page of the VMM's task for every processor.
 *
 * @module
 */
import { array, u32 } from "../layout/field_type.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import { CpuContextX64, SidecarVpSharedMemory } from "../layout/hyperv/sidecar.ts";
import { HvRegisterAssoc, HvRegisterValue } from "../layout/hyperv/registers.ts";
import { reserved, structure } from "../layout/structure.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { SidecarClientState } from "./client_state.ts";
import { SidecarDriverState } from "./driver/state.ts";

/** The processors of one node. */
export interface SidecarNodeTopology {
  /** VP index of its base processor, which Linux starts. */
  readonly baseVp: number;
  /** Processors in it, the base processor included. */
  readonly vpCount: number;
}

/** Splits `count` into `parts` parts that are as even as they can be. */
function splitEvenly(count: number, parts: number): number[] {
  return Array.from({ length: parts }, (_, part) => Math.floor(count / parts) + (part < count % parts ? 1 : 0));
}

/**
 * The nodes of a machine with `vps` processors on `numaNodes` NUMA nodes: each is split evenly into nodes of at most 32. A
 * node without a processor for the sidecar is left out. `starts` names the processors that the sidecar starts (its
 * per-CPU overrides); all but the first of each node when absent.
 */
export function sidecarTopology(vps: number, numaNodes = 1, starts?: readonly number[]): SidecarNodeTopology[] {
  const nodes: SidecarNodeTopology[] = [];
  let baseVp = 0;
  for (const numa of splitEvenly(vps, Math.max(1, Math.min(numaNodes, vps)))) {
    for (const vpCount of splitEvenly(numa, Math.ceil(numa / SIDECAR.MAX_SIDECAR_NODE_SIZE))) {
      const first = baseVp + 1;
      const wanted = starts?.some((vp) => vp >= first && vp < first + vpCount - 1) ?? vpCount > 1;
      if (wanted) nodes.push({ baseVp, vpCount });
      baseVp += vpCount;
    }
  }
  return nodes;
}

/** What the sidecar kernel keeps for a node in its image. */
export const SidecarImageNode = structure("SidecarImageNode", 64, [
  ["next_vp", 0, u32, "Number in the node of the next processor to start (shared)"],
  reserved(4, 60),
], "openvmm: openhcl/sidecar init, in the model's own layout");

/** What the sidecar kernel keeps for a processor, in its globals page. */
export const SidecarVpGlobals = structure("SidecarVpGlobals", 64, [
  ["vp_index", 0, u32, "Index of the virtual processor"],
  ["node_cpu_index", 4, u32, "Its number in the node"],
  ["overlays_mapped", 8, u32, "1 once assist and register page have been set up"],
  ["register_page_mapped", 12, u32, "1 when the hypervisor has taken the register page"],
  ["spurious_vector", 16, u32, "What was written to the APIC's SVR last"],
  ["entries_by_interrupt", 20, u32, "VTL2 entries by interrupt during runs, modulo 2^32"],
  reserved(24, 40),
], "openvmm: openhcl/sidecar VpGlobals, in the model's own layout");

/** Registers beside the processor context that a conversion saves. */
export const SAVED_REGISTERS_MAX = 40;

/** The VMM's task for one processor. Fields marked (shared) are written by other threads. */
export const SidecarTaskState = structure("SidecarTaskState", PAGE_SIZE, [
  ["cancel", 0, u32, "1 asks the task to stop running its processor (shared)"],
  ["wanted_by_linux", 4, u32, "1 once the first exit has been handled: Linux is to take the processor (shared)"],
  ["saved", 8, u32, "1 once the processor's state has been saved (shared)"],
  ["online", 12, u32, "1 once Linux may start the processor (shared)"],
  ["exits", 16, u32, "Exits handled, modulo 2^32"],
  reserved(20, 4),
  [
    "get_count",
    24,
    u32,
    "How many registers a handler has asked for, or how many of the saved ones have been restored",
  ],
  ["get_at", 28, u32, "Where the handler wants the values"],
  ["set_count", 32, u32, "Registers that a handler has set and that have not reached the processor"],
  ["clear_shadow", 36, u32, "1 when a handler has cleared the interrupt shadow"],
  ["wanted_by_sidecar", 40, u32, "1 asks Linux to give the processor back (shared)"],
  ["offline", 44, u32, "1 once Linux has given it up and its state is in the saved fields (shared)"],
  ["restart", 48, u32, "1 makes the sidecar kernel start on the processor again (shared)"],
  ["returned", 52, u32, "1 once the driver lets the task have the processor again (shared)"],
  ["kick", 56, u32, "1 asks the task to cancel the run under way, once (shared)"],
  ["kicks", 60, u32, "Runs that were cancelled for that, modulo 2^32"],
  ["get_names", 64, array(u32, SAVED_REGISTERS_MAX), "Names of registers to get"],
  ["removals", 224, u32, "Times that Linux has taken the processor, modulo 2^32"],
  ["returns", 228, u32, "Times that it has come back, modulo 2^32"],
  reserved(232, 24),
  ["set_records", 256, array(HvRegisterAssoc, SIDECAR.MAX_GET_SET_VP_REGISTERS), "Registers to set"],
  reserved(1248, 32),
  ["saved_context", 1280, CpuContextX64, "Processor context of a converted processor"],
  ["saved_values", 2304, array(HvRegisterValue, SAVED_REGISTERS_MAX), "Values of the other saved registers"],
  reserved(2944, 1152),
], "The VMM's own memory; not a structure of OpenHCL");

/** The page behind a node's own ones. */
const IMAGE = 0;
const DRIVER: number = IMAGE + SidecarImageNode.size;
const CLIENTS: number = DRIVER + SidecarDriverState.size;

/** Bytes of the pages that openvmm gives a node (sidecar_defs required_memory). */
export function requiredMemory(vpCount: number): number {
  return PAGE_SIZE * (1 + (SIDECAR.PER_VP_SHMEM_PAGES + SIDECAR.PER_VP_PAGES) * vpCount);
}

/** Where the pages of one node lie. */
export class SidecarNodeMemory implements SidecarNodeTopology {
  readonly baseVp: number;
  readonly vpCount: number;
  /** Guest-physical address of the control page, the node's first. */
  readonly controlPage: number;
  /** Guest-physical address of the shared pages. */
  readonly sharedPages: number;
  /** Byte offset of the {@linkcode SidecarImageNode}. */
  readonly image: number;
  /** Byte offset of the `SidecarDriverState`. */
  readonly driver: number;
  /** Byte offset of the first `SidecarClientState`. */
  readonly clients: number;
  /** First byte behind the node. */
  readonly end: number;
  readonly #privatePages: number;
  readonly #tasks: number;

  /** A node of this topology at guest-physical address `base`. */
  constructor(base: number, { baseVp, vpCount }: SidecarNodeTopology) {
    this.baseVp = baseVp;
    this.vpCount = vpCount;
    this.controlPage = base;
    this.sharedPages = base + PAGE_SIZE;
    this.#privatePages = this.sharedPages + vpCount * SidecarVpSharedMemory.size;
    const kernels = base + requiredMemory(vpCount);
    this.image = kernels + IMAGE;
    this.driver = kernels + DRIVER;
    this.clients = kernels + CLIENTS;
    this.#tasks = kernels + Math.ceil((CLIENTS + vpCount * SidecarClientState.size) / PAGE_SIZE) * PAGE_SIZE;
    this.end = this.#tasks + vpCount * SidecarTaskState.size;
  }

  /** Guest-physical address of a private page of processor `slot` (`SIDECAR_PRIVATE_PAGE`). */
  privatePage(slot: number, page: number): number {
    return this.#privatePages + (slot * SIDECAR.PER_VP_PAGES + page) * PAGE_SIZE;
  }

  /** Byte offset of the {@linkcode SidecarTaskState} of processor `slot`. */
  task(slot: number): number {
    return this.#tasks + slot * SidecarTaskState.size;
  }
}

/** Lays out the nodes of a topology one after the other from guest-physical address `base` on. */
export function layOutNodes(base: number, topology: readonly SidecarNodeTopology[]): SidecarNodeMemory[] {
  let at = base;
  return topology.map((node) => {
    const memory = new SidecarNodeMemory(at, node);
    at = memory.end;
    return memory;
  });
}

/** Bytes of VTL2's memory that the nodes of a topology take. */
export function sidecarBytes(topology: readonly SidecarNodeTopology[]): number {
  return layOutNodes(0, topology).at(-1)?.end ?? 0;
}

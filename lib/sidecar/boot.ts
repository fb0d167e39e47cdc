/**
 * Boot of the sidecar: the base processor prepares the nodes, the sidecar processors start each other, and each enters
 * its command loop (openvmm openhcl/sidecar init, start_aps, ap_init, ap_entry; openhcl_boot/src/sidecar.rs).
 *
 * @module
 */
import { FacilityState } from "../hypervisor/facilities.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { callHypercall } from "../hypervisor/hypercalls/dispatch.ts";
import type { HypercallContext } from "../hypervisor/hypercalls/context.ts";
import { HvStatus, HYPERCALL_ABI, HypercallCode } from "../layout/hyperv/constants/hypercalls.ts";
import {
  SIDECAR,
  SIDECAR_AP_INITIAL_CONTEXT,
  SIDECAR_PRIVATE_PAGE,
  SIDECAR_PT_INDEX,
  SIDECAR_VA,
  SidecarDriverVpState,
} from "../layout/hyperv/constants/sidecar.ts";
import { EnableVpVtlX64, InitialVpContextX64, StartVirtualProcessorX64 } from "../layout/hyperv/hypercalls.ts";
import { ControlPage, CpuStatus } from "../layout/hyperv/sidecar.ts";
import { Agent } from "../memory/agent.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import { step, type StepId } from "../memory/steps.ts";
import { PANICKED, park } from "./kernel/command_loop.ts";
import type { SidecarVp } from "./kernel/sidecar_vp.ts";
import { SidecarImageNode, type SidecarNodeMemory, SidecarVpGlobals } from "./memory.ts";
import type { SidecarNode } from "./node.ts";

const control = ControlPage.at;
const { REMOVED, IDLE, RUN } = CpuStatus.values;
const globals = SidecarVpGlobals.at;
const VTL2 = 2;
/** Bytes of a page-table entry. */
const PTE_BYTES = 8;
/** Entries of a page table. */
const PTES = 512n;
const PTE_PRESENT_WRITE = 3n;
const PTE_NO_EXECUTE = 1n << 63n;
/** The call pushed a return address. */
const RETURN_ADDRESS_BYTES = 8n;

/** Words of `Agent.locals32` of an agent that starts processors. */
const NODE = 8;
const SLOT = 9;
const FAILED_STATUS = 10;

/** A node that is being started. */
export interface NodeStart {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** Where its pages lie. */
  readonly memory: SidecarNodeMemory;
  /** Whether the sidecar starts processor `slot`; all but the base processor when absent. Linux starts the others. */
  readonly starts?: (slot: number) => boolean;
}

/** An agent that starts processors: the base processor's boot code, and every processor that has been started. */
export interface SidecarStarter extends Agent {
  /** Every node. */
  readonly starts: readonly NodeStart[];
  /** Hypercalls of VTL2 of the processor that it executes on. */
  readonly vtl2Hypercalls: HypercallContext;
  /** A hypercall of the start failed, or there is nothing to start. */
  panic(text: string): StepId;
}

/** The boot code on the base processor, before Linux. */
export class SidecarBoot extends Agent implements SidecarStarter {
  readonly starts: readonly NodeStart[];
  readonly vtl2Hypercalls: HypercallContext;
  readonly #onPanic: (text: string) => void;

  /** Boot code over the agent block at byte offset `block`. Its first step is {@linkcode SIDECAR_BOOT}. */
  constructor(
    block: number,
    port: MemoryPort,
    starts: readonly NodeStart[],
    hypercalls: HypercallContext,
    onPanic: (text: string) => void,
  ) {
    super("sidecar-boot", hypercalls.facilities.partition.memory, block, port);
    this.starts = starts;
    this.vtl2Hypercalls = hypercalls;
    this.#onPanic = onPanic;
  }

  panic(text: string): StepId {
    this.#onPanic(text);
    return PANICKED;
  }
}

// --- The base processor -------------------------------------------------------------------------------------------

/** Fills the control page of one node after the other: REMOVED, or RUN for the processors that the sidecar starts. */
export const SIDECAR_BOOT: StepId = step<SidecarBoot>("sidecar.boot.fill-control-page", (boot) => {
  const index = boot.locals32[NODE];
  if (index === boot.starts.length) {
    boot.locals32[NODE] = 0;
    return START_APS;
  }
  const { node, memory, starts } = boot.starts[index];
  const { u8, u32 } = boot.memory;
  const at = node.controlPage;
  u8.fill(0, at, at + PAGE_SIZE);
  u32[(at + control.index) >>> 2] = index;
  u32[(at + control.base_cpu) >>> 2] = node.baseVp;
  u32[(at + control.cpu_count) >>> 2] = node.vpCount;
  u32[(at + control.request_vector) >>> 2] = SIDECAR.IRQ_VECTOR;
  let running = 0;
  for (let slot = 1; slot < node.vpCount; slot++) {
    if (starts?.(slot) === false) continue;
    u8[node.statuses + slot] = RUN;
    running++;
  }
  if (running === 0) return boot.panic("no sidecar processor to start");
  u32[(memory.image + SidecarImageNode.at.next_vp) >>> 2] = 1;
  boot.locals32[NODE] = index + 1;
  return SIDECAR_BOOT;
});

/** Spins until no processor is RUN: each has come to its command loop. */
const WAIT_IDLE: StepId = step<SidecarBoot>(
  "sidecar.boot.wait-idle",
  (boot) => boot.return(),
  (boot) => boot.starts.every(({ node }) => !somebodyRuns(boot, node)),
);

function somebodyRuns({ port }: Agent, node: SidecarNode): boolean {
  for (let slot = 1; slot < node.vpCount; slot++) if (port.load8(node.statuses + slot) === RUN) return true;
  return false;
}

/**
 * What Linux's driver does when it finds a node: it says where the response interrupt is to go, and takes the processors
 * that the sidecar has for available.
 */
export function probeNode(node: SidecarNode, responseVector: number): void {
  const { u8, u32 } = node.memory;
  const { AVAILABLE, REMOVED: GONE } = SidecarDriverVpState.values;
  u32[(node.controlPage + control.response_cpu) >>> 2] = node.baseVp;
  u32[(node.controlPage + control.response_vector) >>> 2] = responseVector;
  for (let slot = 0; slot < node.vpCount; slot++) {
    u8[node.vpStates + slot] = u8[node.statuses + slot] === REMOVED ? GONE : AVAILABLE;
  }
}

// --- Starting processors ------------------------------------------------------------------------------------------

/** start_aps: takes the next processor of a node that nobody has taken yet. */
const START_APS: StepId = step<SidecarStarter>("sidecar.start.take-next", (starter) => {
  const index = starter.locals32[NODE];
  if (index >= starter.starts.length) {
    starter.locals32[NODE] = 0;
    return starter instanceof SidecarBoot ? WAIT_IDLE : AP_ENABLE_APIC;
  }
  const { node, memory } = starter.starts[index];
  const slot = starter.port.add32(memory.image + SidecarImageNode.at.next_vp, 1);
  if (slot >= node.vpCount) {
    starter.locals32[NODE] = index + 1;
    return START_APS;
  }
  starter.locals32[SLOT] = slot;
  return starter.port.load8(node.statuses + slot) === REMOVED ? START_APS : BUILD_TABLES;
});

/** Builds the processor's page tables: its own pages and nothing else, for the kernel's code is this model's. */
const BUILD_TABLES: StepId = step<SidecarStarter>("sidecar.start.build-tables", (starter) => {
  const { memory } = starter.starts[starter.locals32[NODE]];
  buildTables(starter.memory.view, memory, starter.locals32[SLOT]);
  const vp = memory.baseVp + starter.locals32[SLOT];
  const place = memory.privatePage(starter.locals32[SLOT], SIDECAR_PRIVATE_PAGE.GLOBALS);
  starter.memory.u32[(place + globals.vp_index) >>> 2] = vp;
  starter.memory.u32[(place + globals.node_cpu_index) >>> 2] = starter.locals32[SLOT];
  return ENABLE_VP_VTL;
});

const ENABLE_VP_VTL: StepId = step<SidecarStarter>("sidecar.start.enable-vp-vtl", (starter) => {
  const { Success, VtlAlreadyEnabled } = HvStatus.values;
  const status = callWithContext(starter, HypercallCode.values.HvCallEnableVpVtl, EnableVpVtlX64.size);
  return status === Success || status === VtlAlreadyEnabled ? START_VP : failed(starter, "enable vp vtl", status);
});

const START_VP: StepId = step<SidecarStarter>("sidecar.start.start-vp", (starter) => {
  const status = callWithContext(
    starter,
    HypercallCode.values.HvCallStartVirtualProcessor,
    StartVirtualProcessorX64.size,
  );
  return status === HvStatus.values.Success ? START_APS : failed(starter, "start vp", status);
});

function failed(starter: SidecarStarter, what: string, status: number): StepId {
  starter.locals32[FAILED_STATUS] = status;
  return starter.panic(`failed to ${what}: ${HvStatus.name(status)}`);
}

/** HvCallEnableVpVtl and HvCallStartVirtualProcessor have the same input: the processor, VTL2, and its first registers. */
function callWithContext(starter: SidecarStarter, code: number, size: number): number {
  const { memory } = starter.starts[starter.locals32[NODE]];
  const slot = starter.locals32[SLOT];
  const input = new Uint8Array(size);
  const view = new DataView(input.buffer);
  const at = StartVirtualProcessorX64.at;
  view.setBigUint64(at.partition_id, HYPERCALL_ABI.PARTITION_ID_SELF, true);
  view.setUint32(at.vp_index, memory.baseVp + slot, true);
  view.setUint8(at.target_vtl, VTL2);
  writeInitialContext(view, at.vp_context, BigInt(memory.privatePage(slot, SIDECAR_PRIVATE_PAGE.PML4)));
  starter.port.fence();
  return callHypercall(starter.vtl2Hypercalls, code, input).status;
}

/** The registers with which a processor enters the sidecar kernel. GDT and IDT are the image's, at its base. */
function writeInitialContext(view: DataView, at: number, cr3: bigint): void {
  const first = SIDECAR_AP_INITIAL_CONTEXT;
  const context = InitialVpContextX64.accessor(view, at);
  context.rip = SIDECAR_VA.IMAGE_BASE;
  context.rsp = SIDECAR_VA.STACK_TOP - RETURN_ADDRESS_BYTES;
  context.rflags = BigInt(first.rflags);
  context.efer = BigInt(first.efer);
  context.cr0 = BigInt(first.cr0);
  context.cr3 = cr3;
  context.cr4 = BigInt(first.cr4);
  context.msr_cr_pat = BigInt(first.pat);
  Object.assign(context.cs, { limit: first.cs_limit, selector: first.cs_selector, attributes: first.cs_attributes });
  for (const data of [context.ds, context.es, context.fs, context.gs, context.ss]) {
    Object.assign(data, { limit: first.data_limit, selector: first.data_selector, attributes: first.data_attributes });
  }
  Object.assign(context.tr, { limit: first.tr_limit, selector: first.tr_selector, attributes: first.tr_attributes });
  context.gdtr.limit = first.gdt_limit;
  context.idtr.limit = first.idt_limit;
  context.gdtr.base = SIDECAR_VA.IMAGE_BASE;
  context.idtr.base = SIDECAR_VA.IMAGE_BASE;
}

/** The pages that a processor maps: its slot in the last-level table and the page behind it. */
function mappedPages(memory: SidecarNodeMemory, slot: number): readonly (readonly [index: number, page: number])[] {
  const own = (page: number) => memory.privatePage(slot, page);
  const shared = memory.sharedPages + slot * SIDECAR.PER_VP_SHMEM_PAGES * PAGE_SIZE;
  const index = SIDECAR_PT_INDEX;
  return [
    [index.SELF, own(SIDECAR_PRIVATE_PAGE.PT)],
    [index.HYPERCALL_INPUT, own(SIDECAR_PRIVATE_PAGE.HYPERCALL_INPUT)],
    [index.HYPERCALL_OUTPUT, own(SIDECAR_PRIVATE_PAGE.HYPERCALL_OUTPUT)],
    [index.COMMAND_PAGE, shared],
    [index.GLOBALS, own(SIDECAR_PRIVATE_PAGE.GLOBALS)],
    [index.ASSIST_PAGE, own(SIDECAR_PRIVATE_PAGE.ASSIST_PAGE)],
    [index.CONTROL_PAGE, memory.controlPage],
    [index.REGISTER_PAGE, shared + PAGE_SIZE],
    [index.STACK, own(SIDECAR_PRIVATE_PAGE.STACK_0_LOWEST_VA)],
    [index.STACK + 1, own(SIDECAR_PRIVATE_PAGE.STACK_1)],
    [index.STACK + 2, own(SIDECAR_PRIVATE_PAGE.STACK_2)],
  ];
}

/** Writes a processor's four page tables. */
function buildTables(view: DataView, memory: SidecarNodeMemory, slot: number): void {
  const own = (page: number) => memory.privatePage(slot, page);
  const entry = (table: number, index: number, page: number, bits: bigint) =>
    view.setBigUint64(own(table) + index * PTE_BYTES, BigInt(page) | bits, true);
  const { PML4, PDPT, PD, PT } = SIDECAR_PRIVATE_PAGE;
  const level = (shift: bigint) => Number(SIDECAR_VA.PER_VP_WINDOW >> shift & (PTES - 1n));
  entry(PML4, level(39n), own(PDPT), PTE_PRESENT_WRITE);
  entry(PDPT, level(30n), own(PD), PTE_PRESENT_WRITE);
  entry(PD, level(21n), own(PT), PTE_PRESENT_WRITE);
  for (const [index, page] of mappedPages(memory, slot)) entry(PT, index, page, PTE_PRESENT_WRITE | PTE_NO_EXECUTE);
}

// --- A sidecar processor ------------------------------------------------------------------------------------------

/** First step of a sidecar processor: it waits to be started, then helps to start others (ap_init). */
export const SIDECAR_AP_OFFLINE: StepId = step<SidecarVp>(
  "sidecar.ap.not-started",
  () => START_APS,
  ({ facilities, index, port }) => port.load32(facilities.state(index) + FacilityState.at.vtl2_started) !== 0,
);

/** VTL2 runs: FS base, x2APIC and the spurious vector. */
export const AP_ENABLE_APIC: StepId = step<SidecarVp>("sidecar.ap.enable-apic", (vp) => {
  const { u8 } = vp.memory;
  u8[vp.state + HypervisorVpState.at.vtl2_runnable] = 1;
  u8[vp.state + HypervisorVpState.at.active_vtl] = VTL2;
  vp.setGlobal(globals.spurious_vector, SIDECAR.SVR_ENABLED);
  return AP_ZERO_REGISTER_PAGE;
});

/** The last time that the sidecar kernel touches the register page, but for the proposals of policy `sidecar.sync`. */
const AP_ZERO_REGISTER_PAGE: StepId = step<SidecarVp>("sidecar.ap.zero-register-page", (vp) => {
  vp.port.zero(vp.node.registerPage(vp.slot), PAGE_SIZE);
  return AP_ZERO_COMMAND_PAGE;
});

const AP_ZERO_COMMAND_PAGE: StepId = step<SidecarVp>("sidecar.ap.zero-command-page", (vp) => {
  vp.port.zero(vp.commandPage, PAGE_SIZE);
  return AP_SET_IDLE;
});

/** RUN to IDLE: the processor has come up. */
const AP_SET_IDLE: StepId = step<SidecarVp>("sidecar.ap.set-idle", (vp) => {
  const old = vp.port.exchange8(vp.node.statuses + vp.slot, IDLE);
  vp.starts[0].node.wires.woken(); // the boot code looks at the statuses
  vp.node.wires.woken(); // and whoever starts it again
  return old === RUN ? park(vp) : vp.panic(`unexpected cpu status ${CpuStatus.name(old)}`);
});

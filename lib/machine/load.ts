/**
 * Loads a guest into a machine and gives VP 0 the registers with which it starts.
 *
 * @module
 */
import { CpuState, FX } from "../cpu/state.ts";
import {
  type GuestImage,
  type InitialState,
  loadImage,
  type MultibootModule,
  type SegmentState,
} from "../guest/image.ts";
import { loadDemo } from "../guest/programs/demo.ts";
import { loadSevKernel, sevKernelImage, type SevKernelOptions } from "../guest/programs/sev_kernel.ts";
import { KernelVp } from "../vtl2/kernel_vp.ts";
import { CpuContextX64 } from "../layout/hyperv/sidecar.ts";
import { Fxsave } from "../layout/x64/fxsave.ts";
import { SidecarVp } from "../sidecar/kernel/sidecar_vp.ts";
import { SidecarTaskState } from "../sidecar/memory.ts";
import { loadContext } from "../vtl2/kernel_start.ts";
import { SnpVp } from "../vtl2/snp/snp_vp.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import type { Machine } from "./machine.ts";
import { isEncrypted } from "./sev_platform.ts";

const at = CpuState.at;

/** Segment names in the order of the processor's segment numbers. */
const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;

/** Loads `image` into the machine's RAM and starts VP 0 at it. Throws `BadInput` when it does not fit. */
export function loadGuest(machine: Machine, image: GuestImage, modules: readonly MultibootModule[] = []): void {
  const { memory, config } = machine;
  const ram = memory.u8.subarray(0, config.ramBytes);
  setInitialState(machine, loadImage(ram, image, { modules }));
  launch(machine, image.segments);
}

/** Loads the embedded demo guest, told how many VPs there are, and starts VP 0 at it. Throws `BadInput` when it does not fit. */
export function loadDemoGuest(machine: Machine): void {
  const { memory, config } = machine;
  setInitialState(machine, loadDemo(memory.u8.subarray(0, config.ramBytes), config.vps));
}

/** Loads the built-in kernel of encrypted guests and starts VP 0 at it. Throws `BadInput` when it does not fit. */
export function loadSevGuest(machine: Machine, options: Omit<SevKernelOptions, "vps"> = {}): void {
  const { memory, config } = machine;
  const ram = memory.u8.subarray(0, config.ramBytes);
  setInitialState(machine, loadSevKernel(ram, { ...options, vps: config.vps }));
  launch(machine, sevKernelImage(options.variant).segments);
}

/** Encrypts what has been loaded, on the platforms that do; `ranges` are guest-physical. */
export function launch(machine: Machine, ranges: readonly { address: number; memSize: number }[] = []): void {
  if (isEncrypted(machine.config)) machine.platform.sev.launch(ranges);
}

/** Gives the processor on which the guest starts the registers of an initial state. */
export function setInitialState(machine: Machine, state: InitialState): void {
  const vp = machine.processor(machine.config.bootVp ?? 0);
  const { s64, s32, s16 } = vp.cpu;
  state.gpr.forEach((value, index) => s64[at.gpr / 8 + index] = value);
  s64[at.rip / 8] = state.rip;
  s64[at.rflags / 8] = state.rflags;
  SEGMENT_NAMES.forEach((name, segment) => setSegment(vp, segment, state.seg[name]));
  for (const name of ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "dr6", "dr7"] as const) {
    s64[at[name] / 8] = state[name];
  }
  for (const name of ["gdtr", "idtr"] as const) {
    s64[at[name] / 8 + 1] = state[name].base;
    s16[at[name] / 2 + 3] = state[name].limit;
  }
  s16[at.fx / 2] = state.fcw;
  s32[at.fx / 4 + 6] = state.mxcsr;
  registersChanged(machine, vp);
}

/**
 * Changes the registers of the processor on which the guest starts by `write`, which is given the place of its `CpuState`.
 */
export function setRegisters(machine: Machine, write: (view: DataView, base: number) => void): void {
  const vp = machine.processor(machine.config.bootVp ?? 0);
  write(vp.memory.view, vp.cpuState);
  registersChanged(machine, vp);
}

/** Lets everything know that depends on a processor's registers. */
function registersChanged(machine: Machine, vp: VirtualProcessor): void {
  vp.cpu.flushCaches();
  if (vp instanceof KernelVp) loadContext(vp);
  if (vp instanceof SnpVp) vp.saveRegisters(vp.vmsaPage(vp.vtl));
  if (vp instanceof SidecarVp) saveContext(vp, machine.platform.sidecar.taskState(vp.index));
}

/** Puts the shared registers where the VMM's task of a sidecar processor looks for them first. */
function saveContext(vp: SidecarVp, taskState: number): void {
  const { u8, u64 } = vp.memory;
  const saved = taskState + SidecarTaskState.at.saved_context;
  u8.copyWithin(saved + CpuContextX64.at.gps, vp.cpuState + at.gpr, vp.cpuState + at.rip);
  u64[(saved + CpuContextX64.at["gps.cr2"]) >>> 3] = u64[(vp.cpuState + at.cr2) >>> 3];
  u8.copyWithin(saved + CpuContextX64.at.fx_state, vp.cpuState + FX, vp.cpuState + FX + Fxsave.size);
}

/** Sets a segment register from the form that VMCBs and recordings use. */
function setSegment(vp: VirtualProcessor, segment: number, state: SegmentState): void {
  const attributes = (state.attributes & 0xff) | (state.attributes & 0xf00) << 4;
  const base = Number(BigInt.asIntN(32, state.base));
  const baseHigh = Number(BigInt.asIntN(32, state.base >> 32n));
  vp.cpu.setSegment(segment, state.selector, attributes, state.limit | 0, base, baseHigh);
}

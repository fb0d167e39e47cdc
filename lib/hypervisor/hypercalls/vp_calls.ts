/**
 * Starting processors and finding them: HvCallEnableVpVtl, HvCallStartVirtualProcessor, HvCallGetVpIndexFromApicId.
 *
 * @module
 */
import { ACTIVITY_RUNNING, ACTIVITY_WAIT_FOR_SIPI, CpuState } from "../../cpu/state.ts";
import { HvStatus, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import {
  EnableVpVtlX64,
  GetVpIndexFromApicId,
  InitialVpContextX64,
  StartVirtualProcessorX64,
} from "../../layout/hyperv/hypercalls.ts";
import type { MachineMemory } from "../../memory/machine_memory.ts";
import { FacilityState } from "../facilities.ts";
import { HypervisorVpState } from "../vp_state.ts";
import { checkPartition, checkVtl, type HypercallContext, resolveVp, vtlEnabled } from "./context.ts";
import type { RepCall, SimpleCall } from "./definition.ts";

const { Success, AccessDenied, InvalidVpIndex, InvalidVpState, InvalidVtlState, VtlAlreadyEnabled, InvalidParameter } =
  HvStatus.values;
const cpu = CpuState.at;
const initial = InitialVpContextX64.at;
const RSP = cpu.gpr + 4 * 8;
const APIC_ID_BYTES = 4;
const VP_INDEX_BYTES = 4;

/** Fields of the initial context and where they belong: 64-bit registers. */
const WORDS: readonly (readonly [from: number, to: number])[] = [
  [initial.rip, cpu.rip],
  [initial.rsp, RSP],
  [initial.rflags, cpu.rflags],
  [initial.efer, cpu.efer],
  [initial.cr0, cpu.cr0],
  [initial.cr3, cpu.cr3],
  [initial.cr4, cpu.cr4],
  [initial.msr_cr_pat, cpu.pat],
];

/** The same for 16-byte segment and table registers. */
const RECORDS: readonly (readonly [from: number, to: number])[] = [
  [initial.cs, cpu.cs],
  [initial.ds, cpu.ds],
  [initial.es, cpu.es],
  [initial.fs, cpu.fs],
  [initial.gs, cpu.gs],
  [initial.ss, cpu.ss],
  [initial.tr, cpu.tr],
  [initial.ldtr, cpu.ldtr],
  [initial.idtr, cpu.idtr],
  [initial.gdtr, cpu.gdtr],
];

/** Puts an `InitialVpContextX64` at `at` of `view` into the CPU state at byte offset `base`. */
export function applyInitialContext(memory: MachineMemory, base: number, view: DataView, at: number): void {
  for (const [from, to] of WORDS) memory.u64[(base + to) >>> 3] = view.getBigUint64(at + from, true);
  for (const [from, to] of RECORDS) {
    memory.u64[(base + to) >>> 3] = view.getBigUint64(at + from, true);
    memory.u64[((base + to) >>> 3) + 1] = view.getBigUint64(at + from + 8, true);
  }
}

/** HvCallEnableVpVtl: gives a VP the VTL. It does not run before it is started or entered. */
export const enableVpVtl: SimpleCall = {
  code: HypercallCode.values.HvCallEnableVpVtl,
  vtl2Only: false,
  inputBytes: EnableVpVtlX64.size,
  outputBytes: 0,
  run: (context, input) => {
    const partition = checkPartition(input, EnableVpVtlX64.at.partition_id);
    if (partition !== Success) return partition;
    const vp = resolveVp(context, input.getUint32(EnableVpVtlX64.at.vp_index, true));
    if (vp < 0) return InvalidVpIndex;
    const vtl = input.getUint8(EnableVpVtlX64.at.target_vtl);
    if (vtl > context.vtl) return AccessDenied;
    if (vtlEnabled(context, vp, vtl)) return VtlAlreadyEnabled;
    // Only VTL 2 can be enabled: the partition has no VTL 1.
    if (vtl !== 2) return InvalidVtlState;
    const { memory, vpState } = vpBlock(context, vp);
    memory.u8[vpState + HypervisorVpState.at.vtl2_enabled] = 1;
    return Success;
  },
};

/** HvCallStartVirtualProcessor: makes a VTL of a VP that has not been started run with the given registers. */
export const startVirtualProcessor: SimpleCall = {
  code: HypercallCode.values.HvCallStartVirtualProcessor,
  vtl2Only: false,
  inputBytes: StartVirtualProcessorX64.size,
  outputBytes: 0,
  run: (context, input) => {
    const partition = checkPartition(input, StartVirtualProcessorX64.at.partition_id);
    if (partition !== Success) return partition;
    const vp = resolveVp(context, input.getUint32(StartVirtualProcessorX64.at.vp_index, true));
    if (vp < 0) return InvalidVpIndex;
    const vtl = input.getUint8(StartVirtualProcessorX64.at.target_vtl);
    const allowed = checkVtl(context, vp, vtl);
    if (allowed !== Success) return allowed;
    return vtl === 0 ? startVtl0(context, vp, input) : startVtl2(context, vp, input);
  },
};

/** Starts VTL0 of a VP that waits for its startup IPI. */
function startVtl0(context: HypercallContext, vp: number, input: DataView): number {
  const { facilities } = context;
  const base = facilities.partition.cpuState(vp);
  const old = facilities.port.load32(base + cpu.activity);
  if (old !== ACTIVITY_WAIT_FOR_SIPI) return InvalidVpState;
  applyInitialContext(facilities.partition.memory, base, input, StartVirtualProcessorX64.at.vp_context);
  facilities.port.exchange32(base + cpu.activity, ACTIVITY_RUNNING);
  context.events.vtl0Started(vp);
  facilities.partition.ring(vp);
  return Success;
}

/** Starts VTL2 of a VP. As a side effect VTL0 of that VP no longer waits for a startup IPI (openhcl.md e, "Setup"). */
function startVtl2(context: HypercallContext, vp: number, input: DataView): number {
  const { facilities } = context;
  const started = facilities.port.exchange32(facilities.state(vp) + FacilityState.at.vtl2_started, 1);
  if (started !== 0) return InvalidVpState;
  const base = facilities.partition.cpuState(vp);
  facilities.port.compareExchange32(base + cpu.activity, ACTIVITY_WAIT_FOR_SIPI, ACTIVITY_RUNNING);
  context.events.vtl2Started(vp, input, StartVirtualProcessorX64.at.vp_context);
  facilities.partition.ring(vp);
  return Success;
}

/** HvCallGetVpIndexFromApicId: APIC IDs in, VP indices out. */
export const getVpIndexFromApicId: RepCall = {
  code: HypercallCode.values.HvCallGetVpIndexFromApicId,
  vtl2Only: false,
  headerBytes: GetVpIndexFromApicId.size,
  elementBytes: APIC_ID_BYTES,
  outputElementBytes: VP_INDEX_BYTES,
  element: (context, input, element, output, place) => {
    const partition = checkPartition(input, GetVpIndexFromApicId.at.partition_id);
    if (partition !== Success) return partition;
    if (input.getUint8(GetVpIndexFromApicId.at.target_vtl) > context.vtl) return AccessDenied;
    const id = input.getUint32(element, true);
    for (let vp = 0; vp < context.facilities.vps; vp++) {
      if (context.facilities.apic(vp).id !== id) continue;
      output.setUint32(place, vp, true);
      return Success;
    }
    return InvalidParameter;
  },
};

/** The memory and the hypervisor's block of a VP. */
function vpBlock(context: HypercallContext, vp: number): { readonly memory: MachineMemory; readonly vpState: number } {
  const { partition } = context.facilities;
  return { memory: partition.memory, vpState: partition.vpState(vp) };
}

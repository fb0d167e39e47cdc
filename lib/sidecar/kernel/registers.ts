/**
 * The sidecar kernel's commands about registers and addresses (openvmm openhcl/sidecar get_vp_registers,
 * set_vp_registers, translate_gva).
 *
 * @module
 */
import { checkVtl, resolveInputVtl } from "../../hypervisor/hypercalls/context.ts";
import { callHypercall } from "../../hypervisor/hypercalls/dispatch.ts";
import { HvStatus, HYPERCALL_ABI, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvX64RegisterName, SIDECAR_NATIVE_MSR_REGISTERS } from "../../layout/hyperv/constants/registers.ts";
import { SIDECAR } from "../../layout/hyperv/constants/sidecar.ts";
import { TranslateVirtualAddressX64 } from "../../layout/hyperv/hypercalls.ts";
import { HvRegisterAssoc, HvRegisterVsmCapabilities } from "../../layout/hyperv/registers.ts";
import {
  CommandPage,
  GetSetVpRegisterRequest,
  TranslateGvaRequest,
  TranslateGvaResponse,
} from "../../layout/hyperv/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { COMMAND_DONE } from "./command_loop.ts";
import { KERNEL_LOCAL, setError } from "./processor.ts";
import type { SidecarVp } from "./sidecar_vp.ts";

const { Success, InvalidParameter } = HvStatus.values;
const register = HvX64RegisterName.values;
const DATA = CommandPage.at.request_data;
const request = GetSetVpRegisterRequest.at;
const RECORD = KERNEL_LOCAL.RECORD;
const VTL2 = 2;
/** `HvInputVtl` of VTL0, which every processor has. */
export const TARGET_VTL0 = 0x10;

/** Registers that the sidecar kernel reads with RDMSR and MOV: the processor's own, shared by all VTLs. */
const NATIVE = new Set<number>([
  ...Object.keys(SIDECAR_NATIVE_MSR_REGISTERS).map((name) => register[name as keyof typeof register]),
  register.Dr0,
  register.Dr1,
  register.Dr2,
  register.Dr3,
]);

/** GET_VP_REGISTERS. */
export const GET_VP_REGISTERS: StepId = step<SidecarVp>(
  "sidecar.get-registers",
  (vp) => beginRecords(vp, "invalid register name count", () => GET_REGISTER),
);

/** SET_VP_REGISTERS. */
export const SET_VP_REGISTERS: StepId = step<SidecarVp>(
  "sidecar.set-registers",
  (vp) => beginRecords(vp, "invalid register count", () => SET_REGISTER),
);

/** Checks the number of records and clears the status. */
function beginRecords(vp: SidecarVp, error: string, first: () => StepId): StepId {
  const data = vp.commandPage + DATA;
  const count = vp.memory.u16[(data + request.count) >>> 1];
  if (count > SIDECAR.MAX_GET_SET_VP_REGISTERS) {
    setError(vp, error);
    return COMMAND_DONE;
  }
  vp.memory.u16[(data + request.status) >>> 1] = Success;
  vp.locals32[RECORD] = 0;
  return count === 0 ? COMMAND_DONE : first();
}

/** One record: a move, or a hypercall for one register. The first that fails ends the command; earlier ones stay. */
const GET_REGISTER: StepId = step<SidecarVp>("sidecar.get-register", (vp) => {
  const { index, vtl2Hypercalls: { registers } } = vp;
  return nextRecord(
    vp,
    (vtl, name, at) => registers.get(index, vtl, name, vp.memory.view, at),
    () => GET_REGISTER,
  );
});

const SET_REGISTER: StepId = step<SidecarVp>("sidecar.set-register", (vp) => {
  const { index, vtl2Hypercalls: { registers } } = vp;
  return nextRecord(
    vp,
    (vtl, name, at) => {
      const status = registers.set(index, vtl, name, vp.memory.view, at);
      if (name !== register.Rip) vp.cpu.updateMode();
      return status;
    },
    () => SET_REGISTER,
  );
});

function nextRecord(
  vp: SidecarVp,
  access: (vtl: number, name: number, at: number) => number,
  again: () => StepId,
): StepId {
  const { u8, u16, u32 } = vp.memory;
  const data = vp.commandPage + DATA;
  const index = vp.locals32[RECORD];
  const record = data + GetSetVpRegisterRequest.size + index * HvRegisterAssoc.size;
  const name = u32[(record + HvRegisterAssoc.at.name) >>> 2];
  const target = u8[data + request.target_vtl];
  const vtl = target === TARGET_VTL0 || isNative(vp, name) ? 0 : resolveInputVtl(vp.vtl2Hypercalls, target);
  vp.port.fence();
  let status: number = vtl < 0 ? InvalidParameter : vtl === 0 ? Success : checkVtl(vp.vtl2Hypercalls, vp.index, vtl);
  if (status === Success) status = access(vtl, name, record + HvRegisterAssoc.at.value);
  if (status === Success && index + 1 < u16[(data + request.count) >>> 1]) {
    vp.locals32[RECORD] = index + 1;
    return again();
  }
  u16[(data + request.status) >>> 1] = status;
  vp.locals32[RECORD] = 0;
  return COMMAND_DONE;
}

/** DR6 is one of the processor's own only where all VTLs share it. */
function isNative(vp: SidecarVp, name: number): boolean {
  if (NATIVE.has(name)) return true;
  if (name !== register.Dr6) return false;
  const capabilities = vp.vtl2Hypercalls.registers.get64(vp.index, VTL2, register.VsmCapabilities) ?? 0n;
  return (capabilities & HvRegisterVsmCapabilities.mask.dr6_shared) !== 0n;
}

/** TRANSLATE_GVA: the response takes the place of the request. */
export const TRANSLATE_GVA: StepId = step<SidecarVp>("sidecar.translate-gva", (vp) => {
  const { u8, u16, view } = vp.memory;
  const data = vp.commandPage + DATA;
  const input = new Uint8Array(TranslateVirtualAddressX64.size);
  const words = new DataView(input.buffer);
  const at = TranslateVirtualAddressX64.at;
  words.setBigUint64(at.partition_id, HYPERCALL_ABI.PARTITION_ID_SELF, true);
  words.setUint32(at.vp_index, HYPERCALL_ABI.VP_INDEX_SELF, true);
  words.setBigUint64(at.control_flags, view.getBigUint64(data + TranslateGvaRequest.at.control_flags, true), true);
  words.setBigUint64(at.gva_page, view.getBigUint64(data + TranslateGvaRequest.at.gvn, true), true);
  vp.port.fence();
  const { status, output } = callHypercall(
    vp.vtl2Hypercalls,
    HypercallCode.values.HvCallTranslateVirtualAddressEx,
    input,
  );
  u8.fill(0, data, data + TranslateGvaResponse.size);
  u16[(data + TranslateGvaResponse.at.status) >>> 1] = status;
  u8.set(output, data + TranslateGvaResponse.at.output);
  return COMMAND_DONE;
});

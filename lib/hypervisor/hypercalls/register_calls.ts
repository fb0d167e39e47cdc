/**
 * HvCallGetVpRegisters and HvCallSetVpRegisters.
 *
 * A VP's registers are complete whenever its VTL0 does not execute. Of another VP that does, a caller sees what the last
 * exit left, and what it sets there the guest may overwrite; VTL2 has no reason to do either.
 *
 * @module
 */
import { HvStatus, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { GetSetVpRegisters } from "../../layout/hyperv/hypercalls.ts";
import { HvRegisterAssoc, HvRegisterValue } from "../../layout/hyperv/registers.ts";
import { checkPartition, type HypercallContext, resolveTarget, type Target } from "./context.ts";
import type { RepCall } from "./definition.ts";

const { Success } = HvStatus.values;
const NAME_BYTES = 4;

/** The VP and VTL that the header names. */
function target(context: HypercallContext, input: DataView): Target {
  return resolveTarget(
    context,
    checkPartition(input, GetSetVpRegisters.at.partition_id),
    input.getUint32(GetSetVpRegisters.at.vp_index, true),
    input.getUint8(GetSetVpRegisters.at.target_vtl),
  );
}

/** HvCallGetVpRegisters: register names in, 16-byte values out. */
export const getVpRegisters: RepCall = {
  code: HypercallCode.values.HvCallGetVpRegisters,
  vtl2Only: false,
  headerBytes: GetSetVpRegisters.size,
  elementBytes: NAME_BYTES,
  outputElementBytes: HvRegisterValue.size,
  element: (context, input, element, output, place) => {
    const { status, vp, vtl } = target(context, input);
    if (status !== Success) return status;
    return context.registers.get(vp, vtl, input.getUint32(element, true), output, place);
  },
};

/** HvCallSetVpRegisters: name and value records in. */
export const setVpRegisters: RepCall = {
  code: HypercallCode.values.HvCallSetVpRegisters,
  vtl2Only: false,
  headerBytes: GetSetVpRegisters.size,
  elementBytes: HvRegisterAssoc.size,
  outputElementBytes: 0,
  element: (context, input, element) => {
    const { status, vp, vtl } = target(context, input);
    if (status !== Success) return status;
    const name = input.getUint32(element + HvRegisterAssoc.at.name, true);
    return context.registers.set(vp, vtl, name, input, element + HvRegisterAssoc.at.value);
  },
};

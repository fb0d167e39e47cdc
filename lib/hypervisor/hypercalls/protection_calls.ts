/**
 * What VTL2 has a say in: HvCallInstallIntercept and HvCallModifyVtlProtectionMask.
 *
 * @module
 */
import { HvStatus, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HV_INTERCEPT_ACCESS_MASK, HvInterceptType } from "../../layout/hyperv/constants/messages.ts";
import { HvMapGpaFlags, InstallIntercept, ModifyVtlProtectionMask } from "../../layout/hyperv/hypercalls.ts";
import { HvRegisterVsmPartitionConfig } from "../../layout/hyperv/registers.ts";
import { MAP_GPA, PartitionState } from "../partition.ts";
import { checkPartition, checkVtl, type HypercallContext, resolveInputVtl } from "./context.ts";
import type { RepCall, SimpleCall } from "./definition.ts";

const { Success, AccessDenied, InvalidParameter, InvalidVtlState, OperationDenied } = HvStatus.values;
const { NONE, READ, WRITE, EXECUTE } = HV_INTERCEPT_ACCESS_MASK;
const type = HvInterceptType.values;
const state = PartitionState.at;
/** Leaf that stands for all of them. */
const ALL_LEAVES = 0xffff_ffff;
const EXCEPTIONS = 32;
const GPN_BYTES = 8;

/** The one-byte flag of each intercept that is on or off, and the access that installs it. */
const FLAGS: ReadonlyMap<number, readonly [at: number, access: number]> = new Map([
  [type.HvInterceptTypeX64ApicEoi, [state.apic_eoi_intercept, WRITE]],
  [type.HvInterceptTypeUnknownSynicConnection, [state.synic_intercept, EXECUTE]],
  [type.HvInterceptTypeRetargetInterruptWithUnknownDeviceId, [state.retarget_intercept, EXECUTE]],
  [type.HvInterceptTypeHypercall, [state.hypercall_intercept, EXECUTE]],
]);

/**
 * HvCallInstallIntercept. Ports, and MSRs that the hypervisor does not answer, leave VTL0 whether or not that is asked
 * for (openhcl.md h): installing those succeeds, removing them is OperationDenied.
 */
export const installIntercept: SimpleCall = {
  code: HypercallCode.values.HvCallInstallIntercept,
  vtl2Only: true,
  inputBytes: InstallIntercept.size,
  outputBytes: 0,
  run: (context, input) => {
    const partition = checkPartition(input, InstallIntercept.at.partition_id);
    if (partition !== Success) return partition;
    const access = input.getUint32(InstallIntercept.at.access_type_mask, true);
    if ((access & ~(READ | WRITE | EXECUTE)) !== 0) return InvalidParameter;
    return install(context, input.getUint32(InstallIntercept.at.intercept_type, true), access, input);
  },
};

function install(context: HypercallContext, kind: number, access: number, input: DataView): number {
  const { partition } = context.facilities;
  const { memory } = partition;
  const parameter = InstallIntercept.at.intercept_parameters;
  const flag = FLAGS.get(kind);
  if (flag !== undefined) {
    const [at, needed] = flag;
    if (access !== NONE && access !== needed) return InvalidParameter;
    memory.u8[partition.state + at] = access === NONE ? 0 : 1;
    return Success;
  }
  switch (kind) {
    case type.HvInterceptTypeX64IoPort:
    case type.HvInterceptTypeX64IoPortRange:
    case type.HvInterceptTypeX64Msr:
      if ((access & EXECUTE) !== 0) return InvalidParameter;
      if (kind === type.HvInterceptTypeX64IoPortRange) {
        const [first, last] = [input.getUint16(parameter, true), input.getUint16(parameter + 2, true)];
        if (first > last) return InvalidParameter;
      }
      return access === NONE ? OperationDenied : Success;
    case type.HvInterceptTypeX64Cpuid:
      if (input.getUint32(parameter, true) !== ALL_LEAVES || (access & ~EXECUTE) !== 0) return InvalidParameter;
      memory.u8[partition.state + state.intercept_all_cpuid] = access === NONE ? 0 : 1;
      return Success;
    case type.HvInterceptTypeException: {
      const vector = input.getUint16(parameter, true);
      if (vector >= EXCEPTIONS || (access & ~EXECUTE) !== 0) return InvalidParameter;
      const word = (partition.state + state.exception_intercepts) >>> 2;
      if (access === NONE) memory.i32[word] &= ~(1 << vector);
      else memory.i32[word] |= 1 << vector;
      return Success;
    }
    default:
      return InvalidParameter;
  }
}

/** HvCallModifyVtlProtectionMask: what VTL0 may do with pages. Page numbers in. */
export const modifyVtlProtectionMask: RepCall = {
  code: HypercallCode.values.HvCallModifyVtlProtectionMask,
  vtl2Only: false,
  headerBytes: ModifyVtlProtectionMask.size,
  elementBytes: GPN_BYTES,
  outputElementBytes: 0,
  element: (context, input, element) => {
    const { facilities } = context;
    const status = checkPartition(input, ModifyVtlProtectionMask.at.partition_id);
    if (status !== Success) return status;
    const vtl = resolveInputVtl(context, input.getUint8(ModifyVtlProtectionMask.at.target_vtl));
    if (vtl < 0) return InvalidParameter;
    const allowed = checkVtl(context, context.vp, vtl);
    if (allowed !== Success) return allowed;
    // A VTL protects pages against lower ones: it names a VTL below itself.
    if (vtl >= context.vtl) return AccessDenied;
    if (!protectionsEnabled(context)) return InvalidVtlState;
    const flags = input.getUint32(ModifyVtlProtectionMask.at.map_flags, true);
    if ((flags & ~MAP_GPA.ALL) !== 0 || !validRights(flags)) return InvalidParameter;
    const gpn = input.getBigUint64(element, true);
    if (gpn >= BigInt(facilities.partition.config.ramBytes) >> 12n) return InvalidParameter;
    facilities.partition.setVtl0Rights(Number(gpn), flags);
    return Success;
  },
  after: (context) => context.facilities.partition.flushTlbs(context.facilities.port),
};

/** Whether VTL2 has turned VTL protections on. */
function protectionsEnabled({ facilities: { partition } }: HypercallContext): boolean {
  const config = partition.memory.u64[(partition.state + state.vsm_partition_config) >>> 3];
  return (config & HvRegisterVsmPartitionConfig.mask.enable_vtl_protection) !== 0n;
}

/** Writing or executing without reading is no combination; without mode-based execute control both execute bits agree. */
function validRights(flags: number): boolean {
  const readable = (flags & HvMapGpaFlags.mask.readable) !== 0;
  const kernel = (flags & HvMapGpaFlags.mask.kernel_executable) !== 0;
  const user = (flags & HvMapGpaFlags.mask.user_executable) !== 0;
  return (readable || flags === 0) && kernel === user;
}

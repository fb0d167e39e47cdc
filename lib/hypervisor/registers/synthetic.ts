/**
 * Registers of the hypervisor: hypercall page, time, assist and register page, SynIC and timers, virtual secure mode.
 *
 * @module
 */
import { CpuState, EFER_LMA } from "../../cpu/state.ts";
import { HvStatus, HYPERCALL_PAGE_CODE_OFFSETS } from "../../layout/hyperv/constants/hypercalls.ts";
import {
  HvRegisterVpAssistPage,
  HvRegisterVsmCapabilities,
  HvRegisterVsmCodePageOffsets,
  HvRegisterVsmPartitionConfig,
  HvRegisterVsmPartitionStatus,
  HvRegisterVsmVpStatus,
  MsrHypercallContents,
} from "../../layout/hyperv/registers.ts";
import { HvSynicScontrol, HvSynicSimpSiefp, HvSynicSint, HvSynicStimerConfig } from "../../layout/hyperv/synic.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { FacilityState } from "../facilities.ts";
import { writeHypercallPage } from "../hypercall_page.ts";
import { assistPageEnabled } from "../intercept_message.ts";
import { setAssistPage, setGuestOsId, setHypercallPage, setReferenceTsc } from "../msrs.ts";
import { PartitionState } from "../partition.ts";
import { SINTS, SYNIC_VERSION } from "../synic.ts";
import { STIMERS } from "../synthetic_timers.ts";
import { referenceTime } from "../time.ts";
import { INTERCEPT_PAGE, REGISTER_PAGE } from "../vtl_entry.ts";
import { HypervisorVpState } from "../vp_state.ts";
import { computed64, type Register, type RegisterContext, type RegisterName, validity, word64 } from "./register.ts";

const state = HypervisorVpState.at;
const partitionState = PartitionState.at;
const facility = FacilityState.at;
const { Success, InvalidParameter } = HvStatus.values;

/** The highest VTL. */
const MAXIMUM_VTL = 2;
/** HvRegisterVpAssistPage, RegisterPage, SIMP and SIEFP: bits 11:1. */
const OVERLAY_RESERVED: bigint = HvRegisterVpAssistPage.reserved;
/** Crash registers in order. */
const CRASH_NAMES: readonly RegisterName[] = [
  "GuestCrashP0",
  "GuestCrashP1",
  "GuestCrashP2",
  "GuestCrashP3",
  "GuestCrashP4",
  "GuestCrashCtl",
];

/** Whether an overlay of VTL2 lies on a page of memory. */
function onMemory({ facilities }: RegisterContext, value: bigint): boolean {
  return (value & 1n) === 0n || value >> 12n < BigInt(facilities.partition.pages);
}

/** GuestOsId and Hypercall: the partition's for VTL0, VP 0's block for VTL2. */
function vtlPlace(vtl0: number, vtl2: number): (context: RegisterContext) => number {
  return ({ facilities, vtl }) => vtl === 0 ? facilities.partition.state + vtl0 : facilities.state(0) + vtl2;
}

const guestOsIdPlace = vtlPlace(partitionState.guest_os_id, facility.vtl2_guest_os_id);
const hypercallPlace = vtlPlace(partitionState.hypercall_msr, facility.vtl2_hypercall);

const guestOsId = computed64(
  "GuestOsId",
  "all",
  (context) => context.memory.u64[guestOsIdPlace(context) >>> 3],
  (context, value) => {
    if (context.vtl === 0) setGuestOsId(context.facilities, value);
    else context.memory.u64[guestOsIdPlace(context) >>> 3] = value;
    return Success;
  },
);

const hypercall = computed64(
  "Hypercall",
  "all",
  (context) => context.memory.u64[hypercallPlace(context) >>> 3],
  (context, value) => {
    if ((value & MsrHypercallContents.reserved) !== 0n) return validity(false);
    if (context.vtl === 0) return validity(setHypercallPage(context.facilities, value));
    if (!onMemory(context, value)) return validity(false);
    context.memory.u64[hypercallPlace(context) >>> 3] = value;
    if ((value & 1n) !== 0n) writeHypercallPage(context.memory.u8, Number(value >> 12n) * PAGE_SIZE);
    return Success;
  },
);

/** VpAssistPage of either VTL. */
const assistPage = computed64("VpAssistPage", "all", ({ memory, vtl, hypervisor, facility: block }) => {
  return memory.u64[(vtl === 0 ? block + facility.assist_page : hypervisor + state.assist_page) >>> 3];
}, (context, value) => {
  if ((value & OVERLAY_RESERVED) !== 0n) return validity(false);
  if (context.vtl === 0) return validity(setAssistPage(context.facilities, context.vp, value));
  if (!onMemory(context, value)) return validity(false);
  context.memory.u64[(context.hypervisor + state.assist_page) >>> 3] = value;
  if ((value & 1n) !== 0n) assistPageEnabled(context.memory, context.hypervisor, Number(value >> 12n) * PAGE_SIZE);
  return Success;
});

/** RegisterPage of VTL2; on hypervisors without it the name is unknown. */
const registerPage: Register = {
  name: "RegisterPage",
  vtls: "vtl2",
  read: (context, view, at) => {
    if (!hasRegisterPage(context)) return InvalidParameter;
    view.setBigUint64(at, context.memory.u64[(context.hypervisor + state.register_page) >>> 3], true);
    return Success;
  },
  write: (context, view, at) => {
    if (!hasRegisterPage(context)) return InvalidParameter;
    const value = view.getBigUint64(at, true);
    if ((value & OVERLAY_RESERVED) !== 0n || !onMemory(context, value)) return validity(false);
    context.memory.u64[(context.hypervisor + state.register_page) >>> 3] = value;
    return Success;
  },
};

function hasRegisterPage({ facilities: { partition } }: RegisterContext): boolean {
  return partition.policy(REGISTER_PAGE) !== REGISTER_PAGE.is.unmapped;
}

function hasInterceptPage({ facilities: { partition } }: RegisterContext): boolean {
  return partition.policy(INTERCEPT_PAGE) === INTERCEPT_PAGE.is.available;
}

/** Whether the partition has pages for VTL2. */
function hasVtl2({ facilities: { partition } }: RegisterContext): boolean {
  return partition.config.vtl2Bytes !== 0;
}

const codePageOffsets = computed64("VsmCodePageOffsets", "all", ({ memory, vtl, cpu }) => {
  // VTL2 is 64-bit code. VTL0 is what it is at the moment.
  const long = vtl !== 0 || (memory.i32[(cpu + CpuState.at.efer) >>> 2] & EFER_LMA) !== 0;
  const offsets = HYPERCALL_PAGE_CODE_OFFSETS;
  return HvRegisterVsmCodePageOffsets.make({
    call_offset: long ? offsets.VTL_CALL_64 : offsets.VTL_CALL_32,
    return_offset: long ? offsets.VTL_RETURN_64 : offsets.VTL_RETURN_32,
  });
});

const vpStatus = computed64("VsmVpStatus", "all", ({ memory: { u8 }, hypervisor }) =>
  HvRegisterVsmVpStatus.make({
    active_vtl: u8[hypervisor + state.active_vtl],
    enabled_vtl_set: 1 | u8[hypervisor + state.vtl2_enabled] << MAXIMUM_VTL,
  }));

const partitionStatus = computed64("VsmPartitionStatus", "all", (context) =>
  HvRegisterVsmPartitionStatus.make({
    enabled_vtl_set: hasVtl2(context) ? 1 | 1 << MAXIMUM_VTL : 1,
    maximum_vtl: hasVtl2(context) ? MAXIMUM_VTL : 0,
  }));

const capabilities = computed64("VsmCapabilities", "all", (context) =>
  HvRegisterVsmCapabilities.make({
    intercept_page_available: hasVtl2(context) && hasInterceptPage(context),
    return_action_available: hasVtl2(context),
    intercept_not_present_available: hasVtl2(context),
  }));

/** What VTL2 can ask for in VsmPartitionConfig; other defined bits belong to features that are not there. */
const PARTITION_CONFIG_SUPPORTED: bigint = HvRegisterVsmPartitionConfig.mask.enable_vtl_protection |
  HvRegisterVsmPartitionConfig.mask.default_vtl_protection_mask |
  HvRegisterVsmPartitionConfig.mask.zero_memory_on_reset |
  HvRegisterVsmPartitionConfig.mask.intercept_cpuid_unimplemented |
  HvRegisterVsmPartitionConfig.mask.intercept_unrecoverable_exception |
  HvRegisterVsmPartitionConfig.mask.intercept_page |
  HvRegisterVsmPartitionConfig.mask.intercept_not_present;

function partitionConfigSupported(context: RegisterContext): bigint {
  return hasInterceptPage(context)
    ? PARTITION_CONFIG_SUPPORTED
    : PARTITION_CONFIG_SUPPORTED & ~HvRegisterVsmPartitionConfig.mask.intercept_page;
}

const sints = Array.from({ length: SINTS }, (_, k) =>
  computed64(
    `Sint${k}` as RegisterName,
    "all",
    ({ facilities, vp, vtl }) => facilities.synic(vp, vtl).sint(k),
    ({ facilities, vp, vtl }, value) =>
      validity((value & HvSynicSint.reserved) === 0n && facilities.synic(vp, vtl).setSint(k, value)),
  ));

const stimers = Array.from({ length: STIMERS }, (_, k) => [
  computed64(
    `Stimer${k}Config` as RegisterName,
    "vtl0",
    ({ facilities, vp }) => facilities.timers(vp).config(k),
    ({ facilities, vp }, value) =>
      validity(
        (value & HvSynicStimerConfig.reserved) === 0n && facilities.timers(vp).setConfig(k, value, facilities.now()),
      ),
  ),
  computed64(`Stimer${k}Count` as RegisterName, "vtl0", ({ facilities, vp }) => facilities.timers(vp).count(k), (
    { facilities, vp },
    value,
  ) => {
    facilities.timers(vp).setCount(k, value, facilities.now());
    return Success;
  }),
]).flat();

/** SIMP or SIEFP. */
function synicPage(name: RegisterName, page: "simp" | "siefp"): Register {
  return computed64(name, "all", ({ facilities, vp, vtl }) => facilities.synic(vp, vtl)[page], (context, value) => {
    if ((value & HvSynicSimpSiefp.reserved) !== 0n || !onMemory(context, value)) return validity(false);
    context.facilities.synic(context.vp, context.vtl)[page] = value;
    return Success;
  });
}

/** Registers of the hypervisor. */
export const SYNTHETIC_REGISTERS: readonly Register[] = [
  guestOsId,
  hypercall,
  assistPage,
  registerPage,
  codePageOffsets,
  vpStatus,
  partitionStatus,
  capabilities,
  ...sints,
  ...stimers,
  ...CRASH_NAMES.map((name, k) =>
    word64(name, "vtl2", (context) => context.facility + facility.crash + k * 8, () => true)
  ),
  computed64("VpIndex", "all", ({ vp }) => BigInt(vp)),
  computed64("VpRuntime", "all", ({ facilities }) => BigInt(referenceTime(facilities.now()))),
  computed64("TimeRefCount", "all", ({ facilities }) => BigInt(referenceTime(facilities.now()))),
  computed64(
    "ReferenceTsc",
    "vtl0",
    ({ facilities: { partition }, memory }) => memory.u64[(partition.state + partitionState.reference_tsc) >>> 3],
    ({ facilities }, value) => validity((value & OVERLAY_RESERVED) === 0n && setReferenceTsc(facilities, value)),
  ),
  word64(
    "VsmPartitionConfig",
    "vtl2",
    ({ facilities: { partition } }) => partition.state + partitionState.vsm_partition_config,
    (value, context) => (value & ~partitionConfigSupported(context)) === 0n,
  ),
  computed64(
    "Scontrol",
    "all",
    ({ facilities, vp, vtl }) => facilities.synic(vp, vtl).scontrol,
    ({ facilities, vp, vtl }, value) => {
      if ((value & HvSynicScontrol.reserved) !== 0n) return validity(false);
      facilities.synic(vp, vtl).scontrol = value;
      return Success;
    },
  ),
  computed64("Sversion", "all", () => BigInt(SYNIC_VERSION)),
  synicPage("Sipp", "simp"),
  synicPage("Sifp", "siefp"),
  computed64("Eom", "all", () => 0n, ({ facilities, vp, vtl }) => {
    facilities.synic(vp, vtl).eom();
    return Success;
  }),
];

/**
 * Enumerations that intercept messages, the VP assist page and the intercept hypercalls carry.
 *
 * Names and values follow openvmm `vm/hv1/hvdef`, which agrees with the Hyper-V TLFS where that is public.
 *
 * @module
 */

import { openEnum } from "../../open_enum.ts";

/**
 * Type of a SynIC or intercept message. Types that the hypervisor makes have bit 31 set; a guest may not post one.
 *
 * Sources disagree on 0x80010005 and 0x80010006: the TLFS has a legacy floating-point error and the register intercept,
 * the C headers a legacy floating-point error and the IOMMU page request. These are openvmm's.
 */
export const HvMessageType = openEnum("HvMessageType", {
  HvMessageTypeNone: 0x00000000,
  HvMessageTypeUnmappedGpa: 0x80000000,
  HvMessageTypeGpaIntercept: 0x80000001,
  HvMessageTypeUnacceptedGpa: 0x80000003,
  HvMessageTypeGpaAttributeIntercept: 0x80000004,
  HvMessageTypeEnablePartitionVtlIntercept: 0x80000005,
  HvMessageTypeTimerExpired: 0x80000010,
  HvMessageTypeInvalidVpRegisterValue: 0x80000020,
  HvMessageTypeUnrecoverableException: 0x80000021,
  HvMessageTypeUnsupportedFeature: 0x80000022,
  HvMessageTypeTlbPageSizeMismatch: 0x80000023,
  HvMessageTypeIommuFault: 0x80000024,
  HvMessageTypeEventLogBufferComplete: 0x80000040,
  HvMessageTypeHypercallIntercept: 0x80000050,
  HvMessageTypeSynicEventIntercept: 0x80000060,
  HvMessageTypeSynicSintIntercept: 0x80000061,
  HvMessageTypeSynicSintDeliverable: 0x80000062,
  HvMessageTypeAsyncCallCompletion: 0x80000070,
  HvMessageTypeX64IoPortIntercept: 0x80010000,
  HvMessageTypeMsrIntercept: 0x80010001,
  HvMessageTypeX64CpuidIntercept: 0x80010002,
  HvMessageTypeExceptionIntercept: 0x80010003,
  HvMessageTypeX64ApicEoi: 0x80010004,
  HvMessageTypeX64IommuPrq: 0x80010005,
  HvMessageTypeRegisterIntercept: 0x80010006,
  HvMessageTypeX64Halt: 0x80010007,
  HvMessageTypeX64InterruptionDeliverable: 0x80010008,
  HvMessageTypeX64SipiIntercept: 0x80010009,
  HvMessageTypeX64RdtscIntercept: 0x8001000a,
  HvMessageTypeX64ApicSmiIntercept: 0x8001000b,
  HvMessageTypeArm64ResetIntercept: 0x8001000c,
  HvMessageTypeX64ApicInitSipiIntercept: 0x8001000d,
  HvMessageTypeX64ApicWriteIntercept: 0x8001000e,
  HvMessageTypeX64ProxyInterruptIntercept: 0x8001000f,
  HvMessageTypeX64IsolationCtrlRegIntercept: 0x80010010,
  HvMessageTypeX64SnpGuestRequestIntercept: 0x80010011,
  HvMessageTypeX64ExceptionTrapIntercept: 0x80010012,
  HvMessageTypeX64SevVmgexitIntercept: 0x80010013,
});

/** Why a higher VTL was entered. `INTERCEPT` is missing from the TLFS, yet both VTL2 kernels rely on it. */
export const HvVtlEntryReason = openEnum("HvVtlEntryReason", {
  RESERVED: 0,
  VTL_CALL: 1,
  INTERRUPT: 2,
  INTERCEPT: 3,
});

/** Kind of access that an intercept header reports. */
export const HvInterceptAccessType = openEnum("HvInterceptAccessType", {
  READ: 0,
  WRITE: 1,
  EXECUTE: 2,
});

/** Kinds of access to intercept, for HvCallInstallIntercept; a mask, unlike {@linkcode HvInterceptAccessType}. */
export const HV_INTERCEPT_ACCESS_MASK = {
  NONE: 0,
  READ: 1,
  WRITE: 2,
  READ_WRITE: 3,
  EXECUTE: 4,
} as const;

/** What HvCallInstallIntercept can ask for. */
export const HvInterceptType = openEnum("HvInterceptType", {
  HvInterceptTypeX64IoPort: 0x00,
  HvInterceptTypeX64Msr: 0x01,
  HvInterceptTypeX64Cpuid: 0x02,
  HvInterceptTypeException: 0x03,
  HvInterceptTypeHypercall: 0x08,
  HvInterceptTypeUnknownSynicConnection: 0x0d,
  HvInterceptTypeX64ApicEoi: 0x0e,
  HvInterceptTypeRetargetInterruptWithUnknownDeviceId: 0x0f,
  HvInterceptTypeX64IoPortRange: 0x11,
});

/** Memory type of an access; the numbers are those of the x86 PAT. */
export const HvCacheType = openEnum("HvCacheType", {
  HvCacheTypeUncached: 0,
  HvCacheTypeWriteCombining: 1,
  HvCacheTypeWriteThrough: 4,
  HvCacheTypeWriteProtected: 5,
  HvCacheTypeWriteBack: 6,
});

/** What a pending interruption is; also what the interruption-deliverable message can deliver. */
export const HvX64PendingInterruptionType = openEnum("HvX64PendingInterruptionType", {
  HV_X64_PENDING_INTERRUPT: 0,
  HV_X64_PENDING_NMI: 2,
  HV_X64_PENDING_EXCEPTION: 3,
  HV_X64_PENDING_SOFTWARE_INTERRUPT: 4,
  HV_X64_PENDING_PRIVILEGED_SOFTWARE_EXCEPTION: 5,
  HV_X64_PENDING_SOFTWARE_EXCEPTION: 6,
});

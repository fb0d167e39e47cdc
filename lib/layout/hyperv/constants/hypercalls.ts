/**
 * Numbers of the hypercall interface (openvmm `vm/hv1/hvdef`; Hyper-V TLFS, "Hypercall interface").
 *
 * @module
 */

import { openEnum } from "../../open_enum.ts";

/** Code of a hypercall. Extended hypercalls begin at 0x8000. (openvmm: vm/hv1/hvdef HypercallCode) */
export const HypercallCode = openEnum("HypercallCode", {
  HvCallSwitchVirtualAddressSpace: 0x0001,
  HvCallFlushVirtualAddressSpace: 0x0002,
  HvCallFlushVirtualAddressList: 0x0003,
  HvCallNotifyLongSpinWait: 0x0008,
  HvCallInvokeHypervisorDebugger: 0x000a,
  HvCallSendSyntheticClusterIpi: 0x000b,
  HvCallModifyVtlProtectionMask: 0x000c,
  HvCallEnablePartitionVtl: 0x000d,
  HvCallEnableVpVtl: 0x000f,
  HvCallVtlCall: 0x0011,
  HvCallVtlReturn: 0x0012,
  HvCallFlushVirtualAddressSpaceEx: 0x0013,
  HvCallFlushVirtualAddressListEx: 0x0014,
  HvCallSendSyntheticClusterIpiEx: 0x0015,
  HvCallInstallIntercept: 0x004d,
  HvCallGetVpRegisters: 0x0050,
  HvCallSetVpRegisters: 0x0051,
  HvCallTranslateVirtualAddress: 0x0052,
  HvCallPostMessage: 0x005c,
  HvCallSignalEvent: 0x005d,
  HvCallOutputDebugCharacter: 0x0071,
  HvCallGetSystemProperty: 0x007b,
  HvCallRetargetDeviceInterrupt: 0x007e,
  HvCallNotifyPartitionEvent: 0x0087,
  HvCallRegisterInterceptResult: 0x0091,
  HvCallAssertVirtualInterrupt: 0x0094,
  HvCallStartVirtualProcessor: 0x0099,
  HvCallGetVpIndexFromApicId: 0x009a,
  HvCallTranslateVirtualAddressEx: 0x00ac,
  HvCallCheckForIoIntercept: 0x00ad,
  HvCallFlushGuestPhysicalAddressSpace: 0x00af,
  HvCallFlushGuestPhysicalAddressList: 0x00b0,
  HvCallSignalEventDirect: 0x00c0,
  HvCallPostMessageDirect: 0x00c1,
  HvCallCheckSparseGpaPageVtlAccess: 0x00d4,
  HvCallAcceptGpaPages: 0x00d9,
  HvCallModifySparseGpaPageHostVisibility: 0x00db,
  HvCallGetVpCpuidValues: 0x00f4,
  HvCallRestorePartitionTime: 0x0103,
  HvCallMemoryMappedIoRead: 0x0106,
  HvCallMemoryMappedIoWrite: 0x0107,
  HvCallPinGpaPageRanges: 0x0112,
  HvCallUnpinGpaPageRanges: 0x0113,
  HvCallQuerySparseGpaPageHostVisibility: 0x011c,
  HvExtCallQueryCapabilities: 0x8001,
  HvCallVbsVmCallReport: 0xc001,
});

/** Further hypercall codes that only the C headers define. (rust-vmm/mshv hv-headers) */
export const HypercallCodeOfCHeaders = openEnum("HypercallCodeOfCHeaders", {
  HVCALL_GET_PARTITION_PROPERTY: 0x0044,
  HVCALL_SET_PARTITION_PROPERTY: 0x0045,
  HVCALL_CREATE_VP: 0x004e,
  HVCALL_DELETE_VP: 0x004f,
  HVCALL_READ_GPA: 0x0053,
  HVCALL_WRITE_GPA: 0x0054,
  HVCALL_CLEAR_VIRTUAL_INTERRUPT: 0x0056,
  HVCALL_IMPORT_ISOLATED_PAGES: 0x00ef,
  HVCALL_COMPLETE_ISOLATED_IMPORT: 0x00f1,
  HVCALL_ISSUE_SNP_PSP_GUEST_REQUEST: 0x00f2,
  HVCALL_GET_PARTITION_PROPERTY_EX: 0x0101,
});

/** Status of a hypercall, 16 bits. (openvmm: vm/hv1/hvdef HvError (status 0 = success)) */
export const HvStatus = openEnum("HvStatus", {
  Success: 0x00,
  InvalidHypercallCode: 0x02,
  InvalidHypercallInput: 0x03,
  InvalidAlignment: 0x04,
  InvalidParameter: 0x05,
  AccessDenied: 0x06,
  InvalidPartitionState: 0x07,
  OperationDenied: 0x08,
  UnknownProperty: 0x09,
  PropertyValueOutOfRange: 0x0a,
  InsufficientMemory: 0x0b,
  PartitionTooDeep: 0x0c,
  InvalidPartitionId: 0x0d,
  InvalidVpIndex: 0x0e,
  NotFound: 0x10,
  InvalidPortId: 0x11,
  InvalidConnectionId: 0x12,
  InsufficientBuffers: 0x13,
  NotAcknowledged: 0x14,
  InvalidVpState: 0x15,
  Acknowledged: 0x16,
  InvalidSaveRestoreState: 0x17,
  InvalidSynicState: 0x18,
  ObjectInUse: 0x19,
  InvalidProximityDomainInfo: 0x1a,
  NoData: 0x1b,
  Inactive: 0x1c,
  NoResources: 0x1d,
  FeatureUnavailable: 0x1e,
  PartialPacket: 0x1f,
  ProcessorFeatureNotSupported: 0x20,
  ProcessorCacheLineFlushSizeIncompatible: 0x30,
  InsufficientBuffer: 0x33,
  IncompatibleProcessor: 0x37,
  InsufficientDeviceDomains: 0x38,
  CpuidFeatureValidationError: 0x3c,
  CpuidXsaveFeatureValidationError: 0x3d,
  ProcessorStartupTimeout: 0x3e,
  SmxEnabled: 0x3f,
  InvalidLpIndex: 0x41,
  InvalidRegisterValue: 0x50,
  InvalidVtlState: 0x51,
  NxNotDetected: 0x55,
  InvalidDeviceId: 0x57,
  InvalidDeviceState: 0x58,
  PendingPageRequests: 0x59,
  PageRequestInvalid: 0x60,
  KeyAlreadyExists: 0x65,
  DeviceAlreadyInDomain: 0x66,
  InvalidCpuGroupId: 0x6f,
  InvalidCpuGroupState: 0x70,
  OperationFailed: 0x71,
  NotAllowedWithNestedVirtActive: 0x72,
  InsufficientRootMemory: 0x73,
  EventBufferAlreadyFreed: 0x74,
  Timeout: 0x78,
  VtlAlreadyEnabled: 0x86,
  UnknownRegisterName: 0x87,
  CallPending: 0x79,
});

/** Delivery type of HvCallAssertVirtualInterrupt. (openvmm: vm/hv1/hvdef HvInterruptType) */
export const HvInterruptType = openEnum("HvInterruptType", {
  HvX64InterruptTypeFixed: 0x0,
  HvX64InterruptTypeLowestPriority: 0x1,
  HvX64InterruptTypeSmi: 0x2,
  HvX64InterruptTypeRemoteRead: 0x3,
  HvX64InterruptTypeNmi: 0x4,
  HvX64InterruptTypeInit: 0x5,
  HvX64InterruptTypeSipi: 0x6,
  HvX64InterruptTypeExtInt: 0x7,
  HvX64InterruptTypeLocalInt0: 0x8,
  HvX64InterruptTypeLocalInt1: 0x9,
});

/** Where a device interrupt comes from, in HvCallRetargetDeviceInterrupt. (openvmm: vm/hv1/hvdef HvInterruptSource) */
export const HvInterruptSource = openEnum("HvInterruptSource", {
  MSI: 1,
  IO_APIC: 2,
});

/** How interrupts reach a VTL of an SNP guest. (openvmm: vm/hv1/hvdef HvSnpInterruptInjection) */
export const HvSnpInterruptInjection = openEnum("HvSnpInterruptInjection", {
  RESTRICTED: 0,
  NORMAL: 1,
  ALTERNATE: 2,
  SECURE_AVIC: 3,
});

/**
 * Outcome of a translation of a guest-virtual address. (openvmm: vm/hv1/hvdef hypercall::TranslateGvaResultCode)
 */
export const TranslateGvaResultCode = openEnum("TranslateGvaResultCode", {
  SUCCESS: 0x0,
  PAGE_NOT_PRESENT: 0x1,
  PRIVILEGE_VIOLATION: 0x2,
  INVALID_PAGE_TABLE_FLAGS: 0x3,
  GPA_UNMAPPED: 0x4,
  GPA_NO_READ_ACCESS: 0x5,
  GPA_NO_WRITE_ACCESS: 0x6,
  GPA_ILLEGAL_OVERLAY_ACCESS: 0x7,
  INTERCEPT: 0x8,
  GPA_UNACCEPTED: 0x9,
});

/** How a partition is isolated from its host. (openvmm: vm/hv1/hvdef HvPartitionIsolationType) */
export const HvPartitionIsolationType = openEnum("HvPartitionIsolationType", {
  NONE: 0x0,
  VBS: 0x1,
  SNP: 0x2,
  TDX: 0x3,
  CCA: 0x4,
});

/** Reserved values, sizes and limits of the hypercall interface. (openvmm: vm/hv1/hvdef) */
export const HYPERCALL_ABI = {
  /** Names the caller's own partition. */
  PARTITION_ID_SELF: 0xffffffffffffffffn,
  /** Names the calling virtual processor. */
  VP_INDEX_SELF: 0xfffffffe,
  /** Names every virtual processor. */
  ANY_VP: 0xffffffff,
  /** Bytes of a page. */
  PAGE_SIZE: 0x1000,
  /** Base-2 logarithm of the page size. */
  PAGE_SHIFT: 0xc,
  /** Synthetic interrupt sources of a virtual processor. */
  NUM_SINTS: 0x10,
  /** Synthetic timers of a virtual processor. */
  NUM_TIMERS: 0x4,
  /** Synthetic interrupt source that takes intercept messages. */
  SYNIC_INTERCEPTION_SINT_INDEX: 0x0,
  /** Bytes of a message slot. */
  MESSAGE_SIZE: 0x100,
  /** Bytes of payload in it. */
  MESSAGE_PAYLOAD_SIZE: 0xf0,
  /** Crash parameter MSRs P0 to P4. */
  GUEST_CRASH_PARAMETER_MSRS: 0x5,
  /** Sequence of a reference TSC page that does not count. */
  REFERENCE_TSC_SEQUENCE_INVALID: 0x0,
  /** HvInputVtl byte: the caller's VTL. */
  INPUT_VTL_CURRENT: 0x0,
  /** HvInputVtl byte: VTL0. */
  INPUT_VTL_VTL0: 0x10,
  /** HvInputVtl byte: VTL1. */
  INPUT_VTL_VTL1: 0x11,
  /** HvInputVtl byte: VTL2. */
  INPUT_VTL_VTL2: 0x12,
  /** Control word of HvCallGetVpRegisters with one register. */
  CONTROL_GET_VP_REGISTERS_REP1: 0x100000050,
  /** Bytes by which OpenHCL advances RIP after a hypercall: the length of VMCALL and VMMCALL. */
  HYPERCALL_INSTRUCTION_RIP_ADVANCE: 0x3,
  /** Bytes of the head of the register hypercalls. */
  GET_SET_HEADER_SIZE: 0x10,
  /** Bytes of a name and value. */
  REGISTER_ASSOC_SIZE: 0x20,
  /** Bytes of a register name. */
  REGISTER_NAME_SIZE: 0x4,
  /** Bytes of a register value. */
  REGISTER_VALUE_SIZE: 0x10,
  /** Registers that OpenHCL's VMM puts into one hypercall at most. */
  VMM_MAX_REGS_PER_HVCALL: 0x20,
  /** Flag of InterruptTarget. */
  HV_DEVICE_INTERRUPT_TARGET_MULTICAST: 0x1,
  /** Flag of InterruptTarget. */
  HV_DEVICE_INTERRUPT_TARGET_PROCESSOR_SET: 0x2,
  /** Flag of InterruptTarget. */
  HV_DEVICE_INTERRUPT_TARGET_PROXY_REDIRECT: 0x4,
  /** Format of a processor set: banks of 64. */
  HV_GENERIC_SET_SPARSE_4K: 0x0,
  /** Format of a processor set: everyone. */
  HV_GENERIC_SET_ALL: 0x1,
} as const;

/**
 * Byte offsets of the code in openvmm's hypercall page. A guest must read VsmCodePageOffsets. (openvmm:
 * vm/hv1/hv1_emulator/src/hv.rs)
 */
export const HYPERCALL_PAGE_CODE_OFFSETS = {
  HYPERCALL_ENTRY: 0x00,
  VTL_CALL_32: 0x04,
  VTL_CALL_64: 0x0f,
  VTL_RETURN_32: 0x1b,
  VTL_RETURN_64: 0x26,
} as const;

/** Code of a partition property. (openvmm: vm/hv1/hvdef HvPartitionPropertyCode) */
export const HvPartitionPropertyCode = openEnum("HvPartitionPropertyCode", {
  PrivilegeFlags: 0x010000,
  SyntheticProcFeatures: 0x010001,
  AllowedParentUserModeHypercalls: 0x010002,
  Suspend: 0x020000,
  CpuReserve: 0x020001,
  CpuCap: 0x020002,
  CpuWeight: 0x020003,
  CpuGroupId: 0x020004,
  HierarchicalIntegratedSchedulerEnabled: 0x020005,
  TimeFreeze: 0x030003,
  ApicFrequency: 0x030004,
  ReferenceTime: 0x030005,
  DebugChannelId: 0x040000,
  DebugChannelId0: 0x040001,
  DebugChannelId1: 0x040002,
  DebugChannelId2: 0x040003,
  VirtualTlbPageCount: 0x050000,
  VsmConfig: 0x050001,
  ZeroMemoryOnReset: 0x050002,
  ProcessorsPerSocket: 0x050003,
  NestedTlbSize: 0x050004,
  GpaPageAccessTracking: 0x050005,
  VsmPermissionsDirtySinceLastQuery: 0x050006,
  SgxLaunchControlConfig: 0x050007,
  DefaultSgxLaunchControl0: 0x050008,
  DefaultSgxLaunchControl1: 0x050009,
  DefaultSgxLaunchControl2: 0x05000a,
  DefaultSgxLaunchControl3: 0x05000b,
  IsolationState: 0x05000c,
  IsolationControl: 0x05000d,
  AllocationId: 0x05000e,
  MonitoringId: 0x05000f,
  ImplementedPhysicalAddressBits: 0x050010,
  NonArchitecturalCoreSharing: 0x050011,
  HypercallDoorbellPage: 0x050012,
  CppcRequestValue: 0x050013,
  IsolationPolicy: 0x050014,
  DmaCapableDevices: 0x050015,
  ProcessorsPerL3: 0x050016,
  UnimplementedMsrAction: 0x050017,
  AmdNodesPerSocket: 0x050018,
  ReferenceTscPageActive: 0x050019,
  AutoEoiEnabled: 0x05001a,
  L3CacheWays: 0x05001b,
  IsolationType: 0x05001c,
  PerfmonMode: 0x05001d,
  DepositStatus: 0x05001e,
  Mirroring: 0x05001f,
  MirrorState: 0x050020,
  MgmtVtlMaxMemorySections: 0x050021,
  SevVmgexitOffloads: 0x050022,
  PenalizeBusLock: 0x050023,
  TopologyApicIdOptIn: 0x050024,
  CppcResourcePrioritiesValue: 0x050025,
  PartitionDiagBufferConfig: 0x050026,
  GicdBaseAddress: 0x050028,
  GitsTranslaterBaseAddress: 0x050029,
  GicLpiIntIdBits: 0x05002a,
  GicPpiOverflowInterruptFromCntv: 0x05002b,
  GicPpiOverflowInterruptFromCntp: 0x05002c,
  GicPpiPerformanceMonitorsInterrupt: 0x05002d,
  GicPpiPmbirq: 0x05002e,
  TdMigrationStreamCount: 0x05002f,
  AutoSuspend: 0x050030,
  SintReservedInterruptId: 0x050031,
  GpaPinningEnabled: 0x050032,
  TdMigrationMaxStreamCount: 0x050033,
  TdMigrationNumMemScanContext: 0x050034,
  TdMigrationMaxMemScanRanges: 0x050035,
  ProcessorVendor: 0x060000,
  ProcessorFeaturesDeprecated: 0x060001,
  ProcessorXsaveFeatures: 0x060002,
  ProcessorCLFlushSize: 0x060003,
  EnlightenmentModifications: 0x060004,
  CompatibilityVersion: 0x060005,
  PhysicalAddressWidth: 0x060006,
  XsaveStates: 0x060007,
  MaxXsaveDataSize: 0x060008,
  ProcessorClockFrequency: 0x060009,
  ProcessorFeatures0: 0x06000a,
  ProcessorFeatures1: 0x06000b,
  ProcessorCtrEl0: 0x06000c,
  ProcessorDczidEl0: 0x06000d,
  ProcessorIchVtrEl2: 0x06000e,
  ProcessorIdAa64Dfr0El1: 0x06000f,
  RootProcessorFeatures0: 0x060010,
  RootProcessorFeatures1: 0x060011,
  RootProcessorXsaveFeatures: 0x060012,
  RootSyntheticProcFeatures: 0x060013,
  PhysicalAddressSize: 0x060014,
  FeatureBankCount: 0x060015,
  ProcessorIdAa64Dfr1El1: 0x060016,
  ProcessorCntfrqEl0: 0x060017,
  MaxSveVectorLength: 0x060018,
  MaxSmeStreamingVectorLength: 0x060019,
  GuestOsId: 0x070000,
  ProcessorVirtualizationFeatures: 0x080000,
  MaxHardwareIsolatedGuests: 0x080001,
  SnpEnabled: 0x080002,
  NestedVmxBasic: 0x080003,
  NestedVmxPinbasedCtls: 0x080004,
  NestedVmxProcbasedCtls: 0x080005,
  NestedVmxExitCtls: 0x080006,
  NestedVmxEntryCtls: 0x080007,
  NestedVmxMisc: 0x080008,
  NestedVmxCr0Fixed0: 0x080009,
  NestedVmxCr0Fixed1: 0x08000a,
  NestedVmxCr4Fixed0: 0x08000b,
  NestedVmxCr4Fixed1: 0x08000c,
  NestedVmxVmcsEnum: 0x08000d,
  NestedVmxProcbasedCtls2: 0x08000e,
  NestedVmxEptVpidCap: 0x08000f,
  NestedVmxTruePinbasedCtls: 0x080010,
  NestedVmxTrueProcbasedCtls: 0x080011,
  NestedVmxTrueExitCtls: 0x080012,
  NestedVmxTrueEntryCtls: 0x080013,
  NestedVmxProcbasedCtls3: 0x080014,
  NestedVmxExitCtls2: 0x080015,
  VhState: 0x080100,
  MaxHierarchicalPartitionCount: 0x080101,
  MaxHierarchicalVpCount: 0x080102,
  StateTransferMode: 0x080103,
  MigrationAbortCleanupCount: 0x080104,
  TdComprehensiveReset: 0x080105,
  InheritedDeviceDomainReservedRegions: 0x090000,
  TdMrConfigId: 0x090001,
  TdMrOwner: 0x090002,
  TdMrOwnerConfig: 0x090003,
  VNUMATopologyConfig: 0x090004,
  RootVpSharedPages: 0x090005,
  VmmCapabilities: 0x090007,
  CompletePartitionIntercept: 0x090008,
  AssignableSyntheticProcFeatures: 0x090009,
  HwIsolationTdxSupported: 0x09000a,
  HwIsolationSevSupported: 0x09000b,
  MigrationTdInfoHash: 0x09000c,
  MigrationTdBindingSlot: 0x09000d,
  DisabledProcessorFeaturesEx: 0x09000e,
  RootProcessorFeaturesEx: 0x09000f,
  EnabledProcessorFeaturesEx: 0x090010,
  PmuEventTypes: 0x090011,
  TdComprehensiveConfigure: 0x090012,
});

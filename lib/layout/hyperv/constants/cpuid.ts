/**
 * CPUID leaves of the hypervisor and of the virtualization stack (Hyper-V TLFS, "Feature discovery"; openvmm).
 *
 * @module
 */

/** Leaves, signatures and property bits. (openvmm: vm/hv1/hvdef) */
export const HV_CPUID = {
  /** ECX bit 31 says that a hypervisor is present. */
  HV_CPUID_FUNCTION_VERSION_AND_FEATURES: 0x00000001,
  /** EAX is the highest leaf; EBX, ECX and EDX spell "Microsoft Hv". */
  HV_CPUID_FUNCTION_HV_VENDOR_AND_MAX_FUNCTION: 0x40000000,
  /** EAX is INTERFACE_SIGNATURE_HV1. */
  HV_CPUID_FUNCTION_HV_INTERFACE: 0x40000001,
  /** Build and version of the hypervisor. */
  HV_CPUID_FUNCTION_MS_HV_VERSION: 0x40000002,
  /** HvFeatures. */
  HV_CPUID_FUNCTION_MS_HV_FEATURES: 0x40000003,
  /** HvEnlightenmentInformation. */
  HV_CPUID_FUNCTION_MS_HV_ENLIGHTENMENT_INFORMATION: 0x40000004,
  /** Greatest numbers of virtual processors, logical processors and interrupt vectors. */
  HV_CPUID_FUNCTION_MS_HV_IMPLEMENTATION_LIMITS: 0x40000005,
  /** HvHardwareFeatures. */
  HV_CPUID_FUNCTION_MS_HV_HARDWARE_FEATURES: 0x40000006,
  /** EAX is HvNestedVirtFeaturesEax. */
  HV_CPUID_FUNCTION_MS_HV_NESTED_FEATURES: 0x4000000a,
  /** HvIsolationConfiguration. */
  HV_CPUID_FUNCTION_MS_HV_ISOLATION_CONFIGURATION: 0x4000000c,
  /** EAX is the highest leaf of this range; EBX, ECX and EDX spell "Microsoft VS". */
  VIRTUALIZATION_STACK_CPUID_VENDOR: 0x40000080,
  /** EAX is INTERFACE_SIGNATURE_VS1. */
  VIRTUALIZATION_STACK_CPUID_INTERFACE: 0x40000081,
  /** EAX holds the VS1 property bits. */
  VIRTUALIZATION_STACK_CPUID_PROPERTIES: 0x40000082,
  /** The partition can move to another host. */
  VS1_PARTITION_PROPERTIES_EAX_IS_PORTABLE: 0x00000001,
  /** There is a debug device. */
  VS1_PARTITION_PROPERTIES_EAX_DEBUG_DEVICE_PRESENT: 0x00000002,
  /** I/O APIC entries have 15 destination bits. */
  VS1_PARTITION_PROPERTIES_EAX_EXTENDED_IOAPIC_RTE: 0x00000004,
  /** The paravisor offers VMBus. */
  VS1_PARTITION_PROPERTIES_EAX_CONFIDENTIAL_VMBUS_AVAILABLE: 0x00000008,
  /** "Hv#1". */
  INTERFACE_SIGNATURE_HV1: 0x31237648,
  /** "VS#1". */
  INTERFACE_SIGNATURE_VS1: 0x31235356,
  /** "Micr". */
  VENDOR_EBX: 0x7263694d,
  /** "osof". */
  VENDOR_ECX: 0x666f736f,
  /** "t Hv". */
  VENDOR_EDX_HV: 0x76482074,
  /** "t VS". */
  VENDOR_EDX_VS: 0x53562074,
} as const;

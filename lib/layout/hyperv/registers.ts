/**
 * Hyper-V registers, as HvCallGetVpRegisters and HvCallSetVpRegisters carry them (openvmm `vm/hv1/hvdef`; Hyper-V
 * TLFS).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u128, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure, union } from "../structure.ts";
import { HvSnpInterruptInjection } from "./constants/hypercalls.ts";
import { HvX64PendingInterruptionType } from "./constants/messages.ts";
import { HvX64RegisterName } from "./constants/registers.ts";
import { HvX64SegmentRegister, HvX64TableRegister } from "./segments.ts";

/** Value of a register. Narrow values are extended with zeros to 128 bits. */
export const HvRegisterValue = union("HvRegisterValue", 0x10, [
  ["u128", 0x00, u128, "Whole value"],
  ["u64", 0x00, u64, "Value of a 64-bit register"],
  ["u32", 0x00, u32, "Value of a 32-bit register"],
  ["u16", 0x00, u16, "Value of a 16-bit register"],
  ["u8", 0x00, u8, "Value of an 8-bit register"],
  ["segment", 0x00, HvX64SegmentRegister, "Value of a segment register"],
  ["table", 0x00, HvX64TableRegister, "Value of GDTR or IDTR"],
], "openvmm: vm/hv1/hvdef HvRegisterValue");

/** A register's name and value, a record of HvCallSetVpRegisters. */
export const HvRegisterAssoc = structure("HvRegisterAssoc", 0x20, [
  ["name", 0x00, HvX64RegisterName.u32, "Which register"],
  reserved(0x04, 12),
  ["value", 0x10, HvRegisterValue, "Its value"],
], "openvmm: vm/hv1/hvdef HvRegisterAssoc");

/** An event whose delivery has begun or is to begin at the next entry (PendingInterruption). */
export const HvX64PendingInterruptionRegister = bits("HvX64PendingInterruptionRegister", u64, [
  [0, 1, "interruption_pending", "There is such an event"],
  [1, 3, "interruption_type", "What kind of event", HvX64PendingInterruptionType],
  [4, 1, "deliver_error_code", "Delivery pushes error_code"],
  [5, 4, "instruction_length", "Bytes of the instruction that raised it, for software events"],
  [9, 1, "nested_event", "The event belongs to a nested guest"],
  [16, 16, "interruption_vector", "Vector"],
  [32, 32, "error_code", "Error code to push"],
], "openvmm: vm/hv1/hvdef HvX64PendingInterruptionRegister");

/** What keeps interrupts away (InterruptState). */
export const HvX64InterruptStateRegister = bits("HvX64InterruptStateRegister", u64, [
  [0, 1, "interrupt_shadow", "The last instruction was STI or a load of SS"],
  [1, 1, "nmi_masked", "An NMI handler has not returned yet"],
], "openvmm: vm/hv1/hvdef HvX64InterruptStateRegister");

/** What an instruction emulator has to respect (InstructionEmulationHints). */
export const HvInstructionEmulatorHintsRegister = bits("HvInstructionEmulatorHintsRegister", u64, [
  [0, 1, "partition_secure_vtl_enabled", "A VTL above 0 is enabled in the partition"],
  [1, 1, "mbec_user_execute_control", "Mode-based execute control is in force"],
], "openvmm: vm/hv1/hvdef HvInstructionEmulatorHintsRegister");

/** Why a virtual processor does not run (InternalActivityState). */
export const HvInternalActivityRegister = bits("HvInternalActivityRegister", u64, [
  [0, 1, "startup_suspend", "It waits for INIT and SIPI"],
  [1, 1, "halt_suspend", "It has executed HLT"],
  [2, 1, "idle_suspend", "It has read the guest-idle MSR"],
], "openvmm: vm/hv1/hvdef HvInternalActivityRegister");

/** What the VTL2 wants to be told about (DeliverabilityNotifications). */
export const HvDeliverabilityNotificationsRegister = bits("HvDeliverabilityNotificationsRegister", u64, [
  [0, 1, "nmi_notification", "Tell when an NMI can be delivered"],
  [1, 1, "interrupt_notification", "Tell when an interrupt can be delivered"],
  [2, 4, "interrupt_priority", "Lowest priority class that counts"],
  [48, 16, "sints", "One bit for each synthetic interrupt source: tell when it has room for a message"],
], "openvmm: vm/hv1/hvdef HvDeliverabilityNotificationsRegister");

/** Notice of an interrupt that waits for a lower VTL (VsmVina). */
export const HvRegisterVsmVina = bits("HvRegisterVsmVina", u64, [
  [0, 8, "vector", "Vector with which to notify"],
  [8, 1, "enabled", "Notices are wanted"],
  [9, 1, "auto_reset", "The notice is cleared by itself"],
  [10, 1, "auto_eoi", "The notice needs no EOI"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmVina");

/** What the hypervisor's VSM can do (VsmCapabilities). The TLFS prints these bits from the top. */
export const HvRegisterVsmCapabilities = bits("HvRegisterVsmCapabilities", u64, [
  [0, 1, "dr6_shared", "All VTLs share one DR6"],
  [1, 16, "mbec_vtl_mask", "VTLs that can have mode-based execute control"],
  [17, 1, "deny_lower_vtl_startup", "A VTL can keep lower ones from starting processors"],
  [18, 1, "supervisor_shadow_stack", "Supervisor shadow stacks can be protected"],
  [19, 1, "hardware_hvpt_available", "Hardware page-table pinning exists"],
  [20, 1, "software_hvpt_available", "Software page-table pinning exists"],
  [21, 6, "hardware_hvpt_range_bits", "Address bits that page-table pinning covers"],
  [27, 1, "intercept_page_available", "The register page can be mapped and messages copied into the assist page"],
  [28, 1, "return_action_available", "The assist page's VTL return actions work"],
  [29, 1, "vtl0_alias_map_available", "VTL0's memory has an alias for the higher VTL"],
  [30, 1, "intercept_not_present_available", "Accesses to not-present memory can be intercepted"],
  [31, 1, "install_intercept_ex", "The extended HvCallInstallIntercept exists"],
  [32, 1, "intercept_system_reset_available", "System resets can be intercepted"],
  [34, 1, "proxy_interrupt_redirect_available", "Device interrupts can be redirected"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmCapabilities");

/** How a VTL treats the lower ones (VsmPartitionConfig). */
export const HvRegisterVsmPartitionConfig = bits("HvRegisterVsmPartitionConfig", u64, [
  [0, 1, "enable_vtl_protection", "Memory protections of lower VTLs count"],
  [
    1,
    4,
    "default_vtl_protection_mask",
    "Protection of a page that was not given one: read, write, kernel and user execute",
  ],
  [5, 1, "zero_memory_on_reset", "Memory is cleared at a reset"],
  [6, 1, "deny_lower_vtl_startup", "A lower VTL may not start processors"],
  [7, 1, "intercept_acceptance", "Page acceptance by a lower VTL is intercepted"],
  [8, 1, "intercept_enable_vtl_protection", "A lower VTL's enabling of protections is intercepted"],
  [9, 1, "intercept_vp_startup", "A lower VTL's starting of processors is intercepted"],
  [10, 1, "intercept_cpuid_unimplemented", "CPUID leaves that the hypervisor does not know are intercepted"],
  [11, 1, "intercept_unrecoverable_exception", "Triple faults are intercepted"],
  [12, 1, "intercept_page", "Intercept messages are copied into the assist page, the entry reason is INTERCEPT"],
  [13, 1, "intercept_restore_partition_time", "HvCallRestorePartitionTime is intercepted"],
  [14, 1, "intercept_not_present", "Accesses to not-present memory are intercepted"],
  [15, 1, "intercept_system_reset", "System resets are intercepted"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmPartitionConfig");

/** Which VTLs a partition has (VsmPartitionStatus). */
export const HvRegisterVsmPartitionStatus = bits("HvRegisterVsmPartitionStatus", u64, [
  [0, 16, "enabled_vtl_set", "One bit for each enabled VTL"],
  [16, 4, "maximum_vtl", "Highest VTL that can be enabled"],
  [20, 16, "mbec_enabled_vtl_set", "One bit for each VTL with mode-based execute control"],
  [36, 4, "supervisor_shadow_stack_enabled_vtl_set", "One bit for each VTL with protected shadow stacks"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmPartitionStatus");

/** What the guest may use of VSM (GuestVsmPartitionConfig). */
export const HvRegisterGuestVsmPartitionConfig = bits("HvRegisterGuestVsmPartitionConfig", u64, [
  [0, 4, "maximum_vtl", "Highest VTL that the guest may enable"],
  [4, 2, "vtl0_interrupt_injection", "How interrupts reach VTL0 of an SNP guest", HvSnpInterruptInjection],
  [6, 2, "vtl1_interrupt_injection", "How interrupts reach VTL1 of an SNP guest", HvSnpInterruptInjection],
], "openvmm: vm/hv1/hvdef HvRegisterGuestVsmPartitionConfig");

/** Which VTL a virtual processor runs (VsmVpStatus). */
export const HvRegisterVsmVpStatus = bits("HvRegisterVsmVpStatus", u64, [
  [0, 4, "active_vtl", "VTL that runs"],
  [4, 1, "active_mbec_enabled", "It has mode-based execute control"],
  [16, 16, "enabled_vtl_set", "One bit for each VTL enabled on this processor"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmVpStatus");

/** Where the VTL call and return code lies in the hypercall page (VsmCodePageOffsets). */
export const HvRegisterVsmCodePageOffsets = bits("HvRegisterVsmCodePageOffsets", u64, [
  [0, 12, "call_offset", "Byte offset of the VTL call code"],
  [12, 12, "return_offset", "Byte offset of the VTL return code"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmCodePageOffsets");

/** Place of the VP assist page (VpAssistPage; MSR 40000073). RegisterPage has the same format. */
export const HvRegisterVpAssistPage = bits("HvRegisterVpAssistPage", u64, [
  [0, 1, "enabled", "The overlay is mapped"],
  [12, 52, "gpa_page_number", "Guest-physical page number"],
], "openvmm: vm/hv1/hvdef HvRegisterVpAssistPage");

/** Waiting for a TLB lock (VsmVpWaitForTlbLock). */
export const HvRegisterVsmWpWaitForTlbLock = bits("HvRegisterVsmWpWaitForTlbLock", u64, [
  [0, 1, "wait", "Stop this VTL until the lock is free"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmWpWaitForTlbLock");

/** How one lower VTL of a virtual processor is protected (VsmVpSecureConfigVtl0 to 14). */
export const HvRegisterVsmVpSecureVtlConfig = bits("HvRegisterVsmVpSecureVtlConfig", u64, [
  [0, 1, "mbec_enabled", "Mode-based execute control"],
  [1, 1, "tlb_locked", "Its translations may not change"],
  [2, 1, "supervisor_shadow_stack_enabled", "Its supervisor shadow stacks are protected"],
  [3, 1, "hardware_hvpt_enabled", "Hardware page-table pinning"],
], "openvmm: vm/hv1/hvdef HvRegisterVsmVpSecureVtlConfig");

/** Register accesses of lower VTLs that are intercepted (CrInterceptControl). */
export const HvRegisterCrInterceptControl = bits("HvRegisterCrInterceptControl", u64, [
  [0, 1, "cr0_write", "Writes of the CR0 bits in CrInterceptCr0Mask"],
  [1, 1, "cr4_write", "Writes of the CR4 bits in CrInterceptCr4Mask"],
  [2, 1, "xcr0_write", "Writes of XCR0"],
  [3, 1, "ia32_misc_enable_read", "Reads of IA32_MISC_ENABLE"],
  [4, 1, "ia32_misc_enable_write", "Writes of IA32_MISC_ENABLE"],
  [5, 1, "msr_lstar_read", "Reads of LSTAR"],
  [6, 1, "msr_lstar_write", "Writes of LSTAR"],
  [7, 1, "msr_star_read", "Reads of STAR"],
  [8, 1, "msr_star_write", "Writes of STAR"],
  [9, 1, "msr_cstar_read", "Reads of CSTAR"],
  [10, 1, "msr_cstar_write", "Writes of CSTAR"],
  [11, 1, "apic_base_msr_read", "Reads of APIC_BASE"],
  [12, 1, "apic_base_msr_write", "Writes of APIC_BASE"],
  [13, 1, "msr_efer_read", "Reads of EFER"],
  [14, 1, "msr_efer_write", "Writes of EFER"],
  [15, 1, "gdtr_write", "LGDT"],
  [16, 1, "idtr_write", "LIDT"],
  [17, 1, "ldtr_write", "LLDT"],
  [18, 1, "tr_write", "LTR"],
  [19, 1, "msr_sysenter_cs_write", "Writes of SYSENTER_CS"],
  [20, 1, "msr_sysenter_eip_write", "Writes of SYSENTER_EIP"],
  [21, 1, "msr_sysenter_esp_write", "Writes of SYSENTER_ESP"],
  [22, 1, "msr_sfmask_write", "Writes of SFMASK"],
  [23, 1, "msr_tsc_aux_write", "Writes of TSC_AUX"],
  [24, 1, "msr_sgx_launch_control_write", "Writes of the SGX launch-control registers"],
  [25, 1, "msr_xss_write", "Writes of XSS"],
  [26, 1, "msr_scet_write", "Writes of S_CET"],
  [27, 1, "msr_pls_ssp_write", "Writes of PL0_SSP to PL3_SSP"],
  [28, 1, "msr_interrupt_ssp_table_addr_write", "Writes of the interrupt shadow-stack table address"],
], "openvmm: vm/hv1/hvdef HvRegisterCrInterceptControl");

/** MSR 40000001: place of the hypercall page. */
export const MsrHypercallContents = bits("MsrHypercallContents", u64, [
  [0, 1, "enable", "The overlay is mapped"],
  [1, 1, "locked", "The register cannot change until reset"],
  [12, 52, "gpn", "Guest-physical page number"],
], "openvmm: vm/hv1/hvdef MsrHypercallContents");

/** MSR 40000000 of a Microsoft guest. */
export const HvGuestOsMicrosoft = bits("HvGuestOsMicrosoft", u64, [
  [40, 8, "os_id", "Which Microsoft operating system"],
  [48, 16, "vendor_id", "Vendor: 1 is Microsoft"],
], "openvmm: vm/hv1/hvdef HvGuestOsMicrosoft");

/** MSR 40000000 of an open-source guest. */
export const HvGuestOsOpenSource = bits("HvGuestOsOpenSource", u64, [
  [0, 16, "build_no", "Build number"],
  [16, 32, "version", "Version"],
  [48, 8, "os_id", "Distribution"],
  [56, 7, "os_type", "Which operating system: 1 Linux, 2 FreeBSD"],
  [63, 1, "is_open_source", "This format is in use"],
], "openvmm: vm/hv1/hvdef HvGuestOsOpenSource");

/** Assistance with the ACPI PM timer (PmTimerAssist). */
export const HvPmTimerInfo = bits("HvPmTimerInfo", u64, [
  [0, 16, "port", "I/O port of the timer"],
  [16, 1, "width_24", "It counts 24 bits, not 32"],
  [17, 1, "enabled", "The hypervisor serves the port"],
], "openvmm: vm/hv1/hvdef HvPmTimerInfo");

/** Guest crash control (GuestCrashCtl; MSR 40000105). */
export const GuestCrashCtl = bits("GuestCrashCtl", u64, [
  [58, 3, "pre_os_id", "Who crashes before an operating system runs"],
  [61, 1, "no_crash_dump", "There will be no dump"],
  [62, 1, "crash_message", "P3 and P4 are address and length of a text"],
  [63, 1, "crash_notify", "The parameters are complete: tell the host"],
], "openvmm: vm/hv1/hvdef GuestCrashCtl");

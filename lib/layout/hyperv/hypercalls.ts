/**
 * Hypercall control words, inputs and outputs (Hyper-V TLFS, "Hypercall interface" and the reference of hypercalls;
 * openvmm `vm/hv1/hvdef`, module `hypercall`).
 *
 * A variable-sized or repeated part follows a structure directly: register names (4 bytes each) after
 * `GetSetVpRegisters` of a get, `HvRegisterAssoc` records after that of a set.
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure, union } from "../structure.ts";
import { HvInterruptSource, HvInterruptType, HvStatus, TranslateGvaResultCode } from "./constants/hypercalls.ts";
import { HvCacheType, HvInterceptType } from "./constants/messages.ts";
import { HvX64PendingEvent } from "./events.ts";
import { HvMessage } from "./messages.ts";
import { HvX64SegmentRegister, HvX64TableRegister } from "./segments.ts";

/** Control word of a hypercall, in RCX. */
export const HypercallInputControl = bits("HypercallInputControl", u64, [
  [0, 16, "code", "Which hypercall"],
  [16, 1, "fast", "Input is in registers"],
  [17, 10, "variable_header_size", "Variable header in units of 8 bytes"],
  [31, 1, "nested", "The call is for the level-0 hypervisor"],
  [32, 12, "rep_count", "Elements in all"],
  [48, 12, "rep_start", "First element still to be done"],
], "openvmm: vm/hv1/hvdef Control");

/** Result of a hypercall, in RAX. */
export const HypercallOutput = bits("HypercallOutput", u64, [
  [0, 16, "call_status", "Status", HvStatus],
  [32, 12, "elements_processed", "Elements done in all, those before rep_start included"],
], "openvmm: vm/hv1/hvdef HypercallOutput");

/** Target VTL in a hypercall's input. */
export const HvInputVtl = bits("HvInputVtl", u8, [
  [0, 4, "target_vtl_value", "VTL, when the next bit is set"],
  [4, 1, "use_target_vtl", "Not the caller's VTL but the one above"],
], "openvmm: vm/hv1/hvdef HvInputVtl");

/** Head of HvCallGetVpRegisters and HvCallSetVpRegisters. */
export const GetSetVpRegisters = structure("GetSetVpRegisters", 0x10, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["vp_index", 0x08, u32, "Virtual processor; fffffffe names the caller"],
  ["target_vtl", 0x0c, HvInputVtl, "VTL whose registers are meant"],
  reserved(0x0d, 3),
], "openvmm: vm/hv1/hvdef GetSetVpRegisters");

/** Ports of HvInterceptTypeX64IoPortRange, both ends included. */
export const HvInterceptPortRange = structure("HvInterceptPortRange", 0x04, [
  ["first_port", 0x00, u16, "First port"],
  ["last_port", 0x02, u16, "Last port"],
], "openvmm: vm/hv1/hvdef hypercall::HvInterceptParameters::new_io_port_range");

/** What exactly HvCallInstallIntercept asks for, by the intercept's type. */
export const HvInterceptParameters = union("HvInterceptParameters", 0x08, [
  ["io_port", 0x00, u16, "Port, for X64IoPort"],
  ["io_port_range", 0x00, HvInterceptPortRange, "Ports, for X64IoPortRange"],
  ["exception_vector", 0x00, u16, "Vector, for Exception"],
  ["cpuid_index", 0x00, u32, "Leaf, for X64Cpuid"],
  ["as_uint64", 0x00, u64, "Whole parameter"],
], "openvmm: vm/hv1/hvdef hypercall::HvInterceptParameters");

/** Input of HvCallInstallIntercept. */
export const InstallIntercept = structure("InstallIntercept", 0x18, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["access_type_mask", 0x08, u32, "HV_INTERCEPT_ACCESS_MASK: accesses to intercept; NONE removes the intercept"],
  ["intercept_type", 0x0c, HvInterceptType.u32, "What to intercept"],
  ["intercept_parameters", 0x10, HvInterceptParameters, "Which port, leaf or vector"],
], "openvmm: vm/hv1/hvdef InstallIntercept");

/** Which CPUID results are to be replaced. */
export const HvRegisterX64CpuidResultParametersInput = structure("HvRegisterX64CpuidResultParametersInput", 0x0c, [
  ["eax", 0x00, u32, "Leaf"],
  ["ecx", 0x04, u32, "Subleaf"],
  ["subleaf_specific", 0x08, u8, "Not 0 when ecx counts"],
  ["always_override", 0x09, u8, "Not 0 to replace the result even where the hypervisor knows better"],
  reserved(0x0a, 2),
], "openvmm: vm/hv1/hvdef HvRegisterX64CpuidResultParametersInput");

/** Replacement for CPUID results; a mask says which bits are replaced. */
export const HvRegisterX64CpuidResultParametersOutput = structure("HvRegisterX64CpuidResultParametersOutput", 0x20, [
  ["eax", 0x00, u32, "Bits for EAX"],
  ["eax_mask", 0x04, u32, "Bits of EAX that are replaced"],
  ["ebx", 0x08, u32, "Bits for EBX"],
  ["ebx_mask", 0x0c, u32, "Bits of EBX that are replaced"],
  ["ecx", 0x10, u32, "Bits for ECX"],
  ["ecx_mask", 0x14, u32, "Bits of ECX that are replaced"],
  ["edx", 0x18, u32, "Bits for EDX"],
  ["edx_mask", 0x1c, u32, "Bits of EDX that are replaced"],
], "openvmm: vm/hv1/hvdef HvRegisterX64CpuidResultParametersOutput");

/** A replacement for CPUID results. */
export const HvRegisterX64CpuidResultParameters = structure("HvRegisterX64CpuidResultParameters", 0x2c, [
  ["input", 0x00, HvRegisterX64CpuidResultParametersInput, "Which results"],
  ["result", 0x0c, HvRegisterX64CpuidResultParametersOutput, "Their new values"],
], "openvmm: vm/hv1/hvdef HvRegisterX64CpuidResultParameters");

/** Input of HvCallRegisterInterceptResult for CPUID. */
export const RegisterInterceptResultCpuid = structure("RegisterInterceptResultCpuid", 0x40, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["vp_index", 0x08, u32, "Virtual processor; ffffffff for all"],
  ["intercept_type", 0x0c, HvInterceptType.u32, "HvInterceptTypeX64Cpuid"],
  ["parameters", 0x10, HvRegisterX64CpuidResultParameters, "The replacement"],
  reserved(0x3c, 4),
], "openvmm: vm/hv1/hvdef RegisterInterceptResultCpuid");

/** How an interrupt is to be asserted. */
export const HvInterruptControl = bits("HvInterruptControl", u64, [
  [0, 32, "interrupt_type_value", "Delivery type", HvInterruptType],
  [32, 1, "x86_level_triggered", "Level-triggered"],
  [33, 1, "x86_logical_destination_mode", "The destination is a logical id"],
  [34, 1, "arm64_asserted", "Arm64 only: the line's level"],
], "openvmm: vm/hv1/hvdef HvInterruptControl");

/** Input of HvCallAssertVirtualInterrupt. */
export const AssertVirtualInterrupt = structure("AssertVirtualInterrupt", 0x20, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["interrupt_control", 0x08, HvInterruptControl, "Type, trigger and destination mode"],
  ["destination_address", 0x10, u64, "APIC id, physical or logical"],
  ["requested_vector", 0x18, u32, "Interrupt vector"],
  ["target_vtl", 0x1c, u8, "VTL whose local APIC is meant"],
  reserved(0x1d, 1),
  reserved(0x1e, 2),
], "openvmm: vm/hv1/hvdef AssertVirtualInterrupt");

/** Private registers with which a VTL of a virtual processor starts. */
export const InitialVpContextX64 = structure("InitialVpContextX64", 0xe0, [
  ["rip", 0x00, u64, "Instruction pointer"],
  ["rsp", 0x08, u64, "Stack pointer"],
  ["rflags", 0x10, u64, "Flags"],
  ["cs", 0x18, HvX64SegmentRegister, "Code segment"],
  ["ds", 0x28, HvX64SegmentRegister, "Data segment"],
  ["es", 0x38, HvX64SegmentRegister, "Extra segment"],
  ["fs", 0x48, HvX64SegmentRegister, "FS segment"],
  ["gs", 0x58, HvX64SegmentRegister, "GS segment"],
  ["ss", 0x68, HvX64SegmentRegister, "Stack segment"],
  ["tr", 0x78, HvX64SegmentRegister, "Task register"],
  ["ldtr", 0x88, HvX64SegmentRegister, "Local descriptor table"],
  ["idtr", 0x98, HvX64TableRegister, "Interrupt descriptor table"],
  ["gdtr", 0xa8, HvX64TableRegister, "Global descriptor table"],
  ["efer", 0xb8, u64, "Extended feature enable"],
  ["cr0", 0xc0, u64, "Control register 0"],
  ["cr3", 0xc8, u64, "Page-table base"],
  ["cr4", 0xd0, u64, "Control register 4"],
  ["msr_cr_pat", 0xd8, u64, "Page attribute table"],
], "openvmm: vm/hv1/hvdef InitialVpContextX64");

/** Input of HvCallStartVirtualProcessor. */
export const StartVirtualProcessorX64 = structure("StartVirtualProcessorX64", 0xf0, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["vp_index", 0x08, u32, "Virtual processor's index"],
  ["target_vtl", 0x0c, u8, "VTL in which it starts"],
  reserved(0x0d, 1),
  reserved(0x0e, 2),
  ["vp_context", 0x10, InitialVpContextX64, "Registers with which it starts"],
], "openvmm: vm/hv1/hvdef StartVirtualProcessorX64");

/** Input of HvCallEnableVpVtl. */
export const EnableVpVtlX64 = structure("EnableVpVtlX64", 0xf0, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["vp_index", 0x08, u32, "Virtual processor's index"],
  ["target_vtl", 0x0c, u8, "VTL to enable"],
  reserved(0x0d, 3),
  ["vp_vtl_context", 0x10, InitialVpContextX64, "Registers with which that VTL starts"],
], "openvmm: vm/hv1/hvdef EnableVpVtlX64");

/** What to enable together with a VTL. */
export const EnablePartitionVtlFlags = bits("EnablePartitionVtlFlags", u8, [
  [0, 1, "enable_mbec", "Mode-based execute control"],
  [1, 1, "enable_supervisor_shadow_stack", "Protected supervisor shadow stacks"],
  [2, 1, "enable_hardware_hvpt", "Hardware page-table pinning"],
], "openvmm: vm/hv1/hvdef EnablePartitionVtlFlags");

/** Input of HvCallEnablePartitionVtl. */
export const EnablePartitionVtl = structure("EnablePartitionVtl", 0x10, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["target_vtl", 0x08, u8, "VTL to enable"],
  ["flags", 0x09, EnablePartitionVtlFlags, "Features to enable with it"],
  reserved(0x0a, 2),
  reserved(0x0c, 4),
], "openvmm: vm/hv1/hvdef EnablePartitionVtl");

/** How to translate a guest-virtual address. */
export const TranslateGvaControlFlagsX64 = bits("TranslateGvaControlFlagsX64", u64, [
  [0, 1, "validate_read", "The access must be allowed to read"],
  [1, 1, "validate_write", "The access must be allowed to write; implies read"],
  [2, 1, "validate_execute", "The access must be allowed to execute"],
  [3, 1, "privilege_exempt", "Privilege is not checked"],
  [4, 1, "set_page_table_bits", "Set accessed and dirty bits on the way"],
  [5, 1, "tlb_flush_inhibit", "Keep the VTL's TLB as it is until the caller returns"],
  [6, 1, "supervisor_access", "Check as supervisor, whatever the CPL"],
  [7, 1, "user_access", "Check as user, whatever the CPL"],
  [8, 1, "enforce_smap", "Check SMAP"],
  [9, 1, "override_smap", "Do not check SMAP"],
  [10, 1, "shadow_stack", "The access is to a shadow stack"],
  [56, 8, "input_vtl_value", "VTL whose tables are walked: an HvInputVtl byte"],
], "openvmm: vm/hv1/hvdef TranslateGvaControlFlagsX64");

/** Input of HvCallTranslateVirtualAddress and HvCallTranslateVirtualAddressEx. */
export const TranslateVirtualAddressX64 = structure("TranslateVirtualAddressX64", 0x20, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["vp_index", 0x08, u32, "Virtual processor's index"],
  reserved(0x0c, 4),
  ["control_flags", 0x10, TranslateGvaControlFlagsX64, "How to translate"],
  ["gva_page", 0x18, u64, "Guest-virtual page number"],
], "openvmm: vm/hv1/hvdef TranslateVirtualAddressX64");

/** Result of a translation. */
export const TranslateGvaResult = bits("TranslateGvaResult", u64, [
  [0, 32, "result_code", "Why it failed, or success", TranslateGvaResultCode],
  [32, 8, "cache_type", "Memory type of the page", HvCacheType],
  [40, 1, "overlay_page", "The page is one that the hypervisor lays over memory"],
], "openvmm: vm/hv1/hvdef TranslateGvaResult");

/** Output of HvCallTranslateVirtualAddress. */
export const TranslateVirtualAddressOutput = structure("TranslateVirtualAddressOutput", 0x10, [
  ["translation_result", 0x00, TranslateGvaResult, "Result"],
  ["gpa_page", 0x08, u64, "Guest-physical page number"],
], "openvmm: vm/hv1/hvdef TranslateVirtualAddressOutput");

/** Result of HvCallTranslateVirtualAddressEx. */
export const TranslateGvaResultExX64 = structure("TranslateGvaResultExX64", 0x30, [
  ["result", 0x00, TranslateGvaResult, "Result"],
  reserved(0x08, 8),
  ["event_info", 0x10, HvX64PendingEvent, "For INTERCEPT: the event to inject"],
], "openvmm: vm/hv1/hvdef TranslateGvaResultExX64");

/** Output of HvCallTranslateVirtualAddressEx. */
export const TranslateVirtualAddressExOutputX64 = structure("TranslateVirtualAddressExOutputX64", 0x40, [
  ["translation_result", 0x00, TranslateGvaResultExX64, "Result, with the event to inject"],
  ["gpa_page", 0x30, u64, "Guest-physical page number"],
  reserved(0x38, 8),
], "openvmm: vm/hv1/hvdef TranslateVirtualAddressExOutputX64");

/** Head of HvCallGetVpIndexFromApicId; APIC ids (4 bytes each) follow. */
export const GetVpIndexFromApicId = structure("GetVpIndexFromApicId", 0x10, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["target_vtl", 0x08, u8, "VTL whose APIC ids are meant"],
  reserved(0x09, 7),
], "openvmm: vm/hv1/hvdef GetVpIndexFromApicId");

/** Input of HvCallPostMessage. */
export const PostMessage = structure("PostMessage", 0x100, [
  ["connection_id", 0x00, u32, "Connection to post to"],
  reserved(0x04, 4),
  ["message_type", 0x08, u32, "Type of the message; bit 31 clear"],
  ["payload_size", 0x0c, u32, "Bytes of payload that count; at most 240"],
  ["payload", 0x10, bytes(240), "The payload"],
], "openvmm: vm/hv1/hvdef PostMessage");

/** Input of HvCallSignalEvent. */
export const SignalEvent = structure("SignalEvent", 0x08, [
  ["connection_id", 0x00, u32, "Connection to signal"],
  ["flag_number", 0x04, u16, "Event flag relative to the connection's first"],
  reserved(0x06, 2),
], "openvmm: vm/hv1/hvdef SignalEvent");

/** Input of HvCallPostMessageDirect; the message is not aligned. */
export const PostMessageDirect = structure("PostMessageDirect", 0x118, [
  ["partition_id", 0x000, u64, "Partition the call is about; all ones names the caller's own"],
  ["vp_index", 0x008, u32, "Virtual processor's index"],
  ["vtl", 0x00c, u8, "VTL that receives it"],
  reserved(0x00d, 3),
  ["sint", 0x010, u8, "Synthetic interrupt source that receives it"],
  reserved(0x011, 3),
  ["message", 0x014, HvMessage, "The message"],
  reserved(0x114, 4),
], "openvmm: vm/hv1/hvdef PostMessageDirect");

/** Input of HvCallSignalEventDirect. */
export const SignalEventDirect = structure("SignalEventDirect", 0x10, [
  ["target_partition", 0x00, u64, "Partition; all ones names the caller's own"],
  ["target_vp", 0x08, u32, "Index of the virtual processor"],
  ["target_vtl", 0x0c, u8, "VTL to signal"],
  ["target_sint", 0x0d, u8, "Synthetic interrupt source"],
  ["flag_number", 0x0e, u16, "Event flag to set"],
], "openvmm: vm/hv1/hvdef SignalEventDirect");

/** Output of HvCallSignalEventDirect. */
export const SignalEventDirectOutput = structure("SignalEventDirectOutput", 0x08, [
  ["newly_signaled", 0x00, u8, "Not 0 when the flag was clear before"],
  reserved(0x01, 7),
], "openvmm: vm/hv1/hvdef SignalEventDirectOutput");

/** A device interrupt as its source describes it. */
export const InterruptEntry = structure("InterruptEntry", 0x10, [
  ["source", 0x00, HvInterruptSource.u32, "Where it comes from"],
  reserved(0x04, 4),
  ["data", 0x08, array(u32, 2), "MSI address and data, or the I/O APIC entry"],
], "openvmm: vm/hv1/hvdef InterruptEntry");

/** How InterruptTarget names its processors. */
export const HvInterruptTargetFlags = bits("HvInterruptTargetFlags", u32, [
  [0, 1, "multicast", "To all of them, not to one"],
  [1, 1, "processor_set", "A sparse set follows, not a mask"],
  [2, 1, "proxy_redirect", "To the proxy"],
], "openvmm: vm/hv1/hvdef HvInterruptTargetFlags");

/** Whom a device interrupt is for. */
export const InterruptTarget = structure("InterruptTarget", 0x10, [
  ["vector", 0x00, u32, "Interrupt vector"],
  ["flags", 0x04, HvInterruptTargetFlags, "How the processors are named"],
  ["mask_or_format", 0x08, u64, "Processor mask, or the set's format"],
], "openvmm: vm/hv1/hvdef InterruptTarget");

/** Input of HvCallRetargetDeviceInterrupt. */
export const RetargetDeviceInterrupt = structure("RetargetDeviceInterrupt", 0x38, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["device_id", 0x08, u64, "Logical id of the device"],
  ["entry", 0x10, InterruptEntry, "Which of its interrupts"],
  reserved(0x20, 8),
  ["target_header", 0x28, InterruptTarget, "New vector and processors"],
], "openvmm: vm/hv1/hvdef RetargetDeviceInterrupt");

/** What may be done with a guest-physical page. */
export const HvMapGpaFlags = bits("HvMapGpaFlags", u32, [
  [0, 1, "readable", "Reads"],
  [1, 1, "writable", "Writes"],
  [2, 1, "kernel_executable", "Execution at CPL 0 to 2; any CPL without mode-based execute control"],
  [3, 1, "user_executable", "Execution at CPL 3"],
  [4, 1, "supervisor_shadow_stack", "Supervisor shadow-stack accesses"],
  [5, 1, "paging_writability", "Writes by the page walker"],
  [6, 1, "verify_paging_writability", "Check that table pages may be written by the walker"],
  [15, 1, "adjustable", "The guest may change these bits"],
], "openvmm: vm/hv1/hvdef HvMapGpaFlags");

/** Head of HvCallModifyVtlProtectionMask; page numbers (8 bytes each) follow. */
export const ModifyVtlProtectionMask = structure("ModifyVtlProtectionMask", 0x10, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["map_flags", 0x08, HvMapGpaFlags, "What the lower VTL may do with the pages"],
  ["target_vtl", 0x0c, HvInputVtl, "VTL that is restricted"],
  reserved(0x0d, 3),
], "openvmm: vm/hv1/hvdef ModifyVtlProtectionMask");

/** Head of HvCallCheckSparseGpaPageVtlAccess; page numbers (8 bytes each) follow. */
export const CheckSparseGpaPageVtlAccess = structure("CheckSparseGpaPageVtlAccess", 0x10, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["target_vtl", 0x08, HvInputVtl, "VTL whose access is meant"],
  ["desired_access", 0x09, u8, "Accesses to check, HvMapGpaFlags"],
  reserved(0x0a, 2),
  reserved(0x0c, 4),
], "openvmm: vm/hv1/hvdef CheckSparseGpaPageVtlAccess");

/** An output element of HvCallCheckSparseGpaPageVtlAccess. */
export const CheckSparseGpaPageVtlAccessOutput = bits("CheckSparseGpaPageVtlAccessOutput", u64, [
  [0, 8, "result_code", "Whether the access is allowed"],
  [8, 8, "denied_access", "Accesses that are not, HvMapGpaFlags"],
  [16, 4, "intercepting_vtl", "VTL that would take the intercept"],
], "openvmm: vm/hv1/hvdef CheckSparseGpaPageVtlAccessOutput");

/** Permissions of VTL1 and VTL2 to pages that are accepted. */
export const VtlPermissionSet = structure("VtlPermissionSet", 0x04, [
  ["vtl_permission_from_1", 0x00, array(u16, 2), "Permissions, VTL1 first"],
], "openvmm: vm/hv1/hvdef VtlPermissionSet");

/** What accepted pages are to be. */
export const AcceptPagesAttributes = bits("AcceptPagesAttributes", u32, [
  [0, 6, "memory_type", "RAM or another kind"],
  [6, 2, "host_visibility", "Whether the host may see them"],
  [8, 3, "vtl_set", "VTLs for which they are accepted"],
], "openvmm: vm/hv1/hvdef AcceptPagesAttributes");

/** Head of HvCallAcceptGpaPages. */
export const AcceptGpaPages = structure("AcceptGpaPages", 0x18, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["page_attributes", 0x08, AcceptPagesAttributes, "What the pages are to be"],
  ["vtl_permission_set", 0x0c, VtlPermissionSet, "Who may use them"],
  ["gpa_page_base", 0x10, u64, "First guest-physical page number"],
], "openvmm: vm/hv1/hvdef AcceptGpaPages");

/** Whether the host may see pages. */
export const ModifyHostVisibility = bits("ModifyHostVisibility", u32, [
  [0, 2, "host_visibility", "0 not at all, 1 to read, 3 to read and write"],
], "openvmm: vm/hv1/hvdef ModifyHostVisibility");

/** Head of HvCallModifySparseGpaPageHostVisibility; page numbers (8 bytes each) follow. */
export const ModifySparsePageVisibility = structure("ModifySparsePageVisibility", 0x10, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["host_visibility", 0x08, ModifyHostVisibility, "What the host may do"],
  reserved(0x0c, 4),
], "openvmm: vm/hv1/hvdef ModifySparsePageVisibility");

/** What a TLB flush covers. */
export const HvFlushFlags = bits("HvFlushFlags", u64, [
  [0, 1, "all_processors", "All processors; the mask does not count"],
  [1, 1, "all_virtual_address_spaces", "All address spaces; address_space does not count"],
  [2, 1, "non_global_mappings_only", "Global translations stay"],
  [3, 1, "use_extended_range_format", "Ranges are in the extended format"],
  [4, 1, "use_target_vtl", "The VTL bits below count"],
  [8, 1, "target_vtl0", "Flush VTL0"],
  [9, 1, "target_vtl1", "Flush VTL1"],
], "openvmm: vm/hv1/hvdef HvFlushFlags");

/** Input of HvCallFlushVirtualAddressSpace. */
export const FlushVirtualAddressSpace = structure("FlushVirtualAddressSpace", 0x18, [
  ["address_space", 0x00, u64, "CR3 of the address space"],
  ["flags", 0x08, HvFlushFlags, "What to flush"],
  ["processor_mask", 0x10, u64, "One bit for each virtual processor"],
], "openvmm: vm/hv1/hvdef FlushVirtualAddressSpace");

/** Input of HvCallSendSyntheticClusterIpi. */
export const SendSyntheticClusterIpi = structure("SendSyntheticClusterIpi", 0x10, [
  ["vector", 0x00, u32, "Interrupt vector"],
  ["target_vtl", 0x04, HvInputVtl, "VTL whose local APICs are meant"],
  ["flags", 0x05, u8, "Must be 0"],
  reserved(0x06, 2),
  ["processor_mask", 0x08, u64, "One bit for each virtual processor"],
], "openvmm: vm/hv1/hvdef SendSyntheticClusterIpi");

/** Input of HvCallMemoryMappedIoRead. */
export const MemoryMappedIoRead = structure("MemoryMappedIoRead", 0x10, [
  ["gpa", 0x00, u64, "Guest-physical address"],
  ["access_width", 0x08, u32, "Bytes to read"],
  reserved(0x0c, 4),
], "openvmm: vm/hv1/hvdef MemoryMappedIoRead");

/** Output of HvCallMemoryMappedIoRead. */
export const MemoryMappedIoReadOutput = structure("MemoryMappedIoReadOutput", 0x40, [
  ["data", 0x00, bytes(64), "What was read"],
], "openvmm: vm/hv1/hvdef MemoryMappedIoReadOutput");

/** Input of HvCallMemoryMappedIoWrite. */
export const MemoryMappedIoWrite = structure("MemoryMappedIoWrite", 0x50, [
  ["gpa", 0x00, u64, "Guest-physical address"],
  ["access_width", 0x08, u32, "Bytes to write"],
  reserved(0x0c, 4),
  ["data", 0x10, bytes(64), "What to write"],
], "openvmm: vm/hv1/hvdef MemoryMappedIoWrite");

/** Input of HvCallRestorePartitionTime. */
export const RestorePartitionTime = structure("RestorePartitionTime", 0x20, [
  ["partition_id", 0x00, u64, "Partition the call is about; all ones names the caller's own"],
  ["tsc_sequence", 0x08, u32, "New sequence of the reference TSC page"],
  reserved(0x0c, 4),
  ["reference_time_in_100_ns", 0x10, u64, "Reference time in 100 ns"],
  ["tsc", 0x18, u64, "Value of the TSC at that time"],
], "openvmm: vm/hv1/hvdef RestorePartitionTime");

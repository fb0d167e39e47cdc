/**
 * Messages of the synthetic interrupt controller and of intercepts (openvmm `vm/hv1/hvdef`; Hyper-V TLFS, chapters on
 * partition and virtual-processor intercepts).
 *
 * An intercept message is a `HvMessage` whose payload begins at byte 16 with one of the structures below, most of
 * them with `HvX64InterceptMessageHeader` in front. Offsets here are within the payload: in the VP assist page a port
 * intercept's RAX lies at `HvVpAssistPage.at.intercept_message + HvMessage.at.payload_buffer +
 * HvX64IoPortInterceptMessage.at.rax`.
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, bytes, u128, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure, union } from "../structure.ts";
import { XMM_LOW_NAMES } from "../x64/names.ts";
import {
  HvCacheType,
  HvInterceptAccessType,
  HvMessageType,
  HvX64PendingInterruptionType,
} from "./constants/messages.ts";
import { HvX64RegisterName } from "./constants/registers.ts";
import { HvRegisterValue } from "./registers.ts";
import { HvX64SegmentRegister } from "./segments.ts";

/** Flags of a message in a slot. */
export const HvMessageFlags = bits("HvMessageFlags", u8, [
  [0, 1, "message_pending", "More messages wait for the slot: clear it, then write EOM"],
], "openvmm: vm/hv1/hvdef HvMessageFlags");

/** What every message begins with. */
export const HvMessageHeader = structure("HvMessageHeader", 0x10, [
  ["typ", 0x00, HvMessageType.u32, "What the message says; 0 means that the slot is empty"],
  ["len", 0x04, u8, "Bytes of payload that are used; at most 240"],
  ["flags", 0x05, HvMessageFlags, "State of the slot"],
  reserved(0x06, 2),
  ["id", 0x08, u64, "Sender: partition id or port id"],
], "openvmm: vm/hv1/hvdef HvMessageHeader");

/** A message in its slot: header and payload. */
export const HvMessage = structure("HvMessage", 0x100, [
  ["header", 0x00, HvMessageHeader, "Type, length and sender"],
  ["payload_buffer", 0x10, bytes(240), "What the type says it is"],
], "openvmm: vm/hv1/hvdef HvMessage");

/** Payload of HvMessageTypeTimerExpired. */
export const TimerMessagePayload = structure("TimerMessagePayload", 0x18, [
  ["timer_index", 0x00, u32, "Which synthetic timer of the virtual processor"],
  reserved(0x04, 4),
  ["expiration_time", 0x08, u64, "When it was due, in 100 ns of reference time"],
  ["delivery_time", 0x10, u64, "When the message was made, in 100 ns of reference time"],
], "openvmm: vm/hv1/hvdef TimerMessagePayload");

/** Mode of the intercepted VTL at the intercept. */
export const HvX64VpExecutionState = bits("HvX64VpExecutionState", u16, [
  [0, 2, "cpl", "Current privilege level"],
  [2, 1, "cr0_pe", "CR0.PE: protected mode"],
  [3, 1, "cr0_am", "CR0.AM: alignment checks possible"],
  [4, 1, "efer_lma", "EFER.LMA: long mode is active"],
  [5, 1, "debug_active", "A breakpoint of DR7 is enabled"],
  [6, 1, "interruption_pending", "An event was being delivered when the intercept happened"],
  [7, 4, "vtl", "Virtual trust level that was intercepted"],
  [11, 1, "enclave_mode", "The processor was in an enclave"],
  [12, 1, "interrupt_shadow", "The instruction follows STI or a load of SS"],
  [13, 1, "virtualization_fault_active", "A virtualization fault is being delivered"],
], "openvmm: vm/hv1/hvdef HvX64VpExecutionState");

/** A byte of the intercept header that holds two numbers. */
export const HvInterceptInstructionLengthAndCr8 = bits("HvInterceptInstructionLengthAndCr8", u8, [
  [0, 4, "instruction_length", "Bytes of the intercepted instruction; 0 where the hypervisor did not decode it"],
  [4, 4, "cr8", "Task priority, CR8; filled in for some partitions only"],
], "openvmm: vm/hv1/hvdef HvX64InterceptMessageHeader::instruction_len/cr8");

/** State of the virtual processor with which nearly every intercept payload begins. */
export const HvX64InterceptMessageHeader = structure("HvX64InterceptMessageHeader", 0x28, [
  ["vp_index", 0x00, u32, "Virtual processor that was intercepted"],
  ["instruction_length_and_cr8", 0x04, HvInterceptInstructionLengthAndCr8, "Instruction's length, and CR8"],
  ["intercept_access_type", 0x05, HvInterceptAccessType.u8, "Read, write or execute"],
  ["execution_state", 0x06, HvX64VpExecutionState, "Mode of the processor"],
  ["cs_segment", 0x08, HvX64SegmentRegister, "Code segment of the instruction"],
  ["rip", 0x18, u64, "The intercepted instruction; not advanced"],
  ["rflags", 0x20, u64, "Flags before the instruction"],
], "openvmm: vm/hv1/hvdef HvX64InterceptMessageHeader");

/** How a port was accessed. */
export const HvX64IoPortAccessInfo = bits("HvX64IoPortAccessInfo", u8, [
  [0, 3, "access_size", "Bytes of one element: 1, 2 or 4"],
  [3, 1, "string_op", "INS or OUTS"],
  [4, 1, "rep_prefix", "The instruction carries a REP prefix"],
], "openvmm: vm/hv1/hvdef HvX64IoPortAccessInfo");

/** Payload of HvMessageTypeX64IoPortIntercept. */
export const HvX64IoPortInterceptMessage = structure("HvX64IoPortInterceptMessage", 0x80, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["port_number", 0x28, u16, "Port of the first byte accessed"],
  ["access_info", 0x2a, HvX64IoPortAccessInfo, "Size and form of the access"],
  ["instruction_byte_count", 0x2b, u8, "How many of instruction_bytes are valid; 0 to 16"],
  reserved(0x2c, 4),
  ["rax", 0x30, u64, "Whole RAX before the instruction; OUT writes its low bytes"],
  ["instruction_bytes", 0x38, bytes(16), "Bytes of the intercepted instruction, from its first"],
  ["ds_segment", 0x48, HvX64SegmentRegister, "Data segment, the source of OUTS unless overridden"],
  ["es_segment", 0x58, HvX64SegmentRegister, "Extra segment, the target of INS"],
  ["rcx", 0x68, u64, "Remaining count of a REP form"],
  ["rsi", 0x70, u64, "Source index of OUTS"],
  ["rdi", 0x78, u64, "Destination index of INS"],
], "openvmm: vm/hv1/hvdef HvX64IoPortInterceptMessage");

/** What is known about an intercepted memory access. */
export const HvX64MemoryAccessInfo = bits("HvX64MemoryAccessInfo", u8, [
  [0, 1, "gva_valid", "guest_virtual_address is known"],
  [1, 1, "gva_gpa_valid", "The pair of virtual and physical address is a valid translation"],
  [2, 1, "hypercall_output_pending", "The access is the hypervisor's, writing a hypercall's output"],
  [3, 1, "tlb_locked", "The VTL's TLB was locked: the translation still holds"],
  [4, 1, "supervisor_shadow_stack", "The access was to a supervisor shadow stack"],
], "openvmm: vm/hv1/hvdef HvX64MemoryAccessInfo");

/** Payload of HvMessageTypeUnmappedGpa, HvMessageTypeGpaIntercept and HvMessageTypeUnacceptedGpa. */
export const HvX64MemoryInterceptMessage = structure("HvX64MemoryInterceptMessage", 0x50, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["cache_type", 0x28, HvCacheType.u32, "Memory type of the access"],
  ["instruction_byte_count", 0x2c, u8, "How many of instruction_bytes are valid; 0 to 16"],
  ["memory_access_info", 0x2d, HvX64MemoryAccessInfo, "Which of the addresses below are known"],
  ["tpr_priority", 0x2e, u8, "Bits 7:4 of the task priority"],
  reserved(0x2f, 1),
  ["guest_virtual_address", 0x30, u64, "Linear address of the access"],
  ["guest_physical_address", 0x38, u64, "Guest-physical address of the access"],
  ["instruction_bytes", 0x40, bytes(16), "Bytes of the intercepted instruction, from its first"],
], "openvmm: vm/hv1/hvdef HvX64MemoryInterceptMessage");

/** Payload of HvMessageTypeMsrIntercept. */
export const HvX64MsrInterceptMessage = structure("HvX64MsrInterceptMessage", 0x40, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["msr_number", 0x28, u32, "ECX: which model-specific register"],
  reserved(0x2c, 4),
  ["rdx", 0x30, u64, "Whole RDX before the instruction; a write takes its low half as bits 63:32"],
  ["rax", 0x38, u64, "Whole RAX before the instruction; a write takes its low half as bits 31:0"],
], "openvmm: vm/hv1/hvdef HvX64MsrInterceptMessage");

/** Payload of HvMessageTypeX64SipiIntercept. */
export const HvX64SipiInterceptMessage = structure("HvX64SipiInterceptMessage", 0x30, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["target_vp_index", 0x28, u32, "Virtual processor to be started"],
  ["vector", 0x2c, u32, "Page number of the real-mode start address"],
], "openvmm: vm/hv1/hvdef HvX64SipiInterceptMessage");

/** Payload of HvMessageTypeSynicSintDeliverable. */
export const HvX64SynicSintDeliverableMessage = structure("HvX64SynicSintDeliverableMessage", 0x30, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["deliverable_sints", 0x28, u16, "One bit for each synthetic interrupt source that now has room for a message"],
  reserved(0x2a, 2),
  reserved(0x2c, 4),
], "openvmm: vm/hv1/hvdef HvX64SynicSintDeliverableMessage");

/** Payload of HvMessageTypeX64InterruptionDeliverable. */
export const HvX64InterruptionDeliverableMessage = structure("HvX64InterruptionDeliverableMessage", 0x30, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  [
    "deliverable_type",
    0x28,
    HvX64PendingInterruptionType.u8,
    "What can now be delivered; the C headers let it cover the three bytes after it",
  ],
  reserved(0x29, 3),
  reserved(0x2c, 4),
], "openvmm: vm/hv1/hvdef HvX64InterruptionDeliverableMessage");

/** Flags of an intercepted hypercall. */
export const HvHypercallInterceptMessageFlags = bits("HvHypercallInterceptMessageFlags", u32, [
  [0, 1, "is_isolated", "The caller is an isolated partition"],
], "openvmm: vm/hv1/hvdef HvHypercallInterceptMessageFlags");

/** Payload of HvMessageTypeHypercallIntercept. */
export const HvX64HypercallInterceptMessage = structure("HvX64HypercallInterceptMessage", 0xd0, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["rax", 0x28, u64, "RAX at the call: output register"],
  ["rbx", 0x30, u64, "RBX at the call: upper half of the 32-bit form's input address"],
  ["rcx", 0x38, u64, "RCX at the call: control word in 64-bit mode"],
  ["rdx", 0x40, u64, "RDX at the call: input address, or first word of a fast call"],
  ["r8", 0x48, u64, "R8 at the call: output address, or second word of a fast call"],
  ["rsi", 0x50, u64, "RSI at the call: lower half of the 32-bit form's output address"],
  ["rdi", 0x58, u64, "RDI at the call: upper half of the 32-bit form's output address"],
  ["xmm_registers", 0x60, array(u128, 6, XMM_LOW_NAMES), "XMM registers that carry a fast call's further input"],
  ["flags", 0xc0, HvHypercallInterceptMessageFlags, "Flags of the call"],
  reserved(0xc4, 12),
], "openvmm: vm/hv1/hvdef HvX64HypercallInterceptMessage");

/** Payload of HvMessageTypeX64CpuidIntercept. */
export const HvX64CpuidInterceptMessage = structure("HvX64CpuidInterceptMessage", 0x68, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["rax", 0x28, u64, "RAX before the instruction; EAX is the leaf"],
  ["rcx", 0x30, u64, "RCX before the instruction; ECX is the subleaf"],
  ["rdx", 0x38, u64, "RDX before the instruction"],
  ["rbx", 0x40, u64, "RBX before the instruction"],
  ["default_result_rax", 0x48, u64, "What the hypervisor would return in EAX"],
  ["default_result_rcx", 0x50, u64, "What the hypervisor would return in ECX"],
  ["default_result_rdx", 0x58, u64, "What the hypervisor would return in EDX"],
  ["default_result_rbx", 0x60, u64, "What the hypervisor would return in EBX"],
], "openvmm: vm/hv1/hvdef HvX64CpuidInterceptMessage");

/** What is known about an intercepted exception. */
export const HvX64ExceptionInfo = bits("HvX64ExceptionInfo", u8, [
  [0, 1, "error_code_valid", "The exception pushes error_code"],
  [1, 1, "software_exception", "It was raised by an instruction such as INT3 or INTO"],
], "openvmm: vm/hv1/hvdef HvX64ExceptionInfo");

/** Payload of HvMessageTypeExceptionIntercept. */
export const HvX64ExceptionInterceptMessage = structure("HvX64ExceptionInterceptMessage", 0xf0, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["vector", 0x28, u16, "Exception vector"],
  ["exception_info", 0x2a, HvX64ExceptionInfo, "Which fields below count"],
  ["instruction_byte_count", 0x2b, u8, "How many of instruction_bytes are valid; 0 to 16"],
  ["error_code", 0x2c, u32, "Error code that delivery would push"],
  ["exception_parameter", 0x30, u64, "Linear address of a page fault, DR6 bits of a debug exception"],
  reserved(0x38, 8),
  ["instruction_bytes", 0x40, bytes(16), "Bytes of the intercepted instruction, from its first"],
  ["ds_segment", 0x50, HvX64SegmentRegister, "Data segment"],
  ["ss_segment", 0x60, HvX64SegmentRegister, "Stack segment"],
  ["rax", 0x70, u64, "General-purpose registers before delivery"],
  ["rcx", 0x78, u64, "Before delivery"],
  ["rdx", 0x80, u64, "Before delivery"],
  ["rbx", 0x88, u64, "Before delivery"],
  ["rsp", 0x90, u64, "Before delivery"],
  ["rbp", 0x98, u64, "Before delivery"],
  ["rsi", 0xa0, u64, "Before delivery"],
  ["rdi", 0xa8, u64, "Before delivery"],
  ["r8", 0xb0, u64, "Before delivery"],
  ["r9", 0xb8, u64, "Before delivery"],
  ["r10", 0xc0, u64, "Before delivery"],
  ["r11", 0xc8, u64, "Before delivery"],
  ["r12", 0xd0, u64, "Before delivery"],
  ["r13", 0xd8, u64, "Before delivery"],
  ["r14", 0xe0, u64, "Before delivery"],
  ["r15", 0xe8, u64, "Before delivery"],
], "openvmm: vm/hv1/hvdef HvX64ExceptionInterceptMessage");

/** Payload of HvMessageTypeInvalidVpRegisterValue. */
export const HvInvalidVpRegisterMessage = structure("HvInvalidVpRegisterMessage", 0x08, [
  ["vp_index", 0x00, u32, "Virtual processor whose register state cannot be entered"],
  reserved(0x04, 4),
], "openvmm: vm/hv1/hvdef HvInvalidVpRegisterMessage");

/** Payload of HvMessageTypeX64ApicEoi; it has no intercept header. */
export const HvX64ApicEoiMessage = structure("HvX64ApicEoiMessage", 0x08, [
  ["vp_index", 0x00, u32, "Virtual processor that ended the interrupt"],
  ["interrupt_vector", 0x04, u32, "Level-triggered vector that was ended"],
], "openvmm: vm/hv1/hvdef HvX64ApicEoiMessage");

/** Payload of HvMessageTypeUnrecoverableException: a triple fault. */
export const HvX64UnrecoverableExceptionMessage = structure("HvX64UnrecoverableExceptionMessage", 0x28, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
], "openvmm: vm/hv1/hvdef HvX64UnrecoverableExceptionMessage");

/** Payload of HvMessageTypeX64Halt. */
export const HvX64HaltMessage = structure("HvX64HaltMessage", 0x28, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
], "openvmm: vm/hv1/hvdef HvX64HaltMessage");

/** Flags of an intercepted register access. */
export const HvX64RegisterInterceptMessageFlags = bits("HvX64RegisterInterceptMessageFlags", u8, [
  [0, 1, "is_memory_op", "The instruction's operand is memory, not a register"],
], "openvmm: vm/hv1/hvdef HvX64RegisterInterceptMessageFlags");

/** What an intercepted register access read or would write. */
export const HvX64RegisterAccessInfo = union("HvX64RegisterAccessInfo", 0x10, [
  ["source_value", 0x00, HvRegisterValue, "Value that would be written"],
  ["destination_register", 0x00, u32, "Register that would receive the value read"],
  ["source_address", 0x00, u64, "Address of the memory operand to be read"],
  ["destination_address", 0x00, u64, "Address of the memory operand to be written"],
], "openvmm: vm/hv1/hvdef HvX64RegisterAccessInfo");

/** Payload of HvMessageTypeRegisterIntercept. */
export const HvX64RegisterInterceptMessage = structure("HvX64RegisterInterceptMessage", 0x40, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["flags", 0x28, HvX64RegisterInterceptMessageFlags, "Form of the access"],
  reserved(0x29, 1),
  reserved(0x2a, 2),
  ["register_name", 0x2c, HvX64RegisterName.u32, "Register that was accessed"],
  ["access_info", 0x30, HvX64RegisterAccessInfo, "Value or place of the other operand"],
], "openvmm: vm/hv1/hvdef HvX64RegisterInterceptMessage");

/** What a VMGEXIT intercept carries. */
export const HvX64VmgexitInterceptMessageFlags = bits("HvX64VmgexitInterceptMessageFlags", u64, [
  [0, 1, "ghcb_page_valid", "The copy of the GHCB's fields below is valid"],
  [1, 1, "ghcb_request_error", "The GHCB could not be read"],
], "openvmm: vm/hv1/hvdef HvX64VmgexitInterceptMessageFlags");

/** GHCB fields that the hypervisor copied when the guest left. */
export const HvX64VmgexitInterceptMessageGhcbPageStandard = structure(
  "HvX64VmgexitInterceptMessageGhcbPageStandard",
  0x28,
  [
    ["ghcb_protocol_version", 0x00, u16, "Protocol version of the GHCB"],
    reserved(0x02, 6),
    ["sw_exit_code", 0x08, u64, "SW_EXITCODE"],
    ["sw_exit_info1", 0x10, u64, "SW_EXITINFO1"],
    ["sw_exit_info2", 0x18, u64, "SW_EXITINFO2"],
    ["sw_scratch", 0x20, u64, "SW_SCRATCH: guest-physical address of the shared buffer"],
  ],
  "openvmm: vm/hv1/hvdef HvX64VmgexitInterceptMessageGhcbPageStandard",
);

/** Copy of the GHCB of a VMGEXIT intercept. */
export const HvX64VmgexitInterceptMessageGhcbPage = structure("HvX64VmgexitInterceptMessageGhcbPage", 0x30, [
  ["ghcb_usage", 0x00, u32, "Format of the GHCB; 0 is the standard one"],
  reserved(0x04, 4),
  ["standard", 0x08, HvX64VmgexitInterceptMessageGhcbPageStandard, "Fields of the standard format"],
], "openvmm: vm/hv1/hvdef HvX64VmgexitInterceptMessageGhcbPage");

/** Payload of HvMessageTypeX64SevVmgexitIntercept. */
export const HvX64VmgexitInterceptMessage = structure("HvX64VmgexitInterceptMessage", 0x68, [
  ["header", 0x00, HvX64InterceptMessageHeader, "What every intercept message begins with"],
  ["ghcb_msr", 0x28, u64, "GHCB MSR, C0010130"],
  ["flags", 0x30, HvX64VmgexitInterceptMessageFlags, "What follows"],
  ["ghcb_page", 0x38, HvX64VmgexitInterceptMessageGhcbPage, "Copy of the guest's GHCB fields"],
], "openvmm: vm/hv1/hvdef HvX64VmgexitInterceptMessage");

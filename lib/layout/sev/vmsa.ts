/**
 * The VMSA: a processor's state that SEV-ES encrypts, one page for each virtual processor and, with SNP, for each
 * VMPL (AMD64 Architecture Programmer's Manual volume 2, appendix B; openvmm `vm/x86/x86defs` SevVmsa; Linux
 * sev_es_save_area).
 *
 * Columns tell how OpenHCL treats a field: `access` xor64 or xor32 when register protection stores it XORed with the
 * nonce where its bit of the tweak bitmap is set, `direct` when it is never XORed; `asserted_unprotected` when its
 * bit must be clear; `copied_on_vtl_switch` when a VTL switch copies it from one VTL's VMSA to the other's.
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, bytes, u128, u16, u32, u64, u8 } from "../field_type.ts";
import { openEnum } from "../open_enum.ts";
import { reserved, structure } from "../structure.ts";
import { XMM_NAMES, YMM_NAMES } from "../x64/names.ts";
import { SevExitCode } from "./constants/exit_codes.ts";

/** Access rights of a segment, packed: the descriptor's bits without the gap. */
export const SEV_SEGMENT_ATTRIB = bits("SEV_SEGMENT_ATTRIB", u16, [
  [0, 4, "type", "Type of code, data or system segment"],
  [4, 1, "s", "Code or data, not a system segment"],
  [5, 2, "dpl", "Descriptor privilege level"],
  [7, 1, "p", "Present"],
  [8, 1, "avl", "Free for software"],
  [9, 1, "l", "64-bit code"],
  [10, 1, "db", "Default operand size is 32 bits"],
  [11, 1, "g", "The limit counts pages in the descriptor"],
], "microsoft/openvmm: openhcl/virt_mshv_vtl/src/processor/snp/mod.rs virt_seg_to_snp");

/** A segment or descriptor-table register; Hyper-V's HvX64SegmentRegister has another order. */
export const SEV_SEGMENT = structure("SEV_SEGMENT", 0x10, [
  ["selector", 0x00, u16, "Selector"],
  ["attrib", 0x02, SEV_SEGMENT_ATTRIB, "Packed access rights"],
  ["limit", 0x04, u32, "Last valid offset in bytes, granularity applied"],
  ["base", 0x08, u64, "Linear base address"],
], "torvalds/linux: arch/x86/include/asm/svm.h vmcb_seg");

/** Features of an SEV virtual processor, in the VMSA. */
export const SEV_FEATURES = bits("SEV_FEATURES", u64, [
  [0, 1, "snp", "SNP is active"],
  [1, 1, "vtom", "Addresses from virtual_tom on are shared"],
  [2, 1, "reflect_vc", "#VC of this VMPL becomes an exit that the VMPL0 software handles"],
  [3, 1, "restricted_injection", "The host may inject #HV only"],
  [4, 1, "alternate_injection", "Events are injected through the VMSA, by VMPL0 software"],
  [5, 1, "debug_swap", "Hardware swaps DR0 to DR3 and their masks"],
  [6, 1, "prevent_host_ibs", "The host's instruction-based sampling stops"],
  [7, 1, "btb_isolation", "Branch target isolation"],
  [8, 1, "vmpl_sss", "VMPL checks of supervisor shadow stacks"],
  [9, 1, "secure_tsc", "The TSC is the guest's own"],
  [10, 1, "vmgexit_param", "VMGEXIT takes a parameter"],
  [11, 1, "pmc_virt", "Performance counters are virtualised"],
  [12, 1, "ibs_virt", "Instruction-based sampling is virtualised"],
  [13, 1, "guest_intercept_control", "VMPL0 software chooses intercepts"],
  [14, 1, "vmsa_reg_prot", "Registers in the VMSA are protected by a nonce"],
  [15, 1, "smt_prot", "The sibling thread must not run something else"],
  [16, 1, "secure_avic", "Secure AVIC"],
  [21, 1, "ibpb_on_entry", "Branch prediction barrier on entry"],
  [63, 1, "allowed_sev_features_enable", "VMCB_CONTROL.allowed_sev_features only: check the features"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevFeatures");

/** Virtual interrupt control in the VMSA, used with alternate injection. */
export const V_INTR_CTRL = bits("V_INTR_CTRL", u64, [
  [0, 8, "v_tpr", "Virtual task priority"],
  [8, 1, "v_irq", "A virtual interrupt is pending"],
  [9, 1, "v_gif", "Virtual global interrupt flag"],
  [10, 1, "intr_shadow", "The guest is in an interrupt shadow"],
  [11, 1, "v_nmi", "A virtual NMI is pending"],
  [12, 1, "v_nmi_mask", "Virtual NMIs are masked"],
  [16, 4, "v_intr_prio", "Priority of the virtual interrupt"],
  [20, 1, "v_ign_tpr", "The task priority does not hold it back"],
  [26, 1, "v_nmi_enable", "Virtual NMIs are used"],
  [32, 8, "v_intr_vector", "Vector of the virtual interrupt"],
  [63, 1, "guest_busy", "The VMSA is in use: VMRUN fails"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevVirtualInterruptControl");

/** Type of an injected or interrupted event (AMD64 APM volume 2, EVENTINJ). */
export const EventInjType = openEnum("EventInjType", {
  INTR: 0,
  NMI: 2,
  EXCEPTION: 3,
  SOFTWARE_INTERRUPT: 4,
});

/** An event to inject, or one whose delivery an exit interrupted. */
export const EVENT_INJ = bits("EVENT_INJ", u64, [
  [0, 8, "vector", "Vector"],
  [8, 3, "type", "Kind of event", EventInjType],
  [11, 1, "error_code_valid", "Delivery pushes error_code"],
  [31, 1, "valid", "There is an event"],
  [32, 32, "error_code", "Error code to push"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevEventInjectInfo");

/** Secure AVIC control. */
export const SECURE_AVIC_CONTROL = bits("SECURE_AVIC_CONTROL", u64, [
  [0, 1, "secure_avic_en", "Secure AVIC is on"],
  [1, 1, "allowed_nmi", "The host may inject NMIs"],
  [12, 52, "guest_apic_backing_page_ptr", "Guest-physical page number of SEV_AVIC_PAGE"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SecureAvicControl");

/** The encrypted save area. */
export const VMSA = structure("VMSA", 0x1000, [
  ["es", 0x000, SEV_SEGMENT, "Extra segment", { access: "xor64" }],
  ["cs", 0x010, SEV_SEGMENT, "Code segment", { access: "xor64" }],
  ["ss", 0x020, SEV_SEGMENT, "Stack segment", { access: "xor64" }],
  ["ds", 0x030, SEV_SEGMENT, "Data segment", { access: "xor64" }],
  ["fs", 0x040, SEV_SEGMENT, "FS segment", { access: "xor64" }],
  ["gs", 0x050, SEV_SEGMENT, "GS segment", { access: "xor64" }],
  ["gdtr", 0x060, SEV_SEGMENT, "Global descriptor table; only limit and base count", { access: "xor64" }],
  ["ldtr", 0x070, SEV_SEGMENT, "Local descriptor table", { access: "xor64" }],
  ["idtr", 0x080, SEV_SEGMENT, "Interrupt descriptor table; only limit and base count", { access: "xor64" }],
  ["tr", 0x090, SEV_SEGMENT, "Task register", { access: "xor64" }],
  ["pl0_ssp", 0x0a0, u64, "Shadow stack pointer of CPL 0", { access: "xor64", copied_on_vtl_switch: true }],
  ["pl1_ssp", 0x0a8, u64, "Shadow stack pointer of CPL 1", { access: "xor64", copied_on_vtl_switch: true }],
  ["pl2_ssp", 0x0b0, u64, "Shadow stack pointer of CPL 2", { access: "xor64", copied_on_vtl_switch: true }],
  ["pl3_ssp", 0x0b8, u64, "Shadow stack pointer of CPL 3", { access: "xor64", copied_on_vtl_switch: true }],
  ["u_cet", 0x0c0, u64, "User control-flow enforcement", { access: "xor64", copied_on_vtl_switch: true }],
  reserved(0x0c8, 2),
  ["vmpl", 0x0ca, u8, "Privilege level of this VMSA; SNP only", { access: "direct", asserted_unprotected: true }],
  ["cpl", 0x0cb, u8, "Current privilege level", { access: "direct" }],
  reserved(0x0cc, 4),
  ["efer", 0x0d0, u64, "Extended feature enable; SVME must be set", { access: "xor64" }],
  reserved(0x0d8, 104),
  ["xss", 0x140, u64, "Extended supervisor state mask", { access: "xor64" }],
  ["cr4", 0x148, u64, "Control register 4", { access: "xor64" }],
  ["cr3", 0x150, u64, "Page-table base", { access: "xor64" }],
  ["cr0", 0x158, u64, "Control register 0", { access: "xor64" }],
  ["dr7", 0x160, u64, "Debug control", { access: "xor64" }],
  ["dr6", 0x168, u64, "Debug status; not copied on a VTL switch", { access: "xor64" }],
  ["rflags", 0x170, u64, "Flags", { access: "xor64" }],
  ["rip", 0x178, u64, "Instruction pointer", { access: "xor64" }],
  ["dr0", 0x180, u64, "Breakpoint address 0", { access: "xor64", copied_on_vtl_switch: true }],
  ["dr1", 0x188, u64, "Breakpoint address 1", { access: "xor64", copied_on_vtl_switch: true }],
  ["dr2", 0x190, u64, "Breakpoint address 2", { access: "xor64", copied_on_vtl_switch: true }],
  ["dr3", 0x198, u64, "Breakpoint address 3", { access: "xor64", copied_on_vtl_switch: true }],
  ["dr0_addr_mask", 0x1a0, u64, "Mask of breakpoint address 0"],
  ["dr1_addr_mask", 0x1a8, u64, "Mask of breakpoint address 1"],
  ["dr2_addr_mask", 0x1b0, u64, "Mask of breakpoint address 2"],
  ["dr3_addr_mask", 0x1b8, u64, "Mask of breakpoint address 3"],
  reserved(0x1c0, 24),
  ["rsp", 0x1d8, u64, "Stack pointer", { access: "xor64" }],
  ["s_cet", 0x1e0, u64, "Supervisor control-flow enforcement", { access: "xor64" }],
  ["ssp", 0x1e8, u64, "Shadow stack pointer", { access: "xor64" }],
  ["isst_addr", 0x1f0, u64, "Interrupt shadow-stack table address", { access: "xor64" }],
  ["rax", 0x1f8, u64, "RAX", { access: "xor64", copied_on_vtl_switch: true }],
  ["star", 0x200, u64, "System-call selectors", { access: "xor64" }],
  ["lstar", 0x208, u64, "64-bit system-call target", { access: "xor64" }],
  ["cstar", 0x210, u64, "Compatibility-mode system-call target", { access: "xor64" }],
  ["sfmask", 0x218, u64, "Flags that SYSCALL clears", { access: "xor64" }],
  ["kernel_gs_base", 0x220, u64, "Base that SWAPGS exchanges", { access: "xor64" }],
  ["sysenter_cs", 0x228, u64, "SYSENTER code selector", { access: "xor64" }],
  ["sysenter_esp", 0x230, u64, "SYSENTER stack pointer", { access: "xor64" }],
  ["sysenter_eip", 0x238, u64, "SYSENTER target", { access: "xor64" }],
  ["cr2", 0x240, u64, "Page-fault linear address", { access: "xor64", copied_on_vtl_switch: true }],
  reserved(0x248, 32),
  ["g_pat", 0x268, u64, "Page attribute table", { access: "xor64" }],
  ["dbgctl", 0x270, u64, "Debug extension control"],
  ["br_from", 0x278, u64, "Last branch: from"],
  ["br_to", 0x280, u64, "Last branch: to"],
  ["last_excp_from", 0x288, u64, "Last exception: from"],
  ["last_excp_to", 0x290, u64, "Last exception: to"],
  reserved(0x298, 72),
  ["spec_ctrl", 0x2e0, u64, "Speculation control", { access: "xor64" }],
  ["pkru", 0x2e8, u32, "Protection keys for user pages"],
  ["tsc_aux", 0x2ec, u32, "What RDTSCP returns in ECX", { access: "xor32" }],
  ["tsc_scale", 0x2f0, u64, "TSC scale of Secure TSC"],
  ["tsc_offset", 0x2f8, u64, "TSC offset of Secure TSC"],
  ["reg_prot_nonce", 0x300, u64, "Nonce with which protected registers are XORed"],
  ["rcx", 0x308, u64, "RCX", { access: "xor64", copied_on_vtl_switch: true }],
  ["rdx", 0x310, u64, "RDX", { access: "xor64", copied_on_vtl_switch: true }],
  ["rbx", 0x318, u64, "RBX", { access: "xor64", copied_on_vtl_switch: true }],
  ["secure_avic_control", 0x320, SECURE_AVIC_CONTROL, "Secure AVIC control", { access: "direct" }],
  ["rbp", 0x328, u64, "RBP", { access: "xor64", copied_on_vtl_switch: true }],
  ["rsi", 0x330, u64, "RSI", { access: "xor64", copied_on_vtl_switch: true }],
  ["rdi", 0x338, u64, "RDI", { access: "xor64", copied_on_vtl_switch: true }],
  ["r8", 0x340, u64, "R8", { access: "xor64", copied_on_vtl_switch: true }],
  ["r9", 0x348, u64, "R9", { access: "xor64", copied_on_vtl_switch: true }],
  ["r10", 0x350, u64, "R10", { access: "xor64", copied_on_vtl_switch: true }],
  ["r11", 0x358, u64, "R11", { access: "xor64", copied_on_vtl_switch: true }],
  ["r12", 0x360, u64, "R12", { access: "xor64", copied_on_vtl_switch: true }],
  ["r13", 0x368, u64, "R13", { access: "xor64", copied_on_vtl_switch: true }],
  ["r14", 0x370, u64, "R14", { access: "xor64", copied_on_vtl_switch: true }],
  ["r15", 0x378, u64, "R15", { access: "xor64", copied_on_vtl_switch: true }],
  reserved(0x380, 16),
  ["guest_exit_info_1", 0x390, u64, "EXITINFO1 of an exit reflected to VMPL0", {
    access: "direct",
    asserted_unprotected: true,
  }],
  ["guest_exit_info_2", 0x398, u64, "EXITINFO2 of that exit; guest-physical address of a nested page fault", {
    access: "direct",
    asserted_unprotected: true,
  }],
  ["guest_exit_int_info", 0x3a0, EVENT_INJ, "Event whose delivery that exit interrupted", {
    access: "direct",
    asserted_unprotected: true,
  }],
  ["guest_nrip", 0x3a8, u64, "Next instruction of that exit; not for AVIC_NOACCEL", { access: "xor64" }],
  ["sev_features", 0x3b0, SEV_FEATURES, "Features of this virtual processor", {
    access: "direct",
    asserted_unprotected: true,
  }],
  ["vintr_ctrl", 0x3b8, V_INTR_CTRL, "Virtual interrupt control", { access: "direct", asserted_unprotected: true }],
  ["guest_exit_code", 0x3c0, SevExitCode.u64, "Exit code of the reflected exit", {
    access: "direct",
    asserted_unprotected: true,
  }],
  ["virtual_tom", 0x3c8, u64, "Guest-physical addresses from here on are shared, when sev_features.vtom is set", {
    access: "direct",
    asserted_unprotected: true,
  }],
  ["tlb_id", 0x3d0, u64, "TLB id; clearing it flushes"],
  ["pcpu_id", 0x3d8, u64, "Physical processor on which it ran last", { access: "xor64" }],
  ["event_inj", 0x3e0, EVENT_INJ, "Event to inject, with alternate injection", { access: "direct" }],
  ["xcr0", 0x3e8, u64, "Extended feature mask", { access: "xor64", copied_on_vtl_switch: true }],
  ["xsave_valid_bitmap", 0x3f0, bytes(16), "Named by openvmm only; meaning uncertain"],
  ["x87_dp", 0x400, u64, "Last x87 operand's address"],
  ["mxcsr", 0x408, u32, "SSE control and status"],
  ["x87_ftw", 0x40c, u16, "x87 tag word"],
  ["x87_fsw", 0x40e, u16, "x87 status word"],
  ["x87_fcw", 0x410, u16, "x87 control word"],
  ["x87_fop", 0x412, u16, "Last x87 opcode"],
  ["x87_ds", 0x414, u16, "Last x87 operand's segment"],
  ["x87_cs", 0x416, u16, "Last x87 instruction's segment"],
  ["x87_rip", 0x418, u64, "Last x87 instruction's address"],
  ["fpreg_x87", 0x420, array(u64, 10), "Eight x87 registers of 10 bytes each, without gaps", {
    access: "xor64",
    copied_on_vtl_switch: true,
  }],
  ["fpreg_xmm", 0x470, array(u128, 16, XMM_NAMES), "XMM registers", { access: "xor64", copied_on_vtl_switch: true }],
  ["fpreg_ymm", 0x570, array(u128, 16, YMM_NAMES), "Upper halves of the YMM registers", {
    access: "xor64",
    copied_on_vtl_switch: true,
  }],
  ["lbr_stack", 0x670, bytes(256), "Last-branch records"],
  ["lbr_select", 0x770, u64, "Which branches are recorded"],
  ["ibs_fetch_ctl", 0x778, u64, "Instruction-based sampling: fetch control"],
  ["ibs_fetch_linaddr", 0x780, u64, "Instruction-based sampling: fetch address"],
  ["ibs_op_ctl", 0x788, u64, "Instruction-based sampling: operation control"],
  ["ibs_op_rip", 0x790, u64, "Instruction-based sampling: operation address"],
  ["ibs_op_data", 0x798, u64, "Instruction-based sampling: operation data"],
  ["ibs_op_data2", 0x7a0, u64, "Instruction-based sampling: operation data"],
  ["ibs_op_data3", 0x7a8, u64, "Instruction-based sampling: operation data"],
  ["ibs_dc_linaddr", 0x7b0, u64, "Instruction-based sampling: data address"],
  ["bp_ibstgt_rip", 0x7b8, u64, "Instruction-based sampling: branch target"],
  ["ic_ibs_extd_ctl", 0x7c0, u64, "Instruction-based sampling: extended control"],
  reserved(0x7c8, 2104),
], "torvalds/linux: arch/x86/include/asm/svm.h sev_es_save_area");

/** Packs access rights of a descriptor (with the gap at bits 11:8) for a VMSA. */
export function packSegmentAttributes(attributes: number): number {
  return (attributes & 0xff) | ((attributes >> 4) & 0xf00);
}

/** Unpacks access rights of a VMSA to the descriptor's form (with the gap at bits 11:8). */
export function unpackSegmentAttributes(attrib: number): number {
  return (attrib & 0xff) | ((attrib & 0xf00) << 4);
}

/** Where the register-protection bitmap keeps the bit of the qword at byte `offset` of the VMSA. */
export function tweakBit(offset: number): { readonly byte: number; readonly bit: number } {
  return { byte: offset >> 6, bit: (offset & 63) >> 3 };
}

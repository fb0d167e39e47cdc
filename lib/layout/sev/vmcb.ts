/**
 * The VMCB, through which the host runs a virtual processor (AMD64 Architecture Programmer's Manual volume 2,
 * appendix B; Linux `asm/svm.h`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { SevExitCode } from "./constants/exit_codes.ts";
import { EventInjType, SEV_FEATURES, SEV_SEGMENT } from "./vmsa.ts";

/** Low half of EVENT_INJ; the error code is the following field. */
export const VMCB_EVENT_INJ_LO = bits("VMCB_EVENT_INJ_LO", u32, [
  [0, 8, "vector", "Vector"],
  [8, 3, "type", "Kind of event", EventInjType],
  [11, 1, "error_code_valid", "Delivery pushes the error code"],
  [31, 1, "valid", "There is an event"],
], "torvalds/linux: arch/x86/include/asm/svm.h SVM_EVTINJ_VALID");

/** Virtual interrupt control of the VMCB. */
export const VMCB_INT_CTL = bits("VMCB_INT_CTL", u32, [
  [0, 8, "v_tpr", "Virtual task priority"],
  [8, 1, "v_irq", "A virtual interrupt is pending"],
  [9, 1, "v_gif", "Virtual global interrupt flag"],
  [11, 1, "v_nmi_pending", "A virtual NMI is pending"],
  [12, 1, "v_nmi_blocking", "Virtual NMIs are masked"],
  [16, 4, "v_intr_prio", "Priority of the virtual interrupt"],
  [20, 1, "v_ign_tpr", "The task priority does not hold it back"],
  [24, 1, "v_intr_masking", "RFLAGS.IF of the guest masks virtual interrupts only"],
  [25, 1, "v_gif_enable", "The virtual global interrupt flag is used"],
  [26, 1, "v_nmi_enable", "Virtual NMIs are used"],
  [30, 1, "x2avic_enable", "x2APIC form of AVIC"],
  [31, 1, "avic_enable", "AVIC is on"],
], "torvalds/linux: arch/x86/include/asm/svm.h V_IRQ_MASK");

/** Interrupt state at an exit. */
export const VMCB_INT_STATE = bits("VMCB_INT_STATE", u32, [
  [0, 1, "interrupt_shadow", "The guest is in an interrupt shadow"],
  [1, 1, "guest_interrupt_mask", "RFLAGS.IF of an SEV-ES guest"],
], "torvalds/linux: arch/x86/include/asm/svm.h SVM_GUEST_INTERRUPT_MASK");

/** Paging and encryption switches. */
export const VMCB_MISC_CTL = bits("VMCB_MISC_CTL", u64, [
  [0, 1, "np_enable", "Nested paging"],
  [1, 1, "sev_enable", "Memory encryption"],
  [2, 1, "sev_es_enable", "State encryption"],
  [3, 61, "other", "Features that are not modelled"],
], "torvalds/linux: arch/x86/include/asm/svm.h vmcb_control_area");

/** Virtualisation switches. */
export const VMCB_MISC_CTL2 = bits("VMCB_MISC_CTL2", u64, [
  [0, 1, "lbr_virtualization", "Last-branch records are the guest's; needed for SEV-ES"],
  [1, 1, "virtual_vmload_vmsave", "VMLOAD and VMSAVE of the guest need no exit"],
  [2, 62, "other", "Features that are not modelled"],
], "torvalds/linux: arch/x86/kvm/svm/sev.c sev_es_init_vmcb");

/** Control area of the VMCB; the host can read it. */
export const VMCB_CONTROL = structure("VMCB_CONTROL", 0x400, [
  ["intercepts", 0x000, array(u32, 6), "Intercept bits; bit n makes exit code n, for 0 to a6"],
  reserved(0x018, 36),
  ["pause_filter_thresh", 0x03c, u16, "Cycles between two PAUSEs that count as one loop"],
  ["pause_filter_count", 0x03e, u16, "PAUSEs before an exit"],
  ["iopm_base_pa", 0x040, u64, "I/O permission map"],
  ["msrpm_base_pa", 0x048, u64, "MSR permission map"],
  ["tsc_offset", 0x050, u64, "Added to the TSC"],
  ["asid", 0x058, u32, "Address space id; SEV-ES guests use the low ones"],
  ["tlb_ctl", 0x05c, u8, "0 nothing, 1 flush all, 3 flush this ASID, 7 flush its non-global entries"],
  ["erap_ctl", 0x05d, u8, "Return-address predictor control"],
  reserved(0x05e, 2),
  ["int_ctl", 0x060, VMCB_INT_CTL, "Virtual interrupt control"],
  ["int_vector", 0x064, u32, "Vector of the virtual interrupt"],
  ["int_state", 0x068, VMCB_INT_STATE, "Interrupt shadow and mask"],
  reserved(0x06c, 4),
  ["exit_code", 0x070, SevExitCode.u64, "Why the guest left"],
  ["exit_info_1", 0x078, u64, "EXITINFO1"],
  ["exit_info_2", 0x080, u64, "EXITINFO2"],
  ["exit_int_info", 0x088, VMCB_EVENT_INJ_LO, "Event whose delivery the exit interrupted"],
  ["exit_int_info_err", 0x08c, u32, "Its error code"],
  ["misc_ctl", 0x090, VMCB_MISC_CTL, "Paging and encryption switches"],
  ["avic_vapic_bar", 0x098, u64, "Guest-physical address of the APIC"],
  ["ghcb_gpa", 0x0a0, u64, "GHCB MSR of the guest: its WRMSR lands here, and the host answers here"],
  ["event_inj", 0x0a8, VMCB_EVENT_INJ_LO, "Event to inject; not used with alternate injection"],
  ["event_inj_err", 0x0ac, u32, "Its error code"],
  ["nested_cr3", 0x0b0, u64, "Nested page-table base"],
  ["misc_ctl2", 0x0b8, VMCB_MISC_CTL2, "Virtualisation switches"],
  ["clean", 0x0c0, u32, "Fields that the processor may take from its cache"],
  reserved(0x0c4, 4),
  ["next_rip", 0x0c8, u64, "Next instruction; does not count for an SEV-ES guest"],
  ["insn_len", 0x0d0, u8, "How many of insn_bytes count"],
  ["insn_bytes", 0x0d1, bytes(15), "Bytes of the instruction; none for an encrypted guest"],
  ["avic_backing_page", 0x0e0, u64, "APIC backing page"],
  reserved(0x0e8, 8),
  ["avic_logical_id", 0x0f0, u64, "AVIC logical id table"],
  ["avic_physical_id", 0x0f8, u64, "AVIC physical id table and its limit"],
  reserved(0x100, 8),
  ["vmsa_pa", 0x108, u64, "Physical address of the VMSA, without the C bit"],
  reserved(0x110, 16),
  ["bus_lock_counter", 0x120, u16, "Bus locks before an exit"],
  reserved(0x122, 22),
  ["allowed_sev_features", 0x138, SEV_FEATURES, "Features that the VMSA may have"],
  ["guest_sev_features", 0x140, SEV_FEATURES, "Features of the VMSA that ran"],
  reserved(0x148, 664),
  ["reserved_sw", 0x3e0, bytes(32), "Free for the hypervisor"],
], "torvalds/linux: arch/x86/include/asm/svm.h vmcb_control_area");

/** Save area at VMCB offset 400; an SEV-ES guest does not use it. */
export const VMCB_SAVE_AREA = structure("VMCB_SAVE_AREA", 0x2e8, [
  ["es", 0x000, SEV_SEGMENT, "Extra segment"],
  ["cs", 0x010, SEV_SEGMENT, "Code segment"],
  ["ss", 0x020, SEV_SEGMENT, "Stack segment"],
  ["ds", 0x030, SEV_SEGMENT, "Data segment"],
  ["fs", 0x040, SEV_SEGMENT, "FS segment"],
  ["gs", 0x050, SEV_SEGMENT, "GS segment"],
  ["gdtr", 0x060, SEV_SEGMENT, "Global descriptor table; only limit and base count"],
  ["ldtr", 0x070, SEV_SEGMENT, "Local descriptor table"],
  ["idtr", 0x080, SEV_SEGMENT, "Interrupt descriptor table; only limit and base count"],
  ["tr", 0x090, SEV_SEGMENT, "Task register"],
  reserved(0x0a0, 42),
  ["vmpl", 0x0ca, u8, "Virtual machine privilege level"],
  ["cpl", 0x0cb, u8, "Current privilege level"],
  reserved(0x0cc, 4),
  ["efer", 0x0d0, u64, "Extended feature enable; SVME must be set"],
  reserved(0x0d8, 112),
  ["cr4", 0x148, u64, "Control register 4"],
  ["cr3", 0x150, u64, "Page-table base"],
  ["cr0", 0x158, u64, "Control register 0"],
  ["dr7", 0x160, u64, "Debug control"],
  ["dr6", 0x168, u64, "Debug status"],
  ["rflags", 0x170, u64, "Flags"],
  ["rip", 0x178, u64, "Instruction pointer"],
  reserved(0x180, 88),
  ["rsp", 0x1d8, u64, "Stack pointer"],
  ["s_cet", 0x1e0, u64, "Supervisor control-flow enforcement"],
  ["ssp", 0x1e8, u64, "Shadow stack pointer"],
  ["isst_addr", 0x1f0, u64, "Interrupt shadow-stack table address"],
  ["rax", 0x1f8, u64, "RAX"],
  ["star", 0x200, u64, "System-call selectors"],
  ["lstar", 0x208, u64, "64-bit system-call target"],
  ["cstar", 0x210, u64, "Compatibility-mode system-call target"],
  ["sfmask", 0x218, u64, "Flags that SYSCALL clears"],
  ["kernel_gs_base", 0x220, u64, "Base that SWAPGS exchanges"],
  ["sysenter_cs", 0x228, u64, "SYSENTER code selector"],
  ["sysenter_esp", 0x230, u64, "SYSENTER stack pointer"],
  ["sysenter_eip", 0x238, u64, "SYSENTER target"],
  ["cr2", 0x240, u64, "Page-fault linear address"],
  reserved(0x248, 32),
  ["g_pat", 0x268, u64, "Page attribute table"],
  ["dbgctl", 0x270, u64, "Debug extension control"],
  ["br_from", 0x278, u64, "Last branch: from"],
  ["br_to", 0x280, u64, "Last branch: to"],
  ["last_excp_from", 0x288, u64, "Last exception: from"],
  ["last_excp_to", 0x290, u64, "Last exception: to"],
  reserved(0x298, 72),
  ["spec_ctrl", 0x2e0, u64, "Speculation control"],
], "torvalds/linux: arch/x86/include/asm/svm.h vmcb_save_area");

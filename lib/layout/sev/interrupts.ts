/**
 * How an SNP guest with restricted injection or Secure AVIC takes its interrupts (SEV-ES GHCB standardization, #HV
 * doorbell page; openvmm `vm/x86/x86defs` SevAvicPage).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, u32, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** Flags of the doorbell page. */
export const HV_DOORBELL_FLAGS = bits("HV_DOORBELL_FLAGS", u8, [
  [0, 1, "nmi_pending", "An NMI waits"],
  [1, 1, "mc_pending", "A machine check waits"],
  [7, 1, "no_further_signal", "The host will not raise #HV again until the guest has looked"],
], "coconut-svsm/svsm: kernel/src/sev/hv_doorbell.rs HVDoorbell");

/** Pending interrupts of one VMPL. */
export const HV_EXT_INT_STATUS = bits("HV_EXT_INT_STATUS", u32, [
  [0, 8, "pending_vector", "Vector, when there is only one"],
  [8, 1, "nmi", "An NMI waits"],
  [9, 1, "mc", "A machine check waits"],
  [10, 1, "level_sensitive", "The vector is level-triggered"],
  [14, 1, "multiple_vectors", "Vectors are in irr"],
  [27, 1, "ipi_requested", "An IPI waits"],
  [31, 1, "vector_31", "Vector 31 waits"],
], "coconut-svsm/svsm: kernel/src/sev/hv_doorbell.rs HVExtIntInfo");

/** Interrupts of one VMPL. */
export const HV_EXT_INT_INFO = structure("HV_EXT_INT_INFO", 0x40, [
  ["status", 0x00, HV_EXT_INT_STATUS, "Single events"],
  ["irr", 0x04, array(u32, 7), "Vectors 32 to 255 that wait"],
  ["isr", 0x20, array(u32, 8), "Vectors in service"],
], "coconut-svsm/svsm: kernel/src/sev/hv_doorbell.rs HVExtIntInfo");

/** The #HV doorbell page; the guest makes it and shares it. */
export const HV_DOORBELL = structure("HV_DOORBELL", 0x100, [
  ["vector", 0x00, u8, "Vector that waits"],
  ["flags", 0x01, HV_DOORBELL_FLAGS, "Single events"],
  ["no_eoi_required", 0x02, u8, "Bit 0: the interrupt needs no EOI"],
  ["per_vmpl_events", 0x03, u8, "One bit for each VMPL with events of its own"],
  reserved(0x04, 60),
  ["per_vmpl", 0x40, array(HV_EXT_INT_INFO, 3), "Events of VMPL1 to VMPL3"],
], "coconut-svsm/svsm: kernel/src/sev/hv_doorbell.rs HVDoorbell");

/** A register of the APIC backing page. */
export const APIC_REG = structure("APIC_REG", 0x10, [
  ["value", 0x00, u32, "Value of the register"],
  reserved(0x04, 12),
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevAvicPage");

/** A request register of the APIC backing page. */
export const SEV_AVIC_IRR = structure("SEV_AVIC_IRR", 0x10, [
  ["value", 0x00, u32, "Vectors that wait"],
  ["allowed", 0x04, u32, "Vectors that the host may inject"],
  reserved(0x08, 8),
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevAvicIrrRegister");

/** The guest's APIC backing page; every register takes 16 bytes. */
export const SEV_AVIC_PAGE = structure("SEV_AVIC_PAGE", 0x1000, [
  reserved(0x000, 32),
  ["id", 0x020, APIC_REG, "APIC id"],
  ["version", 0x030, APIC_REG, "Version"],
  reserved(0x040, 64),
  ["tpr", 0x080, APIC_REG, "Task priority"],
  ["apr", 0x090, APIC_REG, "Arbitration priority"],
  ["ppr", 0x0a0, APIC_REG, "Processor priority"],
  ["eoi", 0x0b0, APIC_REG, "End of interrupt"],
  ["rrd", 0x0c0, APIC_REG, "Remote read"],
  ["ldr", 0x0d0, APIC_REG, "Logical destination"],
  ["dfr", 0x0e0, APIC_REG, "Destination format"],
  ["svr", 0x0f0, APIC_REG, "Spurious interrupt vector"],
  ["isr", 0x100, array(APIC_REG, 8), "In-service bits"],
  ["tmr", 0x180, array(APIC_REG, 8), "Trigger-mode bits"],
  ["irr", 0x200, array(SEV_AVIC_IRR, 8), "Interrupt request bits, with the host's permissions"],
  ["esr", 0x280, APIC_REG, "Error status"],
  reserved(0x290, 96),
  ["lvt_cmci", 0x2f0, APIC_REG, "Local vector table: corrected machine check"],
  ["icr", 0x300, array(APIC_REG, 2), "Interrupt command, low and high"],
  ["lvt_timer", 0x320, APIC_REG, "Local vector table: timer"],
  ["lvt_thermal", 0x330, APIC_REG, "Local vector table: thermal sensor"],
  ["lvt_pmc", 0x340, APIC_REG, "Local vector table: performance counters"],
  ["lvt_lint0", 0x350, APIC_REG, "Local vector table: LINT0"],
  ["lvt_lint1", 0x360, APIC_REG, "Local vector table: LINT1"],
  ["lvt_error", 0x370, APIC_REG, "Local vector table: error"],
  ["timer_icr", 0x380, APIC_REG, "Timer's initial count"],
  ["timer_ccr", 0x390, APIC_REG, "Timer's current count"],
  reserved(0x3a0, 64),
  ["timer_dcr", 0x3e0, APIC_REG, "Timer's divider"],
  ["self_ipi", 0x3f0, APIC_REG, "Self IPI"],
  ["eafr", 0x400, APIC_REG, "Extended APIC features"],
  ["eacr", 0x410, APIC_REG, "Extended APIC control"],
  ["seoi", 0x420, APIC_REG, "Specific end of interrupt"],
  reserved(0x430, 80),
  ["ier", 0x480, array(APIC_REG, 8), "Interrupt enable bits"],
  ["ei_lv_tr", 0x500, array(APIC_REG, 3), "Extended local vector table"],
  reserved(0x530, 2768),
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevAvicPage");

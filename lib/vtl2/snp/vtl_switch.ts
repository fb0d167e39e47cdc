/**
 * A switch between the VMSAs of VTL0 and VTL1 of one processor: the registers that both VTLs share are copied, through the
 * register protection of each (openvmm `virt_mshv_vtl/src/processor/snp/mod.rs` switch_vtl; sev.md f30, f31).
 *
 * @module
 */
import { VMSA } from "../../layout/sev/vmsa.ts";
import type { ProtectedVmsa } from "../../sev/register_protection.ts";

/** Byte offsets of the quadwords that a switch copies, from the layout's own column. */
export const SHARED_QWORDS: readonly number[] = VMSA.fields
  .filter((field) => field.columns.copied_on_vtl_switch === true)
  .flatMap((field) => Array.from({ length: field.size / 8 }, (_, k) => field.offset + 8 * k));

/** Copies what the VTLs share from `source` to `target`. */
export function copySharedRegisters(source: ProtectedVmsa, target: ProtectedVmsa): void {
  for (const offset of SHARED_QWORDS) target.setQword(offset, source.qword(offset));
}

/** A VTL return that is not fast gives VTL0 the RAX and RCX of VTL1's assist page (V.cvm vtl_return). */
export function restoreReturnRegisters(target: ProtectedVmsa, rax: bigint, rcx: bigint): void {
  target.set64("rax", rax);
  target.set64("rcx", rcx);
}

/**
 * The VMSA of a lower VTL as OpenHCL makes it (openvmm `virt_mshv_vtl/src/processor/snp/mod.rs` init_vmsa; sev.md f1 to f3).
 *
 * @module
 */
import { VMPL } from "../../layout/sev/constants/rmp.ts";
import { SEV_FEATURES, V_INTR_CTRL } from "../../layout/sev/vmsa.ts";
import type { ProtectedVmsa } from "../../sev/register_protection.ts";
import { EFER_SVME } from "../../sev/vmsa.ts";

/** What a lower VTL's VMSA depends on. */
export interface LowerVtl {
  /** 0 or 1. */
  readonly vtl: 0 | 1;
  /** SEV_FEATURES that are taken over from VTL2's own SEV_STATUS. */
  readonly inherited: bigint;
  /** Guest addresses from here on are shared; undefined without a vTOM. */
  readonly vtom: bigint | undefined;
  /** Nonce of the register protection; 0 without it. */
  readonly nonce: bigint;
}

/** Features that a lower VTL takes over from VTL2. */
const INHERITED = SEV_FEATURES.mask.btb_isolation | SEV_FEATURES.mask.ibpb_on_entry |
  SEV_FEATURES.mask.prevent_host_ibs | SEV_FEATURES.mask.vmsa_reg_prot;

/** VMPL of a VTL. */
export function vmplOf(vtl: number): number {
  return vtl === 0 ? VMPL.VTL0 : vtl === 1 ? VMPL.VTL1 : VMPL.VTL2;
}

/** Makes `vmsa` that of a lower VTL which has never run. */
export function initVmsa(vmsa: ProtectedVmsa, options: LowerVtl): void {
  const { vtl, inherited, vtom, nonce } = options;
  vmsa.reset(nonce);
  vmsa.set64(
    "sev_features",
    (inherited & INHERITED) | SEV_FEATURES.make({
      snp: 1,
      vtom: vtom !== undefined,
      reflect_vc: 1,
      debug_swap: 1,
      alternate_injection: 1,
    }),
  );
  if (vtom !== undefined) vmsa.set64("virtual_tom", vtom);
  vmsa.set64("vintr_ctrl", V_INTR_CTRL.make({ guest_busy: 1 }));
  vmsa.set8("vmpl", vmplOf(vtl));
  vmsa.setHarmlessExit();
  vmsa.set64("efer", BigInt(EFER_SVME));
}

/** What 64-bit code of VTL2 starts with: CR0.PG, PE, ET and NE, CR4.PAE, EFER.LME and LMA, RFLAGS with its fixed bit. */
const VTL2_START = { cr0: 0x8000_0031n, cr4: 0x20n, efer: 0x500n, rflags: 2n, xcr0: 1n, code: 0x209b } as const;

/** Makes `vmsa` that of VTL2 itself, as the loader does: `features` has restricted injection and no vTOM (f2). */
export function initVtl2Vmsa(vmsa: ProtectedVmsa, features: bigint, nonce: bigint): void {
  vmsa.reset(nonce);
  vmsa.set64("sev_features", features);
  vmsa.set8("vmpl", vmplOf(2));
  vmsa.set64("cr0", VTL2_START.cr0);
  vmsa.set64("cr4", VTL2_START.cr4);
  vmsa.set64("efer", VTL2_START.efer | BigInt(EFER_SVME));
  vmsa.set64("rflags", VTL2_START.rflags);
  vmsa.set64("xcr0", VTL2_START.xcr0);
  vmsa.setSegment("cs", { selector: 0, attributes: VTL2_START.code, limit: 0xffff_ffff, base: 0n });
}

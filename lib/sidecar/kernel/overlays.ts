/**
 * Assist page and register page of a sidecar processor: set up at the first run, given back at removal (openvmm
 * openhcl/sidecar map_overlays, ap_entry).
 *
 * They are not set up earlier because a hypervisor may not survive that while other processors are being started.
 *
 * @module
 */
import { HvStatus } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import { SIDECAR } from "../../layout/hyperv/constants/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { SidecarVpGlobals } from "../memory.ts";
import { CHECK_STOP, STORE_REMOVED } from "./command_loop.ts";
import type { SidecarVp } from "./sidecar_vp.ts";

const { VpAssistPage, RegisterPage } = HvX64RegisterName.values;
const globals = SidecarVpGlobals.at;
const VTL2 = 2;
/** Bit 0 of an overlay register: enabled. */
const ENABLE = 1n;

function setRegister(vp: SidecarVp, name: number, value: bigint): number {
  vp.port.fence(); // it is an MSR or a hypercall of the hypervisor
  return vp.vtl2Hypercalls.registers.set64(vp.index, VTL2, name, value);
}

/** The first run enables the assist page through its MSR. */
export const MAP_OVERLAYS: StepId = step<SidecarVp>("sidecar.map-assist-page", (vp) => {
  setRegister(vp, VpAssistPage, BigInt(vp.ownAssistPage) | ENABLE);
  return MAP_REGISTER_PAGE;
});

/** A hypervisor without register pages refuses; the processor goes on without. */
const MAP_REGISTER_PAGE: StepId = step<SidecarVp>("sidecar.map-register-page", (vp) => {
  const status = setRegister(vp, RegisterPage, BigInt(vp.node.registerPage(vp.slot)) | ENABLE);
  vp.setGlobal(globals.register_page_mapped, status === HvStatus.values.Success ? 1 : 0);
  vp.setGlobal(globals.overlays_mapped, 1);
  return CHECK_STOP;
});

/** Removal gives the pages back. */
export const UNMAP_OVERLAYS: StepId = step<SidecarVp>("sidecar.remove.unmap-assist-page", (vp) => {
  setRegister(vp, VpAssistPage, 0n);
  return vp.registerPageMapped ? UNMAP_REGISTER_PAGE : DISABLE_APIC;
});

const UNMAP_REGISTER_PAGE: StepId = step<SidecarVp>("sidecar.remove.unmap-register-page", (vp) => {
  setRegister(vp, RegisterPage, 0n);
  vp.setGlobal(globals.register_page_mapped, 0);
  return DISABLE_APIC;
});

/** Software-disabled; x2APIC stays on, so that the response interrupt can still be sent. */
const DISABLE_APIC: StepId = step<SidecarVp>("sidecar.remove.disable-apic", (vp) => {
  vp.setGlobal(globals.spurious_vector, SIDECAR.SVR_DISABLED);
  return STORE_REMOVED;
});

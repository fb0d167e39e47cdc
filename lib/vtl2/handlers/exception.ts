/**
 * Exception intercepts (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_exception).
 *
 * OpenHCL installs such an intercept for #DB alone, when its debugger is in use. There is no debugger here: the message is
 * taken note of by whoever lists exits, and the state stays as it is.
 *
 * @module
 */
import { HANDLED, type HandlerResult, type VmmVp } from "../vmm_vp.ts";

/** Leaves the processor as it is. */
export function handleException(_vp: VmmVp): HandlerResult {
  return HANDLED;
}

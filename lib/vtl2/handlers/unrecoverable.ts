/**
 * Unrecoverable exceptions (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_unrecoverable_exception).
 *
 * @module
 */
import { type HandlerResult, TRIPLE_FAULT, type VmmVp } from "../vmm_vp.ts";

/** A triple fault stops the intercepted VTL. */
export function handleUnrecoverable(_vp: VmmVp): HandlerResult {
  return TRIPLE_FAULT;
}

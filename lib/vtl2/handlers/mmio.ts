/**
 * Memory intercepts (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_mmio_exit and
 * handle_unaccepted_gpa_intercept).
 *
 * OpenHCL first looks for a write to the monitor page of VMBus, which signals a connection without emulating; no
 * VMBus is modelled, so every access is emulated.
 *
 * @module
 */
import { HvX64MemoryInterceptMessage } from "../../layout/hyperv/messages.ts";
import type { InstructionEmulator } from "../emulator/emulator.ts";
import { PAYLOAD } from "../context.ts";
import type { HandlerResult, VmmVp } from "../vmm_vp.ts";

const GPA = PAYLOAD + HvX64MemoryInterceptMessage.at.guest_physical_address;
const WORD = 0x1_0000_0000;

/** An access to an unmapped or protected address: emulates the instruction. */
export function handleMmio(vp: VmmVp, emulator: InstructionEmulator): HandlerResult {
  return emulator.emulate(vp);
}

/** An access to a page that was not accepted: fatal in the lower VTLs' RAM, where every page is accepted; else MMIO. */
export function handleUnacceptedGpa(vp: VmmVp, emulator: InstructionEmulator): HandlerResult {
  const { u32, u64 } = vp.memory;
  const word = (vp.message + GPA) >>> 2;
  if (vp.guestOffset(u32[word + 1] * WORD + u32[word], 1) >= 0) {
    return vp.crash({ assertion: "unaccepted gpa is not lower-VTL RAM", left: u64[word >>> 1] });
  }
  return emulator.emulate(vp);
}

/**
 * VTL return actions: what VTL2 asks the hypervisor to do on the way out (openhcl.md a, "Return action record").
 *
 * @module
 */
import { HvVpAssistPageActionSignalEvent } from "../layout/hyperv/assist_page.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";

/** Bytes of the return-action area in the assist page. */
const AREA_BYTES = 256;
/** Action type: signal an event. Type 0 ends the list. */
const SIGNAL_EVENT = 1;

const action = HvVpAssistPageActionSignalEvent.at;

/** Takes the actions in the area at byte offset `at` and clears it. An action of unknown type ends the list as type 0 does. */
export function processReturnActions(vp: VirtualProcessor, at: number): void {
  const { u32, u16, u8, u64 } = vp.memory;
  if (u64[at >>> 3] === 0n) return;
  for (let record = at; record < at + AREA_BYTES; record += HvVpAssistPageActionSignalEvent.size) {
    if (u32[record >>> 2] !== SIGNAL_EVENT) break;
    const target = u32[(record + action.target_vp) >>> 2];
    if (target >= vp.partition.config.vps) continue;
    const synic = vp.facilities.synic(target, u8[record + action.target_vtl]);
    synic.signalEvent(u8[record + action.target_sint], u16[(record + action.flag_number) >>> 1]);
  }
  u64.fill(0n, at >>> 3, (at + AREA_BYTES) >>> 3);
}

/**
 * Port intercepts (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_io_port_exit; virt_support_x86emu
 * emulate_io).
 *
 * @module
 */
import { DEVICE_DONE } from "../../devices/devices.ts";
import { HvInterceptAccessType } from "../../layout/hyperv/constants/messages.ts";
import { HvX64IoPortAccessInfo, HvX64IoPortInterceptMessage } from "../../layout/hyperv/messages.ts";
import { ACCESS_TYPE, completeInstruction, CONTEXT, instructionLength, PAYLOAD } from "../context.ts";
import { IN_UPPER_RAX, IO_RAX } from "../policies.ts";
import { BUSY, type HandlerResult, type VmmVp } from "../vmm_vp.ts";
import type { InstructionEmulator } from "../emulator/emulator.ts";

const RAX = PAYLOAD + HvX64IoPortInterceptMessage.at.rax;
const PORT_NUMBER = PAYLOAD + HvX64IoPortInterceptMessage.at.port_number;
const ACCESS_INFO = PAYLOAD + HvX64IoPortInterceptMessage.at.access_info;
const ACCESS_SIZE = HvX64IoPortAccessInfo.mask.access_size;
const NEEDS_EMULATOR = HvX64IoPortAccessInfo.mask.string_op | HvX64IoPortAccessInfo.mask.rep_prefix;
const WRITE = HvInterceptAccessType.values.WRITE;

/** Handles a port access; string forms go to the instruction emulator. */
export function handleIoPort(vp: VmmVp, emulator: InstructionEmulator): HandlerResult {
  const memory = vp.memory;
  const i32 = memory.i32;
  const rax = (vp.context + CONTEXT.RAX) >>> 2;
  const messageRax = (vp.message + RAX) >>> 2;
  if (i32[messageRax] !== i32[rax] || i32[messageRax + 1] !== i32[rax + 1]) {
    if (vp.policy(IO_RAX) === IO_RAX.is.assert) {
      return vp.crash({
        assertion: "message.rax == cpu_context.gps[RAX]",
        left: memory.u64[messageRax >>> 1],
        right: memory.u64[rax >>> 1],
      });
    }
    i32[rax] = i32[messageRax];
    i32[rax + 1] = i32[messageRax + 1];
  }
  const access = memory.u8[vp.message + ACCESS_INFO];
  if ((access & NEEDS_EMULATOR) !== 0) return emulator.emulate(vp);
  const size = access & ACCESS_SIZE;
  const port = memory.u16[(vp.message + PORT_NUMBER) >>> 1];
  if (memory.u8[vp.message + ACCESS_TYPE] === WRITE) {
    if (vp.devices.portOut(port, size, i32[rax]) !== DEVICE_DONE) return BUSY;
  } else {
    const value = vp.devices.portIn(port, size);
    if (size === 4) {
      i32[rax] = value;
      i32[rax + 1] = 0;
    } else {
      const mask = size === 2 ? 0xffff : 0xff;
      i32[rax] = (i32[rax] & ~mask) | (value & mask);
      if (vp.policy(IN_UPPER_RAX) === IN_UPPER_RAX.is.openhcl) i32[rax + 1] = 0;
    }
  }
  return completeInstruction(vp, instructionLength(vp));
}

import { assertEquals } from "@std/assert";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import { vcLabel } from "../../lib/guest/programs/vc/kernel.ts";
import { SevVpState, TURN } from "../../lib/hypervisor/sev/state.ts";
import { GHCB } from "../../lib/layout/sev/ghcb.ts";
import { Ghcb } from "../../lib/sev/ghcb.ts";
import { vcMachine } from "../../lib/scenarios/vc_system.ts";

const PORTS = 0x1_0000;
const IO_SIZE8 = 1n << 4n;

/** EXITINFO1 of an OUT to each port, as the handler with these policies puts it to a host that agrees to everything. */
function exitInfos(promotion: string, first: number): bigint[] {
  const { vp, host } = vcMachine("vmd", "ports", { "vc.port-promotion": promotion });
  const { memory } = vp;
  const origin = vcLabel("program_ports");
  const { bytes } = assemble(`bits 64\nmov edx, ${first}\nnext: out dx, al\ninc dx\njnz next\ncli\nhlt`, { origin });
  memory.u8.set(bytes, origin);
  vp.cpu.flushCaches();
  while (host.takeSteps(1) > 0); // the host enters the guest
  const ghcb = new Ghcb(memory.view, vcLabel("GHCB"));
  const turn = (vp.sevState + SevVpState.at.turn) >>> 2;
  const info = (vcLabel("GHCB") + GHCB.at.sw_exit_info_1) >>> 3;
  const infos: bigint[] = [];
  while (infos.length < PORTS - first) {
    while (memory.u32[turn] === TURN.GUEST) vp.takeSteps(1);
    infos.push(memory.u64[info]);
    ghcb.clear();
    memory.u32[turn] = TURN.GUEST;
  }
  return infos;
}

Deno.test("sev-es-vc: EXITINFO1 has the port and nothing above it, for each of 65,536 ports", () => {
  const wrong = exitInfos("64-bit", 0).findIndex((info, port) => info !== (BigInt(port) << 16n | IO_SIZE8));
  assertEquals(wrong, -1);
});

Deno.test("sev-es-vc: the draft's EXITINFO1 is sign-extended from port 8000 on, and right below", () => {
  const first = 0x7f00;
  const right = (port: number) => BigInt(port) << 16n | IO_SIZE8;
  const infos = exitInfos("signed", first);
  const wrong = infos.findIndex((info, k) => info !== right(first + k));
  assertEquals(first + wrong, 0x8000);
  const above = infos.slice(wrong);
  assertEquals(above.findIndex((info, k) => info !== (right(first + wrong + k) | 0xffff_ffffn << 32n)), -1);
});

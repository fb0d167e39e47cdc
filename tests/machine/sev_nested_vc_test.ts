import { assertEquals } from "@std/assert";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import { SEV_KERNEL_RAM_BYTES, sevKernel } from "../../lib/guest/programs/sev_kernel.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { END } from "../../lib/machine/header.ts";
import { loadSevGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";

const STEPS_MAX = 10_000;
/** Version register of the local APIC. */
const APIC_VERSION = 0xfee00030;
/** Its spurious-interrupt vector register. */
const APIC_SPURIOUS = 0xfee000f0;
/** What port 80 gives. */
const PORT_ANSWER = 0x5a;

/** Boots the built-in kernel, then executes `text` in its place; what it writes to port 80, and how the machine ends. */
function execute(platform: MachineConfig["platform"], text: string): { out: number[]; end: number } {
  const out: number[] = [];
  const machine = Machine.create(
    {
      platform,
      vps: 1,
      ramBytes: SEV_KERNEL_RAM_BYTES,
      policies: {},
      devices: "pc",
      recordExits: false,
      hostPlacement: "processor",
    },
    true,
    {
      claims: { ports: [{ first: 0x80, last: 0x80 }], mmio: [] },
      portIn: () => PORT_ANSWER,
      portOut: (_port, _size, value) => void out.push(value),
      mmioRead: () => 0n,
      mmioWrite: () => {},
    },
  );
  loadSevGuest(machine);
  const origin = Number(sevKernel().labels.get("boot_main.host_known"));
  machine.memory.u8.set(assemble(`bits 64\n${text}\nxor eax, eax\nout 0xf4, eax`, { origin }).bytes, origin);
  for (let taken = 0; taken < STEPS_MAX && machine.end === END.NONE;) {
    const steps = machine.agents(0).reduce((sum, agent) => sum + agent.takeSteps(1), 0);
    if (steps === 0) break;
    taken += steps;
  }
  return { out, end: machine.end };
}

for (const platform of ["sev-es", "snp"] as const) {
  Deno.test(`${platform}: a #VC inside the #VC handler keeps the request that it interrupts`, () => {
    const { out: [version] } = execute(platform, `mov rsi, ${APIC_VERSION}\nmov eax, [rsi]\nout 0x80, eax`);
    const bytes = (count: number) => Array.from({ length: count }, (_, k) => version >>> (8 * k) & 0xff);
    // The handler of OUTS reads its bytes from device memory: each read is a #VC of its own.
    const text = `mov esi, ${APIC_VERSION}\nmov edx, 0x80\nmov ecx, 3\nrep outsb\nmov eax, esi\nout 0x80, eax`;
    assertEquals(execute(platform, text), { out: [...bytes(3), APIC_VERSION + 3], end: END.EXIT_PORT });
    // INS writes there: the spurious-interrupt register then has what the port gave.
    const input =
      `mov edi, ${APIC_SPURIOUS}\nmov edx, 0x80\ninsd\nmov edi, ${APIC_SPURIOUS}\nmov eax, [rdi]\nout 0x80, eax`;
    assertEquals(execute(platform, input), { out: [PORT_ANSWER], end: END.EXIT_PORT });
  });
}

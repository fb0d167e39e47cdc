import { assertEquals } from "@std/assert";
import { FacilityState } from "../../lib/hypervisor/facilities.ts";
import { HvStatus } from "../../lib/layout/hyperv/constants/hypercalls.ts";
import { HvX64RegisterName } from "../../lib/layout/hyperv/constants/registers.ts";
import { SidecarDriverVpState } from "../../lib/layout/hyperv/constants/sidecar.ts";
import { HvRegisterAssoc } from "../../lib/layout/hyperv/registers.ts";
import { CommandPage, ControlPage, CpuStatus, TranslateGvaResponse } from "../../lib/layout/hyperv/sidecar.ts";
import {
  CLIENT_CLOSE,
  CLIENT_GET,
  CLIENT_INTERCEPT,
  CLIENT_LOCAL,
  CLIENT_OPEN,
  CLIENT_PING,
  CLIENT_RESULT,
  CLIENT_RUN,
  CLIENT_SET,
  CLIENT_TRANSLATE,
  type ClientThread,
  TRANSLATE_LOCAL,
} from "../../lib/sidecar/client.ts";
import { DRIVER_REMOVE } from "../../lib/sidecar/driver/remove.ts";
import { DRIVER_RUN, DRIVER_START } from "../../lib/sidecar/driver/start.ts";
import { DRIVER_STOP } from "../../lib/sidecar/driver/stop.ts";
import { ERRNO } from "../../lib/sidecar/driver/thread.ts";
import { commandError, KERNEL_LOCAL } from "../../lib/sidecar/kernel/processor.ts";
import { requiredMemory, sidecarTopology } from "../../lib/sidecar/memory.ts";
import { TestMachine } from "./machine_fixture.ts";

const register = HvX64RegisterName.values;
const OUT = "bits 16\n mov eax, 0x11223344\n out 0x80, al\n cli\n hlt\n";

/** A machine with one sidecar processor and a client thread; nobody else uses the processor. */
function machineWithClient(program = OUT) {
  const machine = new TestMachine({ vps: 2, platform: "sidecar", programs: [program], withoutTasks: true });
  return { machine, client: machine.clients[0], node: machine.nodes[0], page: machine.nodes[0].commandPage(1) };
}

/** Free memory of a test: guest RAM that no program uses. */
const SCRATCH = 0x40000;

function getRegisters(machine: TestMachine, client: ClientThread, names: readonly number[]): number {
  names.forEach((name, k) => machine.memory.u32[SCRATCH / 4 + k] = name);
  client.locals32[CLIENT_LOCAL.LIST] = SCRATCH;
  client.locals32[CLIENT_LOCAL.COUNT] = names.length;
  client.locals32[CLIENT_LOCAL.VALUES] = SCRATCH + 0x1000;
  return machine.call(client, CLIENT_GET);
}

function setRegisters(machine: TestMachine, client: ClientThread, values: readonly [number, bigint][]): number {
  values.forEach(([name, value], k) => {
    machine.memory.u32[(SCRATCH + k * HvRegisterAssoc.size) / 4] = name;
    machine.memory.u64[(SCRATCH + k * HvRegisterAssoc.size + HvRegisterAssoc.at.value) / 8] = value;
  });
  client.locals32[CLIENT_LOCAL.LIST] = SCRATCH;
  client.locals32[CLIENT_LOCAL.COUNT] = values.length;
  return machine.call(client, CLIENT_SET);
}

const value = (machine: TestMachine, k: number) => machine.memory.u64[(SCRATCH + 0x1000 + k * 16) / 8];

Deno.test("boot: the control page is filled, every processor but the base processor is IDLE", () => {
  const machine = new TestMachine({
    vps: 8,
    numaNodes: 2,
    platform: "sidecar",
    programs: Array(7).fill(OUT),
    withoutTasks: true,
  });
  const pages = machine.nodes.map((node) => ControlPage.accessor(machine.memory.view, node.controlPage));
  assertEquals(pages.map((page) => [page.index, page.base_cpu, page.cpu_count, page.request_vector]), [
    [0, 0, 4, 0x20],
    [1, 4, 4, 0x20],
  ]);
  for (const page of pages) {
    assertEquals([...page.cpu_status].slice(0, 5).map(CpuStatus.name), ["REMOVED", "IDLE", "IDLE", "IDLE", "REMOVED"]);
    assertEquals(page.needs_attention, 0);
  }
});

Deno.test("boot: nodes are even parts of at most 32 processors; one without a sidecar processor is left out", () => {
  assertEquals(sidecarTopology(1), []);
  assertEquals(sidecarTopology(64), [{ baseVp: 0, vpCount: 32 }, { baseVp: 32, vpCount: 32 }]);
  assertEquals(sidecarTopology(33), [{ baseVp: 0, vpCount: 17 }, { baseVp: 17, vpCount: 16 }]);
  assertEquals(sidecarTopology(3, 2), [{ baseVp: 0, vpCount: 2 }]);
  assertEquals([requiredMemory(1), requiredMemory(32)], [0xe000, 0x1a1000]);
});

Deno.test("NONE does nothing and answers", () => {
  const { machine, client } = machineWithClient();
  assertEquals(machine.call(client, CLIENT_PING), CLIENT_RESULT.OK);
  assertEquals(machine.processors(1)[0].locals32[KERNEL_LOCAL.COMMANDS], 1);
});

Deno.test("an unknown command is an error with a text", () => {
  const { machine, client, page } = machineWithClient();
  machine.memory.u32[(page + CommandPage.at.command) / 4] = 9;
  assertEquals(machine.call(client, DRIVER_RUN), 0);
  assertEquals(commandError(machine.memory, page), "unknown command SidecarCommand(0x9)");
  assertEquals(machine.call(client, CLIENT_PING), CLIENT_RESULT.OK);
  assertEquals(commandError(machine.memory, page), undefined);
});

Deno.test("a register command with more than 31 records is an error with a text", () => {
  for (const [command, text] of [[2, "invalid register name count"], [3, "invalid register count"]] as const) {
    const { machine, client, page } = machineWithClient();
    machine.memory.u32[(page + CommandPage.at.command) / 4] = command;
    machine.memory.u16[(page + CommandPage.at.request_data) / 2] = 32;
    machine.call(client, DRIVER_RUN);
    assertEquals(commandError(machine.memory, page), text);
  }
});

Deno.test("40 registers are set and read back in two commands each", () => {
  const { machine, client } = machineWithClient();
  // One that is read by hypercall and one that the sidecar kernel reads itself; the last value of each stays.
  const names = Array.from({ length: 40 }, (_, k) => k % 2 === 0 ? register.Lstar : register.Dr1);
  assertEquals(setRegisters(machine, client, names.map((name, k) => [name, BigInt(0x1000 + k)])), 0);
  assertEquals(getRegisters(machine, client, names), 0);
  for (let k = 0; k < 40; k++) assertEquals(value(machine, k), k % 2 === 0 ? 0x1000n + 38n : 0x1000n + 39n);
  assertEquals(machine.processors(1)[0].locals32[KERNEL_LOCAL.COMMANDS], 4);
});

Deno.test("the first register that is refused ends the command with its status; earlier ones stay set", () => {
  const { machine, client } = machineWithClient();
  const unknown = 0x7fffffff;
  const result = setRegisters(machine, client, [[register.Lstar, 5n], [unknown, 1n], [register.Cstar, 6n]]);
  assertEquals(result, CLIENT_RESULT.HV_STATUS + HvStatus.values.InvalidParameter);
  assertEquals(getRegisters(machine, client, [register.Lstar, register.Cstar]), 0);
  assertEquals([value(machine, 0), value(machine, 1)], [5n, 0n]);
});

Deno.test("a translation without paging gives the page itself", () => {
  const { machine, client, page } = machineWithClient();
  client.locals[TRANSLATE_LOCAL.GVN] = 0x10n;
  client.locals[TRANSLATE_LOCAL.FLAGS] = 0x10n << 56n | 1n; // VTL0, validate read
  assertEquals(machine.call(client, CLIENT_TRANSLATE), 0);
  const response = TranslateGvaResponse.accessor(machine.memory.view, page + CommandPage.at.request_data);
  assertEquals(response.output.gpa_page, 0x10n);
});

Deno.test("a processor has one handle", () => {
  const { machine, client } = machineWithClient();
  assertEquals(machine.call(client, CLIENT_OPEN), CLIENT_RESULT.OK);
  assertEquals(machine.call(client, CLIENT_OPEN), CLIENT_RESULT.IN_USE);
  machine.call(client, CLIENT_CLOSE);
  assertEquals(machine.call(client, CLIENT_OPEN), CLIENT_RESULT.OK);
});

Deno.test("a run ends with the guest's intercept, the message and the context in the command page", () => {
  const { machine, client, page } = machineWithClient();
  // VTL2's start has let VTL0 run from where the reset left it; a startup IPI is what a guest would use.
  assertEquals(setRegisters(machine, client, [[register.InternalActivityState, 1n]]), 0);
  assertEquals(machine.call(client, CLIENT_RUN), CLIENT_RESULT.OK);
  assertEquals(client.locals32[CLIENT_INTERCEPT], 1);
  const { gps } = CommandPage.accessor(machine.memory.view, page).cpu_context;
  assertEquals(gps.get(0), 0x11223344n);
  assertEquals(machine.processors(1)[0].assistPage !== 0, true);
});

Deno.test("the driver's errors: a stop without a run, a claim twice, a processor that is gone", () => {
  const { machine, client, node } = machineWithClient();
  assertEquals(machine.call(client, DRIVER_STOP), ERRNO.EINVAL);
  machine.memory.u8[node.vpStates + 1] = SidecarDriverVpState.values.SYNC;
  assertEquals(machine.call(client, DRIVER_START), ERRNO.EBUSY);
  machine.memory.u8[node.vpStates + 1] = SidecarDriverVpState.values.AVAILABLE;
  assertEquals(machine.call(client, DRIVER_REMOVE), 0);
  assertEquals(CpuStatus.name(machine.memory.u8[node.statuses + 1]), "REMOVED");
  assertEquals(machine.call(client, DRIVER_START), ERRNO.ENOENT);
  assertEquals(machine.call(client, DRIVER_STOP), ERRNO.EINVAL);
});

Deno.test("a status that the sidecar kernel does not know is a panic, told through the crash registers", () => {
  const { machine, client, node } = machineWithClient();
  machine.memory.u8[node.statuses + 1] = 7;
  node.sendRequest(machine.port, 1);
  machine.run();
  assertEquals(machine.panics, ["unexpected cpu status CpuStatus(0x7)"]);
  const crash = machine.facilities.state(1) + FacilityState.at.crash;
  assertEquals([...machine.memory.u64.slice(crash / 8, crash / 8 + 3)], [
    0x4d494853544f4f42n,
    0x534944454341524bn,
    0xffff_ffff_ffff_ffffn,
  ]);
  assertEquals(client.halted, true);
});

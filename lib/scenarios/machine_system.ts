/**
 * Systems with a real guest: a machine of one virtual processor of interest, booted to where its guest is about to run,
 * with devices that answer by plan, an environment that interrupts VTL2, and a record of what the guest really had at
 * each exit.
 *
 * The same guest, with the same answers, runs on `bare` for reference: what the guest ends with there, and what it wrote
 * to its devices, is what it must end with here.
 *
 * @module
 */
import type { DeviceBackend } from "../devices/backend.ts";
import { ACTIVITY_HALTED, CpuState, FLAG_IF } from "../cpu/state.ts";
import type { NamedStructure, Range, System, SystemAgent } from "../explore/system.ts";
import { parseImage } from "../guest/image.ts";
import { BOOT_PML4 } from "../guest/initial_state.ts";
import { FacilityState } from "../hypervisor/facilities.ts";
import { GUEST_RUN } from "../hypervisor/guest.ts";
import { setGuestOsId, setHypercallPage } from "../hypervisor/msrs.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { EXIT_KIND, HypervisorVpState } from "../hypervisor/vp_state.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvMessage } from "../layout/hyperv/messages.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvX64RegisterPage } from "../layout/hyperv/register_page.ts";
import { MsrHypercallContents } from "../layout/hyperv/registers.ts";
import { CommandPage, ControlPage } from "../layout/hyperv/sidecar.ts";
import { array, u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { loadGuest } from "../machine/load.ts";
import { END, MachineHeader } from "../machine/header.ts";
import { Machine } from "../machine/machine.ts";
import { Agent, AgentBlock } from "../memory/agent.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { step, type StepId, stepName } from "../memory/steps.ts";
import { ClientThread } from "../sidecar/client.ts";
import { ResponseHandler } from "../sidecar/driver/interrupt.ts";
import { LinuxVp } from "../sidecar/hotplug.ts";
import { SidecarTask } from "../sidecar/vmm_task.ts";
import { SidecarVp } from "../sidecar/kernel/sidecar_vp.ts";
import { SidecarClientState } from "../sidecar/client_state.ts";
import { SidecarTaskState, SidecarVpGlobals } from "../sidecar/memory.ts";
import { KERNEL_PAGES, kernelPage, MESSAGE_PAGE, VmmRunState } from "../vtl2/kernel_pages.ts";
import { KernelVp } from "../vtl2/kernel_vp.ts";
import { VmmVpState } from "../vtl2/vmm_state.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import type { Choices } from "./scenario.ts";

/** Guest RAM in bytes: the least that a machine has. */
const RAM_BYTES = 1 << 20;
/** Where the guest's program is loaded, and the bytes of RAM from there on that a step may change. */
export const GUEST_ORIGIN = 0x7c00;
const GUEST_BYTES = 0x400;
/** Guest-physical address of the record below, which no guest of a scenario uses. */
const RECORD_AT = 0xf0000;
/** Device accesses that are recorded. */
const ACCESSES_MAX = 32;
/** Words of a recorded access. */
const ACCESS_WORDS = 2;
/** Bytes of the x87/SSE image. */
const FX_BYTES = 512;

/** What the environment knows and keeps: the guest's exits as they really were, and its device accesses. */
export const ScenarioRecord = structure("ScenarioRecord", 1344, [
  reserved(0, 4),
  ["accesses", 4, u32, "Device accesses made for the guest"],
  ["answer", 8, u32, "What the device answers to the next IN"],
  ["interrupts", 12, u32, "VTL2 interrupts that the environment may still raise"],
  ["gpr", 16, array(u64, 16), "General-purpose registers at the guest's last exit"],
  ["rip", 144, u64, "RIP at it"],
  ["cr2", 152, u64, "CR2 at it"],
  ["fx", 160, array(u64, FX_BYTES / 8), "x87 and SSE state at it"],
  [
    "log",
    672,
    array(u64, ACCESS_WORDS * ACCESSES_MAX),
    "Device accesses: port or address with size and direction, then the value",
  ],
  reserved(1184, 160),
], "Not a structure of the modelled machine");

const record = ScenarioRecord.at;
const cpu = CpuState.at;
const header = MachineHeader.at;

/** A guest and what surrounds it. */
export interface GuestSetting {
  /** `kernel` or `sidecar`. */
  readonly platform: "kernel" | "sidecar";
  /** The program: 64-bit code for {@linkcode GUEST_ORIGIN}, ending with `cli` and `hlt`. */
  readonly code: Uint8Array;
  /** What the device answers to every IN, and to every read of device memory. */
  readonly answer: number;
  /** VTL2 interrupts that the environment may raise, each at any step. */
  readonly interrupts: number;
  /** Whether Linux takes a sidecar processor after its first exit; a policy `sidecar.hotplug` has precedence. */
  readonly converts: boolean;
}

/** A machine with a guest, as a system to explore. */
export interface MachineSystem extends System {
  readonly machine: Machine;
  /** The processor of interest. */
  readonly vp: VirtualProcessor;
  /** The VMM's task for it on another processor; absent where exits are handled in place. */
  readonly task: SidecarTask | undefined;
  /** Whether the VMM is about to handle an exit: it may look at message and context now. */
  handling(): boolean;
  /** Byte offset of the processor context that its handlers read. */
  readonly context: number;
  /** Byte offset of the message that they read. */
  readonly message: number;
  /** Byte offset of the {@linkcode ScenarioRecord}. */
  readonly record: number;
  /** What the guest ends with on `bare`. */
  readonly reference: GuestOutcome;
  /** What it has ended with here. */
  outcome(): GuestOutcome;
}

/** What a guest ends with, as words that can be compared. */
export interface GuestOutcome {
  /** GPRs, RIP, CR2, x87 and SSE state. */
  readonly registers: readonly bigint[];
  /** Its device accesses in order. */
  readonly accesses: readonly bigint[];
}

/** Devices that answer by plan and note every access in the record. */
function plannedDevices(memoryOf: () => MachineMemory): DeviceBackend {
  const note = (address: bigint, size: number, write: boolean, value: bigint): void => {
    const { u32, u64 } = memoryOf();
    const count = u32[(RECORD_AT + record.accesses) >>> 2]++;
    if (count >= ACCESSES_MAX) return;
    const at = ((RECORD_AT + record.log) >>> 3) + ACCESS_WORDS * count;
    u64[at] = address << 8n | BigInt(size) << 1n | (write ? 1n : 0n);
    u64[at + 1] = value;
  };
  const answer = (size: number): number => {
    const value = memoryOf().u32[(RECORD_AT + record.answer) >>> 2];
    return size === 4 ? value : value & (1 << 8 * size) - 1;
  };
  return {
    claims: { ports: [{ first: 0, last: 0xffff }], mmio: [{ base: DEVICE_MEMORY, size: 0x1000 }] },
    portIn: (port, size) => {
      note(BigInt(port), size, false, 0n);
      return answer(size);
    },
    portOut: (port, size, value) => note(BigInt(port), size, true, BigInt(value)),
    mmioRead: (gpa, size) => {
      note(gpa, size, false, 0n);
      return BigInt(answer(Math.min(size, 4)));
    },
    mmioWrite: (gpa, size, value) => note(gpa, size, true, value),
  };
}

/** Guest-physical address of the scenario's device memory, behind RAM and VTL2. */
export const DEVICE_MEMORY = 0xd0000000;

function createMachine(platform: "bare" | "kernel" | "sidecar", setting: GuestSetting, policies: Choices): Machine {
  let machine: Machine | undefined = undefined;
  const backend = plannedDevices(() => machine!.memory);
  machine = Machine.create(
    {
      platform,
      ...(platform === "sidecar" ? { vps: 2, bootVp: 1 } : { vps: 1 }),
      ramBytes: RAM_BYTES,
      policies: { "sidecar.hotplug": setting.converts ? "on" : "off", ...policies },
      devices: "pc",
      recordExits: false,
    },
    true,
    backend,
  );
  loadGuest(machine, parseImage(setting.code, "guest", { mode: "long", load: GUEST_ORIGIN }));
  const { facilities } = machine.platform;
  setGuestOsId(facilities, 1n);
  setHypercallPage(facilities, BigInt(HYPERCALL_PAGE) | MsrHypercallContents.mask.enable);
  markTablesUsed(machine.memory);
  machine.memory.u32[(RECORD_AT + record.answer) >>> 2] = setting.answer;
  machine.memory.u32[(RECORD_AT + record.interrupts) >>> 2] = setting.interrupts;
  const vp = machine.processor(machine.config.bootVp ?? 0);
  vp.runQuantum = QUANTUM;
  return machine;
}

/** Sets the accessed and dirty bits of the guest's page tables, so that no step of the guest does. */
function markTablesUsed({ u32 }: MachineMemory): void {
  for (let at = BOOT_PML4; at < BOOT_PML4 + BOOT_TABLE_BYTES; at += 8) {
    if (u32[at >>> 2] !== 0) u32[at >>> 2] |= TABLE_ENTRY_USED;
  }
}

/** Guest-physical address of the guest's hypercall page, which it finds enabled. */
export const HYPERCALL_PAGE = 0xe0000;

/** Bytes of the tables: PML4, PDPT and four page directories. */
const BOOT_TABLE_BYTES = 0x6000;
/** Accessed and dirty (AMD manual, volume 2, section 5.4). */
const TABLE_ENTRY_USED = 0x60;

/** Instructions of one step of the guest: more than a scenario's guest executes between two exits. */
const QUANTUM = 1000;

/** Runs agents in turn until none can go on, or `done`; throws `RangeError` after `stepsMax` steps. */
function settle(agents: readonly Agent[], done: () => boolean, stepsMax = BOOT_STEPS_MAX): void {
  for (let taken = 0; taken < stepsMax;) {
    let progress = false;
    for (const agent of agents) {
      if (done()) return;
      const steps = agent.takeSteps(1);
      taken += steps;
      progress ||= steps > 0;
    }
    if (!progress) return;
  }
  throw new RangeError(`The guest, or the machine's boot, takes more than ${stepsMax} steps`);
}

/** Most steps of a boot. */
const BOOT_STEPS_MAX = 200_000;
/** Most steps of a reference run, each {@linkcode QUANTUM} instructions or up to an exit. */
const REFERENCE_STEPS_MAX = 10_000;

/** What the guest ends with on `bare`. */
function referenceRun(setting: GuestSetting): GuestOutcome {
  const machine = createMachine("bare", setting, {});
  const vp = machine.processor(0);
  settle([vp], () => machine.end !== END.NONE, REFERENCE_STEPS_MAX);
  return outcomeOf(machine.memory, vp);
}

function outcomeOf({ u32, u64 }: MachineMemory, vp: VirtualProcessor): GuestOutcome {
  const base = vp.cpuState >>> 3;
  const count = Math.min(u32[(RECORD_AT + record.accesses) >>> 2], ACCESSES_MAX);
  const log = (RECORD_AT + record.log) >>> 3;
  return {
    registers: [
      ...u64.subarray(base + cpu.gpr / 8, base + cpu.gpr / 8 + 16),
      u64[base + cpu.rip / 8],
      u64[base + cpu.cr2 / 8],
      ...u64.subarray(base + cpu.fx / 8, base + (cpu.fx + FX_BYTES) / 8),
    ],
    accesses: [...u64.subarray(log, log + ACCESS_WORDS * count)],
  };
}

/**
 * Keeps what the guest really has at each exit to VTL2. The sidecar kernel, which keeps interrupts off, never takes the
 * environment's interrupt: its source withdraws it as VTL2 is entered.
 */
function recordExits(vp: VirtualProcessor, withdraws: boolean): void {
  vp.observer = {
    exit: ({ memory: { u8 }, cpuState }, kind) => {
      if (withdraws && kind === EXIT_KIND.interrupt) withdraw(vp);
      u8.copyWithin(RECORD_AT + record.gpr, cpuState + cpu.gpr, cpuState + cpu.rip);
      u8.copyWithin(RECORD_AT + record.rip, cpuState + cpu.rip, cpuState + cpu.rip + 8);
      u8.copyWithin(RECORD_AT + record.cr2, cpuState + cpu.cr2, cpuState + cpu.cr2 + 8);
      u8.copyWithin(RECORD_AT + record.fx, cpuState + cpu.fx, cpuState + cpu.fx + FX_BYTES);
    },
    entry: () => {},
    message: () => {},
  };
}

// --- The environment ----------------------------------------------------------------------------------------------

/** A vector of VTL2 that neither kernel has a use for. */
const ENVIRONMENT_VECTOR = 0x51;

/** Whatever interrupts VTL2 of a processor: a device, another processor, the host. */
class InterruptSource extends Agent {
  readonly vp: VirtualProcessor;

  constructor(vp: VirtualProcessor, block: number) {
    super("interrupt", vp.memory, block, vp.port);
    this.vp = vp;
  }
}

const RAISE: StepId = step<InterruptSource>("environment.raise-vtl2-interrupt", (source) => {
  source.memory.u32[(RECORD_AT + record.interrupts) >>> 2]--;
  source.vp.facilities.requestVtl2Interrupt(source.vp.index, ENVIRONMENT_VECTOR);
  return RAISE;
}, ({ memory }) => memory.u32[(RECORD_AT + record.interrupts) >>> 2] > 0);

function withdraw({ cpuState, port, state }: VirtualProcessor): void {
  const irr = state + HypervisorVpState.at.vtl2_irr + (ENVIRONMENT_VECTOR >>> 5) * 4;
  port.and32(irr, ~(1 << (ENVIRONMENT_VECTOR & 31)));
  port.and32(cpuState + cpu.attention, ~ATTENTION.VTL2_INTERRUPT);
}

// --- The system ---------------------------------------------------------------------------------------------------

/** The steps in which the VMM looks at message and context of an exit. */
const HANDLER_STEP = /^(sidecar-vmm|vmm)\.handle-(?!wake)[a-z-]+$/;
/** The step with which the VMM's task is about to run the processor. */
const BEFORE_RUN = "sidecar-vmm.check-stop";

/** Builds the system; `name` and `policies` are what schedules carry. `properties` are made from the system itself. */
export function machineSystem(
  name: string,
  setting: GuestSetting,
  policies: Choices,
  properties: (system: MachineSystem) => System["properties"],
): MachineSystem {
  const machine = createMachine(setting.platform, setting, policies);
  const { memory, map } = machine;
  const vp = machine.processor(machine.config.bootVp ?? 0);
  const all = [...machine.agents(0), ...(setting.platform === "sidecar" ? machine.agents(1) : [])];
  const task = all.find((agent) => agent instanceof SidecarTask);
  const ready = () => task === undefined ? vp.step === GUEST_RUN : stepName(task.step) === BEFORE_RUN;
  settle(all, ready);
  settle(
    all.filter((agent) => agent !== task && agent !== vp || task !== undefined && agent === vp),
    () => task === undefined,
  );
  recordExits(vp, setting.platform === "sidecar");
  for (const agent of all) if (agent instanceof LinuxVp) recordExits(agent, false);

  const source = new InterruptSource(vp, RECORD_AT + ScenarioRecord.size);
  source.step = RAISE;
  const live = all.filter((agent) =>
    !agent.halted && !(agent instanceof KernelVp && agent !== vp && !(agent instanceof LinuxVp))
  );
  const places = placesOf(machine, vp, task);
  const agents: SystemAgent[] = [
    ...live.map((agent) => ({
      agent,
      processor: agent === vp || agent instanceof LinuxVp ? 1 : 0,
      ...(places.writes(agent) === undefined ? {} : { writes: places.writes(agent)! }),
    })),
    { agent: source, processor: 2, environment: true },
  ];
  const reference = referenceRun(setting);
  const handlers = new Set<StepId>();
  const handling = (): boolean => {
    const at = (task ?? vp).step;
    if (handlers.has(at)) return true;
    if (!HANDLER_STEP.test(stepName(at))) return false;
    handlers.add(at);
    return true;
  };
  const accessesMax = reference.accesses.length / ACCESS_WORDS;
  const over = (): boolean => machine.end !== END.NONE || memory.u32[(RECORD_AT + record.accesses) >>> 2] > accessesMax;
  const system: MachineSystem = {
    name,
    policies,
    memory,
    agents,
    mutable: rangesOf(agents, [
      ...places.ranges,
      { at: map.header + header.end, bytes: 12 },
      { at: map.header + header.crash_left, bytes: 16 },
      { at: map.header + header.hotplug_lock, bytes: 4 },
      { at: RECORD_AT, bytes: ScenarioRecord.size },
      { at: GUEST_ORIGIN, bytes: GUEST_BYTES },
    ]),
    properties: [],
    finished: () => over() || guestAtEnd(memory, vp),
    over,
    afterRestore: () => vp.cpu.flushCaches(),
    structures: places.structures,
    stepWords: [vp.state + HypervisorVpState.at.vtl2_step],
    machine,
    vp,
    task,
    handling,
    context: places.context,
    message: places.message,
    record: RECORD_AT,
    reference,
    outcome: () => outcomeOf(memory, vp),
  };
  return Object.assign(system, { properties: properties(system) });
}

/** Whether the guest has executed its last instruction: it is halted for good. */
function guestAtEnd({ i32 }: MachineMemory, { cpuState }: VirtualProcessor): boolean {
  return i32[(cpuState + cpu.activity) >>> 2] === ACTIVITY_HALTED &&
    (i32[(cpuState + cpu.rflags) >>> 2] & FLAG_IF) === 0;
}

/** Agent blocks and everything else, without overlaps, in order. */
function rangesOf(agents: readonly SystemAgent[], others: readonly Range[]): Range[] {
  return [...agents.map(({ agent }) => ({ at: agent.block, bytes: AgentBlock.size })), ...others]
    .sort((a, b) => a.at - b.at);
}

/** Where the processor's pages are on its platform. */
interface Places {
  readonly ranges: readonly Range[];
  readonly structures: readonly NamedStructure[];
  readonly context: number;
  readonly message: number;
  /** What an agent writes without its port; nothing when that is not known. */
  writes(agent: Agent): Range[] | undefined;
}

/** Where the hypervisor's state goes on behind its counters of exits. */
const VP_STATE_BEHIND_EXITS: number = HypervisorVpState.at.vtl2_gpr;
/** Words of the VMM's state that handlers use; message queues and hypercall buffers behind them are not. */
const VMM_STATE_BYTES: number = VmmVpState.at.crash_text;
/** Bytes of the register page that have a meaning. */
const REGISTER_PAGE_BYTES = HvX64RegisterPage.at.instruction_emulation_hints + 8;

function placesOf(machine: Machine, vp: VirtualProcessor, task: SidecarTask | undefined): Places {
  const { map } = machine;
  const facilities = machine.platform.facilities.state(vp.index);
  const page = (which: number) => kernelPage(map.vtl2, vp.index, which);
  const processor: Range[] = [
    { at: vp.cpuState, bytes: CpuState.size },
    // Counters that nothing decides by are left out: states that differ in them alone are the same.
    { at: vp.state, bytes: HypervisorVpState.at.exits },
    { at: vp.state + VP_STATE_BEHIND_EXITS, bytes: HypervisorVpState.size - VP_STATE_BEHIND_EXITS },
    { at: facilities, bytes: FacilityState.size },
  ];
  const kernel: Range[] = [
    { at: page(KERNEL_PAGES.ASSIST), bytes: HvVpAssistPage.size },
    { at: page(KERNEL_PAGES.REGISTER), bytes: REGISTER_PAGE_BYTES },
    { at: page(KERNEL_PAGES.RUN), bytes: hcl_run.at.vtl_ret_actions },
    { at: page(KERNEL_PAGES.RUN_STATE), bytes: VmmRunState.size },
    ...vp.messagesInAssistPage ? [] : [{ at: page(MESSAGE_PAGE), bytes: HvMessage.size }],
  ];
  const vmm: Range = { at: page(KERNEL_PAGES.VMM), bytes: VMM_STATE_BYTES };
  const kernelStructures: NamedStructure[] = [
    { name: "assist page", at: page(KERNEL_PAGES.ASSIST), layout: HvVpAssistPage },
    { name: "register page", at: page(KERNEL_PAGES.REGISTER), layout: HvX64RegisterPage },
    { name: "run page", at: page(KERNEL_PAGES.RUN), layout: hcl_run },
  ];
  const guest: NamedStructure = { name: "guest", at: vp.cpuState, layout: CpuState };
  if (task === undefined || !(vp instanceof SidecarVp)) {
    return {
      ranges: [...processor, ...kernel, vmm],
      structures: [guest, ...kernelStructures],
      context: page(KERNEL_PAGES.RUN) + hcl_run.at.context,
      message: page(KERNEL_PAGES.RUN) + hcl_run.at.exit_message,
      writes: () => undefined,
    };
  }
  const { node, taskState, commandPage } = task;
  const memories = machine.platform.sidecar.memoryOf(vp.index);
  const registerPage: Range = { at: node.registerPage(vp.slot), bytes: REGISTER_PAGE_BYTES };
  const assistPage: Range = { at: vp.ownAssistPage, bytes: HvVpAssistPage.size };
  const globals: Range = { at: vp.globals, bytes: SidecarVpGlobals.at.entries_by_interrupt };
  const command: Range = { at: commandPage, bytes: CommandPage.at.request_data + REQUEST_BYTES };
  const client: Range = {
    at: memories.image,
    bytes: memories.clients + node.vpCount * SidecarClientState.size - memories.image,
  };
  const taskRange: Range = { at: taskState, bytes: SidecarTaskState.size };
  const record: Range = { at: RECORD_AT, bytes: ScenarioRecord.size };
  const code: Range = { at: GUEST_ORIGIN, bytes: GUEST_BYTES };
  const attention: Range = { at: vp.cpuState + cpu.attention, bytes: 4 };
  const header: Range = { at: machine.header, bytes: MachineHeader.size };
  return {
    ranges: [
      ...processor,
      ...kernel,
      vmm,
      { at: node.controlPage, bytes: CONTROL_PAGE_BYTES },
      command,
      registerPage,
      assistPage,
      globals,
      client,
      taskRange,
    ],
    structures: [
      guest,
      { name: "command page", at: commandPage, layout: CommandPage },
      { name: "control page", at: node.controlPage, layout: ControlPage },
      { name: "register page", at: registerPage.at, layout: HvX64RegisterPage },
      { name: "assist page", at: assistPage.at, layout: HvVpAssistPage },
    ],
    context: task.vmm.context,
    message: task.vmm.message,
    writes: (agent) => {
      if (agent === vp) return [...processor, command, registerPage, assistPage, globals, record, code, header];
      if (agent === task) return [vmm, command, client, taskRange, record, code, header, attention];
      return agent instanceof ClientThread || agent instanceof ResponseHandler ? [client] : undefined;
    },
  };
}

/** Bytes of the control page up to the status bytes of a node of two processors. */
const CONTROL_PAGE_BYTES: number = ControlPage.at.cpu_status + 4;
/** Bytes of a command's input and output that a scenario's commands use. */
const REQUEST_BYTES = 1536;

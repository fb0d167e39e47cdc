/**
 * An SEV-ES machine with the kernel that has OpenBSD's #VC handlers, as a system to explore: one processor, one of the two
 * hosts, devices that answer by plan, and where wanted a host that answers badly.
 *
 * The same program runs on `bare` for reference: what each instruction leaves there, it must leave here.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import type { DeviceBackend } from "../devices/backend.ts";
import type { Range, SystemAgent } from "../explore/system.ts";
import { type PlacedInstruction, vcKernelImage, vcLabel, vcProgramNumber } from "../guest/programs/vc/kernel.ts";
import type { VcProgram } from "../guest/programs/vc/kernel.ts";
import { BOOT, VC_POLICIES } from "../guest/programs/vc/policies.ts";
import { type HostVcpu, HostVcpuState, MP_STATE } from "../host/host_vcpu.ts";
import { CR8_SHADOW, XSETBV_INTERCEPT } from "../host/vmd/policies.ts";
import { FacilityState } from "../hypervisor/facilities.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import type { SevVp } from "../hypervisor/sev/sev_vp.ts";
import { SevVpState, VIEW } from "../hypervisor/sev/state.ts";
import { array, u32 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { VMSA } from "../layout/sev/vmsa.ts";
import { Fxsave } from "../layout/x64/fxsave.ts";
import { END, MachineHeader } from "../machine/header.ts";
import { loadGuest } from "../machine/load.ts";
import { Machine } from "../machine/machine.ts";
import { Agent, AgentBlock } from "../memory/agent.ts";
import { type MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import { policyNamed, policyValue, unnoted } from "../memory/policy.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import type { Choices } from "./scenario.ts";

/** Guest RAM in bytes: the least that a machine has. */
const RAM_BYTES = 1 << 20;
/** Guest-physical address of the record below, which the kernel does not use. */
const RECORD_AT = 0xf0000;
/** Device accesses that are recorded. */
const ACCESSES_MAX = 64;
/** Words of a recorded access: port, size and direction; value. */
const ACCESS_WORDS = 2;
/** What the device answers to every IN. */
const DEVICE_ANSWER = 0x8badf00d;
/** Bytes of an entry of the kernel's log, and of the log. */
export const LOG_ENTRY_BYTES = 48;
const LOG_BYTES = PAGE_SIZE;
/** Steps after which a boot, or a reference run, is taken for stuck. */
const SETTLE_STEPS_MAX = 100_000;

/** What the environment has done and seen. */
const VcRecord = structure("VcRecord", 544, [
  ["tampered", 0, u32, "What the bad host has done: 1 and the number of the act; 0 for nothing"],
  ["accesses", 4, u32, "Device accesses made for the guest"],
  ["log", 8, array(u32, ACCESS_WORDS * ACCESSES_MAX), "Port with size << 16 and IN << 24, then the value written"],
  reserved(520, 24),
], "Not a structure of the modelled machine");

/** Where the agents of the environment have their blocks. */
export const ENVIRONMENT_BLOCKS: number = RECORD_AT + VcRecord.size + AgentBlock.size;

const record = VcRecord.at;
const header = MachineHeader.at;
const cpu = CpuState.at;

/** A machine that is about to execute a program. */
export interface VcMachine {
  readonly machine: Machine;
  readonly vp: SevVp;
  readonly host: HostVcpu;
}

/** Devices that answer by plan and note every access. */
function plannedDevices(memoryOf: () => MachineMemory): DeviceBackend {
  const note = (port: number, size: number, isIn: boolean, value: number): void => {
    const { u32 } = memoryOf();
    const count = u32[(RECORD_AT + record.accesses) >>> 2]++;
    if (count >= ACCESSES_MAX) return;
    const at = ((RECORD_AT + record.log) >>> 2) + ACCESS_WORDS * count;
    u32[at] = port | size << 16 | (isIn ? 1 << 24 : 0);
    u32[at + 1] = value;
  };
  return {
    claims: { ports: [{ first: 0, last: 0xffff }], mmio: [] },
    portIn: (port, size) => {
      note(port, size, true, 0);
      return size === 4 ? DEVICE_ANSWER : DEVICE_ANSWER & (1 << 8 * size) - 1;
    },
    portOut: (port, size, value) => note(port, size, false, value),
    mmioRead: () => 0n,
    mmioWrite: () => {},
  };
}

/** Runs agents in turn until none can go on. */
function settle(agents: readonly Agent[]): void {
  for (let taken = 0; taken < SETTLE_STEPS_MAX;) {
    let steps = 0;
    for (const agent of agents) steps += agent.takeSteps(1);
    if (steps === 0) return;
    taken += steps;
  }
  throw new RangeError(`The kernel takes more than ${SETTLE_STEPS_MAX} steps`);
}

/** Sets the bytes by which the kernel's handlers choose. */
function choose({ u8 }: MachineMemory, policies: Choices): void {
  const chosen = vcLabel("chosen");
  VC_POLICIES.forEach((policy, index) => {
    u8[chosen + index] = policyValue(policyNamed(policy.name), policies[policy.name] ?? policy.values[0].name);
  });
  u8.fill(0, vcLabel("consulted"), vcLabel("consulted") + VC_POLICIES.length);
}

function load(machine: Machine, boot: "legacy" | "compat", program: VcProgram, isBare: boolean): void {
  loadGuest(machine, vcKernelImage(boot));
  machine.memory.u8[vcLabel("bare")] = isBare ? 1 : 0;
  machine.memory.u32[vcLabel("program") >>> 2] = vcProgramNumber(program);
}

const references = new Map<VcProgram, VcOutcome>();

/** What a program leaves: the log of its instructions, and its device accesses. */
export interface VcOutcome {
  readonly log: Uint32Array;
  readonly accesses: Uint32Array;
}

/** What there is of it so far. */
export function outcomeOf({ u32 }: MachineMemory): VcOutcome {
  const log = vcLabel("LOG") >>> 2;
  const end = Math.max(log, Math.min(u32[vcLabel("log_next") >>> 2] >>> 2, log + LOG_BYTES / 4));
  const accesses = (RECORD_AT + record.log) >>> 2;
  const count = Math.min(u32[(RECORD_AT + record.accesses) >>> 2], ACCESSES_MAX);
  return { log: u32.subarray(log, end), accesses: u32.subarray(accesses, accesses + ACCESS_WORDS * count) };
}

/** What a program leaves on `bare`. */
export function reference(program: VcProgram): VcOutcome {
  let known = references.get(program);
  if (known === undefined) {
    let memory: MachineMemory | undefined = undefined;
    const machine: Machine = Machine.create(
      { platform: "bare", vps: 1, ramBytes: RAM_BYTES, policies: {}, devices: "pc", recordExits: false },
      true,
      plannedDevices(() => memory!),
    );
    memory = machine.memory;
    load(machine, "legacy", program, true);
    settle(machine.agents(0));
    const { log, accesses } = outcomeOf(memory);
    known = { log: log.slice(), accesses: accesses.slice() };
    references.set(program, known);
  }
  return known;
}

/** The policies under which the kernel boots, whatever the choice, for a program that is not about the boot. */
const BOOTS: Choices = { "vc.early-handler": "both", "vc.boot": "legacy" };

/** A machine on `host` that is about to boot, for the program `boot`, or has booted and is about to execute the program. */
export function vcMachine(host: "kvm" | "vmd", program: VcProgram, policies: Choices): VcMachine {
  let memory: MachineMemory | undefined = undefined;
  // Which instructions are intercepted makes a difference to the program that executes them, and to no other.
  const machine: Machine = unnoted(() =>
    Machine.create(
      {
        platform: "sev-es",
        vps: 1,
        ramBytes: RAM_BYTES,
        policies,
        devices: "pc",
        recordExits: false,
        host,
        hostPlacement: "processor",
      },
      true,
      plannedDevices(() => memory!),
    )
  );
  memory = machine.memory;
  const side = machine.platform.sev.host(0);
  const vp = machine.processor(0) as SevVp;
  if (program === "host" && host === "vmd") {
    for (const policy of [XSETBV_INTERCEPT, CR8_SHADOW]) vp.partition.policy(policy);
  }
  if (program === "boot") {
    const area = vp.partition.policy(BOOT);
    load(machine, BOOT.values[area].name as "legacy" | "compat", program, false);
    choose(memory, policies);
    return { machine, vp, host: side };
  }
  load(machine, "legacy", program, false);
  choose(memory, BOOTS);
  unnoted(() => settle(machine.agents(0)));
  if (side.get32("mp_state") !== MP_STATE.HALTED) throw new RangeError("The kernel does not get through its boot");
  choose(memory, policies);
  side.set32("mp_state", MP_STATE.RUNNABLE);
  vp.port.or32(vp.cpuState + cpu.attention, ATTENTION.STOP);
  return { machine, vp, host: side };
}

// --- The environment -------------------------------------------------------------------------------------------------

/** Chooses which instruction a program tries, before the program begins. */
class Chooser extends Agent {
  readonly vp: SevVp;
  readonly count: number;

  constructor(vp: SevVp, count: number) {
    super("choice", vp.memory, RECORD_AT + VcRecord.size, vp.port);
    this.vp = vp;
    this.count = count;
    this.step = CHOOSE;
  }
}

const CHOOSE: StepId = step<Chooser>("environment.choose-instruction", ({ port, vp, count }) => {
  port.store32(vcLabel("variant"), port.choose(count));
  port.store32(vp.sevState + SevVpState.at.view, VIEW.NONE);
  return HALTED;
});

/** An agent that lets the program begin with one of `count` instructions. */
export function chooser({ vp }: VcMachine, count: number): Agent {
  // Until it has chosen, the host waits as for somebody who looks.
  vp.memory.u32[(vp.sevState + SevVpState.at.view) >>> 2] = VIEW.WAITS;
  return new Chooser(vp, count);
}

// --- The system's parts ----------------------------------------------------------------------------------------------

/** Notes which of the kernel's policies its code has looked at. */
export function noteConsulted({ vp }: VcMachine): void {
  const { u8 } = vp.memory;
  const consulted = vcLabel("consulted");
  VC_POLICIES.forEach((policy, index) => {
    if (u8[consulted + index] !== 0) vp.partition.policy(policy);
  });
}

/** Byte offsets of {@linkcode VcRecord} fields. */
export const RECORD: Readonly<Record<keyof typeof record & ("tampered" | "accesses"), number>> = {
  tampered: RECORD_AT + record.tampered,
  accesses: RECORD_AT + record.accesses,
};

/** Where the VMCB goes on behind its intercept vector. */
const INTERCEPTS_END: number = VMCB_CONTROL.at.intercepts + VMCB_CONTROL.field("intercepts").size;

/** Everything that a step can change; `boot` when the kernel has not booted yet. */
export function mutableRanges(parts: VcMachine, agents: readonly Agent[], boot: boolean): Range[] {
  const { machine, vp, host } = parts;
  const { map } = machine;
  const { sev } = machine.platform.sev;
  const ranges: Range[] = [
    ...agents.map(({ block }) => ({ at: block, bytes: AgentBlock.size })),
    { at: host.state, bytes: HostVcpuState.size },
    { at: host.scratch, bytes: Fxsave.size },
    // The intercepts are what the host has chosen at the start.
    { at: host.vmcb + INTERCEPTS_END, bytes: VMCB_CONTROL.size - INTERCEPTS_END },
    { at: sev.vmsa(0), bytes: VMSA.size },
    { at: vp.sevState, bytes: SevVpState.size },
    { at: vp.cpuState, bytes: CpuState.size },
    { at: machine.platform.facilities.state(0), bytes: FacilityState.size },
    { at: sev.guestMemory.place.views, bytes: RAM_BYTES / PAGE_SIZE },
    // Whether and how the machine has ended.
    { at: map.header + header.shutdown, bytes: header.workers_left - header.shutdown },
    { at: RECORD_AT, bytes: VcRecord.size },
    { at: vcLabel("STACK_TOP") - PAGE_SIZE, bytes: vcLabel("chosen") - vcLabel("STACK_TOP") + PAGE_SIZE },
    { at: vcLabel("consulted"), bytes: vcLabel("VARIABLES_END") - vcLabel("consulted") },
    { at: vcLabel("LOG"), bytes: LOG_BYTES },
  ];
  if (boot) {
    ranges.push({ at: vcLabel("PML4"), bytes: vcLabel("STACK_TOP") - PAGE_SIZE - vcLabel("PML4") });
    ranges.push({ at: vcLabel("ORIGIN"), bytes: vcLabel("image_end") - vcLabel("ORIGIN") });
  }
  return ranges.sort((a, b) => a.at - b.at);
}

/** The processor, its host and what else takes part. */
export function vcAgents({ vp, host }: VcMachine, environment: readonly Agent[]): SystemAgent[] {
  return [
    { agent: vp, processor: 0 },
    { agent: host, processor: 0 },
    ...environment.map((agent) => ({ agent, processor: 1, environment: true })),
  ];
}

/** Whether the machine has ended. */
export function ended({ machine }: VcMachine): boolean {
  return machine.end !== END.NONE;
}

/** The instruction that the kernel is executing, if it is one that its program tries. */
export function currentInstruction(
  { u32 }: MachineMemory,
  placed: ReadonlyMap<number, PlacedInstruction>,
): PlacedInstruction | undefined {
  return placed.get(u32[vcLabel("current") >>> 2]);
}

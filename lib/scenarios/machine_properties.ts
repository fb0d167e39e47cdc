/**
 * What must hold of a machine with a guest: small predicates, each with the sentence that it enforces.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import type { Property } from "../explore/system.ts";
import { HvMessage, HvX64InterceptMessageHeader } from "../layout/hyperv/messages.ts";
import { CpuContextX64, CpuStatus } from "../layout/hyperv/sidecar.ts";
import { Fxsave } from "../layout/x64/fxsave.ts";
import { END, MachineHeader } from "../machine/header.ts";
import { SidecarTaskState } from "../sidecar/memory.ts";
import { type GuestOutcome, type MachineSystem, ScenarioRecord } from "./machine_system.ts";
import type { NamedProperty } from "./scenario.ts";

/** The properties, in the order of reports. */
export const MACHINE_PROPERTIES = [
  { name: "no-vmm-crash", sentence: "No assertion of the VMM fails, and it meets nothing that it does not handle." },
  { name: "no-deadlock", sentence: "When nobody can go on, the guest has come to its end." },
  { name: "no-fabricated-completion", sentence: "No run is handled as completed while the guest is under way." },
  { name: "exactly-once", sentence: "Each exit is handled once." },
  { name: "page-ownership", sentence: "The VMM touches a command page only while its processor is IDLE." },
  { name: "transparency", sentence: "The guest observes and ends with what it does on bare." },
  { name: "regs.rax", sentence: "RAX that a handler sees is the guest's at that exit." },
  {
    name: "regs.gpr",
    sentence: "The other general-purpose registers that a handler sees are the guest's at that exit.",
  },
  { name: "regs.cr2", sentence: "CR2 that a handler sees is the guest's at that exit." },
  { name: "regs.xmm0-5", sentence: "XMM0 to XMM5 that a handler sees are the guest's at that exit." },
  { name: "regs.xmm6-15", sentence: "XMM6 to XMM15 that a handler sees are the guest's at that exit." },
  { name: "regs.fpctl", sentence: "FCW and MXCSR that a handler sees are the guest's at that exit." },
] as const satisfies readonly NamedProperty[];

type Name = (typeof MACHINE_PROPERTIES)[number]["name"];

const record = ScenarioRecord.at;
const RIP = HvMessage.at.payload_buffer + HvX64InterceptMessageHeader.at.rip;
const { IDLE } = CpuStatus.values;
/** Slot of the context that holds CR2; RSP, which is private to VTL0, is not in it. */
const CR2_SLOT = 4;
const GPRS = 16;
const XMM_WORDS = 2;

/** The properties of `system`. */
export function machineProperties(system: MachineSystem): Property[] {
  const { memory: { u8, u32, u64 }, machine, vp, task } = system;
  const of = (name: Name, when: Property["when"], kind: Property["kind"], holds: () => boolean): Property => {
    const { sentence } = MACHINE_PROPERTIES.find((property) => property.name === name)!;
    return { name, sentence, when, kind, holds };
  };
  /** Holds unless the VMM is about to handle an exit and something is wrong then. */
  const atHandler = (name: Name, kind: Property["kind"], right: () => boolean): Property =>
    of(name, "always", kind, () => !system.handling() || right());
  const context = system.context >>> 3;
  const truth = (system.record + record.gpr) >>> 3;
  const contextFx = system.context + CpuContextX64.at.fx_state;
  const truthFx = system.record + record.fx;
  const words = (offset: number, count: number): boolean => {
    for (let k = 0; k < count; k++) {
      if (u64[((contextFx + offset) >>> 3) + k] !== u64[((truthFx + offset) >>> 3) + k]) return false;
    }
    return true;
  };
  const idle = (): boolean => task === undefined || u8[task.node.statuses + task.slot] === IDLE;
  const stands = (): boolean => u64[(system.message + RIP) >>> 3] === u64[(vp.cpuState + CpuState.at.rip) >>> 3];
  const handled = (): number => task === undefined ? 0 : u32[(task.taskState + SidecarTaskState.at.exits) >>> 2];
  const crashed = (): boolean => u32[(machine.header + MachineHeader.at.end) >>> 2] === END.VMM_CRASH;
  const hex = (value: bigint): string => `0x${value.toString(16)}`;

  return [
    of("no-vmm-crash", "always", () => crashText(system), () => !crashed()),
    of("no-deadlock", "end", "nobody can go on", () => crashed() || system.finished!()),
    atHandler(
      "no-fabricated-completion",
      "handled while the processor runs",
      () => idle() || handled() > 0 && stands(),
    ),
    atHandler("exactly-once", "an exit that was handled already is handled again", () => !idle() || stands()),
    atHandler("page-ownership", "the processor is not IDLE", idle),
    of(
      "transparency",
      "end",
      () => difference(system.reference, system.outcome()),
      () => crashed() || difference(system.reference, system.outcome()) === "",
    ),
    atHandler(
      "regs.rax",
      () => `context.rax ${hex(u64[context])}, guest's ${hex(u64[truth])}`,
      () => u64[context] === u64[truth],
    ),
    atHandler("regs.gpr", "a register differs", () => {
      for (let k = 1; k < GPRS; k++) if (k !== CR2_SLOT && u64[context + k] !== u64[truth + k]) return false;
      return true;
    }),
    atHandler(
      "regs.cr2",
      "CR2 differs",
      () => u64[context + CR2_SLOT] === u64[(system.record + record.cr2) >>> 3],
    ),
    atHandler("regs.xmm0-5", "a register differs", () => words(Fxsave.at.xmm, 6 * XMM_WORDS)),
    atHandler("regs.xmm6-15", "a register differs", () => words(Fxsave.at.xmm + 6 * 8 * XMM_WORDS, 10 * XMM_WORDS)),
    atHandler("regs.fpctl", "FCW or MXCSR differs", () =>
      u32[contextFx >>> 2] === u32[truthFx >>> 2] &&
      u32[(contextFx + Fxsave.at.mxcsr) >>> 2] === u32[(truthFx + Fxsave.at.mxcsr) >>> 2]),
  ];
}

/** The assertion that failed, with both values. */
function crashText({ machine, memory: { u8, u32, u64 } }: MachineSystem): string {
  const at = machine.header;
  const length = u32[(at + MachineHeader.at.crash_text_length) >>> 2];
  const text = new TextDecoder().decode(
    u8.slice(at + MachineHeader.at.crash_text, at + MachineHeader.at.crash_text + length),
  );
  const left = u64[(at + MachineHeader.at.crash_left) >>> 3];
  const right = u64[(at + MachineHeader.at.crash_right) >>> 3];
  return `${text}: 0x${left.toString(16)} and 0x${right.toString(16)}`;
}

const REGISTER_NAMES = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip cr2".split(" ");

/** What of an outcome differs from the reference, in a few words; nothing when all is as it should be. */
export function difference(reference: GuestOutcome, outcome: GuestOutcome): string {
  const { accesses, registers } = reference;
  if (accesses.length !== outcome.accesses.length) {
    return `${outcome.accesses.length / 2} device accesses, on bare ${accesses.length / 2}`;
  }
  const access = accesses.findIndex((word, k) => word !== outcome.accesses[k]);
  if (access >= 0) return `device access ${access >>> 1} differs`;
  const register = registers.findIndex((word, k) => word !== outcome.registers[k]);
  if (register < 0) return "";
  return `the guest ends with another ${REGISTER_NAMES[register] ?? "x87 or SSE state"}`;
}

/**
 * Hosts that answer badly: late, without the fields that must be valid, with an exception, an error or too much, or with
 * events that nothing has caused. Each does one bad thing, at a moment of its choice; what it does besides is the honest
 * host's.
 *
 * @module
 */
import { VECTOR_GP, VECTOR_UD, VECTOR_VC } from "../cpu/faults.ts";
import { vcLabel } from "../guest/programs/vc/kernel.ts";
import { KVM_EXIT } from "../host/kvm/exit.ts";
import { injectException } from "../host/sev_events.ts";
import { VMD_EXIT } from "../host/vmd/exit.ts";
import { SevVpState, TURN } from "../hypervisor/sev/state.ts";
import { VMRUN } from "../hypervisor/sev/sev_vp.ts";
import { GhcbExitResult } from "../layout/sev/constants/ghcb.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import { GHCB, GHCB_VALID_BIT } from "../layout/sev/ghcb.ts";
import { GHCB_MSR } from "../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { Agent } from "../memory/agent.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { Ghcb } from "../sev/ghcb.ts";
import { RECORD, type VcMachine } from "./vc_system.ts";

const vmcb = VMCB_CONTROL.at;
const EXIT = SevExitCode.values;
/** An exception that the host asks for: type 3, vector 13, valid (sev.md c5). */
const INFO2_GP = 0x8000_030dn;
/** Reason of an error: a field is missing. */
const INFO2_MISSING = 4n;
/** What is put above the result's size. */
const EXCESS = 0x7f7f_7f7f_0000_0000n;
/** A response code that no request has. */
const WRONG_RESPONSE = 0x0ffn;

/** One bad thing. */
export interface Act {
  /** What it is, for messages. */
  readonly name: string;
  /** Whether no answer that comes with it may be believed. */
  readonly worthless: boolean;
  /** Whether it is an event that nothing has caused. */
  readonly forged: boolean;
  readonly act: (host: BadHost) => void;
}

/** Bad answers through the GHCB. */
export const BAD_ANSWERS: readonly Act[] = [
  {
    name: "RAX is not marked valid",
    worthless: true,
    forged: false,
    act: ({ memory }) => {
      const bit = GHCB_VALID_BIT.rax;
      memory.u8[vcLabel("GHCB") + GHCB.at.valid_bitmap + (bit >> 3)] &= ~(1 << (bit & 7));
    },
  },
  { name: "nothing is marked valid", worthless: true, forged: false, act: ({ ghcb }) => ghcb.invalidate() },
  {
    name: "an exception is asked for",
    worthless: true,
    forged: false,
    act: ({ ghcb }) => {
      ghcb.set("sw_exit_info_1", BigInt(GhcbExitResult.values.ISSUE_EXCEPTION));
      ghcb.set("sw_exit_info_2", INFO2_GP);
    },
  },
  {
    name: "an error is reported",
    worthless: true,
    forged: false,
    act: ({ ghcb }) => {
      ghcb.set("sw_exit_info_1", BigInt(GhcbExitResult.values.MALFORMED_INPUT));
      ghcb.set("sw_exit_info_2", INFO2_MISSING);
    },
  },
  {
    name: "more than the result is answered",
    worthless: false,
    forged: false,
    act: ({ ghcb }) => {
      for (const name of ["rax", "rbx", "rcx", "rdx"] as const) {
        if (ghcb.isValid(name)) ghcb.set(name, ghcb.raw(name) | EXCESS);
      }
    },
  },
  {
    name: "#GP is injected",
    worthless: false,
    forged: false,
    act: ({ parts }) => injectException(parts.host, VECTOR_GP, 0),
  },
  {
    name: "#UD is injected",
    worthless: false,
    forged: false,
    act: ({ parts }) => injectException(parts.host, VECTOR_UD),
  },
];

/** #VC exceptions that no instruction has caused. */
export const FORGED_EVENTS: readonly Act[] = [EXIT.CPUID, EXIT.IOIO, EXIT.MSR, EXIT.NPF].map((code): Act => ({
  name: `#VC ${code.toString(16)} is injected`,
  worthless: false,
  forged: true,
  act: ({ parts }) => injectException(parts.host, VECTOR_VC, code),
}));

/** Bad answers by the MSR protocol. */
export const BAD_MSR_ANSWERS: readonly Act[] = [
  {
    name: "the response is of another request",
    worthless: true,
    forged: false,
    act: ({ memory, control }) => {
      const word = (control + vmcb.ghcb_gpa) >>> 3;
      memory.u64[word] = memory.u64[word] & ~GHCB_MSR.mask.info | WRONG_RESPONSE;
    },
  },
  {
    name: "the response is zero",
    worthless: true,
    forged: false,
    act: ({ memory, control }) => {
      memory.u64[(control + vmcb.ghcb_gpa) >>> 3] = 0n;
    },
  },
];

/** The host, after it has answered. */
export class BadHost extends Agent {
  readonly parts: VcMachine;
  readonly acts: readonly Act[];
  readonly ghcb: Ghcb;
  /** Byte offset of the VMCB. */
  readonly control: number;

  /** One that does one of `acts`, over the agent block at byte offset `block`. */
  constructor(parts: VcMachine, block: number, acts: readonly Act[]) {
    super("host.bad", parts.vp.memory, block, parts.host.port);
    this.parts = parts;
    this.acts = acts;
    this.ghcb = new Ghcb(this.memory.view, vcLabel("GHCB"));
    this.control = parts.host.vmcb;
    this.step = TAMPER;
  }

  /** Whether the host has handed the processor back and the guest has not begun. */
  get beforeEntry(): boolean {
    const { vp } = this.parts;
    return this.port.load32(vp.sevState + SevVpState.at.turn) === TURN.GUEST && vp.step === VMRUN;
  }

  /** Exit code of the exit that was served last. */
  get served(): number {
    return Number(BigInt.asIntN(32, this.memory.u64[(this.control + vmcb.exit_code) >>> 3]));
  }
}

/** One bad thing, between the honest host's answer and the guest's entry. */
const TAMPER: StepId = step<BadHost>(
  "host.tamper",
  (host) => {
    const chosen = host.port.choose(host.acts.length);
    host.acts[chosen].act(host);
    host.port.store32(RECORD.tampered, 1 + chosen);
    return HALTED;
  },
  (host) => {
    if (!host.beforeEntry || host.memory.u32[RECORD.tampered >>> 2] !== 0) return false;
    return host.acts[0].forged ||
      host.served === EXIT.VMGEXIT && usesMsr(host.parts) === (host.acts === BAD_MSR_ANSWERS);
  },
);

/** Whether the guest's last request, or the answer to it, is one of the MSR protocol. */
export function usesMsr({ vp, host }: VcMachine): boolean {
  return (vp.memory.u32[(host.vmcb + vmcb.ghcb_gpa) >>> 2] & GHCB_MSR.low.info) !== 0;
}

/** A host that enters the guest before it has answered. */
class LateHost extends Agent {
  readonly parts: VcMachine;
  readonly acts: readonly Act[];

  constructor(parts: VcMachine, block: number, acts: readonly Act[]) {
    super("host.late", parts.vp.memory, block, parts.host.port);
    this.parts = parts;
    this.acts = acts;
    this.step = ENTER_EARLY;
  }
}

const ENTER_EARLY: StepId = step<LateHost>(
  "host.enter-unanswered",
  ({ parts, port, acts }) => {
    port.store32(RECORD.tampered, lateAct(acts));
    port.store32(parts.vp.sevState + SevVpState.at.turn, TURN.GUEST);
    return HALTED;
  },
  ({ parts, acts, memory }) =>
    memory.u32[RECORD.tampered >>> 2] === 0 && atExit(parts, EXIT.VMGEXIT) &&
    usesMsr(parts) === (acts === BAD_MSR_ANSWERS),
);

/** Whether the guest has just left, with this exit code. */
export function atExit({ vp, host }: VcMachine, code: number): boolean {
  const { u32 } = vp.memory;
  return u32[(vp.sevState + SevVpState.at.turn) >>> 2] === TURN.HOST && HANDLE_EXIT.has(host.step) &&
    u32[(host.vmcb + vmcb.exit_code) >>> 2] === code && vp.step === VMRUN;
}

/** The steps with which the hosts begin to handle an exit. */
const HANDLE_EXIT: ReadonlySet<StepId> = new Set([KVM_EXIT, VMD_EXIT]);

/** Number of the act of a host that has entered the guest before it has answered. */
export function lateAct(acts: readonly Act[]): number {
  return acts.length + 1;
}

/** The agents of a host that does one of `acts`, over blocks from byte offset `block` on. */
export function badHost(parts: VcMachine, block: number, blockBytes: number, acts: readonly Act[]): readonly Agent[] {
  const tampering = new BadHost(parts, block, acts);
  return acts[0].forged ? [tampering] : [tampering, new LateHost(parts, block + blockBytes, acts)];
}

/**
 * The host's side of one virtual processor of an encrypted guest: an agent that has its turn whenever the guest has left.
 *
 * What it may look at is its own state, the VMCB, and guest memory through its {@linkcode HostPort}. Hosts differ in the
 * steps that they take; this is what they have in common.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import type { Devices } from "../devices/devices.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import type { CpuidTable } from "../hypervisor/cpuid.ts";
import type { SevMachine } from "../hypervisor/sev/machine.ts";
import { SevVpState, TURN, VIEW } from "../hypervisor/sev/state.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { array, bytes, u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { Agent } from "../memory/agent.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import type { StepId } from "../memory/steps.ts";
import { HostPort } from "./host_port.ts";

/** Most pages of a scratch area that a host copies (Linux setup_vmgexit_scratch). */
export const SCRATCH_PAGES_MAX = 16;

/** What a host waits for on behalf of a processor. */
export const MP_STATE = {
  /** It may run. */
  RUNNABLE: 0,
  /** HLT: until an interrupt. */
  HALTED: 1,
  /** Never started: until a startup IPI, or until its VMSA is created. */
  WAIT_FOR_SIPI: 2,
  /** AP reset hold asked for through the GHCB. */
  RESET_HOLD_GHCB: 3,
  /** AP reset hold asked for through the MSR protocol. */
  RESET_HOLD_MSR: 4,
} as const;

/** The host's private state of a virtual processor. */
export const HostVcpuState = structure("HostVcpuState", 384, [
  ["mp_state", 0, u32, "MP_STATE"],
  ["field", 4, u32, "Index of the field that a loop over fields is at"],
  ["ghcb", 8, u32, "Guest-physical address of the GHCB of the request under way; 0 for none"],
  ["operation", 12, u32, "RmpResult or progress of the page state change under way"],
  ["registered", 16, u64, "Registered GHCB frame plus one, 0 for none; vmd: the accepted address"],
  ["rax", 24, u64, "Snapshot of RAX, and the reply"],
  ["rbx", 32, u64, "Snapshot of RBX, and the reply"],
  ["rcx", 40, u64, "Snapshot of RCX, and the reply"],
  ["rdx", 48, u64, "Snapshot of RDX, and the reply"],
  ["rsi", 56, u64, "Snapshot of RSI"],
  ["cpl", 64, u64, "Snapshot of CPL"],
  ["xcr0", 72, u64, "Snapshot of XCR0"],
  ["sw_exit_code", 80, u64, "Snapshot of SW_EXITCODE"],
  ["sw_exit_info_1", 88, u64, "Snapshot of SW_EXITINFO1"],
  ["sw_exit_info_2", 96, u64, "Snapshot of SW_EXITINFO2"],
  ["sw_scratch", 104, u64, "Snapshot of SW_SCRATCH"],
  ["valid_bitmap", 112, bytes(16), "Snapshot of the bitmap"],
  ["reply_info_1", 128, u64, "SW_EXITINFO1 of the reply"],
  ["reply_info_2", 136, u64, "SW_EXITINFO2 of the reply"],
  ["scratch_bytes", 144, u32, "Bytes of the scratch area in the host's copy"],
  ["element", 148, u32, "Element of a string access, or entry of a page state change"],
  ["ap_vmsa", 152, u64, "VMSA that another processor has asked this one to run; 0 for none"],
  ["ap_request", 160, u32, "ApCreationRequest plus one, 0 for none (shared)"],
  ["nmi", 164, u32, "1 while an NMI waits, 2 while the guest has not completed one"],
  ["efer", 168, u64, "Shadow of EFER from write traps"],
  ["cr0", 176, u64, "Shadow of CR0"],
  ["cr4", 184, u64, "Shadow of CR4"],
  ["cr8", 192, u64, "Shadow of CR8"],
  ["jump_table", 200, u64, "AP jump table that the guest has set"],
  ["requests", 208, u64, "VMGEXITs served"],
  ["refused", 216, u64, "VMGEXITs answered with an error"],
  ["faults", 224, u32, "Writes of the host that faulted"],
  ["stop_code", 228, u32, "Why the host gave up, a HOST_STOP"],
  ["psc_entry", 232, u64, "Page state change entry under way"],
  ["psc_end", 240, u32, "Last entry of the page state change"],
  ["psc_page", 244, u32, "Guest page under way"],
  ["psc_left", 248, u32, "Pages of the entry that are left"],
  ["usage", 252, u32, "Snapshot of the usage field"],
  ["kicks", 256, u64, "Exits for a physical interrupt"],
  [
    "exits",
    264,
    array(u64, 8),
    "Exits by group: VMGEXIT, MSR protocol, halt, interrupt, nested page fault, trap, other",
  ],
  ["started", 328, u32, "1 once the processor has run"],
  ["page_faults", 332, u32, "Nested page faults served"],
  ["validated", 336, array(u64, 4), "Exit code, EXITINFO1, EXITINFO2 and scratch address as they were validated"],
  ["psc_done", 368, u32, "Entries of the page state change under way that have been acted on"],
  reserved(372, 12),
], "Not a structure of the modelled machine");

/** Why a host stops the machine. */
export const HOST_STOP = {
  NONE: 0,
  /** The guest asked for termination. */
  TERMINATED: 1,
  /** The host's own rule (-EINVAL to user space, EINVAL of vmm). */
  INVALID: 2,
  /** VMRUN failed. */
  ENTRY_FAILED: 3,
  /** The guest shut down. */
  SHUTDOWN: 4,
} as const;

/** Services of the machine that a host uses. */
export interface HostServices {
  readonly devices: Devices;
  readonly cpuid: CpuidTable;
  /** Overlays the answers on leaves of the virtualization stack. */
  readonly overlayCpuid: (leaf: number, results: Uint32Array) => void;
  /** Called while a device is busy. */
  readonly waitForDevice: () => void;
  /** Vector of the interrupt controllers, acknowledged; -1 for none. */
  readonly acknowledgePic: () => number;
  /** The guest ended a level-triggered interrupt. */
  readonly onEndOfInterrupt: (vector: number) => void;
  /** The host stops the machine: HOST_STOP, and what the guest said. */
  readonly stop: (vp: number, reason: number, value: bigint) => void;
  /** Wakes the worker of a virtual processor. */
  readonly ring: (vp: number) => void;
}

/** What a host's side of a processor is put together from. */
export interface HostVcpuParts {
  /** The processor, as this thread sees it. */
  readonly vp: VirtualProcessor;
  readonly sev: SevMachine;
  readonly services: HostServices;
  readonly port: MemoryPort;
  /** Byte offset of the {@linkcode HostVcpuState}. */
  readonly state: number;
  /** Byte offset of SCRATCH_PAGES_MAX pages for copies of scratch areas. */
  readonly scratch: number;
  /** The host's side of the other processors. */
  readonly peer: (vp: number) => HostVcpu;
}

const at = HostVcpuState.at;
const vmcbAt = VMCB_CONTROL.at;

/** A 64-bit field of the host's state. */
export type HostField =
  & Exclude<keyof typeof at, "valid_bitmap" | "exits" | "validated" | `exits.${string}` | `validated.${string}`>
  & string;

/** The host's side of one virtual processor. */
export class HostVcpu extends Agent {
  readonly index: number;
  readonly vp: VirtualProcessor;
  readonly sev: SevMachine;
  readonly services: HostServices;
  /** Guest memory as the host reaches it. */
  readonly guest: HostPort;
  /** Byte offset of its {@linkcode HostVcpuState}. */
  readonly state: number;
  /** Byte offset of its copy of a scratch area. */
  readonly scratch: number;
  /** Byte offset of the VMCB. */
  readonly vmcb: number;
  /** EAX, EBX, ECX, EDX of a CPUID request. */
  readonly cpuidResult: Uint32Array = new Uint32Array(4);
  readonly #peer: (vp: number) => HostVcpu;

  /** The host's side of `parts.vp` over the agent block at byte offset `block`. */
  constructor(block: number, parts: HostVcpuParts) {
    super(`host.vp${parts.vp.index}`, parts.sev.memory, block, parts.port);
    this.index = parts.vp.index;
    this.vp = parts.vp;
    this.sev = parts.sev;
    this.services = parts.services;
    this.guest = new HostPort(parts.sev.guestMemory, this);
    this.state = parts.state;
    this.scratch = parts.scratch;
    this.vmcb = parts.sev.vmcb(parts.vp.index);
    this.#peer = parts.peer;
  }

  /** The host's side of another processor. */
  peer(vp: number): HostVcpu {
    return this.#peer(vp);
  }

  /** Whether the guest has left. */
  get hasTurn(): boolean {
    const state = this.sev.vpState(this.index);
    if (this.port.load32(state + SevVpState.at.turn) !== TURN.HOST) return false;
    return this.memory.u32[(state + SevVpState.at.view) >>> 2] !== VIEW.WAITS;
  }

  /** Bits of the processor's attention word. */
  get attention(): number {
    return this.port.load32(this.vp.cpuState + CpuState.at.attention);
  }

  /** Whether anything is asked of the processor but to drop translations, which waits until it runs again. */
  get isAsked(): boolean {
    return (this.attention & ~ATTENTION.FLUSH_TLB) !== 0;
  }

  // --- Private state ------------------------------------------------------------------------------------------------

  /** A 32-bit word of the state. */
  get32(field: HostField): number {
    return this.memory.u32[(this.state + at[field]) >>> 2];
  }

  /** Sets a 32-bit word of the state. */
  set32(field: HostField, value: number): void {
    this.memory.u32[(this.state + at[field]) >>> 2] = value;
  }

  /** A 64-bit word of the state. */
  get64(field: HostField): bigint {
    return this.memory.u64[(this.state + at[field]) >>> 3];
  }

  /** Sets a 64-bit word of the state. */
  set64(field: HostField, value: bigint): void {
    this.memory.u64[(this.state + at[field]) >>> 3] = value;
  }

  /** Sets a 64-bit word of the state to a value of 32 bits. */
  setLow(field: HostField, value: number): void {
    const word = (this.state + at[field]) >>> 2;
    this.memory.u32[word] = value;
    this.memory.u32[word + 1] = 0;
  }

  /** Low half of a 64-bit word of the state. */
  low(field: HostField): number {
    return this.memory.u32[(this.state + at[field]) >>> 2];
  }

  /** Its high half. */
  high(field: HostField): number {
    return this.memory.u32[((this.state + at[field]) >>> 2) + 1];
  }

  /** The exit code of the request under way; -1 for one above 32 bits, which no event has. */
  get requestCode(): number {
    return this.high("sw_exit_code") === 0 ? this.low("sw_exit_code") : -1;
  }

  /** Counts an event. */
  count(field: HostField): void {
    const word = (this.state + at[field]) >>> 3;
    this.memory.u64[word] = this.memory.u64[word] + 1n;
  }

  // --- VMCB ---------------------------------------------------------------------------------------------------------

  /** A 64-bit field of the VMCB. */
  vmcb64(offset: number): bigint {
    return this.memory.u64[(this.vmcb + offset) >>> 3];
  }

  /** Sets a 64-bit field of the VMCB. */
  setVmcb64(offset: number, value: bigint): void {
    this.memory.u64[(this.vmcb + offset) >>> 3] = value;
  }

  /** A 32-bit field of the VMCB. */
  vmcb32(offset: number): number {
    return this.memory.u32[(this.vmcb + offset) >>> 2];
  }

  /** Sets a 32-bit field of the VMCB. */
  setVmcb32(offset: number, value: number): void {
    this.memory.u32[(this.vmcb + offset) >>> 2] = value;
  }

  /** The exit code in the VMCB, as a signed number. */
  get exitCode(): number {
    const word = (this.vmcb + vmcbAt.exit_code) >>> 2;
    return this.memory.i32[word + 1] * 2 ** 32 + this.memory.u32[word];
  }

  /** Hands the processor to the guest: VMRUN. `next` is the step that waits for the exit. */
  vmrun(next: StepId): StepId {
    this.port.exchange32(this.sev.vpState(this.index) + SevVpState.at.turn, TURN.GUEST);
    this.services.ring(this.index);
    return next;
  }

  /** Sets the bits of the intercept vector for these exit codes. */
  interceptAll(codes: readonly number[]): void {
    for (const code of codes) {
      const word = ((this.vmcb + vmcbAt.intercepts) >>> 2) + (code >>> 5);
      this.memory.u32[word] |= 1 << (code & 31);
    }
  }

  /** Stops the machine; the agent's next step is `agent.halted`. */
  stop(reason: number, value: bigint, halted: StepId): StepId {
    this.set32("stop_code", reason);
    this.services.stop(this.index, reason, value);
    return halted;
  }
}

/** Bytes of the scratch copies of a processor. */
export const SCRATCH_BYTES: number = SCRATCH_PAGES_MAX * PAGE_SIZE;

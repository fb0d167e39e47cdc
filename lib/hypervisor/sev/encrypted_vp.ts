/**
 * A virtual processor whose registers lie in a VMSA: what VMRUN and an exit do whoever handles the guest's events (sev.md a2,
 * a3, a18). `sev_vp.ts` has the processor of a guest with a #VC handler, `vmpl_vp.ts` that of a guest below a paravisor.
 *
 * The host hands the processor over by writing TURN.GUEST after its VMCB is complete, and has it again when the guest has
 * left.
 *
 * @module
 */
import { VECTOR_BP, VECTOR_OF } from "../../cpu/faults.ts";
import { CpuState, EVENT_HAS_ERROR, EVENT_VALID } from "../../cpu/state.ts";
import { EventInjType } from "../../layout/sev/vmsa.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { StepId } from "../../memory/steps.ts";
import { loadVmsa } from "../../sev/vmsa.ts";
import { type ProcessorParts, VirtualProcessor } from "../virtual_processor.ts";
import type { EncryptedBus } from "./encrypted_bus.ts";
import { GUEST_ASID, type SevMachine } from "./machine.ts";
import { SevVpState, TURN, VIEW } from "./state.ts";

const TYPE = EventInjType.values;
const at = SevVpState.at;
const cpuAt = CpuState.at;
const vmcbAt = VMCB_CONTROL.at;
/** Registers on which translations depend, as words of the state. */
const CR0 = cpuAt.cr0 >>> 2;
const CR3 = cpuAt.cr3 >>> 2;
const CR4 = cpuAt.cr4 >>> 2;
const EFER = cpuAt.efer >>> 2;
/** Vectors of exceptions are smaller. */
const EXCEPTION_VECTORS = 32;

/** What such a processor is put together from. */
export interface EncryptedVpParts<Bus extends EncryptedBus> extends Omit<ProcessorParts, "steps" | "haltIntercept"> {
  readonly bus: Bus;
  readonly sev: SevMachine;
  /** The processor has left for the host: wakes whoever executes it. */
  readonly onExit: () => void;
}

/** See the module's description. */
export abstract class EncryptedVp<Bus extends EncryptedBus> extends VirtualProcessor {
  readonly bus: Bus;
  readonly sev: SevMachine;
  /** Byte offset of its {@linkcode SevVpState}. */
  readonly sevState: number;
  /** Byte offset of its VMCB. */
  readonly vmcb: number;
  /** The processor has left for the host: wakes whoever executes it. */
  readonly onExit: () => void;

  /** Processor `index` over the agent block at byte offset `block`, whose guest executes in step `run`. */
  constructor(index: number, block: number, parts: EncryptedVpParts<Bus>, run: StepId) {
    const steps = { exit: run, hypercall: run, deliverable: run, apicEoi: run };
    super(index, block, { ...parts, steps, haltIntercept: true });
    this.bus = parts.bus;
    this.sev = parts.sev;
    this.sevState = parts.sev.vpState(index);
    this.vmcb = parts.sev.vmcb(index);
    this.onExit = parts.onExit;
  }

  /** Whose turn it is, TURN.HOST or TURN.GUEST. */
  get turn(): number {
    return this.port.load32(this.sevState + at.turn);
  }

  /** Exit code of the event that happened last. */
  get exitCode(): number {
    return this.memory.i32[(this.sevState + at.exit_code) >>> 2];
  }

  /** Byte offset of the VMSA that was entered last. */
  get enteredVmsa(): number {
    return this.memory.u32[(this.sevState + at.vmsa) >>> 2];
  }
}

/** A processor of either kind. */
type AnyVp = EncryptedVp<EncryptedBus>;

/** Byte offset of the VMSA that the VMCB names; undefined when no VMSA of the guest is there: VMRUN fails with INVALID. */
export function namedVmsa({ memory, sev, vmcb, port }: AnyVp): number | undefined {
  const word = (vmcb + vmcbAt.vmsa_pa) >>> 2;
  const page = memory.u32[word];
  const inMemory = memory.u32[word + 1] === 0 && page % PAGE_SIZE === 0 && page / PAGE_SIZE < sev.pages;
  if (!inMemory || sev.rmp?.isVmsa(port, page / PAGE_SIZE, GUEST_ASID) === false) return undefined;
  return page;
}

/** Counts an entry, and loads the registers from the VMSA at byte `page`; translations go where they depend on what changes. */
export function loadRegisters(vp: AnyVp, page: number): void {
  const { memory, cpuState, sevState, vmcb } = vp;
  const { i32, u64, u8 } = memory;
  u64[(sevState + at.entries) >>> 3] = u64[(sevState + at.entries) >>> 3] + 1n;
  const word = cpuState >>> 2;
  const cr0 = i32[word + CR0];
  const cr3 = i32[word + CR3];
  const cr4 = i32[word + CR4];
  const efer = i32[word + EFER];
  loadVmsa(memory, cpuState, page);
  const same = i32[word + CR0] === cr0 && i32[word + CR3] === cr3 && i32[word + CR4] === cr4 &&
    i32[word + EFER] === efer;
  if (!same || u8[vmcb + vmcbAt.tlb_ctl] !== 0) vp.cpu.flushCaches();
}

/** Whether the processor injects events of this type (`EventInjType`) with this vector (a18). */
export function isInjectable(type: number, vector: number): boolean {
  switch (type) {
    case TYPE.INTR:
    case TYPE.NMI:
      return true;
    case TYPE.EXCEPTION:
      return vector < EXCEPTION_VECTORS && vector !== VECTOR_BP && vector !== VECTOR_OF;
    default: // a software interrupt, or none that exists
      return false;
  }
}

/** Writes the event whose delivery the exit interrupted as EXITINTINFO at byte `to`, and ends it; false for none. */
export function storeInterruptedEvent({ memory, cpuState }: AnyVp, to: number): boolean {
  const { i32 } = memory;
  const event = (cpuState + cpuAt.event) >>> 2;
  const pending = i32[event];
  const interrupted = (pending & EVENT_VALID) !== 0;
  i32[to >>> 2] = interrupted ? pending : 0;
  i32[(to >>> 2) + 1] = interrupted && (pending & EVENT_HAS_ERROR) !== 0
    ? i32[(cpuState + cpuAt.event_error) >>> 2]
    : 0;
  i32[event] = 0;
  return interrupted;
}

/** The host executes from here on; the processor goes on with step `vmrun`. */
export function handOver(vp: AnyVp, vmrun: StepId): StepId {
  const view = vp.sevState + at.view;
  if (vp.memory.u32[view >>> 2] === VIEW.WANTED) vp.port.store32(view, VIEW.WAITS);
  vp.port.exchange32(vp.sevState + at.turn, TURN.HOST);
  vp.onExit();
  return vmrun;
}

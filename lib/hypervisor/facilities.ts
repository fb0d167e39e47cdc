/**
 * What every VP has from the hypervisor beside its registers: the local APIC and the synthetic interrupt controller and
 * timers of VTL0, the SynIC of VTL2, and what the MSRs hold that the hypervisor answers.
 *
 * VTL2's local APIC is reduced to its request register in `HypervisorVpState`, because VTL2's code is an agent's and takes
 * its interrupts itself.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { array, u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import { type ApicHost, LocalApic } from "./apic/local_apic.ts";
import { ApicState } from "./apic/state.ts";
import { ATTENTION } from "./attention.ts";
import type { Partition } from "./partition.ts";
import { Synic, type SynicHost, SynicState } from "./synic.ts";
import { SyntheticTimers, SyntheticTimersState } from "./synthetic_timers.ts";
import type { Clock } from "./time.ts";
import { HypervisorVpState } from "./vp_state.ts";

/** Overlay pages of a VP, by the slot that `Partition.setOverlay` takes. The first two belong to the partition and use VP 0's. */
export const OVERLAY_SLOT = {
  /** The hypercall page. */
  HYPERCALL: 0,
  /** The reference TSC page. */
  REFERENCE_TSC: 1,
  /** VTL0's VP assist page. */
  ASSIST: 2,
  /** VTL0's SynIC message page. */
  SIMP: 3,
  /** VTL0's SynIC event flags page. */
  SIEFP: 4,
} as const;

/** Crash registers of a VTL: five parameters and the control. */
const CRASH_REGISTERS = 6;

/** The facilities of one VP. */
export const FacilityState = structure("FacilityState", 832, [
  ["apic", 0, ApicState, "Local APIC of VTL0"],
  ["synic_vtl0", 256, SynicState, "SynIC of VTL0"],
  ["synic_vtl2", 424, SynicState, "SynIC of VTL2"],
  ["timers", 592, SyntheticTimersState, "Synthetic timers of VTL0"],
  ["assist_page", 720, u64, "HvRegisterVpAssistPage of VTL0 (MSR 40000073)"],
  ["mcg_status", 728, u64, "MCG_STATUS (MSR 17a), which all VTLs share"],
  ["crash", 736, array(u64, CRASH_REGISTERS), "GuestCrashP0 to GuestCrashP4 and GuestCrashCtl of VTL2's kernel"],
  ["vtl2_guest_os_id", 784, u64, "GuestOsId of VTL2; VP 0's counts"],
  ["vtl2_hypercall", 792, u64, "Hypercall of VTL2 (MsrHypercallContents); VP 0's counts"],
  ["vtl2_started", 800, u32, "1 once VTL2 of the VP has been started (shared)"],
  reserved(804, 28),
], "Per-VP facilities of the modelled hypervisor; not a structure of the modelled machine");

/** Bytes that the facilities of `vps` VPs take. */
export function facilityBytes(vps: number): number {
  return vps * FacilityState.size;
}

/** Who is told of what happens in the facilities. */
export interface FacilityEvents {
  /** The VP ended a level-triggered interrupt: EOI message to the I/O APICs, or an APIC EOI intercept. */
  levelEoi(vp: number, vector: number): void;
  /** VTL0 of the VP took a triple fault that nobody intercepts. */
  tripleFault(vp: number): void;
  /** SINTs of a VTL may have become deliverable: see {@linkcode Synic.deliverable}. May be called on any VP's behalf. */
  synicChanged(vp: number, vtl: number): void;
}

const state = HypervisorVpState.at;

/** The facilities of all VPs, as one processor sees them. */
export class Facilities implements ApicHost {
  /** Number of VPs. */
  readonly vps: number;
  /** The partition that they belong to. */
  readonly partition: Partition;
  /** The caller's access to memory that others can see. */
  readonly port: MemoryPort;
  /** The machine's clock. */
  readonly clock: Clock;
  readonly #base: number;
  readonly #events: FacilityEvents;
  readonly #apics: LocalApic[] = [];
  readonly #synics: { readonly vtl0: Synic; readonly vtl2: Synic }[] = [];
  readonly #timers: SyntheticTimers[] = [];

  /** Facilities over {@linkcode facilityBytes} bytes at `base`, a multiple of 64. */
  constructor(partition: Partition, port: MemoryPort, base: number, clock: Clock, events: FacilityEvents) {
    this.vps = partition.config.vps;
    this.partition = partition;
    this.port = port;
    this.clock = clock;
    this.#base = base;
    this.#events = events;
    const { memory } = partition;
    const { at } = FacilityState;
    for (let vp = 0; vp < this.vps; vp++) {
      const block = this.state(vp);
      const vtl0 = new Synic(memory, port, block + at.synic_vtl0, this.#synicHost(vp, 0));
      const vtl2 = new Synic(memory, port, block + at.synic_vtl2, this.#synicHost(vp, 2));
      const interrupt = (vector: number) => this.apic(vp).requestInterrupt(vector, false);
      this.#apics.push(new LocalApic(memory, port, block + at.apic, this, vp));
      this.#synics.push({ vtl0, vtl2 });
      this.#timers.push(new SyntheticTimers(memory, block + at.timers, vtl0, interrupt));
    }
  }

  /** Puts the facilities of every VP into their state after power-up. */
  reset(): void {
    for (let vp = 0; vp < this.vps; vp++) {
      this.partition.memory.u8.fill(0, this.state(vp), this.state(vp) + FacilityState.size);
      this.apic(vp).reset("power-up");
      this.synic(vp, 0).reset();
      this.synic(vp, 2).reset();
    }
    // VTL2 of VP 0 is what the machine boots with; that of the others is started by it.
    const hasVtl2 = this.partition.config.vtl2Bytes !== 0;
    this.port.exchange32(this.state(0) + FacilityState.at.vtl2_started, hasVtl2 ? 1 : 0);
  }

  /** Byte offset of a VP's {@linkcode FacilityState}. */
  state(vp: number): number {
    return this.#base + vp * FacilityState.size;
  }

  /** VTL0's local APIC of a VP. */
  apic(vp: number): LocalApic {
    return this.#apics[vp];
  }

  /** The SynIC of VTL 0 or 2 of a VP. */
  synic(vp: number, vtl: number): Synic {
    return vtl === 0 ? this.#synics[vp].vtl0 : this.#synics[vp].vtl2;
  }

  /** VTL0's synthetic timers of a VP. */
  timers(vp: number): SyntheticTimers {
    return this.#timers[vp];
  }

  /** Lets the timers of a VP expire whose time has come. The VP itself calls this. */
  pollTimers(vp: number): void {
    const now = this.now();
    this.apic(vp).pollTimer(now);
    this.timers(vp).poll(now);
  }

  /** Nanosecond at which a timer of a VP expires next, or Infinity. */
  nextDeadline(vp: number): number {
    return Math.min(this.apic(vp).nextDeadline(), this.timers(vp).nextDeadline());
  }

  /** Requests interrupt `vector` of VTL2 of a VP: its IRR bit, and an attention that makes the VP enter VTL2. */
  requestVtl2Interrupt(vp: number, vector: number): void {
    const block = this.partition.vpState(vp);
    this.port.or32(block + state.vtl2_irr + (vector >>> 5) * 4, 1 << (vector & 31));
    this.port.or32(block + state.vtl2_irr_summary, 1 << (vector >>> 5));
    this.signal(vp, ATTENTION.VTL2_INTERRUPT);
  }

  /** SINTs of VTL0 of a VP are to be looked at: VTL2 has changed what it wants to be told about. */
  deliverabilityChanged(vp: number): void {
    this.#events.synicChanged(vp, 0);
  }

  /** VTL0 of a VP took a triple fault that nobody intercepts. */
  tripleFault(vp: number): void {
    this.#events.tripleFault(vp);
  }

  // --- ApicHost -----------------------------------------------------------------------------------------------------

  /** Raises bits of a VP's attention word and wakes it. */
  signal(vp: number, bits: number): void {
    this.partition.signal(this.port, vp, bits);
  }

  /** Remembers the vector of a startup IPI for a VP. */
  setSipiVector(vp: number, vector: number): void {
    this.port.exchange32(this.partition.vpState(vp) + state.sipi_vector, vector);
  }

  /** Reports the EOI of a level-triggered interrupt. */
  levelEoi(vp: number, vector: number): void {
    this.#events.levelEoi(vp, vector);
  }

  /** CR8 of a VP. */
  cr8(vp: number): number {
    return this.partition.memory.i32[(this.partition.cpuState(vp) + CpuState.at.cr8) >>> 2];
  }

  /** Keeps CR8 in step with TPR. */
  tprChanged(vp: number, cr8: number): void {
    this.partition.memory.u64[(this.partition.cpuState(vp) + CpuState.at.cr8) >>> 3] = BigInt(cr8);
  }

  /** Time of the machine in nanoseconds. */
  now(): number {
    return this.clock.now();
  }

  // --- SynicHost ----------------------------------------------------------------------------------------------------

  /** Surroundings of one SynIC. */
  #synicHost(vp: number, vtl: number): SynicHost {
    return {
      interrupt: (vector) => {
        if (vtl === 0) this.apic(vp).requestInterrupt(vector, false);
        else this.requestVtl2Interrupt(vp, vector);
      },
      overlay: (page, enabled, gpn) => {
        if (vtl !== 0) return gpn < this.partition.pages ? gpn * PAGE_SIZE : 0; // VTL2's overlay is its own page
        const slot = page === "messages" ? OVERLAY_SLOT.SIMP : OVERLAY_SLOT.SIEFP;
        const contents = this.partition.setOverlay(vp, slot, enabled, gpn);
        this.partition.flushTlbs(this.port);
        return contents;
      },
      autoEoi: (vectors) => {
        if (vtl === 0) this.apic(vp).setAutoEoi(vectors);
      },
      changed: () => {
        if (vtl === 0) this.signal(vp, ATTENTION.TIMER); // an undelivered timer message may fit now
        this.#events.synicChanged(vp, vtl);
      },
    };
  }
}

/**
 * A sidecar processor as the VMM's exit handlers see it: context and message are the command page's, and every other
 * register is reached by commands, before the handler runs again or after it has returned.
 *
 * @module
 */
import type { Devices } from "../devices/devices.ts";
import type { Facilities } from "../hypervisor/facilities.ts";
import { HvX64RegisterName } from "../layout/hyperv/constants/registers.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import { HvRegisterAssoc, HvRegisterValue } from "../layout/hyperv/registers.ts";
import { CommandPage } from "../layout/hyperv/sidecar.ts";
import { type MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { Policy } from "../memory/policy.ts";
import { CRASHED, type HandlerResult, type VmmCrash, type VmmPartition, type VmmVp } from "../vtl2/vmm_vp.ts";
import { SidecarTaskState } from "./memory.ts";

const task = SidecarTaskState.at;
const { Rip, PendingEvent0, PendingEvent1 } = HvX64RegisterName.values;
const VALUE_BYTES: number = HvRegisterValue.size;

/** What a {@linkcode SidecarVmmVp} is put together from. */
export interface SidecarVmmVpParts {
  /** The hypervisor's facilities of all processors. */
  readonly facilities: Facilities;
  /** VP index. */
  readonly index: number;
  /** Byte offset of its command page. */
  readonly commandPage: number;
  /** Byte offset of its {@linkcode SidecarTaskState}. */
  readonly taskState: number;
  /** Byte offset of its `VmmVpState`. */
  readonly state: number;
  /** Ports and device memory. */
  readonly devices: Devices;
  /** What the VMM knows of the whole partition. */
  readonly vmm: VmmPartition;
  /** Records a crash of the VMM. */
  readonly onCrash: (vp: number, crash: VmmCrash) => void;
}

/** See the module's description. */
export class SidecarVmmVp implements VmmVp {
  readonly memory: MachineMemory;
  readonly index: number;
  readonly context: number;
  readonly message: number;
  readonly state: number;
  /** VTL0 is the only VTL below VTL2. */
  readonly interceptedVtl = 0;
  readonly devices: Devices;
  readonly partition: VmmPartition;
  readonly #parts: SidecarVmmVpParts;
  readonly #task: number;

  /** The handlers' view that `parts` describe. */
  constructor(parts: SidecarVmmVpParts) {
    this.memory = parts.facilities.partition.memory;
    this.index = parts.index;
    this.context = parts.commandPage + CommandPage.at.cpu_context;
    this.message = parts.commandPage + CommandPage.at.intercept_message;
    this.state = parts.state;
    this.devices = parts.devices;
    this.partition = parts.vmm;
    this.#parts = parts;
    this.#task = parts.taskState;
  }

  policy(policy: Policy): number {
    return this.#parts.facilities.partition.policy(policy);
  }

  /** Leaves the wish for the task: when the handler is called again, the values are there and it does not ask again. */
  getRegisters(names: readonly number[], at: number): boolean {
    const { u32 } = this.memory;
    u32[(this.#task + task.get_count) >>> 2] = names.length;
    u32[(this.#task + task.get_at) >>> 2] = at;
    for (let k = 0; k < names.length; k++) u32[((this.#task + task.get_names) >>> 2) + k] = names[k];
    return false;
  }

  setRegisters(names: readonly number[], at: number): void {
    const { u64 } = this.memory;
    for (let k = 0; k < names.length; k++) {
      const to = this.#addRecord(names[k]) >>> 3;
      const from = (at + k * VALUE_BYTES) >>> 3;
      u64[to] = u64[from];
      u64[to + 1] = u64[from + 1];
    }
  }

  setRip(low: number, high: number): void {
    const { i32 } = this.memory;
    const value = this.#addRecord(Rip) >>> 2;
    i32[value] = low;
    i32[value + 1] = high;
    i32[value + 2] = 0;
    i32[value + 3] = 0;
  }

  clearInterruptShadow(): void {
    this.memory.u32[(this.#task + task.clear_shadow) >>> 2] = 1;
  }

  injectEvent(at: number): void {
    this.setRegisters(PENDING_EVENT, at);
  }

  postMessageDirect(sint: number, message: number): number {
    return this.#parts.facilities.synic(this.index, 0).postMessage(sint, this.memory.view, message);
  }

  guestOffset(gpa: number, length: number): number {
    const { partition } = this.#parts.facilities;
    const last = Math.floor((gpa + Math.max(length, 1) - 1) / PAGE_SIZE);
    for (let gpn = Math.floor(gpa / PAGE_SIZE); gpn <= last; gpn++) if (!partition.isRam(gpn)) return -1;
    return gpa;
  }

  isOverlay(gpn: number): boolean {
    return this.#parts.facilities.partition.isOverlay(gpn);
  }

  crash(report: VmmCrash): HandlerResult {
    this.#parts.onCrash(this.index, report);
    return CRASHED;
  }

  /** Adds a register to the ones that go to the processor when the handler has returned; returns where its value goes. */
  #addRecord(name: number): number {
    const { u32 } = this.memory;
    const word = (this.#task + task.set_count) >>> 2;
    const count = u32[word];
    if (count === SIDECAR.MAX_GET_SET_VP_REGISTERS) throw new RangeError("More registers set than one command takes");
    const record = this.#task + task.set_records + count * HvRegisterAssoc.size;
    u32[(record + HvRegisterAssoc.at.name) >>> 2] = name;
    u32[word] = count + 1;
    return record + HvRegisterAssoc.at.value;
  }
}

const PENDING_EVENT: readonly number[] = [PendingEvent0, PendingEvent1];

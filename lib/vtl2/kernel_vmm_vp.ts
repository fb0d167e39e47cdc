/**
 * A processor of the `kernel` platform as the VMM's exit handlers see it: what a Linux VP's registers are and how they
 * are reached (openhcl.md b, "VMM access order for a Linux VP").
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import type { Devices } from "../devices/devices.ts";
import { applyRegisterPage } from "../hypervisor/register_page.ts";
import type { VpRegisters } from "../hypervisor/registers.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { HvX64RegisterName } from "../layout/hyperv/constants/registers.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvX64InterruptStateRegister } from "../layout/hyperv/registers.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../layout/hyperv/register_page.ts";
import { CopyPlan, type CopyRecord, type Move } from "../memory/copy_plan.ts";
import { type MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { Policy } from "../memory/policy.ts";
import { KERNEL_PAGES, kernelPage } from "./kernel_pages.ts";
import { CRASHED, type HandlerResult, type VmmCrash, type VmmPartition, type VmmVp } from "./vmm_vp.ts";

const page = HvX64RegisterPage.at;
const dirty = HvX64RegisterPageDirtyFlags.mask;
const { Rip, Rflags, Rsp, Cr0, Cr3, Cr4, Cr8, Efer, Dr7, Es, Gs, PendingEvent0, PendingEvent1, InterruptState } =
  HvX64RegisterName.values;
/** Bytes of an `HvRegisterValue`. */
const VALUE_BYTES = 16;
const RSP_SLOT = 4;
const INTERRUPT_SHADOW = BigInt(HvX64InterruptStateRegister.low.interrupt_shadow);

/** Where the register page holds a register: byte offset, size, and the dirty bit by which a write is announced (0: none). */
interface PageSlot {
  readonly offset: number;
  readonly size: number;
  readonly dirty: number;
}

/** Registers that a Linux VP's VMM takes from the register page while it is valid. RFLAGS is written by hypercall. */
const PAGE_SLOTS: ReadonlyMap<number, PageSlot> = new Map<number, PageSlot>([
  [Rsp, { offset: page.gp_registers + RSP_SLOT * 8, size: 8, dirty: dirty.general_purpose }],
  [Rip, { offset: page.rip, size: 8, dirty: dirty.instruction_pointer }],
  [Rflags, { offset: page.rflags, size: 8, dirty: 0 }],
  [Cr0, { offset: page.cr0, size: 8, dirty: 0 }],
  [Cr3, { offset: page.cr3, size: 8, dirty: 0 }],
  [Cr4, { offset: page.cr4, size: 8, dirty: 0 }],
  [Cr8, { offset: page.cr8, size: 8, dirty: 0 }],
  [Efer, { offset: page.efer, size: 8, dirty: 0 }],
  [Dr7, { offset: page.dr7, size: 8, dirty: 0 }],
  ...Array.from({ length: Gs - Es + 1 }, (_, segment): [number, PageSlot] => [
    Es + segment,
    { offset: page.segment + segment * VALUE_BYTES, size: VALUE_BYTES, dirty: dirty.segments },
  ]),
]);

/** What a {@linkcode KernelVmmVp} is put together from. */
export interface KernelVmmVpParts {
  /** Guest-physical address at which the kernel's pages begin. */
  readonly kernelPages: number;
  readonly registers: VpRegisters;
  readonly devices: Devices;
  readonly vmm: VmmPartition;
  /** Records a crash of the VMM. */
  readonly onCrash: (vp: VirtualProcessor, crash: VmmCrash) => void;
}

/** See the module's description. */
export class KernelVmmVp implements VmmVp {
  readonly memory: MachineMemory;
  readonly index: number;
  readonly context: number;
  readonly message: number;
  readonly state: number;
  /** VTL0 is the only VTL below VTL2. */
  readonly interceptedVtl = 0;
  readonly devices: Devices;
  readonly partition: VmmPartition;
  readonly #vp: VirtualProcessor;
  readonly #registers: VpRegisters;
  readonly #onCrash: KernelVmmVpParts["onCrash"];
  readonly #pageCopies = new Map<readonly number[], CopyRecord | undefined>();

  /** The handlers' view of `vp`. */
  constructor(vp: VirtualProcessor, parts: KernelVmmVpParts) {
    const runPage = kernelPage(parts.kernelPages, vp.index, KERNEL_PAGES.RUN);
    this.memory = vp.memory;
    this.index = vp.index;
    this.context = runPage + hcl_run.at.context;
    this.message = runPage + hcl_run.at.exit_message;
    this.state = kernelPage(parts.kernelPages, vp.index, KERNEL_PAGES.VMM);
    this.devices = parts.devices;
    this.partition = parts.vmm;
    this.#vp = vp;
    this.#registers = parts.registers;
    this.#onCrash = parts.onCrash;
  }

  policy(policy: Policy): number {
    return this.#vp.partition.policy(policy);
  }

  getRegisters(names: readonly number[], at: number): boolean {
    const valid = this.#validPage();
    if (valid !== 0) {
      const copy = this.#pageCopy(names);
      if (copy !== undefined) {
        copy(at, valid);
        return true;
      }
    }
    for (let k = 0; k < names.length; k++) {
      const slot = valid === 0 ? undefined : PAGE_SLOTS.get(names[k]);
      if (slot === undefined) this.#get(names[k], at + k * VALUE_BYTES);
      else this.#copyValue(at + k * VALUE_BYTES, valid + slot.offset, slot.size);
    }
    return true;
  }

  setRegisters(names: readonly number[], at: number): void {
    const valid = this.#validPage();
    const { i32, u64 } = this.memory;
    for (let k = 0; k < names.length; k++) {
      const from = at + k * VALUE_BYTES;
      const slot = valid === 0 ? undefined : PAGE_SLOTS.get(names[k]);
      if (slot !== undefined && slot.dirty !== 0) {
        this.#copyValue(valid + slot.offset, from, slot.size);
        i32[(valid + page.dirty) >>> 2] |= slot.dirty;
      } else if (
        slot === undefined ||
        u64[from >>> 3] !== (names[k] === Rflags ? this.#rflags() : u64[(valid + slot.offset) >>> 3])
      ) {
        this.#set(names[k], from);
      }
    }
  }

  setRip(low: number, high: number): void {
    const valid = this.#validPage();
    const { i32 } = this.memory;
    const at = valid === 0 ? this.#vp.cpuState + CpuState.at.rip : valid + page.rip;
    i32[at >>> 2] = low;
    i32[(at >>> 2) + 1] = high;
    if (valid !== 0) i32[(valid + page.dirty) >>> 2] |= dirty.instruction_pointer;
  }

  clearInterruptShadow(): void {
    const { index } = this.#vp;
    const old = this.#registers.get64(index, 0, InterruptState) ?? 0n;
    this.#registers.set64(index, 0, InterruptState, old & ~INTERRUPT_SHADOW);
  }

  injectEvent(at: number): void {
    this.#set(PendingEvent0, at);
    this.#set(PendingEvent1, at + VALUE_BYTES);
  }

  postMessageDirect(sint: number, message: number): number {
    return this.#vp.synic.postMessage(sint, this.memory.view, message);
  }

  guestOffset(gpa: number, length: number): number {
    const first = Math.floor(gpa / PAGE_SIZE);
    const last = Math.floor((gpa + Math.max(length, 1) - 1) / PAGE_SIZE);
    for (let gpn = first; gpn <= last; gpn++) if (!this.#vp.partition.isRam(gpn)) return -1;
    return gpa;
  }

  isOverlay(gpn: number): boolean {
    return this.#vp.partition.isOverlay(gpn);
  }

  crash(report: VmmCrash): HandlerResult {
    this.#onCrash(this.#vp, report);
    return CRASHED;
  }

  /** What the VMM has written to the register page goes to VTL0, and the page is no longer used (try_flush, at a save). */
  flushRegisterPage(): void {
    const at = this.#validPage();
    if (at !== 0) applyRegisterPage(this.#vp, at);
  }

  /** Byte offset of the register page while it may be used; 0 otherwise. */
  #validPage(): number {
    const at = this.#vp.registerPage;
    return at !== 0 && this.memory.u8[at + page.is_valid] !== 0 ? at : 0;
  }

  /** VTL0's RFLAGS, which the page does not follow: a hypercall that sets what is there changes nothing. */
  #rflags(): bigint {
    return this.memory.u64[(this.#vp.cpuState + CpuState.at.rflags) >>> 3];
  }

  /** The copy of a batch of registers that are all in the page. Handlers have a few batches, which are constants. */
  #pageCopy(names: readonly number[]): CopyRecord | undefined {
    if (!this.#pageCopies.has(names)) {
      const slots = names.map((name) => PAGE_SLOTS.get(name)).filter((slot) => slot !== undefined);
      const moves = slots.map(({ offset, size }, k): Move => [offset, k * VALUE_BYTES, size]);
      this.#pageCopies.set(names, slots.length < names.length ? undefined : new CopyPlan(moves).on(this.memory));
    }
    return this.#pageCopies.get(names);
  }

  #copyValue(to: number, from: number, size: number): void {
    const { u64 } = this.memory;
    u64[to >>> 3] = u64[from >>> 3];
    if (size === VALUE_BYTES) u64[(to >>> 3) + 1] = u64[(from >>> 3) + 1];
  }

  #get(name: number, at: number): void {
    this.#registers.get(this.#vp.index, 0, name, this.memory.view, at);
  }

  #set(name: number, at: number): void {
    this.#registers.set(this.#vp.index, 0, name, this.memory.view, at);
    this.#vp.cpu.updateMode();
  }
}

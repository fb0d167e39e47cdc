/**
 * What a register of the hypercall interface is: its name, who has it, how it is read and written.
 *
 * @module
 */
import { HvStatus } from "../../layout/hyperv/constants/hypercalls.ts";
import type { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import type { MachineMemory } from "../../memory/machine_memory.ts";
import type { Facilities } from "../facilities.ts";

/** A register's name. */
export type RegisterName = keyof typeof HvX64RegisterName.values;

/** The VTL of a VP whose register is meant, and where its parts lie. */
export interface RegisterContext {
  readonly facilities: Facilities;
  readonly memory: MachineMemory;
  readonly vp: number;
  readonly vtl: number;
  /** Byte offset of the VP's `CpuState`. */
  readonly cpu: number;
  /** Byte offset of its `HypervisorVpState`. */
  readonly hypervisor: number;
  /** Byte offset of its `FacilityState`. */
  readonly facility: number;
}

/** One register. Values are 16 bytes, little endian. */
export interface Register {
  readonly name: RegisterName;
  /** Which VTLs have it: both share or have one each, or only one of them has it. */
  readonly vtls: "all" | "vtl0" | "vtl2";
  /** Writes the value at `at` of `view`, whose 16 bytes are zero; returns an HvStatus. */
  read(context: RegisterContext, view: DataView, at: number): number;
  /** Takes the value at `at` of `view`; returns an HvStatus. Absent for read-only registers. */
  write?(context: RegisterContext, view: DataView, at: number): number;
}

const { Success, InvalidRegisterValue } = HvStatus.values;

/** A 64-bit register in a place of its own. `valid` refuses values with InvalidRegisterValue; `after` follows a write. */
export function word64(
  name: RegisterName,
  vtls: Register["vtls"],
  place: (context: RegisterContext) => number,
  valid: (value: bigint, context: RegisterContext) => boolean,
  after?: (context: RegisterContext, value: bigint) => void,
): Register {
  return {
    name,
    vtls,
    read: (context, view, at) => {
      view.setBigUint64(at, context.memory.u64[place(context) >>> 3], true);
      return Success;
    },
    write: (context, view, at) => {
      const value = view.getBigUint64(at, true);
      if (!valid(value, context)) return InvalidRegisterValue;
      context.memory.u64[place(context) >>> 3] = value;
      after?.(context, value);
      return Success;
    },
  };
}

/** A register of up to 64 bits that is computed; without `write` it is read only. `write` returns an HvStatus. */
export function computed64(
  name: RegisterName,
  vtls: Register["vtls"],
  read: (context: RegisterContext) => bigint,
  write?: (context: RegisterContext, value: bigint) => number,
): Register {
  const register: Register = {
    name,
    vtls,
    read: (context, view, at) => {
      view.setBigUint64(at, read(context), true);
      return Success;
    },
  };
  return write === undefined
    ? register
    : { ...register, write: (context, view, at) => write(context, view.getBigUint64(at, true)) };
}

/** A 16-byte register in a place of its own. */
export function bytes16(
  name: RegisterName,
  vtls: Register["vtls"],
  place: (context: RegisterContext) => number,
  valid: (view: DataView, at: number) => boolean = () => true,
): Register {
  return {
    name,
    vtls,
    read: (context, view, at) => {
      const word = place(context) >>> 3;
      view.setBigUint64(at, context.memory.u64[word], true);
      view.setBigUint64(at + 8, context.memory.u64[word + 1], true);
      return Success;
    },
    write: (context, view, at) => {
      if (!valid(view, at)) return InvalidRegisterValue;
      const word = place(context) >>> 3;
      context.memory.u64[word] = view.getBigUint64(at, true);
      context.memory.u64[word + 1] = view.getBigUint64(at + 8, true);
      return Success;
    },
  };
}

/** The status of a write that succeeds or finds its value impossible. */
export function validity(valid: boolean): number {
  return valid ? Success : InvalidRegisterValue;
}

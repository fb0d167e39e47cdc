/**
 * Virtual processor registers by name, as HvCallGetVpRegisters and HvCallSetVpRegisters reach them (Hyper-V TLFS, "Virtual
 * Processor Register Names"; sharing between VTLs: openhcl.md a).
 *
 * A name of VTL0 is the processor's own state. Of VTL2 there are the registers that it shares with VTL0 and the
 * hypervisor's; its private processor registers (RIP, RSP, CR3, segments...) do not exist, because its code is an agent's:
 * they are AccessDenied. Names of features that the processor does not have (CET, SGX, speculation control, nested
 * virtualization, AVIC, secure AVIC, VINA, CR intercepts, TLB locks...) are unknown: InvalidParameter (openhcl.md h).
 *
 * @module
 */
import { HvStatus } from "../layout/hyperv/constants/hypercalls.ts";
import { HvX64RegisterName } from "../layout/hyperv/constants/registers.ts";
import type { Facilities } from "./facilities.ts";
import { CPU_REGISTERS } from "./registers/cpu.ts";
import { EVENT_REGISTERS } from "./registers/events.ts";
import { SYNTHETIC_REGISTERS } from "./registers/synthetic.ts";
import type { Register, RegisterContext } from "./registers/register.ts";

const { Success, InvalidParameter, AccessDenied } = HvStatus.values;
const VALUE_BYTES = 16;
/** VTLs 0 to 2. */
const VTLS = 3;

const table: ReadonlyMap<number, Register> = new Map(
  [...CPU_REGISTERS, ...EVENT_REGISTERS, ...SYNTHETIC_REGISTERS].map((register) => [
    HvX64RegisterName.values[register.name],
    register,
  ]),
);

/** Names of all registers that exist, for reports. */
export function registerNames(): readonly string[] {
  return [...table.values()].map((register) => register.name);
}

/** The registers of every VP and VTL of a partition. */
export class VpRegisters {
  readonly #facilities: Facilities;
  readonly #contexts: RegisterContext[] = [];

  /** Registers over the state that `facilities` knows. */
  constructor(facilities: Facilities) {
    this.#facilities = facilities;
  }

  /**
   * Reads register `name` of a VTL of a VP into the 16 bytes at `at` of `view`; narrow values are extended with zeros.
   *
   * @returns `Success`, `InvalidParameter` for a name that does not exist, or `AccessDenied`.
   */
  get(vp: number, vtl: number, name: number, view: DataView, at: number): number {
    const register = table.get(name);
    if (register === undefined) return InvalidParameter;
    if (vtl !== 0 && register.vtls === "vtl0") return AccessDenied;
    if (vtl === 0 && register.vtls === "vtl2") return AccessDenied;
    for (let k = 0; k < VALUE_BYTES; k += 4) view.setUint32(at + k, 0, true);
    return register.read(this.#context(vp, vtl), view, at);
  }

  /**
   * Writes register `name` of a VTL of a VP from the 16 bytes at `at` of `view`.
   *
   * @returns `Success`, `InvalidParameter` for a name that does not exist, `InvalidRegisterValue` for reserved bits or a
   * value that the processor cannot have, or `AccessDenied` for a read-only register.
   */
  set(vp: number, vtl: number, name: number, view: DataView, at: number): number {
    const register = table.get(name);
    if (register === undefined) return InvalidParameter;
    if (vtl !== 0 && register.vtls === "vtl0") return AccessDenied;
    if (vtl === 0 && register.vtls === "vtl2") return AccessDenied;
    if (register.write === undefined) return AccessDenied;
    return register.write(this.#context(vp, vtl), view, at);
  }

  /** {@linkcode VpRegisters.get} for a register of up to 64 bits; undefined when it cannot be read. */
  get64(vp: number, vtl: number, name: number): bigint | undefined {
    const status = this.get(vp, vtl, name, scratch, 0);
    return status === Success ? scratch.getBigUint64(0, true) : undefined;
  }

  /** {@linkcode VpRegisters.set} for a register of up to 64 bits. */
  set64(vp: number, vtl: number, name: number, value: bigint): number {
    scratch.setBigUint64(0, value, true);
    scratch.setBigUint64(8, 0n, true);
    return this.set(vp, vtl, name, scratch, 0);
  }

  /** The context of a VTL of a VP; it holds places only, so it is made once. */
  #context(vp: number, vtl: number): RegisterContext {
    const facilities = this.#facilities;
    const { partition } = facilities;
    return this.#contexts[vp * VTLS + vtl] ??= {
      facilities,
      memory: partition.memory,
      vp,
      vtl,
      cpu: partition.cpuState(vp),
      hypervisor: partition.vpState(vp),
      facility: facilities.state(vp),
    };
  }
}

/** A value on its way; it lives no longer than a call. */
const scratch = new DataView(new ArrayBuffer(VALUE_BYTES));

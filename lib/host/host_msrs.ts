/**
 * The MSRs that the host's VMM of the `bare` platform emulates: the guest crash MSRs, and in the machine of the recorded
 * programs the synthetic ones, which are devices there. Any other MSR does not exist.
 *
 * @module
 */
import type { Devices } from "../devices/devices.ts";
import type { Cpu } from "../cpu/cpu.ts";
import { CRASH_MSR, HV_X64_MSR } from "../layout/hyperv/constants/msrs.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { HostMsrs } from "./bare_vp.ts";

/** Crash parameters P0 to P4. */
const PARAMETERS = 5;

/** Bytes of state that the MSRs of one processor take. */
export const HOST_MSRS_SIZE: number = PARAMETERS * 8;

/** The MSRs of a processor whose crash parameters lie at byte offset `at`, a multiple of eight. */
export function hostMsrs(memory: MachineMemory, at: number, devices: Devices): HostMsrs {
  const parameter = (msr: number): number => {
    const index = (msr >>> 0) - HV_X64_MSR.GUEST_CRASH_P0;
    return index >= 0 && index < PARAMETERS ? index : -1;
  };
  return {
    read: (cpu: Cpu, msr: number): boolean => {
      const index = parameter(msr);
      if (devices.msrs?.claims(msr >>> 0)) {
        devices.msrs.read(msr >>> 0);
        cpu.v32[0] = devices.value[0];
        cpu.v32[1] = devices.value[1];
      } else if (index >= 0) {
        cpu.v64[0] = memory.u64[(at >>> 3) + index];
      } else if (msr >>> 0 === HV_X64_MSR.GUEST_CRASH_CTL) {
        cpu.v64[0] = CRASH_MSR.CTL_read_value;
      } else {
        return false;
      }
      return true;
    },
    write: (cpu: Cpu, msr: number): boolean => {
      const index = parameter(msr);
      if (devices.msrs?.claims(msr >>> 0)) devices.msrs.write(msr >>> 0, cpu.v32[0], cpu.v32[1]);
      else if (index >= 0) memory.u64[(at >>> 3) + index] = cpu.v64[0];
      else if (msr >>> 0 !== HV_X64_MSR.GUEST_CRASH_CTL) return false;
      return true;
    },
  };
}

/** A host and the GHCB of a guest that the test itself plays. */
import { SevVpState, TURN } from "../../lib/hypervisor/sev/state.ts";
import type { HostVcpu } from "../../lib/host/host_vcpu.ts";
import { SevExitCode } from "../../lib/layout/sev/constants/exit_codes.ts";
import { GHCB, type GhcbValidField } from "../../lib/layout/sev/ghcb.ts";
import { VMCB_CONTROL } from "../../lib/layout/sev/vmcb.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { END } from "../../lib/machine/header.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { stepName } from "../../lib/memory/steps.ts";
import { Ghcb } from "../../lib/sev/ghcb.ts";

/** RAM of the machines. */
export const RAM_BYTES = 4 << 20;
/** Where the GHCB lies. */
export const GHCB_GPA = 0x201000;

/** One virtual processor's host, with the guest's part in the test's hands. */
export interface HostFixture {
  readonly machine: Machine;
  readonly host: HostVcpu;
  readonly ghcb: Ghcb;
  /** Steps that the host took for the last request, by name. */
  readonly steps: string[];
  /** Marks fields valid and leaves by VMGEXIT; true when the host has entered the guest again. */
  request(fields: Partial<Record<GhcbValidField, bigint | number>>): boolean;
  /** Leaves by an automatic exit. */
  exit(code: number, info1?: bigint, info2?: bigint): boolean;
  /** A request of the MSR protocol; the answer, or undefined when the host does not enter again. */
  msr(request: bigint): bigint | undefined;
}

/** A machine whose guest has never run, and whose VP 0 belongs to the host. */
export function hostFixture(part: Partial<MachineConfig> = {}): HostFixture {
  const machine = Machine.create({
    platform: "sev-es",
    vps: 2,
    ramBytes: RAM_BYTES,
    policies: {},
    devices: "pc",
    recordExits: false,
    ...part,
  }, true);
  const { sev } = machine.platform.sev;
  const host = machine.platform.sev.host(0);
  const { memory } = machine;
  sev.guestMemory.setPrivate(host.port, GHCB_GPA >>> 12, false);
  if (part.platform === "snp") host.set64("registered", BigInt(GHCB_GPA >>> 12) + 1n);
  const steps: string[] = [];
  const turn = (sev.vpState(0) + SevVpState.at.turn) >>> 2;
  const serve = (): boolean => {
    steps.length = 0;
    memory.u32[turn] = TURN.HOST;
    for (let k = 0; k < 100_000 && memory.u32[turn] === TURN.HOST && machine.end === END.NONE; k++) {
      steps.push(stepName(host.step));
      if (host.takeSteps(1) === 0) return false;
    }
    return memory.u32[turn] === TURN.GUEST;
  };
  const exit = (code: number, info1 = 0n, info2 = 0n): boolean => {
    const vmcb = sev.vmcb(0);
    memory.u64[(vmcb + VMCB_CONTROL.at.exit_code) >>> 3] = BigInt.asUintN(64, BigInt(code));
    memory.u64[(vmcb + VMCB_CONTROL.at.exit_info_1) >>> 3] = info1;
    memory.u64[(vmcb + VMCB_CONTROL.at.exit_info_2) >>> 3] = info2;
    return serve();
  };
  const ghcb = new Ghcb(memory.view, GHCB_GPA);
  const gpa = (sev.vmcb(0) + VMCB_CONTROL.at.ghcb_gpa) >>> 3;
  serve(); // the first entry
  return {
    machine,
    host,
    ghcb,
    steps,
    exit,
    request(fields) {
      ghcb.invalidate();
      for (const [field, value] of Object.entries(fields)) ghcb.set(field as GhcbValidField, BigInt(value));
      memory.u64[gpa] = BigInt(GHCB_GPA);
      return exit(SevExitCode.values.VMGEXIT);
    },
    msr(request) {
      memory.u64[gpa] = request;
      return exit(SevExitCode.values.VMGEXIT) ? memory.u64[gpa] : undefined;
    },
  };
}

/** The three exit fields of a request. */
export function exitFields(
  code: number,
  info1: bigint | number = 0,
  info2: bigint | number = 0,
): { sw_exit_code: number; sw_exit_info_1: bigint; sw_exit_info_2: bigint } {
  return { sw_exit_code: code, sw_exit_info_1: BigInt(info1), sw_exit_info_2: BigInt(info2) };
}

/** Byte offset of the GHCB's shared buffer. */
export const BUFFER: number = GHCB_GPA + GHCB.at.shared_buffer;

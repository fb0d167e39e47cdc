/**
 * What OpenHCL does for each exit of a lower VTL of an SNP guest: the exit table of sev.md, section f (openvmm
 * `virt_mshv_vtl/src/processor/snp/mod.rs` run_vp_snp). Everything is read from the VMSA and written there; the host is asked
 * for nothing.
 *
 * "Advance" moves RIP to the VMSA's next instruction and ends an interrupt shadow. No VTL1 has asked for an intercept.
 *
 * @module
 */
import { ACTIVITY_HALTED, FLAG_RF, FLAG_TF } from "../../cpu/state.ts";
import { CR0_DEFINED, CR4_DEFINED, CR4_OSXSAVE, CR4_PCE } from "../../cpu/control_bits.ts";
import { VECTOR_DB, VECTOR_GP, VECTOR_UD } from "../../cpu/faults.ts";
import { DEVICE_DONE } from "../../devices/devices.ts";
import { guestHypercall } from "../../hypervisor/hypercalls/dispatch.ts";
import { readMsr, writeMsr } from "../../hypervisor/msrs.ts";
import { PartitionState } from "../../hypervisor/partition.ts";
import { VTOM_BIT } from "../../hypervisor/sev/lower_vtl_bus.ts";
import { HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HypercallInputControl } from "../../layout/hyperv/hypercalls.ts";
import { HvMessageType } from "../../layout/hyperv/constants/messages.ts";
import { HV_X64_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { hcl_run } from "../../layout/hyperv/hcl_run.ts";
import {
  HvMessage,
  HvX64ExceptionInterceptMessage,
  HvX64MemoryInterceptMessage,
} from "../../layout/hyperv/messages.ts";
import { MsrHypercallContents } from "../../layout/hyperv/registers.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_EXCEPTION } from "../../layout/sev/constants/instructions.ts";
import { IOIO_EXITINFO1, MOV_CR_EXITINFO1, NPF_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { EVENT_INJ } from "../../layout/sev/vmsa.ts";
import { Exception, X64 } from "../../layout/x64/constants.ts";
import { PAGE_SHIFT } from "../../memory/machine_memory.ts";
import type { ProtectedVmsa } from "../../sev/register_protection.ts";
import { PERMISSION_READ, PERMISSION_WRITE, RMP_CHECK } from "../../sev/rmp.ts";
import { isCrashMsr, readVmmMsr, writeVmmMsr } from "../handlers/msr.ts";
import { IN_UPPER_RAX, IO_SINGLE_STEP, UNKNOWN_MSR } from "../policies.ts";
import { BUSY, CRASHED, HANDLED, type HandlerResult, TRIPLE_FAULT } from "../vmm_vp.ts";
import { vsmHypercall, vsmResult } from "./guest_vsm.ts";
import { beginVisibility } from "./page_visibility.ts";
import { SnpVmmState } from "./pages.ts";
import type { SnpVp } from "./snp_vp.ts";

const EXIT = SevExitCode.values;
const io = IOIO_EXITINFO1.low;
const types = HvMessageType.values;
const MESSAGE = hcl_run.at.exit_message;
const PAYLOAD = MESSAGE + HvMessage.at.payload_buffer;
const LOW = 0xffff_ffffn;
const MODIFY_VISIBILITY = HypercallCode.values.HvCallModifySparseGpaPageHostVisibility;
/** SEV's own leaf, which a lower VTL does not see. */
const CPUID_SEV = 0x8000_001f;
/** Counters that RDPMC always finds (AMD64 APM volume 2, 13.2). */
const CORE_COUNTERS = 4n;
/** XCR0: x87, SSE. */
const XCR0_X87 = 1n;
const XCR0_SSE = 2n;
/** General-purpose registers in encoding order. */
const GPRS = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const,
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const,
] as const;

/** Completes the instruction that left. What else completing one does on a processor is a policy. */
function advance(vp: SnpVp, vmsa: ProtectedVmsa): HandlerResult {
  vp.vmm.completeInstruction();
  if (vp.policy(IO_SINGLE_STEP) !== IO_SINGLE_STEP.is.silicon) return HANDLED;
  const flags = vmsa.get64("rflags");
  if ((flags & BigInt(FLAG_RF)) !== 0n) vmsa.set64("rflags", flags & ~BigInt(FLAG_RF));
  if ((flags & BigInt(FLAG_TF)) !== 0n) vp.vmm.inject(VECTOR_DB, false, 0, BigInt(X64.DR6_SINGLE_STEP));
  return HANDLED;
}

/** Makes the instruction that left fault. A processor saves the flags of a fault with RF set. */
function fault(vp: SnpVp, vmsa: ProtectedVmsa, vector: number, hasError: boolean): HandlerResult {
  if (vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon) {
    vmsa.set64("rflags", vmsa.get64("rflags") | BigInt(FLAG_RF));
  }
  vp.vmm.inject(vector, hasError, 0, 0n);
  return HANDLED;
}

/** CPUID: what the partition answers, zero-extended. */
export function handleCpuid(vp: SnpVp): HandlerResult {
  const vmsa = vp.vmsa(vp.vtl);
  const leaf = Number(vmsa.get64("rax") & LOW);
  const subleaf = Number(vmsa.get64("rcx") & LOW);
  const result = vp.cpuidDefaults;
  const answered = vp.cpuid.lookup(leaf, subleaf, vp.bus, result);
  if (!answered) {
    const overlaid = Int32Array.from(result);
    vp.vmm.partition.overlayCpuid(leaf, subleaf, overlaid);
    result.set(overlaid);
  }
  if (leaf === CPUID_SEV) result.fill(0);
  (["rax", "rbx", "rcx", "rdx"] as const).forEach((name, k) => vmsa.set64(name, BigInt(result[k])));
  return advance(vp, vmsa);
}

/** RDMSR and WRMSR: the local APIC and what the hypervisor interface has, the crash MSRs, then what nobody knows. */
export function handleMsr(vp: SnpVp): HandlerResult {
  const vmsa = vp.vmsa(vp.vtl);
  const write = (vmsa.get64("guest_exit_info_1") & 1n) !== 0n;
  const msr = Number(vmsa.get64("rcx") & LOW);
  const { cpu, vmm } = vp;
  if (write) cpu.v64[0] = (vmsa.get64("rdx") & LOW) << 32n | vmsa.get64("rax") & LOW;
  const device = vmm.devices.msrs?.claims(msr) ? vmm.devices.msrs : undefined;
  if (vp.vtl === 1 && msr === HV_X64_MSR.VP_ASSIST_PAGE) {
    const page = (vp.vmmState + SnpVmmState.at.vtl1_assist_page) >>> 3;
    if (write) vp.memory.u64[page] = cpu.v64[0];
    else cpu.v64[0] = vp.memory.u64[page];
  } else if (device !== undefined) {
    if (write) device.write(msr, cpu.v32[0], cpu.v32[1]);
    else {
      device.read(msr);
      cpu.v32.set(vmm.devices.value.subarray(0, 2));
    }
  } else {
    const outcome = write ? writeMsr(vp.facilities, vp.index, msr, cpu) : readMsr(vp.facilities, vp.index, msr, cpu);
    const unknown = outcome === "intercept" && !isCrashMsr(msr);
    if (outcome === "fault" || (unknown && vp.policy(UNKNOWN_MSR) === UNKNOWN_MSR.is.silicon)) {
      return fault(vp, vmsa, VECTOR_GP, true);
    }
    if (outcome === "intercept") {
      if (write) writeVmmMsr(vmm, msr, cpu.v32[0], cpu.v32[1]);
      else cpu.v32.set(readVmmMsr(vmm, msr));
    }
  }
  if (!write) {
    const value = BigInt.asUintN(64, cpu.v64[0]);
    vmsa.set64("rax", value & LOW);
    vmsa.set64("rdx", value >> 32n);
  }
  return advance(vp, vmsa);
}

/** Ports: string forms go to the instruction emulator. */
export function handleIoPort(vp: SnpVp): HandlerResult {
  const vmsa = vp.vmsa(vp.vtl);
  const info = Number(vmsa.get64("guest_exit_info_1") & LOW);
  if ((info & (io.string | io.rep)) !== 0) return emulate(vp, vmsa);
  const port = info >>> IOIO_EXITINFO1.shift.port;
  const size = (info & io.size32) !== 0 ? 4 : (info & io.size16) !== 0 ? 2 : 1;
  const rax = vmsa.get64("rax");
  const { devices } = vp.vmm;
  if ((info & io.in) === 0) {
    if (devices.portOut(port, size, Number(BigInt.asIntN(32, rax))) !== DEVICE_DONE) return BUSY;
    return advance(vp, vmsa);
  }
  const value = BigInt.asUintN(8 * size, BigInt(devices.portIn(port, size)));
  const keepsUpper = size < 4 && vp.policy(IN_UPPER_RAX) === IN_UPPER_RAX.is.silicon;
  const kept = rax & ~((1n << BigInt(8 * size)) - 1n) & (keepsUpper ? ~0n : LOW);
  vmsa.set64("rax", BigInt.asUintN(64, size === 4 ? value : kept | value));
  return advance(vp, vmsa);
}

/** Runs the instruction that left on the VMM's own processor. */
function emulate(vp: SnpVp, vmsa: ProtectedVmsa): HandlerResult {
  const interrupted = ((vmsa.get64("event_inj") | vmsa.get64("guest_exit_int_info")) & EVENT_INJ.mask.valid) !== 0n;
  vp.vmm.stage(interrupted);
  const result = vp.emulator.emulate(vp.vmm);
  // A device that is busy has taken what came before it: the registers say how much is left.
  if (result !== CRASHED) vp.vmm.unstage();
  return result;
}

/**
 * A hypercall instruction. The call works on the registers of the processor's state, which an exit leaves as the VMSA has
 * them; what it changes goes back. A VTL call needs a VTL1 that is enabled.
 */
export function handleHypercall(vp: SnpVp): HandlerResult {
  const vmsa = vp.vmsa(vp.vtl);
  const { memory: { i32 }, state } = vp.partition;
  const enabled = (i32[(state + PartitionState.at.hypercall_msr) >>> 2] & MsrHypercallContents.low.enable) !== 0;
  const allowed = enabled && vmsa.get8("cpl") === 0;
  if (allowed && vp.vtl === 0 && vp.cpu.long64 && callCode(vmsa) === MODIFY_VISIBILITY) {
    const refused = beginVisibility(vp);
    if (refused !== undefined) vmsa.set64("rax", vsmResult(refused));
    return advance(vp, vmsa);
  }
  const vsm = allowed && vp.cpu.long64 ? vsmHypercall(vp) : undefined;
  if (vsm === "switched") return HANDLED;
  if (typeof vsm === "object") {
    vmsa.set64("rax", vsmResult(vsm.status));
    return advance(vp, vmsa);
  }
  if (!allowed || vsm === "undefined" || guestHypercall(vp.hypercalls) === "undefined") {
    vp.vmm.inject(VECTOR_UD, false, 0, 0n);
    return HANDLED;
  }
  vp.skipInstruction();
  vp.saveRegisters(vp.vmsaPage(vp.vtl));
  vp.vmm.clearInterruptShadow();
  return HANDLED;
}

/** Code of the hypercall of a guest in 64-bit mode. */
function callCode(vmsa: ProtectedVmsa): number {
  return HypercallInputControl.get(vmsa.get64("rcx"), "code");
}

/** A nested page fault, which counts only when the host's message is about it too. */
export function handleNestedFault(vp: SnpVp): HandlerResult {
  const vmsa = vp.vmsa(vp.vtl);
  const gpa = vmsa.get64("guest_exit_info_2");
  if (vp.get("has_message") === 0 || !messageIsAbout(vp, gpa)) {
    vp.count("spurious");
    return HANDLED;
  }
  const write = (vmsa.get64("guest_exit_info_1") & NPF_EXITINFO1.mask.write) !== 0n;
  return checkMemoryFault(vp, vmsa, gpa, write);
}

/** Whether the host's message is a #VC, or about the same page. */
function messageIsAbout(vp: SnpVp, gpa: bigint): boolean {
  const { u16, u32, u64 } = vp.memory;
  switch (u32[(vp.runPage + MESSAGE) >>> 2]) {
    case types.HvMessageTypeExceptionIntercept:
      return u16[(vp.runPage + PAYLOAD + HvX64ExceptionInterceptMessage.at.vector) >>> 1] === SEV_EXCEPTION.VC;
    case types.HvMessageTypeUnmappedGpa:
    case types.HvMessageTypeGpaIntercept:
    case types.HvMessageTypeUnacceptedGpa: {
      const named = u64[(vp.runPage + PAYLOAD + HvX64MemoryInterceptMessage.at.guest_physical_address) >>> 3];
      return named >> BigInt(PAGE_SHIFT) === gpa >> BigInt(PAGE_SHIFT);
    }
    default:
      return false;
  }
}

/**
 * What a fault on a guest-physical address means (f26): outside RAM it is a device; in RAM that the VTL may access it needed
 * nothing; any other failure is a machine check. The address keeps the bit of the shared alias, which is stripped.
 */
function checkMemoryFault(vp: SnpVp, vmsa: ProtectedVmsa, gpa: bigint, write: boolean): HandlerResult {
  const shared = (gpa >> BigInt(VTOM_BIT) & 1n) !== 0n;
  const gpn = Number((gpa & ((1n << BigInt(VTOM_BIT)) - 1n)) >> BigInt(PAGE_SHIFT));
  const { sev, port, apic } = vp;
  if (!sev.isRam(gpn) || (!shared && gpn === apic.mmioPage)) return emulate(vp, vmsa);
  const permissions = PERMISSION_READ | (write ? PERMISSION_WRITE : 0);
  const check = shared
    ? write ? sev.rmp!.checkGuestSharedWrite(port, gpn) : RMP_CHECK.PASS
    : vp.checkPrivate(gpn, permissions);
  if (check === RMP_CHECK.PASS) {
    vp.count("spurious");
    return HANDLED;
  }
  vp.vmm.inject(Exception.values.MACHINE_CHECK, false, 0, 0n);
  return HANDLED;
}

/** HLT: RIP is already behind it. */
export function handleHalt(vp: SnpVp): HandlerResult {
  vp.vmm.clearInterruptShadow();
  vp.activity = ACTIVITY_HALTED;
  return HANDLED;
}

/** A triple fault ends the VTL. */
export function handleShutdown(_vp: SnpVp): HandlerResult {
  return TRIPLE_FAULT;
}

/** Automatic exits that need nothing. */
export function handleIgnored(vp: SnpVp): HandlerResult {
  vp.count("ignored");
  return HANDLED;
}

/** Instructions that are intercepted and need little. */
export function handleInstruction(vp: SnpVp): HandlerResult {
  const vmsa = vp.vmsa(vp.vtl);
  switch (vmsa.exitCode) {
    case EXIT.INVD:
    case EXIT.WBINVD:
      return advance(vp, vmsa);
    case EXIT.RDPMC:
      return readCounter(vp, vmsa);
    case EXIT.XSETBV:
      return writeXcr(vp, vmsa);
    case EXIT.CR0_WRITE:
    case EXIT.CR4_WRITE:
      return writeControlRegister(vp, vmsa);
    default: // INVLPGB, legal or not
      return fault(vp, vmsa, VECTOR_UD, false);
  }
}

function readCounter(vp: SnpVp, vmsa: ProtectedVmsa): HandlerResult {
  const allowed = vmsa.get8("cpl") === 0 || (vmsa.get64("cr4") & BigInt(CR4_PCE)) !== 0n;
  if (!allowed || (vmsa.get64("rcx") & LOW) >= CORE_COUNTERS) return fault(vp, vmsa, VECTOR_GP, true);
  vmsa.set64("rax", 0n);
  vmsa.set64("rdx", 0n);
  return advance(vp, vmsa);
}

function writeXcr(vp: SnpVp, vmsa: ProtectedVmsa): HandlerResult {
  const value = (vmsa.get64("rdx") & LOW) << 32n | vmsa.get64("rax") & LOW;
  const allowed = vmsa.get8("cpl") === 0 && (vmsa.get64("cr4") & BigInt(CR4_OSXSAVE)) !== 0n;
  const known = (value & XCR0_X87) !== 0n && (value & ~(XCR0_X87 | XCR0_SSE)) === 0n;
  if (!allowed || !known || (vmsa.get64("rcx") & LOW) !== 0n) return fault(vp, vmsa, VECTOR_GP, true);
  vmsa.set64("xcr0", value);
  return advance(vp, vmsa);
}

/** A move to CR0 or CR4. LMSW and CLTS are only taken note of, and RIP stays: the instruction leaves again. */
function writeControlRegister(vp: SnpVp, vmsa: ProtectedVmsa): HandlerResult {
  const info = vmsa.get64("guest_exit_info_1");
  if ((info & MOV_CR_EXITINFO1.mask.mov_crx) === 0n) {
    vp.count("ignored");
    return HANDLED;
  }
  const value = vmsa.get64(GPRS[MOV_CR_EXITINFO1.get(info, "gpr_number")]);
  const cr0 = vmsa.exitCode === EXIT.CR0_WRITE;
  const defined = BigInt((cr0 ? CR0_DEFINED : CR4_DEFINED) >>> 0);
  if ((value & ~defined) !== 0n) return fault(vp, vmsa, VECTOR_GP, true);
  vmsa.set64(cr0 ? "cr0" : "cr4", value);
  return advance(vp, vmsa);
}

/** An exit that no row of the table names: OpenHCL panics. */
export function handleUnexpected(vp: SnpVp): HandlerResult {
  const code = vp.vmsa(vp.vtl).exitCode;
  const assertion = code === EXIT.INVALID ? "the VMSA is valid" : `unexpected exit ${SevExitCode.name(BigInt(code))}`;
  return vp.vmm.crash({ assertion, left: BigInt.asUintN(64, BigInt(code)) });
}

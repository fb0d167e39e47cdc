/**
 * What a guest can ask KVM for through its GHCB, once the request is validated (Linux sev_handle_vmgexit; sev.md d6 to d18).
 *
 * @module
 */
import { ACTIVITY_WAIT_FOR_SIPI } from "../../cpu/state.ts";
import { DEVICE_BUSY } from "../../devices/devices.ts";
import { ATTENTION } from "../../hypervisor/attention.ts";
import { readTsc } from "../../hypervisor/msrs.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { ApCreationRequest, GhcbMalformedInput } from "../../layout/sev/constants/ghcb.ts";
import { SEV_RET_NO_FW_CALL, SnpMsgType } from "../../layout/sev/constants/firmware.ts";
import { IOIO_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { SNP_GUEST_MSG_HDR } from "../../layout/sev/guest_message.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { PAGES_PER_LARGE_PAGE } from "../../sev/rmp.ts";
import { HOST_STOP, type HostVcpu, HostVcpuState, MP_STATE, SCRATCH_BYTES } from "../host_vcpu.ts";
import { answerCpuid, answerReadMsr, answerWriteMsr } from "../sev_answers.ts";
import { REQUESTS } from "./exit.ts";
import { hypervisorFeatures } from "./msr_protocol.ts";
import { PSC_BEGIN } from "./page_state.ts";
import { beginScratch, loadScratch, scratchFits, storeScratch } from "./scratch.ts";
import { guestRequestPagesValid } from "./validate.ts";
import { FINISH, replyDone, replyException, replyMalformed } from "./vmgexit.ts";

const EXIT = SevExitCode.values;
const REASON = GhcbMalformedInput.values;
const ioio = IOIO_EXITINFO1.mask;

/** What KVM says it is, in CPUID leaf 40000000. */
export const KVM_SIGNATURE = "KVMKVMKVM\0\0\0";
/** Bytes of a page state change request: the shared buffer's, rounded down to whole entries. */
const PSC_BYTES = 2032;
const U32 = 0xffff_ffffn;
/** What KVM returns for a hypercall that it does not have (KVM_ENOSYS). */
const KVM_ENOSYS = 1000n;
/** Bytes of zeros that end a table of certificates. */
const CERTIFICATES_END_BYTES = 24;
/** Largest count that KVM accepts. */
const INT_MAX = 0x7fff_ffffn;
/** Privilege level at which a hypercall is allowed. */
const CPL_KERNEL = 0n;
/** Where another processor's request for a VMSA is left. */
const AP_REQUEST: number = HostVcpuState.at.ap_request;

/** Dispatches a request by its exit code. */
export const SERVE: StepId = step<HostVcpu>("kvm.serve-request", (host) => {
  switch (host.requestCode) {
    case EXIT.CPUID:
      return CPUID;
    case EXIT.MSR:
      return MSR;
    case EXIT.IOIO:
      return (host.low("sw_exit_info_1") & ioio.string) !== 0 ? mapScratchForString(host) : PORT;
    case EXIT.MMIO_READ:
    case EXIT.MMIO_WRITE:
      return mapScratchForMmio(host);
    case EXIT.SNP_PSC:
      return mapScratch(host, PSC_BYTES, true, PSC_BEGIN);
    case EXIT.RDTSC:
    case EXIT.RDTSCP:
      return READ_TSC;
    case EXIT.VMMCALL:
      return HYPERCALL;
    case EXIT.RDPMC:
      host.set64("rax", 0n);
      host.set64("rdx", 0n);
      return FINISH;
    case EXIT.NMI_COMPLETE:
      host.set32("nmi", host.get32("nmi") & 1);
      return FINISH;
    case EXIT.AP_RESET_HOLD:
      host.set32("mp_state", MP_STATE.RESET_HOLD_GHCB);
      host.vp.activity = ACTIVITY_WAIT_FOR_SIPI;
      return REQUESTS;
    case EXIT.AP_JUMP_TABLE:
      return JUMP_TABLE;
    case EXIT.HV_FEATURES:
      replyDone(host, host.sev.rmp === undefined ? 0n : hypervisorFeatures());
      return FINISH;
    case EXIT.SNP_AP_CREATION:
      return AP_CREATION;
    case EXIT.SNP_GUEST_REQUEST:
    case EXIT.SNP_EXT_GUEST_REQUEST:
      return GUEST_REQUEST;
    case EXIT.TERM_REQUEST:
      return host.stop(HOST_STOP.TERMINATED, host.get64("sw_exit_info_1"), HALTED);
    case EXIT.UNSUPPORTED_EVENT:
      return host.stop(HOST_STOP.INVALID, host.get64("sw_exit_info_1"), HALTED);
    default: // INVD, WBINVD, MONITOR, MWAIT and debug registers: nothing to do
      return FINISH;
  }
});

/** CPUID. */
const CPUID: StepId = step<HostVcpu>("kvm.emulate-cpuid", (host) => {
  const result = answerCpuid(host, host.low("rax"), host.low("rcx"), KVM_SIGNATURE);
  host.setLow("rax", result[0]);
  host.setLow("rbx", result[1]);
  host.setLow("rcx", result[2]);
  host.setLow("rdx", result[3]);
  return FINISH;
});

/** RDMSR and WRMSR. */
const MSR: StepId = step<HostVcpu>("kvm.emulate-msr", (host) => {
  const msr = host.low("rcx");
  if (host.get64("sw_exit_info_1") !== 0n) {
    const value = ((host.get64("rdx") & U32) << 32n) | (host.get64("rax") & U32);
    if (!answerWriteMsr(host, msr, value)) replyException(host, "gp");
    return FINISH;
  }
  const value = answerReadMsr(host, msr);
  if (value === undefined) {
    replyException(host, "gp");
  } else {
    host.set64("rax", value & U32);
    host.set64("rdx", value >> 32n);
  }
  return FINISH;
});

/** Access size in bytes of a port request; 0 when it names none. */
function portSize(info: number): number {
  if ((info & ioio.size8) !== 0) return 1;
  if ((info & ioio.size16) !== 0) return 2;
  return (info & ioio.size32) !== 0 ? 4 : 0;
}

/** Port of a port request. */
function portNumber(info: number): number {
  return info >>> IOIO_EXITINFO1.shift.port;
}

/** IN or OUT. */
const PORT: StepId = step<HostVcpu>("kvm.port-access", (host) => {
  const info = host.low("sw_exit_info_1");
  const size = portSize(info);
  const port = portNumber(info);
  if (size === 0) {
    replyMalformed(host, REASON.INVALID_INPUT);
  } else if ((info & ioio.in) !== 0) {
    host.setLow("rax", host.services.devices.portIn(port, size) >>> 0);
  } else if (host.services.devices.portOut(port, size, operand(host.low("rax"), size)) === DEVICE_BUSY) {
    host.services.waitForDevice();
    return PORT;
  }
  return FINISH;
});

/** The lowest `size` (1, 2, 4) bytes of `value`, as a device takes them. */
function operand(value: number, size: number): number {
  return size === 4 ? value | 0 : value & ((1 << (8 * size)) - 1);
}

// --- Scratch area ----------------------------------------------------------------------------------------------------

/** Begins to use a scratch area of `bytes` bytes; without a valid area the request is malformed. */
function mapScratch(host: HostVcpu, bytes: number, copy: boolean, next: StepId): StepId {
  if (scratchFits(host, bytes)) return beginScratch(host, bytes, copy, next);
  replyMalformed(host, REASON.INVALID_SCRATCH_AREA);
  return FINISH;
}

function mapScratchForString(host: HostVcpu): StepId {
  const info = host.low("sw_exit_info_1");
  const size = portSize(info);
  const count = host.get64("sw_exit_info_2");
  if (size === 0 || count > INT_MAX || count * BigInt(size) > BigInt(SCRATCH_BYTES)) {
    replyMalformed(host, REASON.INVALID_SCRATCH_AREA);
    return FINISH;
  }
  if (count === 0n) return FINISH;
  return mapScratch(host, Number(count) * size, (info & ioio.in) === 0, STRING_ELEMENT);
}

/** One element of INS or OUTS. */
const STRING_ELEMENT: StepId = step<HostVcpu>("kvm.string-element", (host) => {
  const info = host.low("sw_exit_info_1");
  const size = portSize(info);
  const port = portNumber(info);
  const index = host.get32("element");
  const { devices } = host.services;
  if ((info & ioio.in) !== 0) {
    storeScratch(host, index * size, size, BigInt(devices.portIn(port, size) >>> 0));
  } else if (devices.portOut(port, size, Number(loadScratch(host, index * size, size)) | 0) === DEVICE_BUSY) {
    host.services.waitForDevice();
    return STRING_ELEMENT;
  }
  host.set32("element", index + 1);
  if ((index + 1) * size < host.get32("scratch_bytes")) return STRING_ELEMENT;
  // What was only read is not copied back.
  if ((info & ioio.in) === 0) host.set32("scratch_bytes", 0);
  return FINISH;
});

function mapScratchForMmio(host: HostVcpu): StepId {
  const size = host.get64("sw_exit_info_2");
  if (size !== 1n && size !== 2n && size !== 4n && size !== 8n) {
    replyMalformed(host, REASON.INVALID_INPUT);
    return FINISH;
  }
  const write = host.requestCode === EXIT.MMIO_WRITE;
  return mapScratch(host, Number(size), write, MMIO);
}

/** An access to device memory, the local APIC among it. */
const MMIO: StepId = step<HostVcpu>("kvm.mmio-access", (host) => {
  const address = host.get64("sw_exit_info_1");
  const size = Number(host.get64("sw_exit_info_2"));
  const write = host.requestCode === EXIT.MMIO_WRITE;
  const lo = Number(address & U32) | 0;
  const hi = Number((address >> 32n) & U32) | 0;
  const { apic } = host.vp;
  const { devices } = host.services;
  const isApic = Number(address / BigInt(PAGE_SIZE)) === apic.mmioPage;
  if (write) {
    const value = loadScratch(host, 0, size);
    const low = Number(value & U32) | 0;
    const high = Number(value >> 32n) | 0;
    if (isApic) apic.writeMmio(lo & (PAGE_SIZE - 1), size, low);
    else if (devices.mmioWrite(lo, hi, size, low, high) === DEVICE_BUSY) {
      host.services.waitForDevice();
      return MMIO;
    }
    host.set32("scratch_bytes", 0);
    return FINISH;
  }
  let value: bigint;
  if (isApic) {
    value = BigInt(apic.readMmio(lo & (PAGE_SIZE - 1), size) >>> 0);
  } else {
    devices.mmioRead(lo, hi, size);
    value = (BigInt(devices.value[1] >>> 0) << 32n) | BigInt(devices.value[0] >>> 0);
  }
  storeScratch(host, 0, size, value);
  return FINISH;
});

// --- Others ----------------------------------------------------------------------------------------------------------

/** RDTSC and RDTSCP. */
const READ_TSC: StepId = step<HostVcpu>("kvm.emulate-rdtsc", (host) => {
  const tsc = readTsc(host.vp.facilities, host.index);
  host.set64("rax", tsc & U32);
  host.set64("rdx", tsc >> 32n);
  if (host.requestCode === EXIT.RDTSCP) host.set64("rcx", 0n);
  return FINISH;
});

/** A hypercall: this host has none. */
const HYPERCALL: StepId = step<HostVcpu>("kvm.hypercall", (host) => {
  const error = host.get64("cpl") === CPL_KERNEL ? KVM_ENOSYS : 1n; // KVM_EPERM
  host.set64("rax", BigInt.asUintN(64, -error));
  return FINISH;
});

/** The AP jump table of SEV-ES: 0 sets, 1 gets. */
const JUMP_TABLE: StepId = step<HostVcpu>("kvm.ap-jump-table", (host) => {
  const request = host.get64("sw_exit_info_1");
  if (request > 1n) {
    replyMalformed(host, REASON.INVALID_INPUT);
    return FINISH;
  }
  const owner = host.peer(0);
  if (request === 0n) owner.set64("jump_table", host.get64("sw_exit_info_2"));
  else replyDone(host, owner.get64("jump_table"));
  return FINISH;
});

/** Another processor is to run a VMSA that this one has made (d14). */
const AP_CREATION: StepId = step<HostVcpu>("kvm.ap-creation", (host) => {
  const info = host.get64("sw_exit_info_1");
  const request = Number(info & U32);
  const apicId = Number(info >> 32n);
  const vmsa = host.get64("sw_exit_info_2");
  const { CREATE_ON_INIT, CREATE, DESTROY } = ApCreationRequest.values;
  const creates = request === CREATE_ON_INIT || request === CREATE;
  const target = apicId < host.sev.config.vps ? host.peer(apicId) : undefined;
  const aligned = vmsa % BigInt(PAGE_SIZE) === 0n && vmsa % BigInt(PAGE_SIZE * PAGES_PER_LARGE_PAGE) !== 0n &&
    host.sev.isRam(Number(vmsa / BigInt(PAGE_SIZE)));
  const valid = creates ? aligned && host.get64("rax") === host.sev.features : request === DESTROY;
  if (target === undefined || !valid) {
    replyMalformed(host, REASON.INVALID_INPUT);
    return FINISH;
  }
  target.set64("ap_vmsa", creates ? vmsa : 0n);
  // The target takes it at its next look, or when it gets an INIT.
  if (request !== CREATE_ON_INIT) {
    target.port.exchange32(target.state + AP_REQUEST, request + 1);
    host.vp.facilities.signal(apicId, ATTENTION.STOP);
  }
  return FINISH;
});

/** A message for the security processor's firmware. An extended one that asks for a report has room for certificates. */
const GUEST_REQUEST: StepId = step<HostVcpu>("kvm.guest-request", (host) => {
  const request = host.get64("sw_exit_info_1");
  const { ramBytes } = host.sev.config;
  const inRam = request < BigInt(ramBytes) && host.get64("sw_exit_info_2") < BigInt(ramBytes);
  if (!inRam || !guestRequestPagesValid(request, host.get64("sw_exit_info_2"))) {
    replyMalformed(host, REASON.INVALID_INPUT);
    return FINISH;
  }
  if (host.requestCode !== EXIT.SNP_EXT_GUEST_REQUEST) return CALL_FIRMWARE;
  const type = host.guest.load8(Number(request) + SNP_GUEST_MSG_HDR.at.msg_type);
  if (type !== SnpMsgType.values.REPORT_REQ) return CALL_FIRMWARE;
  const certificates = host.get64("rax");
  if (certificates % BigInt(PAGE_SIZE) !== 0n || certificates >= BigInt(ramBytes)) {
    replyMalformed(host, REASON.INVALID_INPUT);
    return FINISH;
  }
  return host.get64("rbx") === 0n ? CALL_FIRMWARE : CLEAR_CERTIFICATES;
});

/** The table of certificates is empty (d15). */
const CLEAR_CERTIFICATES: StepId = step<HostVcpu>("kvm.clear-certificates", (host) => {
  const at = Number(host.get64("rax"));
  for (let offset = 0; offset < CERTIFICATES_END_BYTES; offset += 8) {
    if (!host.guest.store64(at + offset, 0n)) return CALL_FIRMWARE;
  }
  return CALL_FIRMWARE;
});

/** There is no security processor: the answer is that its firmware was not called, and no error of the VMM. */
const CALL_FIRMWARE: StepId = step<HostVcpu>("kvm.call-firmware", (host) => {
  replyDone(host, SEV_RET_NO_FW_CALL);
  return FINISH;
});

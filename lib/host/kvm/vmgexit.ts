/**
 * VMGEXIT as KVM serves it: MSR protocol or GHCB, snapshot, validation, scratch area, request, reply (Linux
 * sev_handle_vmgexit and what it calls; sev.md d1 to d10).
 *
 * The order is the one of the source. Each read of a field of the page is a step of its own, because the page belongs to a
 * guest that may rewrite it from another processor.
 *
 * @module
 */
import { GHCB_PROTOCOL, GhcbExitResult, GhcbUsage } from "../../layout/sev/constants/ghcb.ts";
import { GHCB, GHCB_VALID_BIT, type GhcbValidField } from "../../layout/sev/ghcb.ts";
import { GHCB_MSR } from "../../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { PAGE_SHIFT } from "../../memory/machine_memory.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { HOST_STOP, type HostField, type HostVcpu, HostVcpuState } from "../host_vcpu.ts";
import { REQUESTS } from "./exit.ts";
import { MSR_PROTOCOL } from "./msr_protocol.ts";
import { GHCB_READ } from "./policies.ts";
import { SERVE } from "./requests.ts";
import { endScratch } from "./scratch.ts";
import { malformedReason } from "./validate.ts";

const vmcbAt = VMCB_CONTROL.at;
const at = HostVcpuState.at;

/** A field of the page, and where the host keeps its copy. */
interface SharedField {
  /** Byte offset in the page. */
  readonly ghcb: number;
  /** Byte offset in {@linkcode HostVcpuState}. */
  readonly state: number;
  /** Its bit of the bitmap. */
  readonly bit: number;
}

function sharedField(field: HostField & GhcbValidField): SharedField {
  return { ghcb: GHCB.at[field], state: at[field], bit: GHCB_VALID_BIT[field] };
}

/** Fields that KVM takes from the page, in its order; `always` whatever their valid bit says. */
const SNAPSHOT: readonly (SharedField & { readonly always: boolean; readonly byte: boolean })[] = ([
  ["rax", false],
  ["rbx", false],
  ["rcx", false],
  ["rdx", false],
  ["rsi", false],
  ["cpl", false],
  ["xcr0", false],
  ["sw_exit_code", true],
  ["sw_exit_info_1", true],
  ["sw_exit_info_2", true],
  ["sw_scratch", false],
] as const).map(([field, always]) => ({ ...sharedField(field), always, byte: field === "cpl" }));

/** Fields of which the host keeps what it validated, for those who compare that with what it used. */
export const VALIDATED = ["sw_exit_code", "sw_exit_info_1", "sw_exit_info_2", "sw_scratch"] as const;

const VALIDATED_AT: readonly number[] = VALIDATED.map((field) => at[field]);

/** Registers that are written back with every reply (d7). */
const REPLY_REGISTERS: readonly SharedField[] = (["rax", "rbx", "rcx", "rdx"] as const).map(sharedField);
/** What is written of a reply beside the registers, from fields of the host's state. */
const REPLY_INFO_1: SharedField = { ...sharedField("sw_exit_info_1"), state: at.reply_info_1 };
const REPLY_INFO_2: SharedField = { ...sharedField("sw_exit_info_2"), state: at.reply_info_2 };

/** Whether the guest has marked a field valid in the bitmap that the host copied. */
function isValid(host: HostVcpu, { bit }: SharedField): boolean {
  return (host.memory.u8[host.state + at.valid_bitmap + (bit >> 3)] & (1 << (bit & 7))) !== 0;
}

/** SW_EXITINFO1 is 0, SW_EXITINFO2 as given, or 0. */
export function replyDone(host: HostVcpu, info2?: bigint): void {
  host.setLow("reply_info_1", GhcbExitResult.values.NO_ACTION);
  if (info2 === undefined) host.setLow("reply_info_2", 0);
  else host.set64("reply_info_2", info2);
}

/** The guest must raise #GP or #UD (d10). */
export function replyException(host: HostVcpu, vector: "gp" | "ud"): void {
  host.setLow("reply_info_1", GhcbExitResult.values.ISSUE_EXCEPTION);
  host.setLow("reply_info_2", vector === "gp" ? GHCB_PROTOCOL.KVM_GP : GHCB_PROTOCOL.KVM_UD);
}

/** The request was malformed (d5). */
export function replyMalformed(host: HostVcpu, reason: number): void {
  host.count("refused");
  host.setLow("reply_info_1", GhcbExitResult.values.MALFORMED_INPUT);
  host.setLow("reply_info_2", reason);
}

// --- Request ---------------------------------------------------------------------------------------------------------

/** The GHCB MSR says which protocol the guest uses. */
export const READ_GHCB_MSR: StepId = step<HostVcpu>("kvm.read-ghcb-msr", (host) => {
  host.count("requests");
  host.set64("sw_scratch", host.port.load64(host.vmcb + vmcbAt.ghcb_gpa));
  return (host.low("sw_scratch") & GHCB_MSR.low.info) === 0 ? MAP_GHCB : MSR_PROTOCOL;
});

/** The page is mapped; an address without memory is logged and the guest goes on (d1, h15). */
const MAP_GHCB: StepId = step<HostVcpu>("kvm.map-ghcb", (host) => {
  const address = host.low("sw_scratch");
  const page = address >>> PAGE_SHIFT;
  host.set32("ghcb", 0);
  if (address === 0 || host.high("sw_scratch") !== 0 || !host.sev.isRam(page)) {
    host.count("refused");
    return REQUESTS;
  }
  // A guest that has not registered the page is stopped (d4).
  const registered = host.low("registered") === page + 1 && host.high("registered") === 0;
  if (host.sev.rmp !== undefined && !registered) return host.stop(HOST_STOP.INVALID, BigInt(address), HALTED);
  host.set32("ghcb", address);
  for (let index = 0; index < SNAPSHOT.length; index++) {
    host.memory.u64[(host.state + SNAPSHOT[index].state) >>> 3] = 0n;
  }
  return COPY_BITMAP_LOW;
});

/** The bitmap of valid fields, its first half. */
const COPY_BITMAP_LOW: StepId = step<HostVcpu>("kvm.copy-valid-bitmap", (host) => {
  copyBitmap(host, 0);
  return COPY_BITMAP_HIGH;
});

/** Its second half. */
const COPY_BITMAP_HIGH: StepId = step<HostVcpu>("kvm.copy-valid-bitmap-high", (host) => {
  copyBitmap(host, 8);
  host.set32("field", 0);
  return SNAPSHOT_FIELD;
});

function copyBitmap(host: HostVcpu, offset: number): void {
  const word = (host.state + at.valid_bitmap + offset) >>> 3;
  host.memory.u64[word] = host.guest.load64(host.get32("ghcb") + GHCB.at.valid_bitmap + offset);
}

/** One field goes into the host's own memory. */
const SNAPSHOT_FIELD: StepId = step<HostVcpu>("kvm.snapshot-field", (host) => {
  const index = nextField(host);
  if (index < SNAPSHOT.length) readField(host, index);
  host.set32("field", index + 1);
  return index + 1 < SNAPSHOT.length ? SNAPSHOT_FIELD : READ_USAGE;
});

/** The first field from `field` on that is taken at all. */
function nextField(host: HostVcpu): number {
  let index = host.get32("field");
  while (index < SNAPSHOT.length && !SNAPSHOT[index].always && !isValid(host, SNAPSHOT[index])) index++;
  return index;
}

function readField(host: HostVcpu, index: number): void {
  const { ghcb, state, byte } = SNAPSHOT[index];
  const where = host.get32("ghcb") + ghcb;
  const word = (host.state + state) >>> 3;
  if (byte) host.memory.u64[word] = BigInt(host.guest.load8(where));
  else host.memory.u64[word] = host.guest.load64(where);
}

/** The page's format. */
const READ_USAGE: StepId = step<HostVcpu>("kvm.read-usage", (host) => {
  host.set32("usage", host.guest.load32(host.get32("ghcb") + GHCB.at.ghcb_usage));
  host.set32("field", 0);
  return CLEAR_BITMAP;
});

/** The bitmap in the page is cleared, so that the reply's fields are told apart from the request's (d2). */
const CLEAR_BITMAP: StepId = step<HostVcpu>("kvm.clear-valid-bitmap", (host) => {
  const half = host.get32("field");
  if (!host.guest.store64(host.get32("ghcb") + GHCB.at.valid_bitmap + 8 * half, 0n)) return WRITE_FAULT;
  host.set32("field", half + 1);
  return half === 0 ? CLEAR_BITMAP : VALIDATE;
});

/** What the exit code needs must be there; only the host's own copies are looked at. */
const VALIDATE: StepId = step<HostVcpu>("kvm.validate-request", (host) => {
  host.set32("scratch_bytes", 0);
  const usage = host.get32("usage");
  const reason = malformedReason(host, usage === GhcbUsage.values.BASE);
  if (reason !== undefined) {
    replyMalformed(host, reason);
    return FINISH;
  }
  replyDone(host);
  const { u64 } = host.memory;
  for (let k = 0; k < VALIDATED_AT.length; k++) {
    u64[((host.state + at.validated) >>> 3) + k] = u64[(host.state + VALIDATED_AT[k]) >>> 3];
  }
  if (host.vp.partition.policy(GHCB_READ) === GHCB_READ.is["in-place"]) {
    host.set32("field", 0);
    return READ_AGAIN;
  }
  return SERVE;
});

/** The mistake that the snapshot avoids: fields are read a second time, after they were validated. */
const READ_AGAIN: StepId = step<HostVcpu>("kvm.read-field-again", (host) => {
  const index = nextField(host);
  if (index < SNAPSHOT.length) readField(host, index);
  host.set32("field", index + 1);
  return index + 1 < SNAPSHOT.length ? READ_AGAIN : SERVE;
});

// --- Reply -----------------------------------------------------------------------------------------------------------

/** The request is served: what is in the scratch area goes back, then the reply is written. */
export const FINISH: StepId = step<HostVcpu>("kvm.unmap-scratch", (host) => {
  host.set32("field", 0);
  return endScratch(host) ? WRITE_INFO_1 : WRITE_FAULT;
});

/** SW_EXITINFO1. */
const WRITE_INFO_1: StepId = step<HostVcpu>("kvm.write-exit-info-1", (host) => {
  return writeField(host, REPLY_INFO_1) ? WRITE_INFO_2 : WRITE_FAULT;
});

/** SW_EXITINFO2. */
const WRITE_INFO_2: StepId = step<HostVcpu>("kvm.write-exit-info-2", (host) => {
  return writeField(host, REPLY_INFO_2) ? WRITE_REGISTER : WRITE_FAULT;
});

/** RAX, RBX, RCX, RDX, each with its valid bit, whatever the request was. */
const WRITE_REGISTER: StepId = step<HostVcpu>("kvm.write-register", (host) => {
  const index = host.get32("field");
  if (!writeField(host, REPLY_REGISTERS[index])) return WRITE_FAULT;
  host.set32("field", index + 1);
  return index + 1 < REPLY_REGISTERS.length ? WRITE_REGISTER : REQUESTS;
});

/** Writes a field of the page and its valid bit; false when the write faults. */
function writeField(host: HostVcpu, { ghcb, state, bit }: SharedField): boolean {
  const page = host.get32("ghcb");
  if (!host.guest.store64(page + ghcb, host.memory.u64[(host.state + state) >>> 3])) return false;
  const byte = page + GHCB.at.valid_bitmap + (bit >> 3);
  return host.guest.store8(byte, host.guest.load8(byte) | (1 << (bit & 7)));
}

/** A write raised #PF with the RMP bit: the copy helper returns -EFAULT and the guest goes on without a reply (e10, e12). */
const WRITE_FAULT: StepId = step<HostVcpu>("kvm.write-fault", (host) => {
  host.set32("faults", host.get32("faults") + 1);
  return REQUESTS;
});

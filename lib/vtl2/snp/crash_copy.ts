/**
 * The copy of a lower VTL's VMSA to a page that the host can read (openvmm pull request 3386 and its review; sev.md f50 to f57):
 * the policies in which its proposals differ, and the steps that obey them. The `snp` platform with OpenHCL takes these steps in
 * its run loop, and the scenario `vmsa-crash-page` in a model that is small enough for every schedule.
 *
 * @module
 */
import { u32, u64 } from "../../layout/field_type.ts";
import { reserved, structure } from "../../layout/structure.ts";
import type { Agent } from "../../memory/agent.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { type Policy, policy } from "../../memory/policy.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { VMSA_REGISTER_BYTES } from "../../sev/register_protection.ts";

/** When the VMSA is copied to the crash page. */
export const WHEN = policy("vmsa.when", "When OpenHCL copies the VMSA to the page that the host can read", {
  "every-exit": "after every run and at every VTL switch (pull request 3386)",
  "intercept": "only when a message of the hypervisor is pending (the review)",
  "crash-ctl": "when the guest reports a crash through the CTL MSR",
  "off": "never",
});

/** Where the page is announced. */
export const PUBLISH = policy("vmsa.publish", "How the host learns where the copy is", {
  "p3p4": "address and size replace crash parameters P3 and P4, before the copy is made (pull request 3386)",
  "host-notification": "a notification of its own, after the copy, with VP, VTL and number of the exit",
});

/** What is built. */
export const BUILD = policy("vmsa.build", "Whether copying is part of the build", {
  "release": "only with an opt-in",
  "debug": "always: the pull request in every build, the review's code in debug builds",
});

/** Whether the owner of the guest has agreed. */
export const OPT_IN = policy(
  "vmsa.opt-in",
  "Whether the owner of the guest has agreed to show its registers to the host",
  {
    "no": "nobody has asked",
    "yes": "explicitly, for this guest",
  },
);

/** What happens where copying is not part of the build. */
export const DISABLED = policy("vmsa.disabled", "What is left of the code where copying is not part of the build", {
  "leave": "nothing",
  "clear-p3p4": "P3 and P4 are set to 0 wherever they would have been set (the review's code)",
});

/** Whether the size of the VMSA is looked at. */
export const SIZE_CHECK = policy("vmsa.size-check", "Whether the size of a VMSA is held against that of the page", {
  "none": "not in this crate (pull request 3386)",
  "assert-where-used": "where the copy is made; a VMSA that does not fit is refused",
});

/** How a reader can tell that it has read one copy. */
export const COPY = policy("vmsa.copy", "How a reader can tell a whole copy of one exit", {
  "plain": "not at all (pull request 3386)",
  "sequence-word": "a header with a sequence word, odd while the copy is made, and VP, VTL and number of the exit",
});

/** Bytes of the copy that one step makes. */
const HALF = VMSA_REGISTER_BYTES / 2;

/** What the host can read of the copy beside the page: its header, and the announcement. */
export const CrashAnnouncement = structure("CrashAnnouncement", 64, [
  ["sequence", 0, u32, "Odd while a copy is made; 0 before the first"],
  ["vp", 4, u32, "VP that the page holds, with `sequence-word`"],
  ["vtl", 8, u32, "VTL that it holds"],
  ["exit", 12, u32, "Number of the exit that it holds"],
  ["address", 16, u64, "Address of the copy as the host has been told; 0 while it has not"],
  ["size", 24, u64, "Its size"],
  ["announced_vp", 32, u32, "VP that the announcement names"],
  ["announced_vtl", 36, u32, "VTL that it names"],
  ["announced_exit", 40, u32, "Number of the exit that it names; 0 when it names none"],
  reserved(44, 20),
], "Not a structure of the modelled machine");

/** What the VMM keeps about its copies. */
export const CrashCopyState = structure("CrashCopyState", 32, [
  ["copies", 0, u32, "Page-sized copies so far"],
  ["good", 4, u32, "1 when the page holds a whole copy"],
  ["accessor_bytes", 8, u32, "Raw bytes that went through the accessor"],
  ["early", 12, u32, "Announcements before, or without, a good copy"],
  ["oversized", 16, u32, "Copies that went beyond the page, or were cut"],
  ["refused", 20, u32, "Copies that were refused because of their size"],
  reserved(24, 8),
], "Not a structure of the modelled machine");

const told = CrashAnnouncement.at;
const kept = CrashCopyState.at;

/** What the copy is made of, and where it goes. Offsets are byte offsets in the memory. */
export interface CrashCopy {
  /** VP index. */
  readonly vp: number;
  /** VTL whose VMSA is copied. */
  readonly vtl: number;
  /** Number of the exit, from 1. */
  readonly exit: number;
  /** Its VMSA. */
  readonly vmsa: number;
  /** Bytes that the VMSA structure has. */
  readonly vmsaBytes: number;
  /** The page that the host can read. */
  readonly page: number;
  /** The {@linkcode CrashAnnouncement}, which the host can read too. */
  readonly announcement: number;
  /** The {@linkcode CrashCopyState}. */
  readonly state: number;
  /** Whether a policy has this value. */
  is<V extends string>(question: Policy<V>, value: V): boolean;
  /** Makes crash parameters P3 and P4 these values, for the guest and for the host. */
  setParameters(p3: bigint, p4: bigint): void;
}

/** An agent that makes copies. */
export interface CopyingAgent extends Agent {
  /** What it copies. */
  readonly crashCopy: CrashCopy;
}

/** Whether copying is part of the build. */
function copyingEnabled(copy: CrashCopy): boolean {
  return copy.is(BUILD, "debug") || copy.is(OPT_IN, "yes");
}

/** Whether something is to be done after a run; `intercept` when a message of the hypervisor is pending. */
export function updatesAfterRun(copy: CrashCopy, intercept: boolean): boolean {
  return (copy.is(WHEN, "every-exit") || (intercept && copy.is(WHEN, "intercept"))) && doesSomething(copy);
}

/** Whether something is to be done when the guest reports a crash. */
export function updatesAtCrash(copy: CrashCopy): boolean {
  return copy.is(WHEN, "crash-ctl") && doesSomething(copy);
}

/** Whether something is to be done at a switch between VTLs. */
export function updatesAtSwitch(copy: CrashCopy): boolean {
  return copy.is(WHEN, "every-exit") && doesSomething(copy);
}

/** Whether there is any code for it in the build. */
function doesSomething(copy: CrashCopy): boolean {
  return copyingEnabled(copy) || copy.is(DISABLED, "clear-p3p4");
}

function count(agent: CopyingAgent, word: keyof typeof kept): void {
  agent.memory.u32[(agent.crashCopy.state + kept[word]) >>> 2]++;
}

function get(agent: CopyingAgent, word: keyof typeof kept): number {
  return agent.memory.u32[(agent.crashCopy.state + kept[word]) >>> 2];
}

function set(agent: CopyingAgent, word: keyof typeof kept, value: number): void {
  agent.memory.u32[(agent.crashCopy.state + kept[word]) >>> 2] = value;
}

/** `update_vmsa_crash_page`: what is done depends on the build; the pull request announces before it copies. */
export const UPDATE: StepId = step<CopyingAgent>("snp.update-vmsa-crash-page", (vp) => {
  const copy = vp.crashCopy;
  if (!copyingEnabled(copy)) return copy.is(DISABLED, "clear-p3p4") ? CLEAR_P3P4 : vp.return();
  if (copy.is(SIZE_CHECK, "assert-where-used") && copy.vmsaBytes > PAGE_SIZE) {
    count(vp, "refused");
    return vp.return();
  }
  return copy.is(PUBLISH, "p3p4") ? ANNOUNCE_P3P4 : COPY_BEGIN;
});

const CLEAR_P3P4: StepId = step<CopyingAgent>("snp.clear-p3p4", (vp) => {
  vp.crashCopy.setParameters(0n, 0n);
  return vp.return();
});

/** P3 and P4 become the page's: in the VMM's own registers and in those that the host reads. */
const ANNOUNCE_P3P4: StepId = step<CopyingAgent>("snp.publish-p3p4", (vp) => {
  const { page, vmsaBytes } = vp.crashCopy;
  vp.crashCopy.setParameters(BigInt(page), BigInt(vmsaBytes));
  return announce(vp, COPY_BEGIN);
});

/** The host learns of the page. */
function announce(vp: CopyingAgent, next: StepId): StepId {
  const { page, vmsaBytes, announcement } = vp.crashCopy;
  if (get(vp, "good") === 0) count(vp, "early");
  vp.memory.u64[(announcement + told.size) >>> 3] = BigInt(vmsaBytes);
  vp.port.store64(announcement + told.address, BigInt(page));
  return next;
}

/** A copy begins. */
const COPY_BEGIN: StepId = step<CopyingAgent>("snp.begin-copy", (vp) => {
  set(vp, "good", 0);
  count(vp, "copies");
  if (vp.crashCopy.is(COPY, "sequence-word")) vp.port.add32(vp.crashCopy.announcement + told.sequence, 1);
  return COPY_LOW;
});

/** The first half of the VMSA's raw bytes, which hold the nonce and what it protects. */
const COPY_LOW: StepId = step<CopyingAgent>("snp.copy-vmsa-low", (vp) => {
  copyRaw(vp, vp.crashCopy.page, 0, HALF);
  return COPY_HIGH;
});

/** The second half; what does not fit a page lands behind it. */
const COPY_HIGH: StepId = step<CopyingAgent>("snp.copy-vmsa-high", (vp) => {
  copyRaw(vp, vp.crashCopy.page, HALF, VMSA_REGISTER_BYTES - HALF);
  if (vp.crashCopy.vmsaBytes > PAGE_SIZE) count(vp, "oversized");
  return COPY_END;
});

/**
 * The one accessor of a VMSA's raw bytes: `bytes` of them from `offset` on go to the page at byte `to`. They contain the nonce
 * and all that it covers, and are as secret as these.
 */
function copyRaw(vp: CopyingAgent, to: number, offset: number, bytes: number): void {
  vp.port.copy(to + offset, vp.crashCopy.vmsa + offset, bytes);
  set(vp, "accessor_bytes", get(vp, "accessor_bytes") + bytes);
}

/** The copy is whole. */
const COPY_END: StepId = step<CopyingAgent>("snp.end-copy", (vp) => {
  const copy = vp.crashCopy;
  const { announcement } = copy;
  set(vp, "good", copy.vmsaBytes > PAGE_SIZE ? 0 : 1);
  if (copy.is(COPY, "sequence-word")) {
    vp.port.store32(announcement + told.vp, copy.vp);
    vp.port.store32(announcement + told.vtl, copy.vtl);
    vp.port.store32(announcement + told.exit, copy.exit);
    vp.port.add32(announcement + told.sequence, 1);
  }
  if (copy.is(PUBLISH, "p3p4")) return vp.return();
  const { u32 } = vp.memory;
  u32[(announcement + told.announced_vp) >>> 2] = copy.vp;
  u32[(announcement + told.announced_vtl) >>> 2] = copy.vtl;
  u32[(announcement + told.announced_exit) >>> 2] = copy.exit;
  return announce(vp, vp.return());
});

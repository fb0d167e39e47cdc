/**
 * OpenHCL's run loop on SNP as far as a VMSA can reach the host through it: exits of the lower VTLs, VTL switches, the
 * guest's crash MSRs, and the page to which a draft pull request copies the VMSA (openvmm pull request 3386; sev.md f20 to
 * f57).
 *
 * VMSAs, register protection and the crash page are real bytes. The guest is reduced to its choice of what it leaves for.
 *
 * @module
 */
import { array, u32, u64 } from "../../layout/field_type.ts";
import { reserved, structure } from "../../layout/structure.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { V_INTR_CTRL, VMSA } from "../../layout/sev/vmsa.ts";
import { Agent, AgentBlock } from "../../memory/agent.ts";
import { MachineMemory, PAGE_SIZE } from "../../memory/machine_memory.ts";
import { POLICIES_MAX, type Policy, policy, policyAt, policyNamed, policyValue } from "../../memory/policy.ts";
import { DirectPort } from "../../memory/port.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { ProtectedVmsa, TWEAK_BITMAP_BYTES, VMSA_REGISTER_BYTES } from "../../sev/register_protection.ts";
import { initVmsa } from "./init_vmsa.ts";
import { copySharedRegisters } from "./vtl_switch.ts";

const EXIT = SevExitCode.values;

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

const POLICIES: readonly { readonly name: string }[] = [WHEN, PUBLISH, BUILD, OPT_IN, DISABLED, SIZE_CHECK, COPY];

/** Bytes of a VMSA that are copied (`size_of::<SevVmsa>()`). */
export const VMSA_BYTES = 1648;
/** Bytes of one that a later processor might have, which does not fit a page. */
export const LARGE_VMSA_BYTES = 4104;
/** Crash parameters that the guest reports. */
export const GUEST_P3 = 0x7000n;
export const GUEST_P4 = 0x80n;

/** Byte offsets in the model's memory. */
const VMSAS = 0;
const CRASH_PAGE = 2 * PAGE_SIZE;
/** The page behind the crash page: what an oversized copy would hit. */
const NEIGHBOUR = 3 * PAGE_SIZE;
const HEADER = NEIGHBOUR + 64;
const STATE = 4 * PAGE_SIZE;
const AGENTS = 2;
const BLOCKS = STATE + 256;
const POLICY_AREA: number = BLOCKS + AGENTS * AgentBlock.size;

/** What the VMM keeps for the processor, what the host has been told, and what must come out. */
export const CrashPageState = structure("CrashPageState", 256, [
  ["vtl", 0, u32, "VTL that runs: 0 or 1"],
  ["exits", 4, u32, "Exits so far"],
  ["copies", 8, u32, "Page-sized copies so far"],
  ["asked", 12, u32, "Crashes that the guest has reported"],
  ["crash_reg", 16, array(u64, 5), "P0 to P4 as the VMM keeps them"],
  ["written_p3", 56, u64, "P3 as the guest wrote it last"],
  ["written_p4", 64, u64, "P4 as the guest wrote it last"],
  ["announced", 72, u64, "Address of the copy as the host has been told; 0 while it has not (shared)"],
  ["announced_size", 80, u64, "Its size"],
  ["announced_exit", 88, u32, "Number of the exit that the announcement names; 0 when it names none"],
  ["announced_vtl", 92, u32, "VTL that it names"],
  ["good", 96, u32, "1 when the page holds a whole copy"],
  reserved(100, 4),
  ["notified_p3", 104, u64, "P3 of the crash notification that the host got"],
  ["notified_p4", 112, u64, "P4 of it"],
  ["notified", 120, u32, "Crash notifications"],
  ["raw_copies", 124, u32, "Copies that went through the accessor of raw bytes"],
  ["page_exit", 128, u32, "Number of the exit that the page holds"],
  ["page_vtl", 132, u32, "VTL that it holds"],
  ["early", 136, u32, "Announcements before, or without, a good copy"],
  ["oversized", 140, u32, "Copies that went beyond the page, or were cut"],
  ["wrong_readback", 144, u32, "Reads of P3 or P4 by the guest that gave something else than it wrote"],
  ["torn", 148, u32, "Reads that were accepted and mix two exits"],
  ["unidentified", 152, u32, "Reads that were accepted and whose VP, VTL or exit the reader cannot tell"],
  ["refused", 156, u32, "Copies that were refused because of their size"],
  ["disclosed", 160, u32, "1 when the page has held secret registers without an opt-in"],
  reserved(164, 92),
], "Not a structure of the modelled machine");

/** In front of the copy with `sequence-word`; in the model behind the page, so that the copy's offsets stay. */
const HeaderWord = { SEQUENCE: 0, VTL: 4, EXIT: 8 } as const;

const at = CrashPageState.at;
type Word = keyof typeof at & string;

/** Exits of the guest in one run. */
const EXITS_MAX = 2;
/** What the guest can leave for. */
const REASON = { CPUID: 0, INTERRUPT: 1, READ_P3: 2, CRASH_CTL: 3, VTL_SWITCH: 4 } as const;
const REASONS = 5;

/** One processor of OpenHCL on SNP, and a debugger on the host. */
export class CrashPage {
  readonly memory: MachineMemory;
  readonly vp: SnpVp;
  readonly reader: CrashReader;
  /** Bytes that the VMSA structure has. */
  readonly vmsaBytes: number;

  /** The model with policies; those that are not given have their defaults. */
  constructor(policies: Readonly<Record<string, string>>, vmsaBytes: number) {
    this.memory = MachineMemory.allocate(POLICY_AREA + POLICIES_MAX);
    this.vmsaBytes = vmsaBytes;
    for (const { name } of POLICIES) {
      const named = policyNamed(name);
      this.memory.u8[POLICY_AREA + named.index] = policyValue(named, policies[name] ?? named.values[0].name);
    }
    const port = new DirectPort(this.memory);
    for (const vtl of [0, 1] as const) {
      initVmsa(this.vmsa(vtl), { vtl, inherited: 0n, vtom: undefined, nonce: NONCES[vtl] });
    }
    this.set64("crash_reg", 3, GUEST_P3);
    this.set64("crash_reg", 4, GUEST_P4);
    this.set64("written_p3", 0, GUEST_P3);
    this.set64("written_p4", 0, GUEST_P4);
    this.vp = new SnpVp(this, BLOCKS, port);
    this.vp.step = RUN_VP;
    this.reader = new CrashReader(this, BLOCKS + AgentBlock.size, port);
    this.reader.step = READ_ANNOUNCEMENT;
  }

  /** The VMSA of a lower VTL, through its register protection. */
  vmsa(vtl: number): ProtectedVmsa {
    return new ProtectedVmsa(this.memory.view, VMSAS + vtl * PAGE_SIZE, BITMAP);
  }

  /** Whether a policy has this value. */
  is<V extends string>(question: Policy<V>, value: V): boolean {
    return policyAt(this.memory.u8, POLICY_AREA, question as unknown as Policy) === question.is[value];
  }

  /** Whether copying is part of the build. */
  get enabled(): boolean {
    return this.is(BUILD, "debug") || this.is(OPT_IN, "yes");
  }

  /** A 32-bit word of the state. */
  get(word: Word): number {
    return this.memory.u32[(STATE + at[word]) >>> 2];
  }

  /** Sets a 32-bit word of the state. */
  set(word: Word, value: number): void {
    this.memory.u32[(STATE + at[word]) >>> 2] = value;
  }

  /** Counts in a word of the state. */
  count(word: Word): void {
    this.memory.u32[(STATE + at[word]) >>> 2]++;
  }

  /** A 64-bit word of the state; `index` for an array. */
  get64(word: Word, index = 0): bigint {
    return this.memory.u64[((STATE + at[word]) >>> 3) + index];
  }

  /** Sets a 64-bit word of the state. */
  set64(word: Word, index: number, value: bigint): void {
    this.memory.u64[((STATE + at[word]) >>> 3) + index] = value;
  }

  /** What a step can change. */
  get mutable(): readonly { readonly at: number; readonly bytes: number }[] {
    return [{ at: 0, bytes: POLICY_AREA }];
  }

  /** Byte offset of the state. */
  get state(): number {
    return STATE;
  }
}

/** Registers whose secret values the guest has, one in each half of what is copied. */
const LOW_REGISTER = VMSA.at.rax;
const HIGH_REGISTER = VMSA.at.r8;
/** Bytes of the copy that one step makes. */
const HALF = VMSA_REGISTER_BYTES / 2;
/** Nonces of the two VMSAs. */
const NONCES = [0x1234_5678_9abc_def1n, 0xfedc_ba98_7654_3211n] as const;
/** Protects RAX and R8, among others, and nothing that is accessed directly. */
const BITMAP: Uint8Array = (() => {
  const bitmap = new Uint8Array(TWEAK_BITMAP_BYTES);
  for (const offset of [LOW_REGISTER, HIGH_REGISTER, VMSA.at.rip]) bitmap[offset >> 6] |= 1 << ((offset & 63) >> 3);
  return bitmap;
})();
/** The secret that the guest's registers hold at exit number n is this plus n. */
export const SECRET = 0x5ec2_e700_0000_0000n;

/** The VMM in VTL2 of one processor. */
export class SnpVp extends Agent {
  readonly model: CrashPage;

  /** The VMM over the block at byte offset `block`. */
  constructor(model: CrashPage, block: number, port: DirectPort) {
    super("openhcl.vp0", model.memory, block, port);
    this.model = model;
  }
}

/** Local of the VMM: what the guest left for. */
const LEFT_FOR = 0;

/** The VMSA is given to the processor: no longer busy (f20). */
const RUN_VP: StepId = step<SnpVp>("snp.clear-guest-busy", (vp) => {
  const vmsa = vp.model.vmsa(vp.model.get("vtl"));
  vmsa.set64("vintr_ctrl", vmsa.get64("vintr_ctrl") & ~V_INTR_CTRL.mask.guest_busy);
  return VMRUN;
});

/** The lower VTL runs, changes its registers, and leaves for one reason or another. */
const VMRUN: StepId = step<SnpVp>("snp.run-lower-vtl", (vp) => {
  const { model } = vp;
  const reason = vp.port.choose(REASONS);
  const vmsa = model.vmsa(model.get("vtl"));
  model.count("exits");
  const secret = SECRET + BigInt(model.get("exits"));
  vmsa.setQword(LOW_REGISTER, secret);
  vmsa.setQword(HIGH_REGISTER, secret);
  const codes = [EXIT.CPUID, EXIT.INTR, EXIT.MSR, EXIT.MSR, EXIT.VMMCALL];
  vmsa.set64("guest_exit_code", BigInt(codes[reason]));
  vp.locals32[LEFT_FOR] = reason;
  return SET_BUSY;
});

/** The host must not enter it again while it is handled (f20). */
const SET_BUSY: StepId = step<SnpVp>("snp.test-and-set-guest-busy", (vp) => {
  const { model } = vp;
  const vmsa = model.vmsa(model.get("vtl"));
  vmsa.set64("vintr_ctrl", vmsa.get64("vintr_ctrl") | V_INTR_CTRL.mask.guest_busy);
  const intercept = vp.locals32[LEFT_FOR] !== REASON.INTERRUPT;
  const updates = model.is(WHEN, "every-exit") || (model.is(WHEN, "intercept") && intercept);
  return updates ? vp.call(UPDATE, HANDLE) : HANDLE;
});

/** The exit is handled (f25). */
const HANDLE: StepId = step<SnpVp>("snp.handle-exit", (vp) => {
  const { model } = vp;
  model.vmsa(model.get("vtl")).setHarmlessExit(); // the same exit is not handled twice (f24)
  switch (vp.locals32[LEFT_FOR]) {
    case REASON.READ_P3: // the guest reads back what it wrote
      if (
        model.get64("crash_reg", 3) !== model.get64("written_p3") ||
        model.get64("crash_reg", 4) !== model.get64("written_p4")
      ) model.count("wrong_readback");
      return NEXT;
    case REASON.CRASH_CTL:
      model.count("asked");
      return model.is(WHEN, "crash-ctl") ? vp.call(UPDATE, NOTIFY_CRASH) : NOTIFY_CRASH;
    case REASON.VTL_SWITCH:
      return SWITCH_VTL;
    default:
      return NEXT;
  }
});

/** Writing CTL sends P0 to P4 to the host (f40). */
const NOTIFY_CRASH: StepId = step<SnpVp>("snp.write-crash-ctl", (vp) => {
  const { model } = vp;
  model.count("notified");
  model.set64("notified_p3", 0, model.get64("crash_reg", 3));
  model.set64("notified_p4", 0, model.get64("crash_reg", 4));
  return NEXT;
});

/** The other lower VTL goes on with the registers that both share (f30). */
const SWITCH_VTL: StepId = step<SnpVp>("snp.switch-vtl", (vp) => {
  const { model } = vp;
  const from = model.get("vtl");
  copySharedRegisters(model.vmsa(from), model.vmsa(1 - from));
  model.set("vtl", 1 - from);
  return model.is(WHEN, "every-exit") ? vp.call(UPDATE, NEXT) : NEXT;
});

const NEXT: StepId = step<SnpVp>("snp.next-run", (vp) => vp.model.get("exits") < EXITS_MAX ? RUN_VP : HALTED);

// --- update_vmsa_crash_page ------------------------------------------------------------------------------------------

/** What is done depends on the build; the pull request announces before it copies. */
const UPDATE: StepId = step<SnpVp>("snp.update-vmsa-crash-page", (vp) => {
  const { model } = vp;
  if (!model.enabled) return model.is(DISABLED, "clear-p3p4") ? CLEAR_P3P4 : vp.return();
  if (model.is(SIZE_CHECK, "assert-where-used") && model.vmsaBytes > PAGE_SIZE) {
    model.count("refused");
    return vp.return();
  }
  return model.is(PUBLISH, "p3p4") ? ANNOUNCE_P3P4 : COPY_BEGIN;
});

const CLEAR_P3P4: StepId = step<SnpVp>("snp.clear-p3p4", (vp) => {
  vp.model.set64("crash_reg", 3, 0n);
  vp.model.set64("crash_reg", 4, 0n);
  return vp.return();
});

/** P3 and P4 become the page's: in the VMM's own registers and in those that the host reads. */
const ANNOUNCE_P3P4: StepId = step<SnpVp>("snp.publish-p3p4", (vp) => {
  const { model } = vp;
  model.set64("crash_reg", 3, BigInt(CRASH_PAGE));
  model.set64("crash_reg", 4, BigInt(model.vmsaBytes));
  return announce(vp, COPY_BEGIN);
});

/** The host learns of the page. */
function announce(vp: SnpVp, next: StepId): StepId {
  const { model } = vp;
  if (model.get("good") === 0) model.count("early");
  model.set64("announced_size", 0, BigInt(model.vmsaBytes));
  vp.port.store64(STATE + at.announced, BigInt(CRASH_PAGE));
  return next;
}

/** A copy begins. */
const COPY_BEGIN: StepId = step<SnpVp>("snp.begin-copy", (vp) => {
  const { model } = vp;
  model.set("good", 0);
  model.count("copies");
  if (model.is(COPY, "sequence-word")) vp.port.add32(HEADER + HeaderWord.SEQUENCE, 1);
  return COPY_LOW;
});

/** The first half of the VMSA's raw bytes, which hold the nonce and what it protects. */
const COPY_LOW: StepId = step<SnpVp>("snp.copy-vmsa-low", (vp) => {
  copyRaw(vp, 0, HALF);
  return COPY_HIGH;
});

/** The second half; what does not fit a page lands behind it. */
const COPY_HIGH: StepId = step<SnpVp>("snp.copy-vmsa-high", (vp) => {
  const { model } = vp;
  copyRaw(vp, HALF, VMSA_REGISTER_BYTES - HALF);
  model.count("raw_copies");
  if (model.vmsaBytes > PAGE_SIZE) model.count("oversized");
  if (model.is(OPT_IN, "no")) model.set("disclosed", 1);
  return COPY_END;
});

/** The one accessor of a VMSA's raw bytes: they contain the nonce and all that it covers, and are as secret as these. */
function copyRaw(vp: SnpVp, offset: number, bytes: number): void {
  vp.port.copy(CRASH_PAGE + offset, VMSAS + vp.model.get("vtl") * PAGE_SIZE + offset, bytes);
}

/** The copy is whole. */
const COPY_END: StepId = step<SnpVp>("snp.end-copy", (vp) => {
  const { model } = vp;
  model.set("page_exit", model.get("exits"));
  model.set("page_vtl", model.get("vtl"));
  model.set("good", model.vmsaBytes > PAGE_SIZE ? 0 : 1);
  if (model.is(COPY, "sequence-word")) {
    vp.port.store32(HEADER + HeaderWord.VTL, model.get("vtl"));
    vp.port.store32(HEADER + HeaderWord.EXIT, model.get("exits"));
    vp.port.add32(HEADER + HeaderWord.SEQUENCE, 1);
  }
  if (model.is(PUBLISH, "p3p4")) return vp.return();
  model.set("announced_exit", model.get("exits"));
  model.set("announced_vtl", model.get("vtl"));
  return announce(vp, vp.return());
});

// --- The host's debugger ---------------------------------------------------------------------------------------------

/** Reads the page once it has been announced. */
export class CrashReader extends Agent {
  readonly model: CrashPage;

  /** The reader over the block at byte offset `block`. */
  constructor(model: CrashPage, block: number, port: DirectPort) {
    super("host.debugger", model.memory, block, port);
    this.model = model;
  }
}

/** Locals of the reader: sequence, the low and the high register of the copy, exit and VTL as it knows them. */
const R = { SEQUENCE: 0, LOW: 1, HIGH: 2, EXIT: 6, VTL: 7 } as const;

const READ_ANNOUNCEMENT: StepId = step<CrashReader>("crash-reader.read-announcement", (reader) => {
  reader.locals32[R.EXIT] = reader.model.get("announced_exit");
  reader.locals32[R.VTL] = reader.model.get("announced_vtl");
  return reader.model.is(COPY, "sequence-word") ? READ_SEQUENCE : READ_LOW;
}, (reader) => reader.port.load64(STATE + at.announced) !== 0n);

const READ_SEQUENCE: StepId = step<CrashReader>("crash-reader.read-sequence", (reader) => {
  const sequence = reader.port.load32(HEADER + HeaderWord.SEQUENCE);
  reader.locals32[R.SEQUENCE] = sequence;
  if ((sequence & 1) !== 0 || sequence === 0) return HALTED; // a copy is being made: not accepted
  reader.locals32[R.EXIT] = reader.port.load32(HEADER + HeaderWord.EXIT);
  reader.locals32[R.VTL] = reader.port.load32(HEADER + HeaderWord.VTL);
  return READ_LOW;
});

const READ_LOW: StepId = step<CrashReader>("crash-reader.read-low-half", (reader) => {
  reader.locals[R.LOW] = reader.port.load64(CRASH_PAGE + LOW_REGISTER);
  return READ_HIGH;
});

const READ_HIGH: StepId = step<CrashReader>("crash-reader.read-high-half", (reader) => {
  reader.locals[R.HIGH] = reader.port.load64(CRASH_PAGE + HIGH_REGISTER);
  if (!reader.model.is(COPY, "sequence-word")) return ACCEPT;
  return READ_SEQUENCE_AGAIN;
});

const READ_SEQUENCE_AGAIN: StepId = step<CrashReader>("crash-reader.read-sequence-again", (reader) => {
  return reader.port.load32(HEADER + HeaderWord.SEQUENCE) === reader.locals32[R.SEQUENCE] ? ACCEPT : HALTED;
});

/** The reader takes what it has read for the VMSA of one exit. Stored values are XORed with the same nonce. */
const ACCEPT: StepId = step<CrashReader>("crash-reader.accept", (reader) => {
  const { model } = reader;
  const low = exitOf(reader.locals[R.LOW]);
  const high = exitOf(reader.locals[R.HIGH]);
  if (low !== high || low === 0) model.count("torn");
  // Without a header or a notification that names it, the reader cannot tell VTL and exit.
  if (reader.locals32[R.EXIT] === 0 || reader.locals32[R.EXIT] !== low) model.count("unidentified");
  return HALTED;
});

/** The number of the exit in a stored register, whichever VTL's nonce covers it; 0 when it holds none. */
function exitOf(stored: bigint): number {
  for (const nonce of NONCES) {
    const number = (stored ^ nonce) - SECRET;
    if (number > 0n && number <= BigInt(EXITS_MAX)) return Number(number);
  }
  return 0;
}

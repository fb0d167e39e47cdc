/**
 * OpenHCL's run loop on SNP as far as a VMSA can reach the host through it, small enough for every schedule: exits of the
 * lower VTLs, VTL switches, the guest's crash MSRs, the host's diagnostics, and the page to which a draft pull request copies
 * the VMSA (openvmm pull request 3386; sev.md f20 to f57). The copy itself is `crash_copy.ts`.
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
import {
  BUILD,
  COPY,
  type CopyingAgent,
  CrashAnnouncement,
  type CrashCopy,
  CrashCopyState,
  DISABLED,
  OPT_IN,
  PUBLISH,
  SIZE_CHECK,
  UPDATE,
  updatesAfterRun,
  updatesAtCrash,
  updatesAtSwitch,
  WHEN,
} from "./crash_copy.ts";
import { initVmsa } from "./init_vmsa.ts";
import { copySharedRegisters } from "./vtl_switch.ts";

const EXIT = SevExitCode.values;

/** Who can reach a VMSA's raw bytes. */
const RAW = policy("vmsa.raw", "Who can reach the raw bytes of a VMSA", {
  "public": "whoever has the VMSA: the diagnostics copy them too (pull request 3386 makes the bytes public)",
  "accessor": "one documented accessor, which only the crash page uses; diagnostics show registers that are no secret",
});

const POLICIES: readonly { readonly name: string }[] = [WHEN, PUBLISH, BUILD, OPT_IN, DISABLED, SIZE_CHECK, COPY, RAW];

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
/** In the model behind the page, so that the copy's offsets stay. */
const ANNOUNCEMENT = NEIGHBOUR + 64;
/** The page in which the host's diagnostics get their answer. */
const DIAGNOSTICS = 4 * PAGE_SIZE;
const STATE = 5 * PAGE_SIZE;
const AGENTS = 2;
const COPY_STATE: number = STATE + 160;
const BLOCKS = STATE + 256;
const POLICY_AREA: number = BLOCKS + AGENTS * AgentBlock.size;

/** What the VMM keeps for the processor beside its copies, what the host was told, and what must come out. */
export const CrashPageState = structure("CrashPageState", 160, [
  ["vtl", 0, u32, "VTL that runs: 0 or 1"],
  ["exits", 4, u32, "Exits so far"],
  ["asked", 8, u32, "Crashes that the guest has reported"],
  ["inspections", 12, u32, "Times that the host's diagnostics have asked"],
  ["crash_reg", 16, array(u64, 5), "P0 to P4 as the VMM keeps them"],
  ["written_p3", 56, u64, "P3 as the guest wrote it last"],
  ["written_p4", 64, u64, "P4 as the guest wrote it last"],
  ["notified_p3", 72, u64, "P3 of the crash notification that the host got"],
  ["notified_p4", 80, u64, "P4 of it"],
  ["notified", 88, u32, "Crash notifications"],
  ["wrong_readback", 92, u32, "Reads of P3 or P4 by the guest that gave something else than it wrote"],
  ["torn", 96, u32, "Reads that were accepted and mix two exits"],
  ["unidentified", 100, u32, "Reads that were accepted and whose VP, VTL or exit the reader cannot tell"],
  reserved(104, 56),
], "Not a structure of the modelled machine");

const at = CrashPageState.at;
type Word = keyof typeof at & string;
const told = CrashAnnouncement.at;

/** Exits of the guest in one run. */
const EXITS_MAX = 2;
/** What the guest can leave for. */
const REASON = { CPUID: 0, INTERRUPT: 1, READ_P3: 2, CRASH_CTL: 3, VTL_SWITCH: 4 } as const;
const REASONS = 5;

/** One processor of OpenHCL on SNP, and a debugger on the host. */
export class CrashPage {
  readonly memory: MachineMemory;
  readonly vp: CrashPageVp;
  readonly reader: CrashReader;
  /** Bytes that the VMSA structure has. */
  readonly vmsaBytes: number;
  /**
   * The model with policies; those that are not given have their defaults. With `inspects` the guest, which has run before,
   * does not run: the host's diagnostics ask for its processor's state.
   */
  constructor(policies: Readonly<Record<string, string>>, vmsaBytes: number, inspects = false) {
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
    this.vp = new CrashPageVp(this, BLOCKS, port);
    this.vp.step = inspects ? INSPECT : RUN_VP;
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

  /** Whether a page that the host can read holds a VMSA's nonce, and with it what the nonce covers. */
  shows(page: "crash" | "diagnostics"): boolean {
    const at = (page === "crash" ? CRASH_PAGE : DIAGNOSTICS) + VMSA.at.reg_prot_nonce;
    return this.memory.u64[at >>> 3] !== 0n;
  }

  /** A word of what the VMM keeps about its copies. */
  copied(word: keyof typeof CrashCopyState.at): number {
    return this.memory.u32[(COPY_STATE + CrashCopyState.at[word]) >>> 2];
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
export class CrashPageVp extends Agent implements CopyingAgent, CrashCopy {
  readonly model: CrashPage;
  readonly vp = 0;
  readonly page = CRASH_PAGE;
  readonly announcement = ANNOUNCEMENT;
  readonly state = COPY_STATE;

  /** The VMM over the block at byte offset `block`. */
  constructor(model: CrashPage, block: number, port: DirectPort) {
    super("openhcl.vp0", model.memory, block, port);
    this.model = model;
  }

  get crashCopy(): CrashCopy {
    return this;
  }
  get vtl(): number {
    return this.model.get("vtl");
  }
  get exit(): number {
    return this.model.get("exits");
  }
  get vmsa(): number {
    return VMSAS + this.vtl * PAGE_SIZE;
  }
  get vmsaBytes(): number {
    return this.model.vmsaBytes;
  }
  is<V extends string>(question: Policy<V>, value: V): boolean {
    return this.model.is(question, value);
  }
  setParameters(p3: bigint, p4: bigint): void {
    this.model.set64("crash_reg", 3, p3);
    this.model.set64("crash_reg", 4, p4);
  }
}

/** Local of the VMM: what the guest left for. */
const LEFT_FOR = 0;

/** The VMSA is given to the processor: no longer busy (f20). */
const RUN_VP: StepId = step<CrashPageVp>("snp.clear-guest-busy", (vp) => {
  const vmsa = vp.model.vmsa(vp.model.get("vtl"));
  vmsa.set64("vintr_ctrl", vmsa.get64("vintr_ctrl") & ~V_INTR_CTRL.mask.guest_busy);
  return VMRUN;
});

/** The lower VTL runs, changes its registers, and leaves for one reason or another. */
const VMRUN: StepId = step<CrashPageVp>("snp.run-lower-vtl", (vp) => {
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
const SET_BUSY: StepId = step<CrashPageVp>("snp.test-and-set-guest-busy", (vp) => {
  const { model } = vp;
  const vmsa = model.vmsa(model.get("vtl"));
  vmsa.set64("vintr_ctrl", vmsa.get64("vintr_ctrl") | V_INTR_CTRL.mask.guest_busy);
  const intercept = vp.locals32[LEFT_FOR] !== REASON.INTERRUPT;
  return updatesAfterRun(vp, intercept) ? vp.call(UPDATE, HANDLE) : HANDLE;
});

/** The exit is handled (f25). */
const HANDLE: StepId = step<CrashPageVp>("snp.handle-exit", (vp) => {
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
      return updatesAtCrash(vp) ? vp.call(UPDATE, NOTIFY_CRASH) : NOTIFY_CRASH;
    case REASON.VTL_SWITCH:
      return SWITCH_VTL;
    default:
      return NEXT;
  }
});

/** Writing CTL sends P0 to P4 to the host (f40). */
const NOTIFY_CRASH: StepId = step<CrashPageVp>("snp.write-crash-ctl", (vp) => {
  const { model } = vp;
  model.count("notified");
  model.set64("notified_p3", 0, model.get64("crash_reg", 3));
  model.set64("notified_p4", 0, model.get64("crash_reg", 4));
  return NEXT;
});

/** The other lower VTL goes on with the registers that both share (f30). */
const SWITCH_VTL: StepId = step<CrashPageVp>("snp.switch-vtl", (vp) => {
  const { model } = vp;
  const from = model.get("vtl");
  copySharedRegisters(model.vmsa(from), model.vmsa(1 - from));
  model.set("vtl", 1 - from);
  return updatesAtSwitch(vp) ? vp.call(UPDATE, NEXT) : NEXT;
});

const NEXT: StepId = step<CrashPageVp>("snp.next-run", (vp) => vp.model.get("exits") < EXITS_MAX ? RUN_VP : HALTED);

/** The host's diagnostics ask for the processor's state; the answer lies in a page that it can read. */
const INSPECT: StepId = step<CrashPageVp>("snp.inspect", (vp) => {
  const { model } = vp;
  model.count("inspections");
  // With its bytes public, what a VMSA holds is copied like anything else that diagnostics show.
  if (model.is(RAW, "public")) vp.port.copy(DIAGNOSTICS, vp.vmsa, VMSA_REGISTER_BYTES);
  else vp.port.store64(DIAGNOSTICS, model.vmsa(vp.vtl).get64("guest_exit_code"));
  return HALTED;
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
  reader.locals32[R.EXIT] = reader.port.load32(ANNOUNCEMENT + told.announced_exit);
  reader.locals32[R.VTL] = reader.port.load32(ANNOUNCEMENT + told.announced_vtl);
  return reader.model.is(COPY, "sequence-word") ? READ_SEQUENCE : READ_LOW;
}, (reader) => reader.port.load64(ANNOUNCEMENT + told.address) !== 0n);

const READ_SEQUENCE: StepId = step<CrashReader>("crash-reader.read-sequence", (reader) => {
  const sequence = reader.port.load32(ANNOUNCEMENT + told.sequence);
  reader.locals32[R.SEQUENCE] = sequence;
  if ((sequence & 1) !== 0 || sequence === 0) return HALTED; // a copy is being made: not accepted
  reader.locals32[R.EXIT] = reader.port.load32(ANNOUNCEMENT + told.exit);
  reader.locals32[R.VTL] = reader.port.load32(ANNOUNCEMENT + told.vtl);
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
  return reader.port.load32(ANNOUNCEMENT + told.sequence) === reader.locals32[R.SEQUENCE] ? ACCEPT : HALTED;
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

/**
 * What has to hold of an SEV-ES guest's #VC handlers: what the host can read, what it is asked for, and what the guest
 * makes of the answers.
 *
 * @module
 */
import { CpuState, EFER_LMA, RBP } from "../cpu/state.ts";
import type { Property } from "../explore/system.ts";
import {
  type PlacedInstruction,
  SECRET_MARK,
  SIGNALLED,
  vcLabel,
  type VcProgram,
} from "../guest/programs/vc/kernel.ts";
import { VMRUN } from "../hypervisor/sev/sev_vp.ts";
import { SevVpState, TURN, VIEW } from "../hypervisor/sev/state.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import { IOIO_EXITINFO1 } from "../layout/sev/exit_info.ts";
import { GHCB, GHCB_VALID_BIT, type GhcbValidField } from "../layout/sev/ghcb.ts";
import { GHCB_MSR, GhcbMsrInfo } from "../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { Fxsave } from "../layout/x64/fxsave.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { EFER_SVME } from "../sev/vmsa.ts";
import type { NamedProperty } from "./scenario.ts";
import { type Act, atExit, lateAct, usesMsr } from "./vc_host.ts";
import {
  currentInstruction,
  ended,
  LOG_ENTRY_BYTES,
  outcomeOf,
  RECORD,
  reference,
  type VcMachine,
} from "./vc_system.ts";

const EXIT = SevExitCode.values;
const ioio = IOIO_EXITINFO1.mask;
const cpu = CpuState.at;
const vmcb = VMCB_CONTROL.at;

/** Name and sentence of each. */
export const VC_PROPERTIES = {
  fields: {
    name: "needed-fields-only",
    sentence: "A request marks what its exit needs, and nothing else; the rest of the GHCB is zero.",
  },
  secrets: {
    name: "secrets-hidden",
    sentence:
      "Nothing that the host can read holds a secret of registers, stack or x87/SSE state; only the GHCB is shared.",
  },
  rip: {
    name: "rip-exact",
    sentence: "RIP is advanced by exactly the instruction's length, for every encoding.",
  },
  info: {
    name: "exit-info-exact",
    sentence: "EXITINFO1 of a port access has the instruction's port, size and direction, and bits 63:32 clear.",
  },
  silicon: {
    name: "as-silicon",
    sentence:
      "Behind each instruction the registers are as on bare, and so are the devices' accesses, or the guest stops.",
  },
  user: {
    name: "user-refused",
    sentence: "A port or MSR access of user mode makes no request and ends the program; CPUID is allowed.",
  },
  listed: {
    name: "listed-work",
    sentence: "The kernel boots, and every instruction that the handlers list completes.",
  },
  unlisted: {
    name: "unlisted-stop",
    sentence: "A port instruction that the handler does not list makes no request and stops the guest.",
  },
  answers: {
    name: "bad-answer-stops",
    sentence: "An answer that is late, lacks valid bits, or says exception or error is not believed: the guest stops.",
  },
  forged: {
    name: "forged-vc-stops",
    sentence:
      "A #VC that the host injects, inside the handler too, passes for no instruction: no request is made for it.",
  },
  shadow: {
    name: "host-record",
    sentence: "What the host has on record of CR0, CR4, CR8 and EFER is what the guest has.",
  },
} as const satisfies Record<string, NamedProperty>;

/** Makes the properties of one system. */
export class VcProperties {
  readonly #parts: VcMachine;
  readonly #program: VcProgram;
  readonly #placed: ReadonlyMap<number, PlacedInstruction>;
  readonly #acts: readonly Act[];

  /** Those of a machine that executes `program`; `acts` are what its host may do badly. */
  constructor(
    parts: VcMachine,
    program: VcProgram,
    placed: ReadonlyMap<number, PlacedInstruction>,
    acts: readonly Act[],
  ) {
    this.#parts = parts;
    this.#program = program;
    this.#placed = placed;
    this.#acts = acts;
  }

  /** The property called `key`. */
  make(key: keyof typeof VC_PROPERTIES): Property {
    const end = key === "listed" || key === "unlisted";
    const reason = (): string => this.#wrong(key);
    return { ...VC_PROPERTIES[key], when: end ? "end" : "always", holds: () => reason() === "", kind: reason };
  }

  #wrong(key: keyof typeof VC_PROPERTIES): string {
    switch (key) {
      case "fields":
        return this.#request() ? this.#wrongFields() : "";
      case "secrets":
        return this.#seenSecret();
      case "rip":
        return this.#tampered === undefined ? this.#wrongRip() : "";
      case "info":
        return this.#request() && this.#tampered === undefined ? this.#wrongInfo() : "";
      case "silicon":
        return this.#wrongResult();
      case "user":
        return this.#wrongUser();
      case "listed":
        return this.#finished ? "" : this.#stopText();
      case "unlisted":
        return this.#wrongUnlisted();
      case "answers":
        return this.#believedAnswer();
      case "forged":
        return this.#believedForgery();
      case "shadow":
        return this.#staleRecord();
    }
  }

  // --- Requests -----------------------------------------------------------------------------------------------------

  /** Whether the guest has just put a request to the host through its GHCB. */
  #request(): boolean {
    return atExit(this.#parts, EXIT.VMGEXIT) && !usesMsr(this.#parts);
  }

  /** The act of the bad host; undefined before it. */
  get #tampered(): Act | undefined {
    const number = this.#parts.vp.memory.u32[RECORD.tampered >>> 2];
    if (number === 0) return undefined;
    return number === lateAct(this.#acts) ? LATE : this.#acts[number - 1];
  }

  get #code(): number {
    return this.#parts.vp.memory.u32[(vcLabel("GHCB") + GHCB.at.sw_exit_code) >>> 2];
  }

  get #info(): bigint {
    return this.#parts.vp.memory.u64[(vcLabel("GHCB") + GHCB.at.sw_exit_info_1) >>> 3];
  }

  #wrongFields(): string {
    const { u8, u32 } = this.#parts.vp.memory;
    const page = vcLabel("GHCB");
    const needed = neededFields(this.#code, this.#info);
    const allowed = new Set<number>();
    for (const [field, bytes] of Object.entries(needed) as [GhcbValidField, number][]) {
      const bit = GHCB_VALID_BIT[field];
      if ((u8[page + GHCB.at.valid_bitmap + (bit >> 3)] & 1 << (bit & 7)) === 0) return `${field} is not marked valid`;
      for (let k = 0; k < bytes; k++) allowed.add(GHCB.at[field] + k);
    }
    for (const [field, bit] of Object.entries(GHCB_VALID_BIT)) {
      const marked = (u8[page + GHCB.at.valid_bitmap + (bit >> 3)] & 1 << (bit & 7)) !== 0;
      if (marked && !Object.hasOwn(needed, field)) return `${field} is marked valid`;
    }
    for (let at = 0; at < PAGE_SIZE; at += 4) {
      const format = at === GHCB_FORMAT_WORD || at === GHCB.at.ghcb_usage;
      const bitmap = at >= GHCB.at.valid_bitmap && at < GHCB.at.valid_bitmap + GHCB.field("valid_bitmap").size;
      if (u32[(page + at) >>> 2] === 0 || format || bitmap) continue;
      for (let k = at; k < at + 4; k++) {
        if (u8[page + k] !== 0 && !allowed.has(k)) return `byte ${k.toString(16)} is not zero`;
      }
    }
    return "";
  }

  /** RIP in the handler's frame, which it has advanced already, against the end of the instruction under way. */
  #wrongRip(): string {
    if (!this.#request()) return "";
    const { vp } = this.#parts;
    const { u32, u64 } = vp.memory;
    const frame = u32[(vp.cpuState + cpu.gpr + 8 * RBP) >>> 2];
    const rip = Number(u64[(frame + vcLabel("TF_RIP")) >>> 3]);
    const instruction = currentInstruction(vp.memory, this.#placed);
    if (instruction !== undefined && instruction.end === rip && instruction.code === this.#code) return "";
    return `a request of exit ${this.#code.toString(16)} for an instruction that ends at ${rip.toString(16)}`;
  }

  #wrongInfo(): string {
    if (this.#code !== EXIT.IOIO) return "";
    const access = currentInstruction(this.#parts.vp.memory, this.#placed)?.access;
    if (access === undefined) return "";
    const info = this.#info;
    if (info >> 32n !== 0n) return `EXITINFO1 is ${info.toString(16)} for port ${access.port.toString(16)}`;
    const size = access.size === 1 ? ioio.size8 : access.size === 2 ? ioio.size16 : ioio.size32;
    const right = (access.port << 16 | size | (access.in ? ioio.in : 0)) >>> 0;
    const said = (Number(info) & ~ADDRESS_SIZE_BITS) >>> 0;
    return said === right ? "" : `EXITINFO1 is ${said.toString(16)}, not ${right.toString(16)}`;
  }

  // --- What the host can read ---------------------------------------------------------------------------------------

  #seenSecret(): string {
    const { machine, vp, host } = this.#parts;
    const { memory } = vp;
    if (memory.u32[(vp.sevState + SevVpState.at.turn) >>> 2] !== TURN.HOST) return "";
    const { place } = machine.platform.sev.sev.guestMemory;
    const ghcb = vcLabel("GHCB");
    const end = ghcb + vcLabel("GHCB_PAGES") * PAGE_SIZE;
    for (let page = 0; page < machine.config.ramBytes / PAGE_SIZE; page++) {
      const at = page * PAGE_SIZE;
      if (memory.u8[place.views + page] === 0 && (at < ghcb || at >= end)) return `page ${page.toString(16)} is shared`;
    }
    const seen = [
      ["the GHCB", ghcb, end - ghcb],
      ["the VMCB", host.vmcb, VMCB_CONTROL.size],
      ["the host's copy of x87 and SSE registers", host.scratch, Fxsave.size],
    ] as const;
    for (const [what, at, bytes] of seen) {
      for (let word = at >>> 2; word < (at + bytes) >>> 2; word++) {
        if (memory.u32[word] >>> 8 === SECRET_MARK) return `${what} holds a secret`;
      }
    }
    return "";
  }

  #staleRecord(): string {
    const { vp, host } = this.#parts;
    const { u32, u64 } = vp.memory;
    // Asked where the host hands the processor back: then the guest's registers are those of its last exit.
    if (u32[(vp.sevState + SevVpState.at.turn) >>> 2] !== TURN.GUEST || vp.step !== VMRUN) return "";
    for (const name of ["cr0", "cr4", "cr8", "efer"] as const) {
      const hidden = name === "efer" ? HIDDEN_EFER : 0n;
      const has = u64[(vp.cpuState + cpu[name]) >>> 3] & ~hidden;
      const recorded = host.get64(name) & ~hidden;
      if (has !== recorded) return `${name} is ${has.toString(16)}, on record ${recorded.toString(16)}`;
    }
    return "";
  }

  // --- What the guest makes of it -----------------------------------------------------------------------------------

  get #finished(): boolean {
    return this.#parts.vp.memory.u8[vcLabel("finished")] !== 0;
  }

  #stopText(): string {
    const { u32 } = this.#parts.vp.memory;
    const panicked = u32[vcLabel("panicked") >>> 2];
    const instruction = currentInstruction(this.#parts.vp.memory, this.#placed)?.text;
    const where = instruction === undefined ? "in the boot" : `at ${instruction}`;
    if (panicked === 0) return `the guest does not get on ${where}`;
    const reason = PANIC_TEXT[panicked & 0xff];
    return `the guest stops ${where}: ${reason}${panicked > 0xff ? ` ${panicked >>> 8}` : ""}`;
  }

  #wrongResult(): string {
    const { memory } = this.#parts.vp;
    const right = reference(this.#program);
    const { log, accesses } = outcomeOf(memory);
    const words = LOG_ENTRY_BYTES / 4;
    for (let k = 0; k < log.length; k++) {
      // The user's program is refused what on bare it may do; see user-refused.
      if (this.#program === "user" && k >= words) break;
      if (log[k] !== right.log[k]) {
        const register = LOGGED[k % words >>> 1];
        return `entry ${Math.floor(k / words)}: ${register} is ${at64(log, k)}, on bare ${at64(right.log, k)}`;
      }
    }
    if (this.#program === "user" || this.#program === "unlisted") return "";
    const access = accesses.findIndex((word, k) => word !== right.accesses[k]);
    return access < 0 ? "" : `device access ${access >>> 1} is not as on bare`;
  }

  #wrongUser(): string {
    const { memory } = this.#parts.vp;
    if (memory.u32[RECORD.accesses >>> 2] !== 0) return "the user has reached a device";
    const instruction = currentInstruction(memory, this.#placed);
    if (this.#request() && instruction !== undefined && instruction.code !== this.#code) {
      return "a request for the user";
    }
    if (this.#request() && this.#code !== EXIT.CPUID) return "a request for the user";
    const { log } = outcomeOf(memory);
    const words = LOG_ENTRY_BYTES / 4;
    for (let entry = words; entry < log.length; entry += words) {
      if (log[entry] !== SIGNALLED) return `instruction ${entry / words} of the user has not ended its program`;
    }
    return "";
  }

  #wrongUnlisted(): string {
    const { memory, sevState } = this.#parts.vp;
    if (memory.u32[(sevState + SevVpState.at.view) >>> 2] === VIEW.WAITS) return ""; // nothing has been chosen yet
    const { log } = outcomeOf(memory);
    const instruction = currentInstruction(memory, this.#placed)?.text ?? "the instruction";
    if (memory.u32[RECORD.accesses >>> 2] !== 0) return `${instruction} reaches a device`;
    if (log.length > 0 || this.#finished) return `the guest goes on behind ${instruction}`;
    return memory.u32[vcLabel("panicked") >>> 2] !== 0 && ended(this.#parts)
      ? ""
      : `the guest does not stop at ${instruction}`;
  }

  /** A request behind an answer that was worth nothing, other than to be stopped. */
  #believedAnswer(): string {
    const act = this.#tampered;
    if (act === undefined || !act.worthless || !atExit(this.#parts, EXIT.VMGEXIT)) return "";
    const { host, vp } = this.#parts;
    const msr = vp.memory.u32[(host.vmcb + vmcb.ghcb_gpa) >>> 2];
    return (msr & GHCB_MSR.low.info) === GhcbMsrInfo.values.TERM_REQ ? "" : `the guest goes on although ${act.name}`;
  }

  #believedForgery(): string {
    const act = this.#tampered;
    if (act === undefined || !act.forged) return "";
    const request = this.#wrongRip();
    return request === "" ? "" : `${act.name}: ${request}`;
  }
}

/** What a host that enters the guest unanswered has done. */
const LATE: Act = { name: "the host has not answered yet", worthless: true, forged: false, act: () => {} };
/** Offset of the word of the page that holds the protocol version. */
const GHCB_FORMAT_WORD = GHCB.at.protocol_version & ~3;
/** Address-size bits of EXITINFO1, which no host looks at in an access that is no string. */
const ADDRESS_SIZE_BITS = ioio.addr16 | ioio.addr32 | ioio.addr64;
/** EFER bits that the processor or the host sets by itself: LMA, SVME. */
const HIDDEN_EFER = BigInt(EFER_LMA | EFER_SVME);
/** What the kernel writes down of an instruction. */
const LOGGED = ["RAX", "RBX", "RCX", "RDX", "R15", "RFLAGS"] as const;
/** Why the kernel stops, by number. */
const PANIC_TEXT = [
  "",
  "early, on a #VC or an answer that it does not take",
  "for an exit code that it does not know",
  "for bytes that it does not know",
  "because a field is not valid",
  "because of the host's verdict",
  "after exception",
] as const;

/** The fields that a request needs, with the bytes that the exit uses of each (sev.md b10 to b12). */
function neededFields(code: number, info: bigint): Partial<Record<GhcbValidField, number>> {
  const exit = { sw_exit_code: 8, sw_exit_info_1: 8, sw_exit_info_2: 8 };
  const bits = Number(info & 0xffff_ffffn);
  switch (code) {
    case EXIT.CPUID:
      return { ...exit, rax: 4, rcx: 4 };
    case EXIT.MSR:
      return bits === 1 ? { ...exit, rax: 4, rcx: 4, rdx: 4 } : { ...exit, rcx: 4 };
    case EXIT.IOIO:
      if ((bits & ioio.in) !== 0) return exit;
      return { ...exit, rax: (bits & ioio.size8) !== 0 ? 1 : (bits & ioio.size16) !== 0 ? 2 : 4 };
    default:
      return exit;
  }
}

function at64(words: Uint32Array, index: number): string {
  const low = index & ~1;
  return ((BigInt(words[low + 1] ?? 0) << 32n) | BigInt(words[low] ?? 0)).toString(16);
}

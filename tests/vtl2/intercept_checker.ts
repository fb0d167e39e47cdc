/**
 * Follows a machine of the `kernel` platform step by step and, at every intercept, decodes message, assist page, register
 * page and run page out of the raw bytes (`raw_decoder.ts`) and compares each field with the processor's state at the exit.
 *
 * Under `intercept-page=unavailable` the message is looked for in the message page of VTL2's SynIC, the reason must be an
 * interrupt, whose vector is requested, and assist page's message and register page must stay untouched.
 */
import { assertEquals } from "@std/assert";
import { ACCESS_EXECUTE } from "../../lib/cpu/bus.ts";
import { CpuState, EXIT_IN, EXIT_REP, EXIT_STRING } from "../../lib/cpu/state.ts";
import { HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import { DeterministicRuntime } from "../../lib/machine/deterministic.ts";
import type { Machine } from "../../lib/machine/machine.ts";
import { KERNEL_PAGES, kernelPage, MESSAGE_PAGE } from "../../lib/vtl2/kernel_pages.ts";
import { decode, integer, MESSAGE_TYPES, offsetOf, sizeOf } from "../hypervisor/raw_decoder.ts";

const at = CpuState.at;
const PAGE_BYTES = 4096;
const PAYLOAD = offsetOf("HvMessage", "payload_buffer");
const MESSAGE_BYTES = sizeOf("HvMessage");
const ENTRY_REASON = offsetOf("HvVpAssistPage", "vtl_control") + offsetOf("HvVpVtlControl", "entry_reason");
const MESSAGE = offsetOf("HvVpAssistPage", "intercept_message");
const VALID = offsetOf("HvX64RegisterPage", "is_valid");
/** An entry reason that the TLFS does not have: it shows when the hypervisor writes one. */
const NO_REASON = 0xee;
const REASON_INTERCEPT = 3;
const REASON_INTERRUPT = 2;
/** Linux's vector for the hypervisor's interrupts, which its kernel in VTL2 gives SINT0. */
const CALLBACK_VECTOR = 0xf3;
const GPRS = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"].concat(
  Array.from({ length: 8 }, (_, k) => `r${k + 8}`),
);
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"];
/** Structure of the payload of each message. */
const PAYLOADS: Readonly<Record<string, string>> = {
  HvMessageTypeX64IoPortIntercept: "HvX64IoPortInterceptMessage",
  HvMessageTypeUnmappedGpa: "HvX64MemoryInterceptMessage",
  HvMessageTypeGpaIntercept: "HvX64MemoryInterceptMessage",
  HvMessageTypeMsrIntercept: "HvX64MsrInterceptMessage",
  HvMessageTypeX64CpuidIntercept: "HvX64CpuidInterceptMessage",
  HvMessageTypeHypercallIntercept: "HvX64HypercallInterceptMessage",
  HvMessageTypeExceptionIntercept: "HvX64ExceptionInterceptMessage",
  HvMessageTypeUnrecoverableException: "HvX64UnrecoverableExceptionMessage",
  HvMessageTypeX64ApicEoi: "HvX64ApicEoiMessage",
  HvMessageTypeX64Halt: "HvX64HaltMessage",
  HvMessageTypeSynicSintDeliverable: "HvX64SynicSintDeliverableMessage",
  HvMessageTypeX64InterruptionDeliverable: "HvX64InterruptionDeliverableMessage",
};
/** HvInterceptAccessType. */
const [READ, WRITE, EXECUTE] = [0n, 1n, 2n];
/** HV_CACHE_TYPE write-back. */
const WRITE_BACK = 6n;

/** `assertEquals` that costs nothing when the values are the same, as they are a million times. */
function same(actual: unknown, expected: unknown, message?: string): void {
  if (actual !== expected) assertEquals(actual, expected, message);
}

/** The processor's state when the guest left. */
class Exit {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
  u(offset: number, size = 8): bigint {
    return integer(this.bytes, offset, size);
  }
  n(offset: number, size = 4): number {
    return Number(this.u(offset, size));
  }
  gpr(name: string): bigint {
    return this.u(at.gpr + GPRS.indexOf(name) * 8);
  }
  /** A segment register under `prefix`, ES to GS. */
  segment(prefix: string, name: string): [string, bigint][] {
    const from = at.es + SEGMENTS.indexOf(name) * 16;
    return [
      [`${prefix}.base`, this.u(from)],
      [`${prefix}.limit`, this.u(from + 8, 4)],
      [`${prefix}.selector`, this.u(from + 12, 2)],
      [`${prefix}.attributes`, this.u(from + 14, 2)],
    ];
  }
  /** The lower half of XMM register n; the upper half. */
  xmm(n: number): bigint {
    return this.u(at.fx + 160 + 16 * n, 16);
  }
}

/** See the module's description. */
export class InterceptChecker {
  readonly machine: Machine;
  readonly runtime: DeterministicRuntime;
  /** Intercepts checked, by message. */
  readonly seen: Record<string, number> = {};
  /** Called after each checked intercept with its message. */
  onIntercept: ((message: string) => void) | undefined;
  readonly #exits = new Map<number, Exit>();
  /** Whether messages come in SINT0's slot. */
  readonly #bySint: boolean;

  constructor(machine: Machine, seed = 1) {
    this.machine = machine;
    this.#bySint = machine.config.policies["intercept-page"] === "unavailable";
    this.runtime = new DeterministicRuntime(machine, { seed, onStep: (agent, step) => this.#step(agent.name, step) });
  }

  /** Takes up to `steps` steps; whether the machine has ended. */
  run(steps: number): boolean {
    for (let k = 0; k < steps; k++) {
      if (!this.runtime.step()) return true;
      this.machine.onFull?.();
    }
    return false;
  }

  #page(vp: number, page: number): number {
    return kernelPage(this.machine.map.vtl2, vp, page);
  }

  #step(agent: string, step: string): void {
    const vp = Number(agent.slice(2));
    const { u8, u32 } = this.machine.memory;
    const assist = this.#page(vp, KERNEL_PAGES.ASSIST);
    const registers = this.#page(vp, KERNEL_PAGES.REGISTER);
    switch (step) {
      case "hypervisor.vtl-return":
        // The hypervisor has taken the page back.
        same(u8[registers + VALID], 0, "is_valid after a VTL return");
        u32[(assist + ENTRY_REASON) >>> 2] = NO_REASON;
        break;
      case "hypervisor.write-intercept-message":
      case "hypervisor.write-hypercall-message":
      case "hypervisor.write-deliverable-message":
      case "hypervisor.write-apic-eoi-message": {
        const state = this.machine.map.cpuStates + vp * CpuState.size;
        this.#exits.set(vp, new Exit(u8.slice(state, state + CpuState.size)));
        // The message is there and the reason is not: message before reason.
        same(u32[(assist + ENTRY_REASON) >>> 2], NO_REASON, "reason before the message");
        const message = this.#message(vp);
        this.#checkMessage(vp, u8.slice(message, message + MESSAGE_BYTES));
        break;
      }
      case "hypervisor.write-entry-reason":
        same(u32[(assist + ENTRY_REASON) >>> 2], this.#bySint ? NO_REASON : REASON_INTERCEPT);
        same(u8[registers + VALID], 0, "is_valid before the page is filled");
        break;
      case "hypervisor.enter-vtl2-sint":
        this.#checkSint(vp);
        break;
      case "hypervisor.fill-register-page":
        this.#checkRegisterPage(vp, u8.slice(registers, registers + PAGE_BYTES));
        break;
      case "hypervisor.enter-vtl2-interrupt":
        same(u32[(assist + ENTRY_REASON) >>> 2], REASON_INTERRUPT);
        same(u8[registers + VALID], 0, "is_valid after an interrupt");
        break;
      case "mshv.copy-message":
        this.#checkRunPage(vp);
        break;
      case "mshv.process-intercept":
        if (u32[this.#message(vp) >>> 2] !== 0) this.#checkRunPage(vp);
        break;
      case "mshv.free-slot":
        same(u32[this.#message(vp) >>> 2], 0, "the slot is empty before the next VTL return");
        break;
    }
  }

  /** Where the hypervisor writes messages: the assist page, or the first slot of the message page. */
  #message(vp: number): number {
    return this.#bySint ? this.#page(vp, MESSAGE_PAGE) : this.#page(vp, KERNEL_PAGES.ASSIST) + MESSAGE;
  }

  /** VTL2 is entered for SINT0's interrupt: nothing of what an intercept page brings is there. */
  #checkSint(vp: number): void {
    const { u8, u32 } = this.machine.memory;
    const assist = this.#page(vp, KERNEL_PAGES.ASSIST);
    const registers = this.#page(vp, KERNEL_PAGES.REGISTER);
    same(u32[(assist + ENTRY_REASON) >>> 2], REASON_INTERRUPT);
    const { state } = this.machine.processor(vp);
    const word = (state + HypervisorVpState.at.vtl2_irr) / 4 + (CALLBACK_VECTOR >>> 5);
    same(u32[word] >>> (CALLBACK_VECTOR & 31) & 1, 1, "SINT0's vector is requested");
    same(u8.subarray(assist + MESSAGE, assist + MESSAGE + MESSAGE_BYTES).every((byte) => byte === 0), true);
    same(u8.subarray(registers, registers + PAGE_BYTES).every((byte) => byte === 0), true, "no register page");
  }

  #checkMessage(vp: number, bytes: Uint8Array): void {
    const exit = this.#exits.get(vp)!;
    const header = decode("HvMessageHeader", bytes, 0);
    const type = [...MESSAGE_TYPES].find(([, value]) => BigInt(value) === header.get("typ"))?.[0] ?? "";
    const structure = PAYLOADS[type];
    this.seen[type] = (this.seen[type] ?? 0) + 1;
    const size = sizeOf(structure);
    header.delete("typ");
    for (const [field, value] of header) same(value, field === "len" ? BigInt(size) : 0n, `${type}: ${field}`);
    const expected = new Map<string, bigint>([
      ...(structure === "HvX64ApicEoiMessage" ? [] : this.#header(vp, exit, type)),
      ...this.#payload(vp, exit, type),
    ]);
    for (const [field, value] of decode(structure, bytes, PAYLOAD)) {
      // A field that is not named here is reserved, or not valid in this message.
      same(value, expected.get(field) ?? 0n, `${type}: ${field}`);
      expected.delete(field);
    }
    assertEquals([...expected.keys()], [], `${type}: fields of the reference`);
    const rest = bytes.subarray(PAYLOAD + size);
    same(rest.every((byte) => byte === 0), true, `${type}: bytes behind the payload`);
  }

  #header(vp: number, exit: Exit, type: string): [string, bigint][] {
    const memory = type === "HvMessageTypeUnmappedGpa" || type === "HvMessageTypeGpaIntercept";
    const access = memory
      ? exit.n(at.exit_access) === ACCESS_EXECUTE ? EXECUTE : exit.n(at.exit_write) ? WRITE : READ
      : type === "HvMessageTypeX64IoPortIntercept"
      ? exit.n(at.exit_flags, 1) & EXIT_IN ? READ : WRITE
      : type === "HvMessageTypeMsrIntercept"
      ? exit.n(at.exit_write) ? WRITE : READ
      : EXECUTE;
    const noInstruction = type === "HvMessageTypeX64InterruptionDeliverable" ||
      type === "HvMessageTypeSynicSintDeliverable" || type === "HvMessageTypeUnrecoverableException";
    const length = noInstruction ? 0n : exit.u(at.exit_length, 4);
    const cr0 = exit.u(at.cr0);
    const flags = exit.u(at.rflags);
    const dpl = exit.u(at.ss + 14, 2) >> 5n & 3n;
    return [
      ["header.vp_index", BigInt(vp)],
      ["header.instruction_length_and_cr8", length | exit.u(at.cr8) << 4n],
      ["header.intercept_access_type", access],
      ["header.execution_state.cpl", (cr0 & 1n) === 0n ? 0n : (flags & 0x20000n) !== 0n ? 3n : dpl],
      ["header.execution_state.cr0_pe", cr0 & 1n],
      ["header.execution_state.cr0_am", cr0 >> 18n & 1n],
      ["header.execution_state.efer_lma", exit.u(at.efer) >> 10n & 1n],
      ["header.execution_state.debug_active", (exit.u(at.dr7) & 0xffn) !== 0n ? 1n : 0n],
      ["header.execution_state.interruption_pending", exit.u(at.event, 4) >> 31n],
      ["header.execution_state.interrupt_shadow", exit.u(at.interrupt_shadow, 4) !== 0n ? 1n : 0n],
      ...exit.segment("header.cs_segment", "cs"),
      ["header.rip", exit.u(at.rip)],
      ["header.rflags", flags],
    ];
  }

  #instructionBytes(exit: Exit): [string, bigint][] {
    const count = exit.n(at.exit_byte_count);
    const bytes = Array.from(
      { length: count },
      (_, k): [string, bigint] => [`instruction_bytes[${k}]`, exit.u(at.exit_bytes + k, 1)],
    );
    return [["instruction_byte_count", BigInt(count)], ...bytes];
  }

  #payload(vp: number, exit: Exit, type: string): [string, bigint][] {
    const gprs = (...names: string[]) => names.map((name): [string, bigint] => [name, exit.gpr(name)]);
    switch (type) {
      case "HvMessageTypeX64IoPortIntercept": {
        const flags = exit.n(at.exit_flags, 1);
        return [
          ["port_number", exit.u(at.exit_port, 2)],
          ["access_info.access_size", exit.u(at.exit_size, 1)],
          ["access_info.string_op", flags & EXIT_STRING ? 1n : 0n],
          ["access_info.rep_prefix", flags & EXIT_REP ? 1n : 0n],
          ...this.#instructionBytes(exit),
          ...gprs("rax", "rcx", "rsi", "rdi"),
          ...exit.segment("ds_segment", "ds"),
          ...exit.segment("es_segment", "es"),
        ];
      }
      case "HvMessageTypeUnmappedGpa":
      case "HvMessageTypeGpaIntercept": {
        const gpa = exit.u(at.exit_gpa);
        const { ramBytes } = this.machine.config;
        const end = BigInt(ramBytes + this.machine.map.vtl2Bytes);
        same(type === "HvMessageTypeGpaIntercept", gpa < end, "protected or unmapped");
        const known = exit.u(at.exit_gva_valid, 4);
        return [
          ["cache_type", WRITE_BACK],
          ["memory_access_info.gva_valid", known],
          ["memory_access_info.gva_gpa_valid", known],
          ["tpr_priority", exit.u(at.cr8) & 0xfn],
          ["guest_virtual_address", known ? exit.u(at.exit_gva) : 0n],
          ["guest_physical_address", gpa],
          ...this.#instructionBytes(exit),
        ];
      }
      case "HvMessageTypeMsrIntercept":
        same(exit.u(at.exit_msr, 4), exit.gpr("rcx") & 0xffff_ffffn);
        return [["msr_number", exit.gpr("rcx") & 0xffff_ffffn], ...gprs("rdx", "rax")];
      case "HvMessageTypeX64CpuidIntercept":
        return gprs("rax", "rcx", "rdx", "rbx"); // default results of unimplemented leaves are 0 (openhcl.md h)
      case "HvMessageTypeHypercallIntercept":
        return [
          ...gprs("rax", "rbx", "rcx", "rdx", "r8", "rsi", "rdi"),
          ...Array.from({ length: 6 }, (_, k): [string, bigint] => [`xmm_registers.xmm${k}`, exit.xmm(k)]),
        ];
      case "HvMessageTypeExceptionIntercept":
        return [
          ["vector", exit.u(at.exit_vector, 4)],
          ["exception_info.error_code_valid", exit.u(at.exit_has_error, 4)],
          ["error_code", exit.n(at.exit_has_error) ? exit.u(at.exit_error, 4) : 0n],
          ["exception_parameter", exit.n(at.exit_vector) === 14 ? exit.u(at.exit_gva) : 0n],
          ...this.#instructionBytes(exit),
          ...exit.segment("ds_segment", "ds"),
          ...exit.segment("ss_segment", "ss"),
          ...gprs(...GPRS),
        ];
      case "HvMessageTypeX64ApicEoi":
        return [["vp_index", BigInt(vp)], ["interrupt_vector", BigInt(this.expectedEoi)]];
      case "HvMessageTypeSynicSintDeliverable":
        return [["deliverable_sints", BigInt(this.expectedSints)]];
      case "HvMessageTypeX64InterruptionDeliverable":
        return []; // HV_X64_PENDING_INTERRUPT is 0
      default:
        return [];
    }
  }

  /** Vector of the level-triggered interrupt that the guest will end. */
  expectedEoi = 0;
  /** SINTs that will become deliverable. */
  expectedSints = 0;

  #checkRegisterPage(vp: number, bytes: Uint8Array): void {
    const exit = this.#exits.get(vp)!;
    const event = exit.u(at.event, 4);
    const pending = event >> 31n & 1n;
    const hasError = pending & (event >> 11n);
    const expected = new Map<string, bigint>([
      ["version", 1n],
      ["is_valid", 1n],
      ...GPRS.map((name): [string, bigint] => [`gp_registers.${name}`, exit.gpr(name)]),
      ["rip", exit.u(at.rip)],
      ["rflags", exit.u(at.rflags)],
      ...Array.from({ length: 6 }, (_, k): [string, bigint] => [`xmm.xmm${k}`, exit.xmm(k)]),
      ...SEGMENTS.flatMap((name) => exit.segment(`segment.${name}`, name)),
      ...(["cr0", "cr3", "cr4", "cr8", "efer", "dr7"] as const).map((name): [string, bigint] => [
        name,
        exit.u(at[name]),
      ]),
      ["pending_interruption.interruption_pending", pending],
      ["pending_interruption.interruption_type", pending ? event >> 8n & 7n : 0n],
      ["pending_interruption.deliver_error_code", hasError],
      ["pending_interruption.interruption_vector", pending ? event & 0xffn : 0n],
      ["pending_interruption.error_code", hasError ? exit.u(at.event_error, 4) : 0n],
      ["pending_interruption.instruction_length", pending ? exit.u(at.event_length, 4) : 0n],
      ["interrupt_state.interrupt_shadow", exit.u(at.interrupt_shadow, 4) !== 0n ? 1n : 0n],
      ["interrupt_state.nmi_masked", exit.u(at.nmi_masked, 4)],
    ]);
    for (const [field, value] of decode("HvX64RegisterPage", bytes, 0)) {
      same(value, expected.get(field) ?? 0n, `register page: ${field}`);
    }
  }

  #checkRunPage(vp: number): void {
    const { u8 } = this.machine.memory;
    const exit = this.#exits.get(vp)!;
    const run = this.#page(vp, KERNEL_PAGES.RUN);
    const written = this.#message(vp);
    const message = run + offsetOf("hcl_run", "exit_message");
    for (let k = 0; k < MESSAGE_BYTES; k++) {
      same(u8[message + k], u8[written + k], `byte ${k} of the message in the run page`);
    }
    const context = run + offsetOf("hcl_run", "context");
    const registers = context + offsetOf("hcl_cpu_context_x64", "gps_no_rsp");
    GPRS.forEach((name, k) => {
      const expected = name === "rsp" ? exit.u(at.cr2) : exit.gpr(name);
      same(integer(u8, registers + k * 8, 8), expected, `run page: ${name === "rsp" ? "cr2" : name}`);
    });
    const fx = context + offsetOf("hcl_cpu_context_x64", "fx_state");
    for (let k = 0; k < 512; k++) same(u8[fx + k], exit.bytes[at.fx + k], `run page: byte ${k} of fx_state`);
    same(integer(u8, run + offsetOf("hcl_run", "flags"), 4), 0n);
    this.onIntercept?.([...MESSAGE_TYPES].find(([, value]) => BigInt(value) === integer(u8, message, 4))![0]);
  }
}

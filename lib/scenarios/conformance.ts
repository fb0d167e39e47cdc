/**
 * Who agrees with whom about the GHCB protocol, exit by exit: what two guest kernels ask for and whether they get through on
 * each host, what Linux's guest asks for and needs back, and what each host makes of Linux's request.
 *
 * The columns of guests and hosts are computed by running them. Linux's column is the rule as it is written (Linux
 * `arch/x86/coco/sev/vc-handle.c`, `vc-shared.c`; sev.md c2 to c17).
 *
 * @module
 */
import { VECTOR_VC } from "../cpu/faults.ts";
import { CpuState } from "../cpu/state.ts";
import { assemble } from "../guest/assembler/assemble.ts";
import { SEV_KERNEL_RAM_BYTES, sevKernel } from "../guest/programs/sev_kernel.ts";
import { vcKernelImage, vcLabel, vcProgramNumber } from "../guest/programs/vc/kernel.ts";
import { EARLY_HANDLER, VC_POLICIES } from "../guest/programs/vc/policies.ts";
import { type HostVcpu, MP_STATE } from "../host/host_vcpu.ts";
import { injectException } from "../host/sev_events.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import { VMRUN } from "../hypervisor/sev/sev_vp.ts";
import { SevVpState, TURN } from "../hypervisor/sev/state.ts";
import { X86_MSR } from "../layout/hyperv/constants/msrs.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import { IOIO_EXITINFO1 } from "../layout/sev/exit_info.ts";
import { GHCB, type GhcbValidField } from "../layout/sev/ghcb.ts";
import { GHCB_MSR } from "../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { ApicRegister, X64 } from "../layout/x64/constants.ts";
import { END } from "../machine/header.ts";
import { loadGuest, loadSevGuest } from "../machine/load.ts";
import { Machine } from "../machine/machine.ts";
import { PAGE_SHIFT } from "../memory/machine_memory.ts";
import { Ghcb } from "../sev/ghcb.ts";

const EXIT = SevExitCode.values;
const ioio = IOIO_EXITINFO1.mask;
const vmcb = VMCB_CONTROL.at;

/** What Linux's guest does about an exit. */
export type LinuxRule =
  /** It asks: these fields beside the three of the exit, and these must be valid in the answer. */
  | { readonly sends: readonly GhcbValidField[]; readonly needs: readonly GhcbValidField[] }
  /** It completes the instruction without a request. */
  | "local"
  /** It stops. */
  | "unsupported";

/** One exit. */
interface ConformanceCase {
  readonly name: string;
  /** Exit code of the #VC. */
  readonly code: number;
  /** Exit code of the request, where that is another one. */
  readonly request?: number;
  /** The instruction in 64-bit code; absent for a request that no instruction makes. */
  readonly text?: string;
  /** Whether RSI points to device memory before it. */
  readonly device?: boolean;
  /** EAX before it; 0 unless given. */
  readonly eax?: number;
  /** Whether the modelled processor lacks the instruction: its #VC is then injected. */
  readonly injected?: boolean;
  readonly linux: LinuxRule;
  readonly info1?: number;
  readonly info2?: number;
}

/** One line of the table. */
export interface ConformanceRow {
  /** The exit. */
  readonly exit: string;
  /** Its code. */
  readonly code: number;
  /** What exitbox's own guest kernel does. */
  readonly kernel: string;
  /** What the kernel with OpenBSD's handlers does. */
  readonly openbsd: string;
  /** What Linux's guest does. */
  readonly linux: string;
  /** What KVM makes of Linux's request. */
  readonly kvm: string;
  /** What vmd makes of it. */
  readonly vmd: string;
}

const asks = (sends: readonly GhcbValidField[], needs: readonly GhcbValidField[] = []): LinuxRule => ({ sends, needs });
const CPUID_RULE: LinuxRule = asks(["rax", "rcx", "xcr0"], ["rax", "rbx", "rcx", "rdx"]);
/** CPUID leaf for which KVM needs XCR0. */
const XSAVE_LEAF = 0xd;
const PORT = 0x71 << 16;
/** Bytes from one register of the local APIC to the next. */
const APIC_STRIDE = 16;
/** The local APIC: its base, enabled, of the boot processor, which is what the MSR holds, and two of its registers. */
const LOCAL_APIC = 0xfee00000;
const APIC_BASE_VALUE = LOCAL_APIC + 0x900;
const APIC_ID_ADDRESS = LOCAL_APIC + APIC_STRIDE * ApicRegister.values.ID;
const APIC_TPR_ADDRESS = LOCAL_APIC + APIC_STRIDE * ApicRegister.values.TPR;

/** The exits that a guest's #VC handler can meet, and the requests that it can make of itself. */
const CASES: readonly ConformanceCase[] = [
  { name: "CPUID", code: EXIT.CPUID, text: "cpuid", linux: CPUID_RULE },
  { name: "CPUID, leaf D", code: EXIT.CPUID, text: "cpuid", eax: XSAVE_LEAF, linux: CPUID_RULE },
  {
    name: "IN",
    code: EXIT.IOIO,
    text: "in al, dx",
    linux: asks(["rax"], ["rax"]),
    info1: PORT | ioio.size8 | ioio.in,
  },
  { name: "OUT", code: EXIT.IOIO, text: "out dx, al", linux: asks(["rax"]), info1: PORT | ioio.size8 },
  {
    name: "IN, operand-size prefix and imm8",
    code: EXIT.IOIO,
    text: "in ax, 0x71",
    linux: asks(["rax"], ["rax"]),
    info1: PORT | ioio.size16 | ioio.in,
  },
  {
    name: "INS",
    code: EXIT.IOIO,
    text: "insb",
    linux: asks(["sw_scratch"]),
    info1: PORT | ioio.size8 | ioio.string | ioio.in,
    info2: 1,
  },
  {
    name: "OUTS, REP",
    code: EXIT.IOIO,
    text: "rep outsb",
    linux: asks(["sw_scratch"]),
    info1: PORT | ioio.size8 | ioio.string | ioio.rep,
    info2: 2,
  },
  {
    name: "OUTS from device memory",
    code: EXIT.IOIO,
    text: "outsb",
    device: true,
    linux: asks(["sw_scratch"]),
    info1: PORT | ioio.size8 | ioio.string,
    info2: 1,
  },
  { name: "RDMSR", code: EXIT.MSR, text: "rdmsr", linux: asks(["rcx"]) },
  { name: "WRMSR", code: EXIT.MSR, text: "wrmsr", eax: APIC_BASE_VALUE, linux: asks(["rax", "rcx", "rdx"]), info1: 1 },
  { name: "RDTSC", code: EXIT.RDTSC, text: "rdtsc", linux: asks([], ["rax", "rdx"]) },
  { name: "RDTSCP", code: EXIT.RDTSCP, text: "rdtscp", linux: asks([], ["rax", "rcx", "rdx"]) },
  { name: "RDPMC", code: EXIT.RDPMC, text: "rdpmc", linux: asks(["rcx"], ["rax", "rdx"]) },
  { name: "DR7 read", code: EXIT.DR7_READ, text: "mov rax, dr7", linux: "local" },
  { name: "DR7 write", code: EXIT.DR7_WRITE, text: "mov dr7, rax", eax: X64.EMPTY_DR7, linux: asks(["rax"]) },
  { name: "VMMCALL", code: EXIT.VMMCALL, text: "vmmcall", linux: asks(["cpl", "rax"], ["rax"]) },
  { name: "WBINVD", code: EXIT.WBINVD, text: "wbinvd", linux: asks([]) },
  { name: "INVD", code: EXIT.INVD, text: "invd", linux: "unsupported" },
  { name: "MONITOR", code: EXIT.MONITOR, text: "monitor", injected: true, linux: "local" },
  { name: "MWAIT", code: EXIT.MWAIT, text: "mwait", injected: true, linux: "local" },
  { name: "XSETBV", code: EXIT.XSETBV, text: "xsetbv", eax: 3, linux: "unsupported" },
  {
    name: "device memory, read",
    code: EXIT.NPF,
    request: EXIT.MMIO_READ,
    text: "mov eax, [rsi]",
    device: true,
    linux: asks(["sw_scratch"]),
    info1: APIC_ID_ADDRESS,
    info2: 4,
  },
  {
    name: "device memory, write",
    code: EXIT.NPF,
    request: EXIT.MMIO_WRITE,
    text: "mov [rsi], eax",
    device: true,
    linux: asks(["sw_scratch"]),
    info1: APIC_TPR_ADDRESS,
    info2: 4,
  },
  { name: "page not validated", code: EXIT.PAGE_NOT_VALIDATED, text: "nop", injected: true, linux: "unsupported" },
  { name: "NMI complete", code: EXIT.NMI_COMPLETE, linux: asks([]) },
  { name: "AP reset hold", code: EXIT.AP_RESET_HOLD, linux: asks([]) },
  { name: "AP jump table, get", code: EXIT.AP_JUMP_TABLE, linux: asks([]), info1: 1 },
  { name: "hypervisor features", code: EXIT.HV_FEATURES, linux: asks([]) },
  { name: "termination", code: EXIT.TERM_REQUEST, linux: asks([]) },
];

/** The kernels that can be given an instruction. */
type Kernel = "kernel" | "openbsd";
const HOST_NAMES = ["kvm", "vmd"] as const;
type HostName = (typeof HOST_NAMES)[number];

/** Where the snippet says that it is done: RAM that neither kernel uses. */
const DONE_AT = { kernel: 0x300000, openbsd: 0xe0000 } as const;
const STEPS_MAX = 20_000;
/** RAM of the machines that need little. */
const SMALL_RAM_BYTES = 1 << 20;
/** Exit codes below this have a bit in the VMCB's intercept vector. */
const INTERCEPT_CODES = 8 * VMCB_CONTROL.field("intercepts").size;

/** The instruction with registers that suit all of them; it begins when a sleeping guest is woken. */
function snippet({ text = "nop", eax = 0, device }: ConformanceCase, origin: number, done: number): Uint8Array {
  return assemble(
    `bits 64
        mov rdi, ${done + 0x100}
        mov rsi, ${device ? APIC_ID_ADDRESS : `${done + 0x200}`}
        mov eax, ${eax}
        mov ecx, ${/msr$/.test(text) ? X86_MSR.X86X_MSR_APIC_BASE : /rep/.test(text) ? "2" : "0"}
        mov edx, ${/msr$/.test(text) || text === "xsetbv" ? "0" : "0x71"}
        ${text === "xsetbv" ? "mov rbx, cr4\n bts rbx, 18\n mov cr4, rbx" : ""}
        hlt
        ${text}
        mov byte [abs ${done}], 1
halt:   cli
        hlt
        jmp halt`,
    { origin },
  ).bytes;
}

/** A machine with one processor on a host. */
function machineOn(host: HostName, ramBytes: number): Machine {
  const config = { platform: "sev-es", vps: 1, policies: {}, devices: "pc", recordExits: false } as const;
  return Machine.create({ ...config, ramBytes, host, hostPlacement: "processor" }, true);
}

/** A machine whose guest has booted and sleeps in front of the instruction. */
function booted(
  kernel: Kernel,
  hostName: HostName,
  one: ConformanceCase,
): { machine: Machine; host: HostVcpu } {
  const machine = machineOn(hostName, kernel === "kernel" ? SEV_KERNEL_RAM_BYTES : SMALL_RAM_BYTES);
  const { u8, u32 } = machine.memory;
  const at = kernel === "kernel" ? Number(sevKernel().labels.get("boot_main.host_known")) : vcLabel("run_program");
  if (kernel === "kernel") {
    loadSevGuest(machine);
  } else {
    loadGuest(machine, vcKernelImage("legacy"));
    u32[vcLabel("program") >>> 2] = vcProgramNumber("boot");
    u8[vcLabel("chosen") + VC_POLICIES.indexOf(EARLY_HANDLER)] = EARLY_HANDLER.is.both;
  }
  // Private pages are stored as the guest sees them: this replaces what the kernel would do next.
  u8.set(snippet(one, at, DONE_AT[kernel]), at);
  const host = machine.platform.sev.host(0);
  settle(machine, () => host.get32("mp_state") === MP_STATE.HALTED);
  return { machine, host };
}

function settle(machine: Machine, done: () => boolean): void {
  for (let taken = 0; taken < STEPS_MAX && !done() && machine.end === END.NONE;) {
    let steps = 0;
    for (const agent of machine.agents(0)) {
      if (!done()) steps += agent.takeSteps(1);
    }
    if (steps === 0) return;
    taken += steps;
  }
}

/** What a kernel does about one exit on one host. */
function tryInstruction(kernel: Kernel, hostName: HostName, one: ConformanceCase) {
  const { code, injected } = one;
  const { machine, host } = booted(kernel, hostName, one);
  const refusedBefore = host.get64("refused");
  const { memory } = machine;
  const vp = machine.processor(0);
  const state = machine.platform.sev.sev.vpState(0);
  const words = (host.vmcb + vmcb.intercepts) >>> 2;
  // The exit is wanted, whatever this host intercepts.
  if (code < INTERCEPT_CODES) memory.u32[words + (code >>> 5)] |= 1 << (code & 31);
  if (injected) injectException(host, VECTOR_VC, code);
  host.set32("mp_state", MP_STATE.RUNNABLE);
  vp.port.or32(vp.cpuState + CpuState.at.attention, ATTENTION.STOP);
  let sent: readonly GhcbValidField[] | undefined;
  settle(machine, () => {
    const left = memory.u32[(state + SevVpState.at.turn) >>> 2] === TURN.HOST && vp.step === VMRUN;
    const gpa = Number(memory.u64[(host.vmcb + vmcb.ghcb_gpa) >>> 3] & 0xffff_ffffn);
    if (left && sent === undefined && (gpa & GHCB_MSR.low.info) === 0 && host.exitCode === EXIT.VMGEXIT) {
      sent = new Ghcb(memory.view, gpa).validFields().filter((field) => !field.startsWith("sw_exit"));
    }
    return memory.u8[DONE_AT[kernel]] !== 0;
  });
  const refused = host.get64("refused") !== refusedBefore;
  return { sent, refused, completes: memory.u8[DONE_AT[kernel]] !== 0 };
}

/** What a kernel does about one exit: what it asks, and on which hosts it gets through. */
function guestCell(kernel: Kernel, one: ConformanceCase): string {
  if (one.text === undefined) return "-";
  const tries = HOST_NAMES.map((host) => ({ host, ...tryInstruction(kernel, host, one) }));
  const through = tries.filter(({ completes }) => completes).map(({ host }) => host);
  const fooled = tries.filter(({ refused, completes }) => refused && completes).map(({ host }) => host);
  const { sent } = tries.find((tried) => tried.sent !== undefined) ?? { sent: undefined };
  const asked = sent === undefined ? "no request" : sent.length === 0 ? "asks" : `asks ${sent.join(" ")}`;
  if (sent === undefined && through.length === 0) return "stops";
  if (through.length === 0) return `${asked}; stops on both`;
  if (fooled.length > 0) return `${asked}; takes the refusal of ${fooled.join(" and ")} for an answer`;
  const stopped = HOST_NAMES.filter((host) => !through.includes(host));
  return stopped.length === 0 ? asked : `${asked}; stops on ${stopped.join(" and ")}`;
}

/** Where the GHCB of Linux's request lies. */
const LINUX_GHCB = 0x40000;

/** What a host makes of Linux's request. */
function hostCell(
  hostName: HostName,
  { code, request = code, eax = 0, linux, info1 = 0, info2 = 0 }: ConformanceCase,
): string {
  if (typeof linux === "string") return "-";
  const machine = machineOn(hostName, SMALL_RAM_BYTES);
  const { memory } = machine;
  const { sev } = machine.platform.sev;
  const host = machine.platform.sev.host(0);
  sev.guestMemory.setPrivate(host.port, LINUX_GHCB >>> PAGE_SHIFT, false);
  const turn = (sev.vpState(0) + SevVpState.at.turn) >>> 2;
  const serve = () => {
    for (let k = 0; k < STEPS_MAX && memory.u32[turn] === TURN.HOST && machine.end === END.NONE; k++) {
      if (host.takeSteps(1) === 0) return;
    }
  };
  serve(); // the first entry
  const ghcb = new Ghcb(memory.view, LINUX_GHCB);
  const values: Partial<Record<GhcbValidField, bigint>> = {
    rcx: code === EXIT.CPUID ? 0n : BigInt(X86_MSR.X86X_MSR_APIC_BASE),
    xcr0: 1n,
    rax: BigInt(eax),
    sw_scratch: BigInt(LINUX_GHCB + GHCB.at.shared_buffer),
  };
  for (const field of linux.sends) ghcb.set(field, values[field] ?? 0n);
  ghcb.set("sw_exit_code", BigInt(request));
  ghcb.set("sw_exit_info_1", BigInt(info1 >>> 0));
  ghcb.set("sw_exit_info_2", BigInt(info2));
  memory.u64[(host.vmcb + vmcb.ghcb_gpa) >>> 3] = BigInt(LINUX_GHCB);
  memory.u64[(host.vmcb + vmcb.exit_code) >>> 3] = BigInt(EXIT.VMGEXIT);
  memory.u32[turn] = TURN.HOST;
  serve();
  if (machine.end === END.GUEST_TERMINATED) return "ends the guest";
  if (machine.end !== END.NONE) return "stops the guest";
  if (memory.u32[turn] === TURN.HOST) return "waits";
  const verdict = ghcb.raw("sw_exit_info_1") & 0xffff_ffffn;
  if (verdict !== 0n) return verdict === 1n ? "exception" : `refuses: error ${ghcb.raw("sw_exit_info_2")}`;
  const missing = linux.needs.filter((field) => !ghcb.isValid(field));
  return missing.length === 0 ? "serves" : `serves without ${missing.join(" ")}`;
}

function linuxCell(linux: LinuxRule): string {
  if (linux === "local") return "no request";
  if (linux === "unsupported") return "stops";
  const sends = linux.sends.length === 0 ? "asks" : `asks ${linux.sends.join(" ")}`;
  return linux.needs.length === 0 ? sends : `${sends}, needs ${linux.needs.join(" ")}`;
}

/** The table, computed by running it: about a hundred short machines. */
export function conformance(): readonly ConformanceRow[] {
  return CASES.map((one) => ({
    exit: one.name,
    code: one.request ?? one.code,
    kernel: guestCell("kernel", one),
    openbsd: guestCell("openbsd", one),
    linux: linuxCell(one.linux),
    kvm: hostCell("kvm", one),
    vmd: hostCell("vmd", one),
  }));
}

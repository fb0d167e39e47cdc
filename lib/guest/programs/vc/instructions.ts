/**
 * The instructions that the kernel with OpenBSD's #VC handlers executes to try its handlers, each with what must come of
 * it: written down from the instruction's definition (AMD64 APM volume 3), not from any handler.
 *
 * @module
 */
import { X86_MSR } from "../../../layout/hyperv/constants/msrs.ts";
import { SevExitCode } from "../../../layout/sev/constants/exit_codes.ts";

/** A port access as the instruction says it. */
export interface PortAccess {
  /** IN, or OUT. */
  readonly in: boolean;
  /** Bytes. */
  readonly size: 1 | 2 | 4;
  /** The port. */
  readonly port: number;
}

/** One instruction and the registers that it starts with. */
export interface TriedInstruction {
  /** Assembler text. */
  readonly text: string;
  /** Low half of RAX at the start; the upper half is a secret. */
  readonly eax?: number;
  /** Low half of RCX. */
  readonly ecx?: number;
  /** Low half of RDX. */
  readonly edx?: number;
  /** Exit code of its #VC, or 0 when it has none everywhere. */
  readonly code: number;
  /** The port access, for those that are one. */
  readonly access?: PortAccess;
  /** Text that comes before it and behind it: what it needs, and what is to be seen of it. */
  readonly before?: string;
  /** See `before`. */
  readonly after?: string;
}

const { CPUID, CR8_WRITE_TRAP, IOIO, MSR, XSETBV } = SevExitCode.values;
const JUNK = 0xdead0000;
/** Data of an OUT, and what is in RAX before an IN. */
const DATA = 0xa1b2c3d4;

function port(text: string, access: PortAccess): TriedInstruction {
  return { text, code: IOIO, eax: DATA, edx: (JUNK | access.port) >>> 0, access };
}

/** Ports in DX: the first with bit 15 set, a low one, the last with bit 15 clear, and the last. */
const DX_PORTS = [0x8000, 0x0070, 0x7ffc, 0xfffc] as const;
const DX_FORMS = [
  ["out dx, ax", false, 2],
  ["in ax, dx", true, 2],
  ["in al, dx", true, 1],
  ["out dx, al", false, 1],
  ["in eax, dx", true, 4],
  ["out dx, eax", false, 4],
] as const;

/** Every encoding of a port access that the thread's handler lists (sev.md b12). */
export const PORT_INSTRUCTIONS: readonly TriedInstruction[] = [
  ...DX_PORTS.flatMap((number) => DX_FORMS.map(([text, isIn, size]) => port(text, { in: isIn, size, port: number }))),
  port("in al, 0x71", { in: true, size: 1, port: 0x71 }),
  port("out 0x80, al", { in: false, size: 1, port: 0x80 }),
];

/** CPUID, RDMSR and WRMSR. */
export const REGISTER_INSTRUCTIONS: readonly TriedInstruction[] = [
  ...[0, 1, 7, 0x80000000 + 8].map((eax): TriedInstruction => ({ text: "cpuid", code: CPUID, eax, ecx: 0 })),
  { text: "rdmsr", code: MSR, ecx: X86_MSR.X86X_MSR_APIC_BASE },
  { text: "wrmsr", code: MSR, ecx: X86_MSR.X86X_MSR_APIC_BASE, eax: 0xfee00900, edx: 0 },
  { text: "rdmsr", code: MSR, ecx: X86_MSR.X86X_MSR_APIC_BASE },
];

/** CPUID of the leaf for which KVM insists on XCR0 in the GHCB. */
export const XSAVE_INSTRUCTIONS: readonly TriedInstruction[] = [{ text: "cpuid", code: CPUID, eax: 0xd, ecx: 0 }];

/** Encodings of a port access that the thread's handler does not list (sev.md b13). */
export const UNLISTED_INSTRUCTIONS: readonly TriedInstruction[] = [
  port("in eax, 0x71", { in: true, size: 4, port: 0x71 }),
  port("out 0x80, eax", { in: false, size: 4, port: 0x80 }),
  port("in ax, 0x71", { in: true, size: 2, port: 0x71 }),
  port("out 0x80, ax", { in: false, size: 2, port: 0x80 }),
  port("insb", { in: true, size: 1, port: 0x71 }),
  port("insd", { in: true, size: 4, port: 0x70 }),
  port("outsb", { in: false, size: 1, port: 0x80 }),
  port("outsw", { in: false, size: 2, port: 0x80 }),
  port("rep insb", { in: true, size: 1, port: 0x71 }),
  port("rep outsb", { in: false, size: 1, port: 0x80 }),
  port("db 0x48, 0xed", { in: true, size: 4, port: 0x70 }),
  port("db 0x2e, 0xec", { in: true, size: 1, port: 0x71 }),
  port("db 0x67, 0xee", { in: false, size: 1, port: 0x80 }),
  port("db 0xf3, 0xec", { in: true, size: 1, port: 0x71 }),
  port("db 0x66, 0xec", { in: true, size: 1, port: 0x71 }),
  port("db 0x66, 0x66, 0xef", { in: false, size: 2, port: 0x80 }),
];

/** What depends on how the host keeps the registers that it does not see. */
export const HOST_INSTRUCTIONS: readonly TriedInstruction[] = [
  {
    text: "xsetbv",
    code: XSETBV,
    before: "mov rsi, cr4\n        or esi, 1 << 18\n        mov cr4, rsi\n        xor esi, esi",
    eax: 3,
    ecx: 0,
    edx: 0,
    after: "xgetbv",
  },
  { text: "mov cr8, rax", code: CR8_WRITE_TRAP, before: "mov eax, 5", after: "mov rax, cr8" },
  {
    ...port("out 0x80, al", { in: false, size: 1, port: 0x80 }),
    before: "mov dword [scratch], 0x1f00\n        ldmxcsr [scratch]\n        fldpi\n        mov rsi, SECRET_XMM\n" +
      "        movq xmm0, rsi\n        mov rax, SECRET_RAX",
    after: "fstp qword [scratch]\n        mov rbx, [scratch]\n        movq rdx, xmm0\n        stmxcsr [scratch]\n" +
      "        mov rax, [scratch]",
  },
];

/** One request of each kind, for hosts that answer badly. */
export const ANSWERED_INSTRUCTIONS: readonly TriedInstruction[] = [
  { text: "cpuid", code: CPUID, eax: 0, ecx: 0 },
  port("in al, dx", { in: true, size: 1, port: 0x71 }),
  { text: "rdmsr", code: MSR, ecx: X86_MSR.X86X_MSR_APIC_BASE },
  port("out 0x80, al", { in: false, size: 1, port: 0x80 }),
];

/** What the user tries: CPUID is its own affair, nothing else is. */
export const USER_INSTRUCTIONS: readonly TriedInstruction[] = [
  { text: "cpuid", code: CPUID, eax: 0, ecx: 0 },
  port("in al, dx", { in: true, size: 1, port: 0x71 }),
  port("out dx, eax", { in: false, size: 4, port: 0x80 }),
  port("in ax, 0x71", { in: true, size: 2, port: 0x71 }),
  port("rep outsb", { in: false, size: 1, port: 0x80 }),
  { text: "rdmsr", code: 0, ecx: X86_MSR.X86X_MSR_APIC_BASE },
  { text: "wrmsr", code: 0, ecx: X86_MSR.X86X_MSR_APIC_BASE, eax: 0, edx: 0 },
];

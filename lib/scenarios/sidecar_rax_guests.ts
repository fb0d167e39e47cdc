/**
 * The guests of the scenario `sidecar-rax`: each makes one exit twice and changes RAX in between.
 *
 * Whatever else VTLs share changes, too, so that a value of the exit before is not taken for the present one.
 *
 * @module
 */
import { assemble } from "../guest/assembler/assemble.ts";
import { DEVICE_MEMORY, GUEST_ORIGIN, HYPERCALL_PAGE } from "./machine_system.ts";

/** Addresses of the guest's string buffer and stack, in the memory that its steps may change. */
const BUFFER: number = GUEST_ORIGIN + 0x200;
const STACK: number = GUEST_ORIGIN + 0x300;
/** MXCSR after reset, but rounding up (AMD manual, volume 1, section 4.2.2). */
const MXCSR_ROUND_UP = 0x5f80;
/** Port of the guest's accesses; the environment's device answers at every port. */
const PORT = 0x300;
/** HvCallSignalEvent, fast: its input is in RDX (Hyper-V TLFS, "HvCallSignalEvent", "Hypercall Inputs"). */
const SIGNAL_EVENT_FAST = 0x1005d;

/** The port exits, whose handler compares RAX. */
const PORT_EXITS: Readonly<Record<string, string>> = {
  out: "out dx, al",
  in: "in al, dx",
  outs: `mov esi, ${BUFFER}\n outsb`,
  ins: `mov edi, ${BUFFER}\n insb`,
};

/** The others. What they need of RAX and RDX is not what the guest counts with. */
const OTHER_EXITS: Readonly<Record<string, string>> = {
  cpuid: "push rax\n mov eax, 0x40000080\n cpuid\n pop rax",
  msr: "mov ecx, 0x40000100\n xor edx, edx\n wrmsr",
  mmio: `mov ecx, ${DEVICE_MEMORY}\n mov [rcx], eax`,
  hypercall: `push rax\n mov ecx, ${SIGNAL_EVENT_FAST}\n mov r9d, ${HYPERCALL_PAGE}\n call r9\n pop rax`,
};

const EXITS: Readonly<Record<string, string>> = { ...PORT_EXITS, ...OTHER_EXITS };

/** What RAX grows by between the exits; 0xb0 is what the report's values always differed by. */
const STEPS = ["0x1", "0xb0", "0x100"];

/**
 * Values of RAX before the first exit: below 2^31, at the end of 32 bits, and with upper bits. No two have their lowest
 * bytes in common, so that what one answer of a device makes of AL does not pass for arithmetic.
 */
const STARTS = ["0x1234", "0x21", "0xffffffed", "0x1234567800000078", "0xffff8000ffffff9a"];

const ANSWER_BITS = 8;
/** Every answer that a device of one byte can give. */
const ANSWERS = Array.from({ length: 1 << ANSWER_BITS }, (_, answer) => `0x${answer.toString(16)}`);

/** A guest, by the names of what makes it up. */
export interface GuestProgram {
  /** What it does twice: a name in {@linkcode GUEST_VARIATIONS}. */
  readonly exit: string;
  /** Width of the addition to RAX in bits: 32, which clears the upper half, or 64. */
  readonly bits: string;
  /** What is added to RAX between the exits. */
  readonly step: string;
}

/** What the guests and their devices can be varied by. The first value is the usual one; the usual answer stands apart. */
export const GUEST_VARIATIONS = {
  exits: Object.keys(EXITS),
  portExits: Object.keys(PORT_EXITS),
  bits: ["32", "64"],
  steps: STEPS,
  starts: STARTS,
  answers: ANSWERS,
  usualStep: "0xb0",
  /** A byte that no start ends with. */
  usualAnswer: "0x5a",
} as const;

/** The guests with port exits, those first that need the least. */
export const PORT_PROGRAMS: readonly GuestProgram[] = GUEST_VARIATIONS.portExits.flatMap((exit) =>
  GUEST_VARIATIONS.bits.flatMap((bits) => STEPS.map((step) => ({ exit, bits, step })))
);

/** The machine code of a guest that begins with RAX = `start`. */
export function guestCode({ exit, bits, step }: GuestProgram, start: string): Uint8Array {
  return assemble(`
    bits 64
    org ${GUEST_ORIGIN}
    mov esp, ${STACK}
    mov edx, ${PORT}
    mov ebx, 0x11111111
    mov rax, ${start}
    movd xmm0, ebx
    movd xmm6, ebx
    ${EXITS[exit]}
    add ${bits === "32" ? "eax" : "rax"}, ${step}
    add ebx, 1
    mov cr2, rbx
    movd xmm0, ebx
    movd xmm6, ebx
    ldmxcsr [rounding]
    ${EXITS[exit]}
    cli
    hlt
    rounding: dd ${MXCSR_ROUND_UP}
  `).bytes;
}

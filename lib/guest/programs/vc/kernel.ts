/**
 * A guest kernel whose #VC handlers are OpenBSD's, with programs that try them: it boots in legacy or compatibility mode,
 * executes the instructions of one program, and writes down what each leaves in the registers.
 *
 * All its registers, its stack and its floating-point state hold secrets whose upper 24 bits are the same: what the host
 * can read must never contain them.
 *
 * @module
 */
import { SevExitCode } from "../../../layout/sev/constants/exit_codes.ts";
import { assemble, type Assembly } from "../../assembler/assemble.ts";
import { type GuestImage, parseImage } from "../../image.ts";
import { exceptionStubs } from "../parts.ts";
import { VC_CONSTANTS, VC_EARLY, VC_TABLES } from "./early.ts";
import {
  ANSWERED_INSTRUCTIONS,
  HOST_INSTRUCTIONS,
  PORT_INSTRUCTIONS,
  REGISTER_INSTRUCTIONS,
  type TriedInstruction,
  UNLISTED_INSTRUCTIONS,
  USER_INSTRUCTIONS,
  XSAVE_INSTRUCTIONS,
} from "./instructions.ts";
import { VC_TRAP } from "./trap.ts";

/** Upper 24 bits of every secret. */
export const SECRET_MARK = 0x5ec2e7;
/** What is in RAX behind an instruction that the kernel did not let the user execute. */
export const SIGNALLED = 0x516_111;

/** The programs by name: what they execute, and how. `boot` executes nothing behind the boot. */
const PROGRAMS = {
  boot: { tries: [], kind: "sequence" },
  ports: { tries: PORT_INSTRUCTIONS, kind: "sequence" },
  registers: { tries: REGISTER_INSTRUCTIONS, kind: "sequence" },
  user: { tries: USER_INSTRUCTIONS, kind: "user" },
  unlisted: { tries: UNLISTED_INSTRUCTIONS, kind: "one" },
  host: { tries: HOST_INSTRUCTIONS, kind: "sequence" },
  xsave: { tries: XSAVE_INSTRUCTIONS, kind: "sequence" },
  answered: { tries: ANSWERED_INSTRUCTIONS, kind: "sequence" },
} as const satisfies Record<
  string,
  { tries: readonly TriedInstruction[]; kind: "sequence" | "user" | "one" }
>;

/** A program's name. */
export type VcProgram = keyof typeof PROGRAMS;
const NAMES = Object.keys(PROGRAMS) as VcProgram[];

/** Number of a program's first instruction; that of the boot's last CPUID is {@linkcode BOOT_INSTRUCTION}. */
const FIRST_INSTRUCTION = 0x10;
const PROGRAM_STRIDE = 0x40;
/** Number of the first instruction whose #VC uses the GHCB: a CPUID of the boot. */
const BOOT_INSTRUCTION = 2;

/** An instruction in the assembled kernel. */
export interface PlacedInstruction extends TriedInstruction {
  /** What `current` holds while it is executed. */
  readonly number: number;
  /** Address behind it. */
  readonly end: number;
}

function numberOf(program: VcProgram, index: number): number {
  return FIRST_INSTRUCTION + PROGRAM_STRIDE * NAMES.indexOf(program) + index;
}

/** A register's value: a secret above its low half. */
function secret(register: number, low: number): string {
  return `0x${SECRET_MARK.toString(16)}${register.toString(16).padStart(2, "0")}${low.toString(16).padStart(8, "0")}`;
}

/** Assembler text of one instruction with what surrounds it; `${number}` of it names the labels. */
function tried({ text, eax = 0x11223344, ecx = 2, edx = 0x70, before = "", after = "" }: TriedInstruction, n: number) {
  return `
        mov rax, ${secret(0, eax)}
        mov rcx, ${secret(1, ecx)}
        mov rdx, ${secret(2, edx)}
        ${before}
        ${text}
next_${n}:
        ${after}
        lea r15, [rel next_${n}]`;
}

function programText(name: VcProgram): string {
  const { tries, kind } = PROGRAMS[name];
  const texts = tries.map((instruction, index): string => {
    const n = numberOf(name, index);
    if (kind === "user") {
      return `
        mov dword [current], ${n}
        lea rax, [user_${n}]
        call enter_user
        call log_state`;
    }
    const here = `
try_${n}:
        mov dword [current], ${n}${tried(instruction, n)}
        call log_state`;
    return kind === "one" ? here + "\n        jmp done" : here;
  });
  const choose = kind === "one" ? "mov eax, [variant]\n        jmp [rax * 8 + variants]\n" : "";
  return `program_${name}:\n        ${choose}${texts.join("")}\n        jmp done\n`;
}

function userText(): string {
  return USER_INSTRUCTIONS.map((instruction, index) => {
    const n = numberOf("user", index);
    return `user_${n}:${tried(instruction, n)}\n        int 0x80\n`;
  }).join("");
}

const MAIN = `
SECRET_RAX      equ ${secret(0, 0xa1b2c3d4)}
SECRET_XMM      equ ${secret(0x20, 0x01234567)}
run_program:
        mov rbx, ${secret(3, 0x0badb002)}
        mov rbp, ${secret(5, 5)}
        lea rsi, [secrets]
        lea rdi, [scratch]
        mov r8, ${secret(8, 8)}
        mov r9, ${secret(9, 9)}
        mov r10, ${secret(10, 10)}
        mov r11, ${secret(11, 11)}
        mov r12, ${secret(12, 12)}
        mov r13, ${secret(13, 13)}
        mov r14, ${secret(14, 14)}
        push r8
        push r9
        movups xmm1, [secrets]
        movups xmm9, [secrets]
        xor eax, eax                    ; the flags are the same from here on
        mov eax, [program]
        jmp [rax * 8 + programs]

; writes RAX, RBX, RCX, RDX, R15 and RFLAGS down
log_state:
        push rdi
        mov rdi, [log_next]
        mov [rdi], rax
        mov [rdi + 8], rbx
        mov [rdi + 16], rcx
        mov [rdi + 24], rdx
        mov [rdi + 32], r15
        pushfq
        pop qword [rdi + 40]
        add qword [log_next], 48
        pop rdi
        ret

done:   mov dword [current], 0
        mov byte [finished], 1
.halt:  cli
        hlt
        jmp .halt

; the user's program at RAX, with I/O privilege level 3; back here when it calls the system or is ended by it
enter_user:
        mov [user_return], rsp
        mov byte [in_user], 1
        push USER_DATA
        push USER_STACK_TOP
        push 0x3002
        push USER_CODE
        push rax
        iretq
user_signal:
        mov eax, ${SIGNALLED}
system_call:
        mov byte [in_user], 0
        mov rsp, [user_return]
        ret

; the vector is on the stack
exception:
        cmp byte [in_user], 0
        jne user_signal
        pop rax
        shl eax, 8
        or eax, PANIC_EXCEPTION
        jmp panic
`;

/** The kernel's source text, for the project's assembler. */
function vcKernelSource(): string {
  const variants = UNLISTED_INSTRUCTIONS.map((_, index) => `        dq try_${numberOf("unlisted", index)}`);
  return [
    VC_CONSTANTS,
    "        org ORIGIN",
    VC_EARLY,
    VC_TRAP,
    MAIN,
    ...NAMES.map(programText),
    "        align 16\nexception_stubs:" + exceptionStubs(),
    "        align 4096, 0",
    "text_end:",
    VC_TABLES,
    "programs:",
    ...NAMES.map((name) => `        dq program_${name}`),
    "variants:",
    ...variants,
    `secrets: dq ${secret(0x30, 1)}, ${secret(0x31, 2)}`,
    "        align 4096, 0",
    "user_text:",
    userText(),
    "        align 4096, 0",
    "image_end:",
  ].join("\n");
}

let assembled: Assembly | undefined;

/** The kernel's machine code and labels, made on first use. */
function vcKernel(): Assembly {
  assembled ??= assemble(vcKernelSource());
  return assembled;
}

/** Address of a label, or value of a constant. */
export function vcLabel(name: string): number {
  const value = vcKernel().labels.get(name);
  if (value === undefined) throw new RangeError(`The kernel has no label "${name}"`);
  return Number(value);
}

/** The kernel as an image for the mode in which it is entered. */
export function vcKernelImage(boot: "legacy" | "compat"): GuestImage {
  const load = vcLabel("ORIGIN");
  const [mode, entry] = boot === "legacy" ? ["protected" as const, "start"] : ["long" as const, "start_compat"];
  return parseImage(vcKernel().bytes, "vc-kernel", { mode, load, entry: vcLabel(entry) });
}

/** Number of a program in the kernel's variable `program`. */
export function vcProgramNumber(program: VcProgram): number {
  return NAMES.indexOf(program);
}

/** Instructions of a program that are executed only one of, as `variant` says. */
export const UNLISTED_COUNT: number = UNLISTED_INSTRUCTIONS.length;

/** Every instruction that a program executes, by its number; the boot's CPUID is in all of them. */
export function placedInstructions(program: VcProgram): ReadonlyMap<number, PlacedInstruction> {
  const placed = new Map<number, PlacedInstruction>();
  const end = vcLabel(`next_${BOOT_INSTRUCTION}`);
  placed.set(BOOT_INSTRUCTION, { text: "cpuid", code: SevExitCode.values.CPUID, number: BOOT_INSTRUCTION, end });
  PROGRAMS[program].tries.forEach((instruction: TriedInstruction, index) => {
    const number = numberOf(program, index);
    placed.set(number, { ...instruction, number, end: vcLabel(`next_${number}`) });
  });
  return placed;
}

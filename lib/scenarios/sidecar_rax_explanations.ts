/**
 * The guests that `explain` varies for the scenario `sidecar-rax`, as a scenario whose options are what varies: each makes
 * one port exit, changes RAX, and makes the exit again.
 *
 * @module
 */
import { assemble } from "../guest/assembler/assemble.ts";
import { MACHINE_PROPERTIES, machineProperties } from "./machine_properties.ts";
import { GUEST_ORIGIN, type GuestSetting, machineSystem } from "./machine_system.ts";
import type { Choices, Scenario } from "./scenario.ts";
import { sidecarRax } from "./sidecar_rax.ts";

/** Address of the guest's string buffer, in the memory that its steps may change. */
const BUFFER: number = GUEST_ORIGIN + 0x200;

/** The port exits. */
const EXITS: Readonly<Record<string, string>> = {
  out: "out dx, al",
  in: "in al, dx",
  outs: `mov esi, ${BUFFER}\n outsb`,
  ins: `mov edi, ${BUFFER}\n insb`,
};

/** What RAX grows by between the exits. */
const STEPS = ["0x1", "0xb0", "0x100"];

/**
 * Values of RAX before the first exit: below 2^31, at the end of 32 bits, and with upper bits. No two have their lowest
 * bytes in common, so that what one answer of a device makes of AL does not pass for arithmetic.
 */
const STARTS = ["0x21", "0x1234", "0xffffffed", "0x1234567800000078", "0xffff8000ffffff9a"];

const ANSWER_BITS = 8;
/** Every answer that a device of one byte can give. */
const ANSWERS = Array.from({ length: 1 << ANSWER_BITS }, (_, answer) => `0x${answer.toString(16)}`);
/** What the device answers unless it is asked for something else: a byte that no start ends with. */
const USUAL_ANSWER = "0x5a";

/** Port of the accesses; the environment's device answers at every port. */
const PORT = 0x300;

/** The guest that options stand for; every option has a value. */
export function guestSetting(options: Choices): GuestSetting {
  return {
    platform: "sidecar",
    code: assemble(program(options)).bytes,
    answer: Number(options.answer),
    interrupts: Number(options.interrupts),
    converts: false,
  };
}

function program({ exit, bits, step, start }: Choices): string {
  return `
    bits 64
    org ${GUEST_ORIGIN}
    mov edx, ${PORT}
    mov ebx, 0x11111111
    mov rax, ${start}
    ${EXITS[exit]}
    add ${bits === "32" ? "eax" : "rax"}, ${step}
    add ebx, 1
    ${EXITS[exit]}
    cli
    hlt
  `;
}

/** The scenario of these guests. */
export const sidecarRaxGuests: Scenario = {
  ...sidecarRax,
  name: "sidecar-rax-guests",
  summary: "the guests that explain tries for sidecar-rax: a port exit twice, arithmetic on RAX in between",
  shows: ["Schedules that explain prints are of this scenario: its options name the guest and the device's answer."],
  options: [
    { name: "exit", meaning: "what the guest does twice", values: Object.keys(EXITS), default: "out" },
    { name: "bits", meaning: "width of the addition to RAX in bits", values: ["32", "64"], default: "32" },
    { name: "step", meaning: "what is added to RAX", values: STEPS, default: "0xb0" },
    { name: "start", meaning: "RAX at the first exit", values: STARTS, default: "0x1234" },
    { name: "answer", meaning: "what the device answers", values: ANSWERS, default: USUAL_ANSWER },
    { name: "interrupts", meaning: "VTL2 interrupts", values: ["0", "1"], default: "1" },
  ],
  properties: MACHINE_PROPERTIES,
  // What is no policy of the scenario's is none of its schedules' either.
  build: (policies, options, system) => {
    return machineSystem(system, guestSetting(options), policies, machineProperties);
  },
};

/** A guest program: what `explain` varies, the start of RAX and the answer apart. */
export interface GuestProgram {
  readonly exit: string;
  readonly bits: string;
  readonly step: string;
}

/** The programs, those first that need the least. */
export const GUEST_PROGRAMS: readonly GuestProgram[] = Object.keys(EXITS).flatMap((exit) =>
  ["32", "64"].flatMap((bits) => STEPS.map((step) => ({ exit, bits, step })))
);

/** The starts of RAX and the answers that each program is tried with. */
export const GUEST_VARIATIONS = { starts: STARTS, answers: ANSWERS, usualAnswer: USUAL_ANSWER } as const;

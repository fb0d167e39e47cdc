/** Machines around short assembled guests, and what tests want to know of them afterwards. */
import { CpuState } from "../../lib/cpu/state.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import type { GuestMode } from "../../lib/guest/guest_image.ts";
import { parseImage } from "../../lib/guest/image.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { loadGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine, type RunOptions, type RunReport } from "../../lib/machine/run.ts";
import { policies } from "../../lib/memory/policy.ts";

/** RAM of a test machine. */
export const RAM_BYTES = 2 << 20;

/** Policies under which every platform does what the processor does. */
export function siliconPolicies(): Record<string, string> {
  const silicon = policies().filter(({ values }) => values.some(({ name }) => name === "silicon"));
  return Object.fromEntries(silicon.map(({ name }) => [name, "silicon"]));
}

/** What a test machine is made of; the rest of the configuration has defaults. */
export interface GuestOptions extends Partial<MachineConfig> {
  /** Default deterministic. */
  readonly concurrent?: boolean;
  /** Default long mode. */
  readonly mode?: GuestMode;
}

/** A machine with the assembled `source` (or bytes) loaded where its mode starts. */
export function guestMachine(source: string | Uint8Array, options: GuestOptions = {}): Machine {
  const { concurrent = false, mode = "long", ...config } = options;
  const machine = Machine.create({
    platform: "kernel",
    vps: 1,
    ramBytes: RAM_BYTES,
    policies: {},
    devices: "pc",
    recordExits: false,
    ...config,
  }, !concurrent);
  const origin = mode === "real" ? 0x7c00 : 0x100000;
  const bits = mode === "real" ? 16 : mode === "protected" ? 32 : 64;
  const bytes = typeof source === "string" ? assemble(source, { origin, bits }).bytes : source;
  loadGuest(machine, parseImage(bytes, "guest", { mode }));
  return machine;
}

/** What a guest run showed. */
export interface GuestRun extends RunReport {
  readonly machine: Machine;
  /** What the guest wrote to the serial port and the debug port. */
  readonly text: string;
}

/** Runs a machine for at most ten seconds. */
export async function runGuest(machine: Machine, options: RunOptions = {}): Promise<GuestRun> {
  let text = "";
  const report = await runMachine(machine, {
    timeLimitSeconds: 10,
    onSerial: (bytes) => text += new TextDecoder("latin1").decode(bytes),
    ...options,
  });
  return { ...report, machine, text };
}

/** The register at `offset` of a VP's `CpuState`. */
export function register(machine: Machine, vp: number, offset: number): bigint {
  return machine.memory.u64[(machine.map.cpuStates + vp * CpuState.size + offset) >>> 3];
}

/** General-purpose register `number` of a VP. */
export function gpr(machine: Machine, vp: number, number: number): bigint {
  return register(machine, vp, CpuState.at.gpr + number * 8);
}

/** A 64-bit word of guest memory. */
export function word(machine: Machine, address: number): bigint {
  return machine.memory.view.getBigUint64(address, true);
}

/** FNV-1a over 32-bit words, of guest RAM or any other range. */
export function hashMemory(machine: Machine, from = 0, to = machine.config.ramBytes): number {
  const { i32 } = machine.memory;
  let hash = 0x811c9dc5;
  for (let k = from >>> 2; k < to >>> 2; k++) hash = Math.imul(hash ^ i32[k], 0x01000193);
  return hash >>> 0;
}

/** Where {@linkcode gates} puts the interrupt descriptor table. */
const IDT = 0x20000;

/** Long-mode code that makes an IDT with interrupt gates from vectors to labels, and loads it. Clobbers RAX and RDI. */
export function gates(handlers: Readonly<Record<number, string>>): string {
  const entries = Object.entries(handlers).map(([vector, label]) => `
        lea rax, [rel ${label}]
        mov edi, ${IDT + Number(vector) * 16}
        mov [rdi], ax
        mov dword [rdi + 2], 0x8e000008
        mov byte [rdi + 4], 0
        shr rax, 16
        mov [rdi + 6], ax
        mov qword [rdi + 8], 0`);
  return `${entries.join("")}
        mov word [abs ${IDT - 10}], 4095
        mov qword [abs ${IDT - 8}], ${IDT}
        lidt [abs ${IDT - 10}]
`;
}

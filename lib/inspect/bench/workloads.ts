/**
 * What `exitbox bench` measures: endless guests that leave in one way each, and one that only computes.
 *
 * @module
 */
import { assemble } from "../../guest/assembler/assemble.ts";
import { parseImage } from "../../guest/image.ts";
import type { MachineConfig } from "../../machine/config.ts";
import { loadGuest } from "../../machine/load.ts";
import { Machine } from "../../machine/machine.ts";
import { isEncrypted } from "../../machine/sev_platform.ts";
import type { ExitKind } from "../../hypervisor/vp_state.ts";

/** The platforms that are measured; one more is one more word here. */
export const BENCH_PLATFORMS = ["kernel", "bare", "sidecar", "sev-es", "snp"] as const;
/** One of them. */
export type BenchPlatform = (typeof BENCH_PLATFORMS)[number];

/** A guest to measure. */
export interface Workload {
  /** Its name in tables and JSON. */
  readonly name: string;
  /** Assembly for 64-bit code that never ends. */
  readonly source: string;
  /** The kind of exit that it makes; absent for a guest that only computes. */
  readonly exit?: ExitKind;
  /** Whether VTL2 handles the exit, so that a message is written for it where there is a VTL2. */
  readonly message: boolean;
}

/** Exits in one turn of a guest's loop. */
const UNROLLED = 16;
const repeated = (line: string): string => `${line}\n`.repeat(UNROLLED);
const loop = (start: string, body: string): string => `${start}\nagain:\n${repeated(body)}jmp again\n`;

/** What the #VC handler of an encrypted guest is measured with, for each exit that is: by the name of its workload. */
export const SEV_EXITS = {
  cpuid: { code: "EXIT_CPUID", instruction: "cpuid" },
  out: { code: "EXIT_IOIO", instruction: "out dx, al" },
} as const;
/** A workload of an encrypted guest that leaves. */
export type SevExit = keyof typeof SEV_EXITS;

/** Where a measured #VC handler has its stack, GHCB and block. */
export const HANDLER_PLACES = { stackTop: 0x1f0000, ghcb: 0x200000, block: 0x201000 } as const;
/** Where the code of `bench` guests starts, where the HLT guest's interrupt handler lies, and its IDT and stack. */
const ORIGIN = 0x100000;
const IDT = 0x200000;
const STACK_TOP = 0x1f0000;
/** Vector of the interrupt that ends the HLT guest's halts. */
const VECTOR = 0x30;

/** HLT with an interrupt that has been requested of the local APIC before: parks, and wakes at once. */
const HALTS = `
  mov rsp, ${STACK_TOP}
  mov rdi, ${IDT + VECTOR * 16}
  mov rax, handler
  mov [rdi], ax
  mov cx, cs
  mov [rdi + 2], cx
  mov word [rdi + 4], 0x8e00
  shr rax, 16
  mov [rdi + 6], ax
  mov qword [rdi + 8], 0
  mov rdi, ${IDT - 16}
  mov word [rdi], 0xfff
  mov qword [rdi + 2], ${IDT}
  lidt [rdi]
  mov ecx, 0x1b
  rdmsr
  or eax, 0xc00
  wrmsr
  mov ecx, 0x80f
  mov eax, 0x1ff
  xor edx, edx
  wrmsr
again:
  cli
  mov ecx, 0x83f
  mov eax, ${VECTOR}
  xor edx, edx
  wrmsr
  sti
  hlt
  jmp again
handler:
  mov ecx, 0x80b
  xor eax, eax
  xor edx, edx
  wrmsr
  iretq
`;

/**
 * A 64-bit linear congruential generator with a store and a branch. Its number lies in the image: that memory is there on
 * every platform.
 */
const COMPUTES = `
  mov rbx, number
  mov rcx, 0x5851f42d4c957f2d
  mov rdx, 0x14057b7ef767814f
again:
  imul rax, rcx
  add rax, rdx
  mov [rbx], rax
  dec rsi
  jnz again
  jmp again
  align 64, 0
number:
  dq 0
`;

/** Instructions of the guest that ends the loop are counted with those of the exits. Port 80 belongs to no device. */
export const WORKLOADS: readonly Workload[] = [
  { name: "out", source: loop("mov dx, 0x80", "out dx, al"), exit: "out", message: true },
  { name: "in", source: loop("mov dx, 0x80", "in al, dx"), exit: "in", message: true },
  { name: "cpuid", source: loop("", "mov eax, 0x40000080\ncpuid"), exit: "cpuid", message: true },
  { name: "msr", source: loop("mov ecx, 0x40000100", "rdmsr"), exit: "rdmsr", message: true },
  { name: "mmio", source: loop("mov rbx, 0xfec00000", "mov eax, [rbx]"), exit: "mmio-read", message: true },
  { name: "hlt", source: HALTS, exit: "hlt", message: false },
  { name: "compute", source: COMPUTES, message: false },
];

/** The workloads of `bench exits` or of `bench guest` on a platform; a guest without #VC handlers makes no exits there. */
export function workloadsOf(of: "exits" | "guest", platform: BenchPlatform): readonly Workload[] {
  return WORKLOADS.filter(({ name, exit }) => {
    if ((exit !== undefined) !== (of === "exits")) return false;
    return exit === undefined || !isEncrypted({ platform }) || Object.hasOwn(SEV_EXITS, name);
  });
}

/** Guest RAM of a measured machine. */
const RAM_BYTES = 16 << 20;

/** A machine with one VP, in real time, at the start of a workload; `part` changes its configuration. */
export function workloadMachine(
  platform: BenchPlatform,
  workload: Workload,
  part: Partial<MachineConfig> = {},
): Machine {
  const machine = Machine.create({
    platform,
    // The base processor is not the sidecar's, and a processor that left the sidecar would be the kernel's.
    ...(platform === "sidecar"
      ? { vps: 2, bootVp: 1, policies: { "sidecar.hotplug": "off" } }
      : { vps: 1, policies: {} }),
    ramBytes: RAM_BYTES,
    devices: "pc",
    recordExits: false,
    ...(isEncrypted({ platform }) ? { hostPlacement: "processor" } : {}),
    ...part,
  }, false);
  const { bytes } = assemble(`bits 64\n${workload.source}`, { origin: ORIGIN, bits: 64 });
  loadGuest(machine, parseImage(bytes, workload.name, { mode: "long" }));
  machine.clock.start();
  return machine;
}

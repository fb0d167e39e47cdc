/**
 * Random guests: real code that makes every kind of exit and whose outcome does not depend on time, so that any platform
 * in any runtime must leave the same registers, memory and output.
 *
 * Every VP has a block of memory and its own share of the devices; what VPs do to each other (IPIs) adds up to the same
 * whatever the order. VP 0 starts the others by INIT-SIPI-SIPI. Each VP ends in HLT with interrupts off.
 *
 * ```
 * 20000 IDT · 60000 trampoline · 100000 code · 180000 + n * 4000: block of VP n, whose last page is its stack
 * ```
 */
import { CpuState } from "../../lib/cpu/state.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import type { Machine } from "../../lib/machine/machine.ts";
import { Random } from "../../lib/memory/random.ts";
import { gates } from "./guest_fixture.ts";

/** RAM that random guests need, in bytes. */
export const RANDOM_GUEST_RAM: number = 4 << 20;
/** Most VPs of a random guest. */
export const RANDOM_GUEST_VPS = 16;
/** Exits that a VP of a random guest makes at least, and of how many kinds. */
export const RANDOM_GUEST_EXITS = { count: 20, kinds: 4 } as const;

const ORIGIN = 0x100000;
const BLOCKS = 0x180000;
const BLOCK_BYTES = 0x4000;
const STACK_FROM = 0x3000;
const TRAMPOLINE = 0x60000;
const HYPERCALL_PAGE = 0x170000;
/** Guest-physical addresses with nothing behind them. */
const NOTHING = [0xd0000000, 0xe1234000, 0xfed40000];

/** Code of a VP as it is put together. */
class Program {
  readonly lines: string[] = [];
  readonly random: Random;
  readonly vp: number;
  readonly vps: number;
  /** Shared by all programs of a guest: how many IPIs each VP will get. */
  readonly ipis: number[];
  #labels = 0;

  constructor(random: Random, vp: number, vps: number, ipis: number[]) {
    this.random = random;
    this.vp = vp;
    this.vps = vps;
    this.ipis = ipis;
  }

  add(...lines: string[]): void {
    this.lines.push(...lines);
  }
  below(count: number): number {
    return this.random.below(count);
  }
  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }
  label(): string {
    return `l${this.vp}_${this.#labels++}`;
  }
  /** A register that carries values from snippet to snippet. */
  value(): string {
    return this.pick(["rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]);
  }
  /** Mixes RAX into a value register. */
  keep(): void {
    const to = this.value();
    this.add(`rol ${to}, 7`, `add ${to}, rax`);
  }
  /** Offset into the block's data area. */
  place(room = 256): number {
    return 0x400 + 8 * this.below((STACK_FROM - 0x400 - room) / 8);
  }
}

type Snippet = (p: Program) => void;

/** Ports that answer the same whenever they are asked, and which VP may use them. */
function port(p: Program): number {
  const free = [0x80, 0xed, 0x1234, 0xfffc];
  const own = [[0x3ff, 0x402], [0xa1, 0x402], [0x4d0], []][Math.min(p.vp, 3)];
  return p.pick([...free, ...own]);
}

const ports: Snippet = (p) => {
  const number = port(p);
  for (let k = 1 + p.below(4); k > 0; k--) {
    const accumulator = number < 0x400 || number === 0x402 ? "al" : p.pick(["al", "ax", "eax"]);
    p.add(`mov rax, ${p.value()}`, `mov edx, ${number}`);
    if (number < 0x100 && p.below(2)) {
      p.add(p.below(2) ? `in ${accumulator}, ${number}` : `out ${number}, ${accumulator}`);
    } else if (number !== 0x402 && p.below(2)) p.add(`out dx, ${accumulator}`);
    else p.add(`in ${accumulator}, dx`);
    p.keep();
  }
};

/** VP 0 writes letters to the serial port, VP 1 digits and signs to the debug port. */
const output: Snippet = (p) => {
  if (p.vp > 1) return ports(p);
  const [port, first, count] = p.vp === 0 ? [0x3f8, 0x40, 0x40] : [0x402, 0x20, 0x20];
  p.add(`mov edx, ${port}`);
  if (p.below(2)) {
    p.add(`mov rax, ${p.value()}`, `and eax, ${count - 1}`, `or eax, ${first}`, "out dx, al");
  } else {
    const at = p.place();
    const text = Array.from({ length: 1 + p.below(12) }, () => first + p.below(count));
    text.forEach((byte, k) => p.add(`mov byte [rbp + ${at + k}], ${byte}`));
    p.add(`lea rsi, [rbp + ${at}]`, `mov ecx, ${text.length}`, "rep outsb");
  }
};

const stringPorts: Snippet = (p) => {
  const size = p.pick(["b", "w", "d"]);
  const bytes = { b: 1, w: 2, d: 4 }[size]!;
  const count = 1 + p.below(9);
  const at = p.place() + (p.below(2) ? 0 : 3);
  const backward = p.below(4) === 0;
  p.add(`mov edx, ${p.pick([0x80, 0x1234])}`, `mov ecx, ${count}`, backward ? "std" : "cld");
  p.add(`lea rsi, [rbp + ${at + (backward ? bytes * (count - 1) : 0)}]`, "mov rdi, rsi");
  const direction = p.pick(["ins", "outs"]);
  p.add(p.below(4) ? `rep ${direction}${size}` : `${direction}${size}`, "cld");
  p.add("lea rax, [rcx + rsi]", "add rax, rdi");
  p.keep();
};

const cmos: Snippet = (p) => {
  if (p.vp !== 0) return ports(p);
  // Registers from 50 on are plain memory.
  p.add(`mov al, ${0x50 + p.below(0x20)}`, "out 0x70, al");
  if (p.below(2)) p.add(`mov rax, ${p.value()}`, "out 0x71, al");
  p.add("in al, 0x71", "movzx eax, al");
  p.keep();
};

const nothing: Snippet = (p) => {
  const [value, other] = [p.value(), p.value()];
  p.add(`mov edi, ${p.pick(NOTHING) + 8 * p.below(256)}`, `mov rax, ${value}`, `mov rcx, ${other}`);
  const operations = [
    ["mov [rdi], rax"],
    ["mov [rdi + 3], eax"],
    ["mov byte [rdi], 5"],
    ["mov rax, [rdi]"],
    ["mov ax, [rdi + 2]"],
    ["movzx eax, byte [rdi]"],
    ["movsx rax, word [rdi + 1]"],
    ["add [rdi], rax"],
    ["sub eax, [rdi]"],
    ["xor rax, [rdi]"],
    ["inc dword [rdi]"],
    ["not qword [rdi]"],
    ["xchg [rdi], rax"],
    ["lock xadd [rdi], rcx"],
    ["lock cmpxchg [rdi], rcx"],
    ["lock or dword [rdi], 0x55"],
    ["test [rdi], ecx"],
    ["cmp [rdi], rcx"],
    ["bt dword [rdi], 3"],
    ["push qword [rdi]", "pop rax"],
    ["stosd", "stosb"],
    ["mov esi, edi", `lea rdi, [rbp + ${p.place()}]`, `mov ecx, ${1 + p.below(5)}`, "rep movsb"],
    [`lea rsi, [rbp + ${p.place()}]`, `mov ecx, ${1 + p.below(5)}`, "rep movsd"],
    [`mov ecx, ${1 + p.below(4)}`, "rep stosq"],
    ["mov esi, edi", "lodsw"],
    ["scasb"],
  ];
  const chosen = p.pick(operations);
  p.add(...chosen);
  if (/^(add|sub|xor|inc|not|test|cmp|bt|lock|scas)/.test(chosen[0])) {
    // The flags that the operation defines.
    p.add("pushfq", "pop rdx", `and edx, ${chosen[0].startsWith("bt") || /or |xor|test/.test(chosen[0]) ? 1 : 0x8d5}`);
    p.add("add rax, rdx");
  }
  p.keep();
};

/** The I/O APIC: VP 1's, or VP 0's when it is alone. Its entries stay masked. */
const ioapic: Snippet = (p) => {
  if (p.vp !== Math.min(1, p.vps - 1)) return nothing(p);
  const register = 0x10 + 2 * p.below(24);
  p.add("mov edi, 0xfec00000", `mov dword [rdi], ${register}`, `mov rax, ${p.value()}`);
  p.add("and eax, 0x20ff", "or eax, 0x10000", "mov [rdi + 0x10], eax");
  if (p.below(2)) p.add("or dword [rdi + 0x10], 0x10000");
  p.add("mov eax, [rdi + 0x10]", "and eax, 0x1efff");
  p.keep();
};

const leaves: Snippet = (p) => {
  const leaf = p.pick([
    0,
    1,
    7,
    0xd,
    0x16,
    0x17,
    0x20000000,
    0x40000000,
    0x40000001,
    0x40000003,
    0x40000080,
    0x40000081,
  ])
    .toString();
  p.add(`mov eax, ${p.below(3) ? leaf : 0x80000000 + p.below(0x22)}`, `mov ecx, ${p.below(3)}`, "push rbx", "cpuid");
  p.add("add eax, ebx", "rol eax, 3", "add eax, ecx", "rol eax, 3", "add eax, edx", "pop rbx");
  p.keep();
};

const crashMsr: Snippet = (p) => {
  const msr = 0x40000100 + p.below(5);
  p.add(`mov ecx, ${msr}`);
  if (p.below(3)) p.add(`mov rax, ${p.value()}`, "mov rdx, rax", "shr rdx, 32", "wrmsr");
  p.add(`mov ecx, ${p.below(6) ? msr : 0x40000105}`, "rdmsr", "shl rdx, 32", "or rax, rdx");
  p.keep();
};

/** MSRs that nobody has: #GP, whose handler notes vector and error code and skips the two bytes. */
const unknownMsr: Snippet = (p) => {
  p.add(`mov ecx, ${p.pick([0x1234, 0xc0001234, 0x4b564d00, 0x40000200])}`, `mov rax, ${p.value()}`, "xor edx, edx");
  p.add(p.pick(["rdmsr", "wrmsr"]));
};

/** MSRs of the processor and of the hypervisor that keep what is written. */
const ownMsr: Snippet = (p) => {
  const msr = p.pick([0xc0000100, 0xc0000102, 0x174, 0xc0000103]);
  p.add(`mov ecx, ${msr}`, `mov rax, ${p.value()}`, "xor edx, edx", "wrmsr", "xor eax, eax", "rdmsr");
  p.keep();
  p.add("mov ecx, 0x40000002", "rdmsr"); // VP index
  p.keep();
};

const fault: Snippet = (p) => {
  p.add(p.pick(["ud2", "int3\n nop", "int 0x30"]));
};

/** Hypercalls: registers, addresses, and codes that nobody knows; all about the caller itself. */
const hypercall: Snippet = (p) => {
  const kind = p.below(6);
  const input = 0x200;
  p.add(`mov eax, ${HYPERCALL_PAGE}`, `lea rdx, [rbp + ${input}]`, `lea r8, [rbp + ${input + 0x100}]`);
  p.add(`mov qword [rdx], -1`);
  if (kind === 0) { // HvCallGetVpRegisters of RSP's neighbours: VpIndex, and one that does not exist
    p.add(
      "mov dword [rdx + 8], 0xfffffffe",
      "mov dword [rdx + 12], 0",
      `mov dword [rdx + 16], ${p.pick([0x90003, 0x00020007, 0x12345])}`,
    );
    p.add("mov rcx, 0x100000050", "call rax", `add rax, [rbp + ${input + 0x100}]`);
  } else if (kind === 1) { // HvCallGetVpIndexFromApicId
    p.add("mov qword [rdx + 8], 0", `mov dword [rdx + 16], ${p.below(p.vps + 1)}`);
    p.add("mov rcx, 0x10000009a", "call rax");
  } else if (kind === 2) { // HvCallSignalEvent and HvCallPostMessage to connections that nobody has, fast and slow
    p.add(`mov edx, ${0x1000 + p.below(16)}`, "xor r8d, r8d", "mov rcx, 0x1005d", "call rax");
  } else if (kind === 3) { // control words that are refused
    p.add(
      `mov rcx, ${p.pick(["0x7777", "0x80000050", "0x50", "0x1000100000050", "0x20050", "0x100000009b"])}`,
      "call rax",
    );
  } else if (kind === 4) { // a buffer over a page's end, and a misaligned one
    p.add(`lea rdx, [rbp + ${p.pick([0xff8, 0x201])}]`, "mov rcx, 0x100000050", "call rax");
  } else { // HvCallModifyVtlProtectionMask of the caller's own VTL
    p.add("mov dword [rdx + 8], 0xf", "mov dword [rdx + 12], 0", "mov qword [rdx + 16], 0x100");
    p.add("mov rcx, 0x10000000c", "call rax");
  }
  p.keep();
};

const ipi: Snippet = (p) => {
  const target = p.below(p.vps);
  p.ipis[target]++;
  p.add(`lock inc dword [abs ${BLOCKS + target * BLOCK_BYTES + 0x10}]`, "mov edi, 0xfee00000");
  p.add("pushfq", "cli", `mov dword [rdi + 0x310], ${target} << 24`, "mov dword [rdi + 0x300], 0x4040", "popfq");
};

/** HLT until the local APIC's timer has interrupted. */
const timer: Snippet = (p) => {
  const [wait, done] = [p.label(), p.label()];
  p.add("mov edi, 0xfee00000", "mov byte [rbp + 0x18], 0", "mov dword [rdi + 0x3e0], 0xb");
  p.add("mov dword [rdi + 0x320], 0x41", `mov dword [rdi + 0x380], ${1 + p.below(2000)}`);
  p.add(`${wait}: cli`, "cmp byte [rbp + 0x18], 0", `jne ${done}`, "sti", "hlt", `jmp ${wait}`, `${done}: sti`);
};

const priority: Snippet = (p) => {
  p.add("cli", "mov edi, 0xfee00000", `mov eax, ${16 * (1 + p.below(3)) + p.below(16)}`);
  p.add(p.below(2) ? "mov [rdi + 0x80], eax" : "shr eax, 4\n mov cr8, rax", "mov rax, cr8", "add eax, [rdi + 0x80]");
  p.keep();
  p.add("xor eax, eax", "mov cr8, rax", "sti");
};

const compute: Snippet = (p) => {
  for (let k = 2 + p.below(8); k > 0; k--) {
    const [a, b] = [p.value(), p.value()];
    const at = p.place();
    p.add(p.pick([
      `add ${a}, ${b}`,
      `imul ${a}, ${b}`,
      `xor ${a}, ${b}`,
      `rol ${a}, ${1 + p.below(63)}`,
      `lea ${a}, [${a} + 4 * ${b} + ${p.below(1000)}]`,
      `mov [rbp + ${at}], ${a}`,
      `xor ${a}, [rbp + ${at}]`,
      `movq xmm${p.below(8)}, ${a}`,
      `paddb xmm${p.below(8)}, xmm${p.below(8)}`,
      `movdqu [rbp + ${at}], xmm${p.below(8)}`,
      `movq ${a}, xmm${p.below(8)}`,
      `bswap ${a}`,
    ]));
  }
};

/** What every VP does at least once, so that its exits are of enough kinds. */
const CERTAIN: readonly Snippet[] = [ports, stringPorts, nothing, nothing, leaves, crashMsr, timer, hypercall, ipi];
const SNIPPETS: readonly Snippet[] = [
  ...CERTAIN,
  ports,
  output,
  cmos,
  ioapic,
  nothing,
  crashMsr,
  unknownMsr,
  ownMsr,
  fault,
  priority,
  compute,
  compute,
];

/** Snippets of a VP, in a random order, the certain ones among them. */
function choose(random: Random): Snippet[] {
  const chosen = [...CERTAIN, ...Array.from({ length: 14 }, () => SNIPPETS[random.below(SNIPPETS.length)])];
  for (let k = chosen.length - 1; k > 0; k--) {
    const other = random.below(k + 1);
    [chosen[k], chosen[other]] = [chosen[other], chosen[k]];
  }
  return chosen;
}

/** The source of a random guest. */
export function randomGuestSource(seed: number, vps: number): string {
  const random = Random.seeded(seed);
  const ipis = new Array<number>(vps).fill(0);
  const programs = Array.from({ length: vps }, (_, vp) => new Program(random, vp, vps, ipis));
  for (const p of programs) {
    for (const register of ["rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]) {
      p.add(`mov ${register}, 0x${random.next().toString(16)}${random.next().toString(16).padStart(8, "0")}`);
    }
    // A floor under the number of exits, whatever the rest comes to.
    for (let k = 0; k < 6; k++) p.add("in al, 0x80", "out 0x80, al");
    for (const snippet of choose(random)) snippet(p);
  }
  return `
        default rel
        jmp boot
${trampoline()}
boot:   ${
    gates({ 3: "fault3", 6: "fault6", 13: "fault13", 0x30: "fault48", 0x40: "ipi", 0x41: "timer", 0xff: "spurious" })
  }
        lea rsi, [ap_start]
        mov edi, ${TRAMPOLINE}
        mov ecx, ap_end - ap_start
        rep movsb
        mov ecx, 0x40000000
        mov eax, 1
        mov edx, 0x80000000
        wrmsr
        mov ecx, 0x40000001
        mov eax, ${HYPERCALL_PAGE} + 1
        xor edx, edx
        wrmsr
        mov ebx, 1
.next:  cmp ebx, ${vps}
        jae long_mode
        mov edi, 0xfee00000
        mov eax, ebx
        shl eax, 24
        mov [rdi + 0x310], eax
        mov dword [rdi + 0x300], 0x4500
        mov [rdi + 0x310], eax
        mov dword [rdi + 0x300], 0x4600 + ${TRAMPOLINE >>> 12}
        inc ebx
        jmp .next

        ; every VP, in long mode
long_mode:
        mov edi, 0xfee00000
        mov ebp, [rdi + 0x20]
        shr ebp, 24
        imul ebp, ebp, ${BLOCK_BYTES}
        add ebp, ${BLOCKS}
        lea rsp, [rbp + ${BLOCK_BYTES}]
        lidt [abs ${0x20000 - 10}]
        mov dword [rdi + 0xf0], 0x1ff
        mov rax, 0
        mov cr2, rax
        sti
        ; an IPI that came before the local APIC was enabled is lost: what it was for is done now
        mov dword [rdi + 0x300], 0x44040
        mov eax, ebp
        sub eax, ${BLOCKS}
        shr eax, 14
        lea rcx, [table]
        mov rax, [rcx + 8 * rax]
        jmp rax

ipi:    push rax
        xor eax, eax
        xchg eax, [rbp + 0x10]
        add [rbp + 0x14], eax
        mov eax, 0xfee00000
        mov dword [rax + 0xb0], 0
        pop rax
        iretq
timer:  push rax
        mov byte [rbp + 0x18], 1
        mov eax, 0xfee00000
        mov dword [rax + 0xb0], 0
        pop rax
        iretq
spurious: iretq
        ; notes vector and error code; #UD and #GP skip the two bytes of the instruction
fault3: push 0
        push 3
        jmp noted
fault48: push 0
        push 0x30
        jmp noted
fault6: push 0
        push 6
        jmp skip
fault13: push 13
skip:   add qword [rsp + 16], 2
noted:  push rax
        mov rax, [rbp + 0x20]
        rol rax, 9
        xor rax, [rsp + 8]
        xor rax, [rsp + 16]
        add rax, [rsp + 24]
        mov [rbp + 0x20], rax
        pop rax
        add rsp, 16
        iretq

        align 8
table:  ${programs.map((_, vp) => `dq vp${vp}`).join("\n        ")}
${programs.map((p) => vpCode(p)).join("\n")}
`;
}

/** A VP's code: its snippets, then it waits for the IPIs that it is sent, and halts. */
function vpCode(p: Program): string {
  return `
vp${p.vp}:
        ${p.lines.join("\n        ")}
        mov [rbp + 0x28], rax
        xor eax, eax
.wait:  cli
        cmp dword [rbp + 0x14], ${p.ipis[p.vp]}
        jae .end
        sti
        hlt
        jmp .wait
.end:   xor eax, eax
        hlt
        jmp .end
`;
}

/** What an AP executes from real mode to `long_mode`; position-independent but for the page it is copied to. */
function trampoline(): string {
  return `
ap_start:
        bits 16
        cli
        mov ax, cs
        mov ds, ax
        o32 lgdt [ap_gdt - ap_start]
        mov eax, 0x620
        mov cr4, eax
        mov eax, 0x1000
        mov cr3, eax
        mov ecx, 0xc0000080
        mov eax, 0xd01
        xor edx, edx
        wrmsr
        mov eax, 0x80050033
        mov cr0, eax
        jmp dword 8:${TRAMPOLINE} + (ap_long - ap_start)
        bits 64
ap_long:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        mov ss, eax
        mov eax, long_mode
        jmp rax
ap_gdt: dw 23
        dd 0x8000
ap_end:
`;
}

/** Assembles a random guest: a flat long-mode image for address 100000. */
export function randomGuest(seed: number, vps: number): Uint8Array {
  return assemble(randomGuestSource(seed, vps), { origin: ORIGIN, bits: 64 }).bytes;
}

/** Registers that a guest can see, as ranges of `CpuState`: general, segments, tables, control, debug, MSRs; x87 and SSE. */
const REGISTERS: readonly (readonly [name: string, from: number, to: number])[] = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"].map((name, k) => [name, k * 8, k * 8 + 8] as const),
  ...Array.from({ length: 8 }, (_, k) => [`r${k + 8}`, 64 + k * 8, 72 + k * 8] as const),
  ["rip", CpuState.at.rip, CpuState.at.rip + 8],
  ["rflags", CpuState.at.rflags, CpuState.at.rflags + 8],
  ["segments and tables", CpuState.at.es, CpuState.at.cr0],
  ["control registers", CpuState.at.cr0, CpuState.at.dr0],
  ["debug registers", CpuState.at.dr0, CpuState.at.star],
  ["MSRs", CpuState.at.star, CpuState.at.apic_base],
  ["x87 and SSE", CpuState.at.fx, CpuState.at.fx + 512],
];

/** What a random guest has left behind, by name: the registers of each VP, each VP's block, its output, the rest of RAM. */
export function outcome(machine: Machine, text: string): Record<string, string> {
  const { u8 } = machine.memory;
  const hex = (from: number, to: number) =>
    [...u8.subarray(from, to)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const result: Record<string, string> = {};
  for (let vp = 0; vp < machine.config.vps; vp++) {
    const state = machine.map.cpuStates + vp * CpuState.size;
    for (const [name, from, to] of REGISTERS) result[`vp${vp} ${name}`] = hex(state + from, state + to);
    const block = BLOCKS + vp * BLOCK_BYTES;
    result[`vp${vp} IPIs, faults`] = hex(block + 0x10, block + 0x30);
    result[`vp${vp} memory`] = hash(u8.subarray(block + 0x30, block + STACK_FROM));
  }
  // Page tables have accessed bits, which depend on nothing but the code; stacks hold what interrupts left there.
  result["other memory"] = hash(u8.subarray(0, 0x70000)) + hash(u8.subarray(0x80000, BLOCKS));
  result["serial port"] = [...text].filter((c) => c >= "@").join("");
  result["debug port"] = [...text].filter((c) => c < "@").join("");
  return result;
}

/** FNV-1a over the 32-bit words of whole words of memory, in hexadecimal. */
function hash({ buffer, byteOffset, byteLength }: Uint8Array): string {
  const words = new Int32Array(buffer, byteOffset, byteLength >>> 2);
  let value = 0x811c9dc5;
  for (let k = 0; k < words.length; k++) value = Math.imul(value ^ words[k], 0x01000193);
  return (value >>> 0).toString(16);
}

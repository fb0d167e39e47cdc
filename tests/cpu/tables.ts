/**
 * Assembler text of descriptor tables, gates and task-state segments for guests in tests (Intel SDM volume 3, figures 3-8,
 * 6-2 and 8-2; AMD64 APM volume 2, chapter 4).
 *
 * @module
 */

/** Access bytes: present, DPL 0 unless named otherwise, accessed bit clear. */
export const CODE0 = 0x9a;
/** Data at level 0. */
export const DATA0 = 0x92;
/** Code at level 3. */
export const CODE3 = 0xfa;
/** Data at level 3. */
export const DATA3 = 0xf2;
/** An available 32-bit (64-bit) TSS. */
export const TSS32 = 0x89;
/** An available 16-bit TSS. */
export const TSS16 = 0x81;
/** A local descriptor table. */
export const LDT = 0x82;
/** An interrupt gate of 32 (64) bits. */
export const INTERRUPT32 = 0x8e;
/** A trap gate of 32 (64) bits. */
export const TRAP32 = 0x8f;
/** An interrupt gate of 16 bits. */
export const INTERRUPT16 = 0x86;
/** A call gate of 32 (64) bits. */
export const CALL32 = 0x8c;
/** A call gate of 16 bits. */
export const CALL16 = 0x84;
/** A task gate. */
export const TASK_GATE = 0x85;
/** Added to an access byte: usable from level 3. */
export const DPL3 = 0x60;

/** Flags: 32-bit, granular; 16-bit bytes; 64-bit code. */
export const FLAT32 = 0xc;
/** 32-bit, byte-granular. */
export const BYTES32 = 0x4;
/** 16-bit, byte-granular. */
export const BYTES16 = 0x0;
/** 64-bit code, granular. */
export const LONG = 0xa;

/** An 8-byte descriptor of a segment. `base` is an expression of the assembler. */
export function segment(access: number, flags: number, base: string | number = 0, limit = 0xfffff): string {
  return `dw ${limit & 0xffff}, (${base}) & 0xffff
  db ((${base}) >> 16) & 0xff, ${access}, ${flags << 4 | limit >> 16}, ((${base}) >> 24) & 0xff`;
}

/** An 8-byte gate to `selector`:`offset`; `count` parameters. */
export function gate(access: number, selector: number, offset: string | number = 0, count = 0): string {
  return `dw (${offset}) & 0xffff, ${selector}
  db ${count}, ${access}
  dw ((${offset}) >> 16) & 0xffff`;
}

/** A 16-byte gate of long mode. */
export function gate64(access: number, selector: number, offset: string, ist = 0): string {
  return `${gate(access, selector, offset, ist)}
  dd 0, 0`;
}

/** An interrupt descriptor table: label `idt`, pointer `idtp`, vectors by number; the others are not present. */
export function idt(count: number, gates: Readonly<Record<number, string>>, entryBytes = 8): string {
  const entries = Array.from({ length: count }, (_, n) => gates[n] ?? (entryBytes === 16 ? "dq 0, 0" : "dq 0"));
  return `align 8
idt:
${entries.join("\n")}
idtp:
  dw ${count * entryBytes - 1}
  ${entryBytes === 16 ? "dq" : "dd"} idt`;
}

/** A global descriptor table: label `gdt`, pointer `gdtp`; entry n is selector 8n, entry 0 is null. */
export function gdt(entries: readonly string[], pointer: "dd" | "dq" = "dd"): string {
  return `align 8
gdt:
dq 0
${entries.join("\n")}
gdtend:
gdtp:
  dw gdtend - gdt - 1
  ${pointer} gdt`;
}

/** A 32-bit TSS with stack `esp0` of level 0, all ports below 100 open to every level. */
export function tss32(label: string, esp0: number, ss0 = 0x10): string {
  return `align 8
${label}:
  dd 0, ${esp0}, ${ss0}
  times 22 dd 0
  dw 0, 0x68
  times 0x20 db 0
  db 0xff`;
}

/** Limit of a TSS of {@linkcode tss32}. */
export const TSS32_LIMIT = 0x68 + 0x20;

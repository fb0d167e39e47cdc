/**
 * Encodes one instruction: picks the forms that its operands match and emits the bytes of each.
 *
 * Intel SDM volume 2, chapter 2 (instruction format); the order of prefixes is GNU as's: segment, address size, operand
 * size, repeat, lock, REX.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";
import { suggestion } from "../../memory/nearest_name.ts";
import { addressSizeOf, type DisplacementWidth, encodeAddress, type EncodedAddress, hexadecimal } from "./address.ts";
import type { Scope } from "./expression.ts";
import { type Form, type FormOperand, FORMS, NO_MODRM, REGISTER_DIGIT } from "./forms.ts";
import type { MemoryOperand, Operand } from "./operand.ts";
import { type Register, SEGMENT_NAMES, SEGMENT_PREFIXES } from "./registers.ts";

/** The mode that code is assembled for. */
export type Bits = 16 | 32 | 64;

/** Prefixes written before a mnemonic. */
export interface Prefixes {
  /** Number of the segment register, −1 for none. */
  segment: number;
  /** Forced operand size in bits, 0 for none. */
  operandSize: number;
  /** Forced address size in bits, 0 for none. */
  addressSize: number;
  /** `rep`, `repe` (f3) and `repne` (f2), 0 for none. */
  repeat: number;
  /** True with `lock`. */
  lock: boolean;
}

/** An instruction as written. */
export interface Instruction {
  /** The mnemonic in lower case. */
  readonly mnemonic: string;
  /** The prefixes. */
  readonly prefixes: Prefixes;
  /** The operands. */
  readonly operands: readonly Operand[];
  /** The mode. */
  readonly bits: Bits;
}

/** One way to encode an instruction. */
export interface Candidate {
  /** The form. */
  readonly form: Form;
  /** Room for the displacement. */
  readonly width: DisplacementWidth;
  /** Address size in bits; of a form without a memory operand the forced one or 0. */
  readonly addressSize: number;
}

/** What a candidate came out as. */
export interface Encoding {
  /** The bytes; of a misfit cut to their room. */
  readonly bytes: Uint8Array;
  /** Why a value does not fit, empty when all do. */
  readonly misfit: string;
}

const REX = 0x40;
const REX_W = 8;
const REX_R = 4;
const REX_B = 1;
const PREFIX_OPERAND_SIZE = 0x66;
const PREFIX_ADDRESS_SIZE = 0x67;
const PREFIX_LOCK = 0xf0;
const OPCODE_FWAIT = 0x9b;
const MOD_REGISTER = 0xc0;
/** Messages list at most this many forms. */
const FORMS_SHOWN_MAX = 4;

function memoryOf(operands: readonly Operand[]): MemoryOperand | undefined {
  return operands.find((operand) => operand.kind === "memory");
}

function matchesRegister(register: Register, { kind, size }: FormOperand): boolean {
  const general = register.class === "gpr" || register.class === "high";
  switch (kind) {
    case "r":
    case "rm":
    case "rr":
      return general && register.size === size;
    case "x":
    case "xr":
    case "xm":
      return register.class === "xmm";
    case "sreg":
      return register.class === "segment";
    case "creg":
      return register.class === "control";
    case "dreg":
      return register.class === "debug";
    case "sti":
      return register.class === "x87";
    case "st0":
      return register.class === "x87" && register.number === 0;
    case "al":
    case "ax":
    case "eax":
    case "rax":
      return register.class === "gpr" && register.number === 0 && register.size === size;
    case "cl":
      return register.class === "gpr" && register.number === 1 && register.size === 8;
    case "dx":
      return register.class === "gpr" && register.number === 2 && register.size === 16;
    default:
      return register.class === "segment" && SEGMENT_NAMES[register.number] === kind;
  }
}

function matchesMemory(memory: MemoryOperand, { kind, size }: FormOperand): boolean {
  const bare = memory.base === undefined && memory.index === undefined && !memory.relative;
  switch (kind) {
    case "rm":
    case "xm":
      return !memory.far && (memory.size === 0 || memory.size === size);
    case "m":
      return !memory.far && (size === 0 || memory.size === 0 || memory.size === size);
    case "moffs":
      return bare && !memory.far && (memory.size === 0 || memory.size === size);
    case "f": {
      // `far dword [x]` names the offset's size, `fword [x]` that of the whole pointer.
      if (memory.far) return memory.size === 0 || memory.size === size;
      return (memory.size === 48 && size === 32) || (memory.size === 80 && size === 64);
    }
    default:
      return false;
  }
}

function matchesOperand(operand: Operand, wanted: FormOperand, form: Form): boolean {
  switch (operand.kind) {
    case "register":
      return matchesRegister(operand.register, wanted);
    case "memory":
      return matchesMemory(operand, wanted);
    case "far":
      return wanted.kind === "p" && (operand.size === 0 || operand.size === wanted.size);
    case "immediate": {
      if (wanted.kind === "1" || wanted.kind === "3") {
        return operand.size === 0 && operand.value.constant && operand.value.evaluate(NOWHERE) === BigInt(wanted.kind);
      }
      if (wanted.kind === "rel") {
        if (operand.distance === "short" || operand.size === 8) return wanted.size === 8;
        return operand.size !== 0
          ? wanted.size === operand.size
          : operand.distance === "" || wanted.size !== 8 || form.addressSize !== 0;
      }
      if (wanted.slot !== "immediate" || wanted.kind === "p" || wanted.kind === "moffs") return false;
      return operand.distance === "" &&
        (operand.size === 0 || operand.size === form.operandSize || (operand.size === 8 && wanted.bits === 8));
    }
  }
}

/** Constant expressions ask for nothing. */
const NOWHERE: Scope = { here: 0n, origin: 0n, lookup: () => 0n };

function existsInMode(form: Form, bits: Bits): boolean {
  if (bits === 64) {
    const relative16 = form.operandSize === 16 && form.operands.some(({ kind }) => kind === "rel");
    return !form.legacy && form.addressSize !== 16 && !relative16 && !(form.default64 && form.operandSize === 32);
  }
  return !form.long && form.operandSize !== 64 && form.addressSize !== 64;
}

/** True when an operand or prefix tells the operand size, so that no default is needed. */
function tellsSize(instruction: Instruction): boolean {
  return instruction.prefixes.operandSize !== 0 || instruction.operands.some((operand) => {
    if (operand.kind === "register") return operand.register.class !== "segment";
    return operand.size !== 0 && !(operand.kind === "immediate" && operand.size === 8);
  });
}

function naturalSize(form: Form, bits: Bits): number {
  return bits === 64 ? (form.default64 ? 64 : 32) : bits;
}

function isNop(form: Form, instruction: Instruction): boolean {
  return form.notNop && instruction.bits === 64 && form.operandSize === 32 &&
    instruction.operands.every((operand) => operand.kind === "register" && operand.register.number === 0);
}

function describe(operand: Operand): string {
  switch (operand.kind) {
    case "register": {
      const { class: kind, size } = operand.register;
      return kind === "gpr" || kind === "high" ? `${size}-bit register` : `${kind} register`;
    }
    case "memory":
      return operand.size === 0 ? "memory" : `${operand.size}-bit memory`;
    case "immediate":
      return "number";
    case "far":
      return "far pointer";
  }
}

function noForm(instruction: Instruction, forms: readonly Form[]): BadInput {
  const inMode = forms.filter((form) => existsInMode(form, instruction.bits));
  if (inMode.length === 0) {
    return new BadInput(`"${instruction.mnemonic}" does not exist in ${instruction.bits}-bit mode`);
  }
  const given = instruction.operands.map(describe).join(", ") || "no operands";
  const shown = inMode.slice(0, FORMS_SHOWN_MAX).map(({ text }) => text).join("; ");
  const more = inMode.length > FORMS_SHOWN_MAX ? "; …" : "";
  return new BadInput(
    `"${instruction.mnemonic}" does not take ${given} in ${instruction.bits}-bit mode, expected ${shown}${more}`,
  );
}

function matchingForms(instruction: Instruction): Form[] {
  const forms = FORMS.get(instruction.mnemonic);
  if (forms === undefined) {
    throw new BadInput(
      `unknown instruction "${instruction.mnemonic}"${suggestion(instruction.mnemonic, FORMS.keys())}`,
    );
  }
  const { operands, bits, prefixes } = instruction;
  let matching = forms.filter((form) =>
    existsInMode(form, bits) && form.operands.length === operands.length &&
    (prefixes.operandSize === 0 || form.operandSize === 0 || form.operandSize === prefixes.operandSize) &&
    operands.every((operand, i) => matchesOperand(operand, form.operands[i], form)) && !isNop(form, instruction)
  );
  if (!tellsSize(instruction)) {
    matching = matching.filter((form) => !form.natural || form.operandSize === naturalSize(form, bits));
  }
  if (matching.length === 0) throw noForm(instruction, forms);
  const memoryAt = operands.findIndex((operand) => operand.kind === "memory");
  if (memoryAt >= 0) {
    const sizes = new Set(matching.map((form) => form.operands[memoryAt].size));
    if (sizes.size > 1) {
      throw new BadInput(`size of the memory operand is not told, expected byte, word, dword or qword before "["`);
    }
  }
  return matching;
}

function checkAddressSize(size: number, bits: Bits): void {
  if (size === 64 ? bits !== 64 : size === 16 && bits === 64) {
    throw new BadInput(`${size}-bit addresses do not exist in ${bits}-bit mode`);
  }
}

/**
 * Lists the ways to encode an instruction, in order of preference among equals.
 *
 * @param instruction The instruction.
 * @returns The candidates, at least one.
 * @throws {BadInput} When the mnemonic is unknown or no form takes the operands.
 */
export function candidatesOf(instruction: Instruction): Candidate[] {
  const { bits, prefixes } = instruction;
  const wide = instruction.operands.some((operand) =>
    operand.kind === "register" && operand.register.class === "gpr" && operand.register.size === 64
  );
  if (wide && bits !== 64) throw new BadInput(`64-bit registers do not exist in ${bits}-bit mode`);
  const forms = matchingForms(instruction);
  const memory = memoryOf(instruction.operands);
  if (prefixes.addressSize !== 0) checkAddressSize(prefixes.addressSize, bits);
  if (memory === undefined) {
    return forms.map((form) => ({ form, width: "least", addressSize: form.addressSize || prefixes.addressSize }));
  }
  const demanded = addressSizeOf(memory);
  if (demanded !== 0) checkAddressSize(demanded, bits);
  if (demanded !== 0 && prefixes.addressSize !== 0 && demanded !== prefixes.addressSize) {
    throw new BadInput(`address has ${demanded}-bit registers under a prefix for ${prefixes.addressSize} bits`);
  }
  const forced = demanded || prefixes.addressSize;
  const sizes = forced !== 0 ? [forced] : bits === 16 && !memory.displacement.constant ? [16, 32] : [bits];
  if (sizes.length === 1 && forced === 0 && bits === 16) {
    // A constant beyond 64 KiB is known to need a 32-bit address.
    const value = memory.displacement.evaluate(NOWHERE);
    if (value > 0xffffn) sizes[0] = 32;
  }
  const widths: DisplacementWidth[] = memory.displacement.constant || memory.relative ? ["least"] : ["byte", "full"];
  return forms.flatMap((form) =>
    sizes.flatMap((addressSize) => widths.map((width): Candidate => ({ form, width, addressSize })))
  );
}

/** Collects an instruction's parts before they are joined. */
class Parts {
  readonly opcode: number[] = [];
  readonly after: number[] = [];
  rex = 0;
  forceRex = false;
  high = false;
  misfit = "";
  address: EncodedAddress | undefined;

  note(misfit: string): void {
    if (this.misfit === "") this.misfit = misfit;
  }

  /** Notes a register operand and gives its low three bits. */
  register(register: Register, rexBit: number): number {
    if (register.number > 7 && register.class !== "high") this.rex |= rexBit;
    if (register.needsRex) this.forceRex = true;
    if (register.class === "high") this.high = true;
    return register.number & 7;
  }

  /** Appends a little-endian value of so many bits. */
  append(value: bigint, bits: number): void {
    const cut = BigInt.asUintN(bits, value);
    for (let shift = 0; shift < bits; shift += 8) this.after.push(Number(cut >> BigInt(shift) & 0xffn));
  }
}

/** Where a relative value stands and what it counts to. */
interface Relative {
  at: number;
  bits: number;
  target: bigint;
  operandSize: number;
}

function evaluate(expression: { evaluate(scope: Scope): bigint }, scope: Scope, parts: Parts): bigint {
  try {
    return expression.evaluate(scope);
  } catch (error) {
    // Values of labels are provisional until the passes settle; an error only counts if it stays.
    if (!(error instanceof BadInput)) throw error;
    parts.note(error.message);
    return 0n;
  }
}

/** Says why an immediate does not fit, or nothing. */
function immediateMisfit(value: bigint, wanted: FormOperand, form: Form): string {
  const extended = wanted.kind === "s" || wanted.kind === "b";
  const width = BigInt(extended ? form.operandSize : wanted.bits);
  const inRange = value >= -(1n << (width - 1n)) && value < 1n << width;
  const limit = 1n << BigInt(wanted.bits - 1);
  const signed = BigInt.asIntN(Number(width), value);
  if (inRange && (!extended || (signed >= -limit && signed < limit))) return "";
  return `value ${hexadecimal(value)} does not fit ${wanted.bits} bits${
    extended && wanted.bits > 8 ? " with sign" : ""
  }`;
}

function emitOperand(
  operand: Operand,
  wanted: FormOperand,
  candidate: Candidate,
  scope: Scope,
  bits: Bits,
  parts: Parts,
  relatives: Relative[],
): { reg?: number; rm?: number } {
  const { form } = candidate;
  if (operand.kind === "register") {
    if (wanted.slot === "implied") return {};
    const bit = wanted.slot === "reg" ? REX_R : REX_B;
    const number = parts.register(operand.register, bit);
    if (wanted.slot === "opcode") parts.opcode[parts.opcode.length - 1] += number;
    if (form.twice) return { reg: number, rm: parts.register(operand.register, REX_B) };
    return wanted.slot === "reg" ? { reg: number } : wanted.slot === "rm" ? { rm: number } : {};
  }
  if (operand.kind === "memory") {
    const value = evaluate(operand.displacement, scope, parts);
    if (wanted.kind === "moffs") {
      const room = 1n << BigInt(candidate.addressSize);
      if (value >= room || value < -(room >> 1n)) {
        parts.note(`address ${hexadecimal(value)} does not fit ${candidate.addressSize} bits`);
      }
      parts.append(value, candidate.addressSize);
      return {};
    }
    parts.address = encodeAddress(operand, value, candidate.addressSize, bits, candidate.width);
    parts.rex |= parts.address.rex;
    parts.note(parts.address.misfit);
    return {};
  }
  if (operand.kind === "far") {
    const offset = evaluate(operand.offset, scope, parts);
    const selector = evaluate(operand.selector, scope, parts);
    const room = 1n << BigInt(wanted.size);
    if (offset < 0n || offset >= room) parts.note(`offset ${hexadecimal(offset)} does not fit ${wanted.size} bits`);
    if (selector < 0n || selector > 0xffffn) parts.note(`selector ${hexadecimal(selector)} does not fit 16 bits`);
    parts.append(offset, wanted.size);
    parts.append(selector, 16);
    return {};
  }
  if (wanted.slot !== "immediate") return {};
  const value = evaluate(operand.value, scope, parts);
  if (wanted.kind === "rel") {
    relatives.push({ at: parts.after.length, bits: wanted.size, target: value, operandSize: form.operandSize || bits });
    parts.append(0n, wanted.size);
    return {};
  }
  parts.note(immediateMisfit(value, wanted, form));
  parts.append(value, wanted.bits);
  return {};
}

/** The segment that a reference uses without a prefix: SS with a stack or base pointer as base, else DS. */
function defaultSegment(memory: MemoryOperand): number {
  const { base, index, scale } = memory;
  const stackIndex = index?.number === 4 && scale === 1 && index.size !== 16;
  const bp16 = index?.size === 16 && index.number === 5;
  const name = stackIndex || bp16 || (base?.class === "gpr" && (base.number === 4 || base.number === 5)) ? "ss" : "ds";
  return SEGMENT_NAMES.indexOf(name);
}

/** The prefix bytes and the REX byte, in the order of emission. */
function prefixBytes(instruction: Instruction, candidate: Candidate, parts: Parts): number[] {
  const { form } = candidate;
  const { prefixes, bits } = instruction;
  const operandSize = form.operandSize || prefixes.operandSize;
  const memory = memoryOf(instruction.operands);
  const written = memory !== undefined && memory.segment !== defaultSegment(memory) ? memory.segment : -1;
  const segment = written >= 0 ? written : prefixes.segment;
  const sized = !form.no66 || form.operandSize === 0;
  const other = bits === 16 ? operandSize === 32 : operandSize === 16;
  const bytes: number[] = [];
  if (form.wait) bytes.push(OPCODE_FWAIT);
  if (segment >= 0) bytes.push(SEGMENT_PREFIXES[segment]);
  if (candidate.addressSize !== 0 && candidate.addressSize !== bits) bytes.push(PREFIX_ADDRESS_SIZE);
  if ((sized && other) || form.prefix === PREFIX_OPERAND_SIZE) bytes.push(PREFIX_OPERAND_SIZE);
  if (prefixes.repeat !== 0) bytes.push(prefixes.repeat);
  if (form.prefix !== 0 && form.prefix !== PREFIX_OPERAND_SIZE) bytes.push(form.prefix);
  if (prefixes.lock) bytes.push(PREFIX_LOCK);
  if (operandSize === 64 && !form.default64) parts.rex |= REX_W;
  if (parts.rex !== 0 || parts.forceRex) {
    if (bits !== 64) throw new BadInput("register exists only in 64-bit mode");
    if (parts.high) throw new BadInput("ah, ch, dh and bh cannot be used where a REX prefix is needed");
    bytes.push(REX | parts.rex);
  }
  return bytes;
}

function modrmBytes(form: Form, reg: number, rm: number, parts: Parts): number[] {
  if (form.digit === NO_MODRM) return [];
  const field = (form.digit === REGISTER_DIGIT ? reg : form.digit) << 3;
  const { address } = parts;
  if (address === undefined) return [MOD_REGISTER | field | rm];
  const bytes = [address.modrm | field];
  if (address.sib >= 0) bytes.push(address.sib);
  return bytes;
}

/** Fills in a value that counts from the instruction's end. */
function patch(bytes: number[], at: number, width: number, value: bigint): void {
  for (let i = 0; i < width / 8; i++) bytes[at + i] = Number(value >> BigInt(8 * i) & 0xffn);
}

/** The distance of a jump, wrapped as IP and EIP wrap, and why it does not fit. */
function distance(relative: Relative, end: bigint): { value: bigint; misfit: string } {
  const raw = relative.target - end;
  const wrap = BigInt(relative.operandSize);
  const wrapped = relative.operandSize < 64 && raw < 1n << wrap && raw > -(1n << wrap);
  const value = wrapped ? BigInt.asIntN(relative.operandSize, raw) : raw;
  const limit = 1n << BigInt(relative.bits - 1);
  const fits = value >= -limit && value < limit;
  return {
    value,
    misfit: fits ? "" : `target is ${value} bytes away, more than ${relative.bits} bits with sign can hold`,
  };
}

/**
 * Emits one candidate.
 *
 * @param instruction The instruction.
 * @param candidate One of its candidates.
 * @param scope Values of labels and addresses.
 * @returns The bytes, and why a value does not fit them if one does not.
 * @throws {BadInput} When registers and mode contradict each other.
 */
export function encodeCandidate(instruction: Instruction, candidate: Candidate, scope: Scope): Encoding {
  const { form } = candidate;
  const parts = new Parts();
  parts.opcode.push(...form.opcode);
  const relatives: Relative[] = [];
  let reg = 0;
  let rm = 0;
  instruction.operands.forEach((operand, i) => {
    const found = emitOperand(operand, form.operands[i], candidate, scope, instruction.bits, parts, relatives);
    reg = found.reg ?? reg;
    rm = found.rm ?? rm;
  });
  const bytes = prefixBytes(instruction, candidate, parts);
  bytes.push(...parts.opcode, ...modrmBytes(form, reg, rm, parts));
  const { address } = parts;
  const displacementAt = bytes.length;
  const displacementBits = (address?.displacementBytes ?? 0) * 8;
  for (let i = 0; i < displacementBits; i += 8) bytes.push(0);
  bytes.push(...form.tail);
  const afterAt = bytes.length;
  bytes.push(...parts.after);
  const end = scope.here + BigInt(bytes.length);
  if (address !== undefined) {
    const value = address.relative ? address.displacement - end : address.displacement;
    const limit = 1n << 31n;
    if (address.relative && (value < -limit || value >= limit)) {
      parts.note("RIP-relative target is more than 2 GiB away");
    }
    patch(bytes, displacementAt, displacementBits, BigInt.asUintN(64, value));
  }
  for (const relative of relatives) {
    const { value, misfit } = distance(relative, end);
    parts.note(misfit);
    patch(bytes, afterAt + relative.at, relative.bits, BigInt.asUintN(64, value));
  }
  return { bytes: Uint8Array.from(bytes), misfit: parts.misfit };
}

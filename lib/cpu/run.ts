/**
 * The run loop: finds the block at RIP, executes its instructions, and deals with what happens between blocks: attention,
 * interrupts, exceptions, single steps, exits.
 *
 * The frequent forms are in one switch; its labels are literals (see hot_ops.ts for the names), because only literal
 * labels become a jump table. What they have in common is written out: V8 inlines so much and no more, and the helper
 * functions that would say it once cost these forms a tenth with Deno 2.4.
 *
 * Everything else is called through `exec`. RIP is written at the end of a block, before a call of `exec` (where it already
 * points behind the instruction), and put back when the instruction faults or exits.
 *
 * @module
 */

import { type Block, linearIndex, restUnchanged } from "./block_cache.ts";
import { type Cpu, SLOW_TRACE } from "./cpu.ts";
import { afterInstruction, beforeInstruction } from "./debug.ts";
import { raiseUndefined } from "./exec/undefined.ts";
import { VECTOR_GP } from "./faults.ts";
import { Insn } from "./insn.ts";
import { boundary, finish, GO_ON, stopped, thrownOut } from "./run_events.ts";
import * as state from "./state.ts";

const at = state.CpuState.at;
const RIP = at.rip >> 2;
const RFLAGS = at.rflags >> 2;
const CS_BASE = at.cs >> 2;
const CS_LIMIT = (at.cs >> 2) + 2;
const SHADOW = at.interrupt_shadow >> 2;
const ATTENTION = at.attention >> 2;
const FLAG_ZF = state.FLAG_ZF;

/** Shift counts as 64-bit values. */
const SHIFTS = BigUint64Array.from({ length: 64 }, (_, n) => BigInt(n));
/** Byte values as 64-bit values. */
const BYTES = BigUint64Array.from({ length: 256 }, (_, n) => BigInt(n));
/** Stands for "no instruction yet": a fetch fault leaves RIP where it is. */
const NO_INSTRUCTION = new Insn(raiseUndefined);

/** Makes RIP that of the instruction at `offset` from ripLo:ripHi, plus a displacement. */
function branch(s32: Int32Array, ripLo: number, ripHi: number, offset: number, displacement: number): void {
  const next = (ripLo + offset) | 0;
  const lo = (next + displacement) | 0;
  s32[RIP] = lo;
  s32[RIP + 1] = ripHi + (displacement >> 31) + ((next >>> 0) < (ripLo >>> 0) ? 1 : 0) +
    ((lo >>> 0) < (displacement >>> 0) ? 1 : 0);
}

/** Executes at most `instructions` instructions; see `Cpu.run`. */
export function run(cpu: Cpu, instructions: number): number {
  const { s32, g32, g64, g8, v32, v64, lz, lz64, m32, m8 } = cpu;
  const e32 = cpu.ea32;
  const byLinear = cpu.blocks.byLinear;
  let left = instructions;
  cpu.stop = 0;
  cpu.updateSlow();
  for (;;) {
    let i = NO_INSTRUCTION;
    let k = 0;
    let traced = false;
    let stepping = false;
    cpu.blockLo = s32[RIP];
    cpu.blockHi = s32[RIP + 1];
    try {
      while (left > 0) {
        let most = left;
        if ((cpu.slow | s32[ATTENTION]) !== 0) {
          i = NO_INSTRUCTION;
          k = 0;
          cpu.blockLo = s32[RIP];
          cpu.blockHi = s32[RIP + 1];
          const waiting = boundary(cpu);
          if (waiting !== GO_ON) return finish(cpu, instructions - left, waiting);
          if ((cpu.slow & SLOW_TRACE) !== 0) {
            most = 1;
            stepping = true;
            cpu.blockLo = s32[RIP];
            cpu.blockHi = s32[RIP + 1];
            traced = (s32[RFLAGS] & state.FLAG_TF) !== 0;
            beforeInstruction(cpu);
            s32[RFLAGS] &= ~state.FLAG_RF;
            s32[SHADOW] = 0;
          }
        }
        const ripLo = s32[RIP];
        const ripHi = s32[RIP + 1];
        cpu.blockLo = ripLo;
        cpu.blockHi = ripHi;
        i = NO_INSTRUCTION;
        k = 0;
        let linearLo = ripLo;
        let linearHi = ripHi;
        if (!cpu.long64) {
          linearLo = (ripLo + s32[CS_BASE]) | 0;
          linearHi = 0;
        }
        let block: Block = byLinear[linearIndex(linearLo)];
        if (
          block.linearLo !== linearLo || block.linearHi !== linearHi || block.key !== cpu.blockKey ||
          ((m32[block.firstWord] ^ block.firstValue) & block.firstMask) !== 0 ||
          (block.wordCount > 1 && !restUnchanged(block, m32, m8)) ||
          (!cpu.long64 && (ripLo >>> 0) + block.total - 1 > (s32[CS_LIMIT] >>> 0))
        ) {
          block = cpu.findBlock(linearLo, linearHi);
        }
        cpu.codeLo = block.place - 15;
        cpu.codeSpan = block.length + 15;
        const insns = block.insns;
        const count = insns.length < most ? insns.length : most;
        body: do {
          i = insns[k++];
          switch (i.op) {
            case 0: { // every other instruction
              const next = (ripLo + i.next) | 0;
              s32[RIP] = next;
              s32[RIP + 1] = (next >>> 0) < (ripLo >>> 0) && cpu.long64 ? ripHi + 1 : ripHi;
              i.exec(cpu, i);
              if (cpu.stop !== 0) break body;
              break;
            }
            case 1: { // mov32rr
              const d = i.dst << 1;
              g32[d] = g32[i.src << 1];
              g32[d + 1] = 0;
              break;
            }
            case 2: { // mov64rr
              g64[i.dst] = g64[i.src];
              break;
            }
            case 3: { // mov32ri
              const d = i.dst << 1;
              g32[d] = i.immLo;
              g32[d + 1] = 0;
              break;
            }
            case 4: { // mov64ri
              g64[i.dst] = i.imm64;
              break;
            }
            case 5: { // mov32rm
              const d = i.dst << 1;
              const a = cpu.moveLoad32(i);
              if (cpu.stop !== 0) break body;
              g32[d] = a;
              g32[d + 1] = 0;
              break;
            }
            case 6: { // mov64rm
              cpu.moveLoad64(i);
              if (cpu.stop !== 0) break body;
              g64[i.dst] = v64[0];
              break;
            }
            case 7: { // mov32mr
              cpu.moveStore32(i, g32[i.src << 1]);
              if (cpu.stop !== 0) break body;
              break;
            }
            case 8: { // mov64mr
              v64[0] = g64[i.src];
              cpu.moveStore64(i);
              if (cpu.stop !== 0) break body;
              break;
            }
            case 9: { // mov32mi
              cpu.moveStore32(i, i.immLo);
              if (cpu.stop !== 0) break body;
              break;
            }
            case 10: { // mov64mi
              v64[0] = i.imm64;
              cpu.moveStore64(i);
              if (cpu.stop !== 0) break body;
              break;
            }
            case 11: { // add32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a + b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 1; // LZ_ADD32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 12: { // add64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a + b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 2; // LZ_ADD64
              g64[i.dst] = r;
              break;
            }
            case 13: { // add32ri
              const d = i.dst << 1;
              const a = g32[d];
              const b = i.immLo;
              const r = (a + b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 1; // LZ_ADD32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 14: { // add64ri
              const a = g64[i.dst];
              const b = i.imm64;
              const r = BigInt.asUintN(64, a + b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 2; // LZ_ADD64
              g64[i.dst] = r;
              break;
            }
            case 15: { // sub32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a - b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 3; // LZ_SUB32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 16: { // sub64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a - b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 4; // LZ_SUB64
              g64[i.dst] = r;
              break;
            }
            case 17: { // sub32ri
              const d = i.dst << 1;
              const a = g32[d];
              const b = i.immLo;
              const r = (a - b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 3; // LZ_SUB32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 18: { // sub64ri
              const a = g64[i.dst];
              const b = i.imm64;
              const r = BigInt.asUintN(64, a - b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 4; // LZ_SUB64
              g64[i.dst] = r;
              break;
            }
            case 19: { // and32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a & b) | 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 20: { // and64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a & b);
              lz64[2] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g64[i.dst] = r;
              break;
            }
            case 21: { // and32ri
              const d = i.dst << 1;
              const a = g32[d];
              const b = i.immLo;
              const r = (a & b) | 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 22: { // and64ri
              const a = g64[i.dst];
              const b = i.imm64;
              const r = BigInt.asUintN(64, a & b);
              lz64[2] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g64[i.dst] = r;
              break;
            }
            case 23: { // or32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a | b) | 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 24: { // or64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a | b);
              lz64[2] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g64[i.dst] = r;
              break;
            }
            case 27: { // xor32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a ^ b) | 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 28: { // xor64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a ^ b);
              lz64[2] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              g64[i.dst] = r;
              break;
            }
            case 31: { // cmp32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a - b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 3; // LZ_SUB32
              break;
            }
            case 32: { // cmp64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a - b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 4; // LZ_SUB64
              break;
            }
            case 33: { // cmp32ri
              const d = i.dst << 1;
              const a = g32[d];
              const b = i.immLo;
              const r = (a - b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 3; // LZ_SUB32
              break;
            }
            case 34: { // cmp64ri
              const a = g64[i.dst];
              const b = i.imm64;
              const r = BigInt.asUintN(64, a - b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 4; // LZ_SUB64
              break;
            }
            case 35: { // test32rr
              const d = i.dst << 1;
              const a = g32[d];
              const b = g32[i.src << 1];
              const r = (a & b) | 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              break;
            }
            case 36: { // test64rr
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a & b);
              lz64[2] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              break;
            }
            case 37: { // test32ri
              const d = i.dst << 1;
              const a = g32[d];
              const b = i.immLo;
              const r = (a & b) | 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              break;
            }
            case 38: { // test64ri
              const a = g64[i.dst];
              const b = i.imm64;
              const r = BigInt.asUintN(64, a & b);
              lz64[2] = r;
              cpu.lzOp = 5; // LZ_LOGIC
              break;
            }
            case 39: { // inc32
              cpu.keepCf();
              const d = i.dst << 1;
              const a = g32[d];
              const r = (a + 1) | 0;
              lz[0] = a;
              lz[2] = 1;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 6; // LZ_INC32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 40: { // inc64
              cpu.keepCf();
              const a = g64[i.dst];
              const r = BigInt.asUintN(64, a + 1n);
              lz64[0] = a;
              lz64[1] = 1n;
              lz64[2] = r;
              cpu.lzOp = 7; // LZ_INC64
              g64[i.dst] = r;
              break;
            }
            case 41: { // dec32
              cpu.keepCf();
              const d = i.dst << 1;
              const a = g32[d];
              const r = (a - 1) | 0;
              lz[0] = a;
              lz[2] = 1;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 8; // LZ_DEC32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 42: { // dec64
              cpu.keepCf();
              const a = g64[i.dst];
              const r = BigInt.asUintN(64, a - 1n);
              lz64[0] = a;
              lz64[1] = 1n;
              lz64[2] = r;
              cpu.lzOp = 9; // LZ_DEC64
              g64[i.dst] = r;
              break;
            }
            case 43: { // lea32
              cpu.ea(i);
              const d = i.dst << 1;
              g32[d] = e32[0];
              g32[d + 1] = 0;
              break;
            }
            case 44: { // lea64
              cpu.ea(i);
              const d = i.dst << 1;
              g32[d] = e32[0];
              g32[d + 1] = e32[1];
              break;
            }
            case 45: { // jz, 64-bit code
              const off = (cpu.lzOp !== 0 ? (lz[4] | lz[5]) === 0 : (s32[RFLAGS] & FLAG_ZF) !== 0) ? i.immLo : 0;
              branch(s32, ripLo, ripHi, i.next, off);
              break;
            }
            case 46: { // jnz, 64-bit code
              const off = (cpu.lzOp !== 0 ? (lz[4] | lz[5]) !== 0 : (s32[RFLAGS] & FLAG_ZF) === 0) ? i.immLo : 0;
              branch(s32, ripLo, ripHi, i.next, off);
              break;
            }
            case 47: { // jcc, 64-bit code
              const off = (cpu.condition(i.opcode & 15)) ? i.immLo : 0;
              branch(s32, ripLo, ripHi, i.next, off);
              break;
            }
            case 48: { // jmp, 64-bit code
              const off = i.immLo;
              branch(s32, ripLo, ripHi, i.next, off);
              break;
            }
            case 49: { // call, 64-bit code
              const next = (ripLo + i.next) | 0;
              const nextHi = ripHi + ((next >>> 0) < (ripLo >>> 0) ? 1 : 0);
              v32[0] = next;
              v32[1] = nextHi;
              cpu.push64();
              const lo = (next + i.immLo) | 0;
              s32[RIP] = lo;
              s32[RIP + 1] = nextHi + i.immHi + ((lo >>> 0) < (i.immLo >>> 0) ? 1 : 0);
              break;
            }
            case 50: { // ret, 64-bit code
              cpu.pop64();
              const top = v32[1] >> 15;
              if (top !== 0 && top !== -1) {
                cpu.moveStack(-8);
                cpu.raise(VECTOR_GP, 0);
              }
              s32[RIP] = v32[0];
              s32[RIP + 1] = v32[1];
              break;
            }
            case 51: { // push64
              v64[0] = g64[i.dst];
              cpu.push64();
              if (cpu.stop !== 0) break body;
              break;
            }
            case 52: { // pop64
              cpu.pop64();
              g64[i.dst] = v64[0];
              break;
            }
            case 53: { // shl32 by immediate
              const n = i.immLo & 31;
              if (n === 0) {
                g32[(i.dst << 1) + 1] = 0;
                break;
              }
              const d = i.dst << 1;
              const a = g32[d];
              const r = a << n;
              lz[0] = (a >>> (32 - n)) & 1;
              lz[1] = (r >>> 31) ^ lz[0];
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 10; // LZ_SHIFT
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 54: { // shl64 by immediate
              const n = i.immLo & 63;
              if (n === 0) break;
              const d = i.dst;
              lz[0] = (g32[(d << 1) + ((64 - n) >> 5)] >>> ((64 - n) & 31)) & 1;
              const r = BigInt.asUintN(64, g64[d] << SHIFTS[n]);
              lz64[2] = r;
              lz[1] = (lz[5] >>> 31) ^ lz[0];
              cpu.lzOp = 10; // LZ_SHIFT
              g64[d] = r;
              break;
            }
            case 55: { // shr32 by immediate
              const n = i.immLo & 31;
              if (n === 0) {
                g32[(i.dst << 1) + 1] = 0;
                break;
              }
              const d = i.dst << 1;
              const a = g32[d];
              const r = (a >>> n) | 0;
              lz[0] = (a >>> (n - 1)) & 1;
              lz[1] = n === 1 ? a >>> 31 : 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 10; // LZ_SHIFT
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 56: { // shr64 by immediate
              const n = i.immLo & 63;
              if (n === 0) break;
              const d = i.dst;
              lz[0] = (g32[(d << 1) + ((n - 1) >> 5)] >>> ((n - 1) & 31)) & 1;
              const r = g64[d] >> SHIFTS[n];
              lz64[2] = r;
              lz[1] = n === 1 ? g32[(d << 1) + 1] >>> 31 : 0;
              cpu.lzOp = 10; // LZ_SHIFT
              g64[d] = r;
              break;
            }
            case 57: { // sar32 by immediate
              const n = i.immLo & 31;
              if (n === 0) {
                g32[(i.dst << 1) + 1] = 0;
                break;
              }
              const d = i.dst << 1;
              const a = g32[d];
              const r = a >> n;
              lz[0] = (a >> (n - 1)) & 1;
              lz[1] = 0;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 10; // LZ_SHIFT
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 58: { // sar64 by immediate
              const n = i.immLo & 63;
              if (n === 0) break;
              const d = i.dst;
              lz[0] = (g32[(d << 1) + ((n - 1) >> 5)] >>> ((n - 1) & 31)) & 1;
              const r = BigInt.asUintN(64, BigInt.asIntN(64, g64[d]) >> SHIFTS[n]);
              lz64[2] = r;
              lz[1] = 0;
              cpu.lzOp = 10; // LZ_SHIFT
              g64[d] = r;
              break;
            }
            case 59: { // imul32
              const a = g32[i.dst << 1];
              const b = g32[i.src << 1];
              const r = Math.imul(a, b);
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 11; // LZ_IMUL32
              g32[i.dst << 1] = r;
              g32[(i.dst << 1) + 1] = 0;
              break;
            }
            case 60: { // imul64
              const a = g64[i.dst];
              const b = g64[i.src];
              const r = BigInt.asUintN(64, a * b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 12; // LZ_IMUL64
              g64[i.dst] = r;
              break;
            }
            case 63: { // movzx8rr to 32 or 64 bits
              g64[i.dst] = BYTES[g8[i.rm8]];
              break;
            }
            case 64: { // movzx8rm to 32 or 64 bits
              const a = cpu.moveLoad8(i);
              if (cpu.stop !== 0) break body;
              g64[i.dst] = BYTES[a];
              break;
            }
            case 65: { // movsxdrr to 64 bits
              const d = i.dst << 1;
              const a = g32[i.src << 1];
              g32[d] = a;
              g32[d + 1] = a >> 31;
              break;
            }
            case 66: { // movsxdrm to 64 bits
              const d = i.dst << 1;
              const a = cpu.load32(i);
              g32[d] = a;
              g32[d + 1] = a >> 31;
              break;
            }
            case 67: { // add32rm
              const d = i.dst << 1;
              const b = cpu.load32(i);
              const a = g32[d];
              const r = (a + b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 1; // LZ_ADD32
              g32[d] = r;
              g32[d + 1] = 0;
              break;
            }
            case 68: { // add64rm
              cpu.load64(i);
              const a = g64[i.dst];
              const b = v64[0];
              const r = BigInt.asUintN(64, a + b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 2; // LZ_ADD64
              g64[i.dst] = r;
              break;
            }
            case 69: { // cmp32rm
              const b = cpu.load32(i);
              const a = g32[i.dst << 1];
              const r = (a - b) | 0;
              lz[0] = a;
              lz[2] = b;
              lz[4] = r;
              lz[5] = r;
              cpu.lzOp = 3; // LZ_SUB32
              break;
            }
            case 70: { // cmp64rm
              cpu.load64(i);
              const a = g64[i.dst];
              const b = v64[0];
              const r = BigInt.asUintN(64, a - b);
              lz64[0] = a;
              lz64[1] = b;
              lz64[2] = r;
              cpu.lzOp = 4; // LZ_SUB64
              break;
            }
            case 71: { // pause
              cpu.pause();
              if (cpu.stop !== 0) break body;
              break;
            }
          }
        } while (k < count);
        left -= k;
        if (!i.ends) {
          const next = (ripLo + i.next) | 0;
          s32[RIP] = next;
          s32[RIP + 1] = (next >>> 0) < (ripLo >>> 0) && cpu.long64 ? ripHi + 1 : ripHi;
        }
        let reason = GO_ON;
        if (cpu.stop !== 0) {
          const stop = cpu.stop;
          reason = stopped(cpu, i);
          if ((stop & state.STOP_EXIT) !== 0) return finish(cpu, instructions - left - 1, reason);
        }
        if (stepping) {
          stepping = false;
          k = 0;
          cpu.updateSlow();
          afterInstruction(cpu, traced);
        }
        if (reason !== GO_ON) return finish(cpu, instructions - left, reason);
      }
      return finish(cpu, instructions - left, state.EXIT_NONE);
    } catch (thrown) {
      const completed = k > 0 ? k - 1 : 0;
      left -= completed;
      const reason = thrownOut(cpu, i, thrown);
      // A delivery counts as an instruction, so that a loop of faults uses up the budget.
      if (thrown === cpu.fault) left--;
      if (reason !== GO_ON) return finish(cpu, instructions - left, reason);
    }
  }
}

/**
 * HvCallTranslateVirtualAddress and its Ex form: a walk of VTL0's page tables on VTL2's behalf.
 *
 * The result is about the walk alone: a guest-physical address without memory behind it is a valid translation, which is
 * how VTL2 finds devices. GPA_UNMAPPED and the access codes are about page-table pages.
 *
 * @module
 */
import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE } from "../../cpu/bus.ts";
import type { Cpu } from "../../cpu/cpu.ts";
import { PF_PRESENT, PF_RESERVED, translation, walk } from "../../cpu/paging.ts";
import { CpuState } from "../../cpu/state.ts";
import { HvStatus, HypercallCode, TranslateGvaResultCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvCacheType } from "../../layout/hyperv/constants/messages.ts";
import {
  TranslateGvaControlFlagsX64,
  TranslateGvaResult,
  TranslateVirtualAddressExOutputX64,
  TranslateVirtualAddressOutput,
  TranslateVirtualAddressX64,
} from "../../layout/hyperv/hypercalls.ts";
import { MAP_GPA } from "../partition.ts";
import { checkPartition, checkVtl, type HypercallContext, resolveInputVtl, resolveVp } from "./context.ts";
import type { SimpleCall } from "./definition.ts";

const { Success, AccessDenied, InvalidParameter, InvalidVpIndex } = HvStatus.values;
const result = TranslateGvaResultCode.values;
const flag = TranslateGvaControlFlagsX64.mask;
/** Shift of DPL in SS attributes, and CPL 3. */
const DPL_SHIFT = 5;
const CPL_USER = 3;

/** What a translation came to. */
export interface GvaTranslation {
  /** A TranslateGvaResultCode. */
  readonly code: number;
  /** Guest page number, when `code` is SUCCESS. */
  readonly gpn: number;
}

/** What ends a walk: a page-table page without memory, or one that VTL0 may not access. */
class TableAccess {
  readonly code: number;
  constructor(code: number) {
    this.code = code;
  }
}

/**
 * Translates a page of VTL0's linear addresses on processor `vp`.
 *
 * @param flags `TranslateGvaControlFlagsX64`.
 * @param gvaPage Linear address divided by 4096.
 */
export function translateGva(context: HypercallContext, vp: number, flags: bigint, gvaPage: bigint): GvaTranslation {
  const gva = BigInt.asUintN(64, gvaPage << 12n);
  const walker = walkerOf(context, vp);
  const [lo, hi] = [Number(BigInt.asIntN(32, gva)), Number(BigInt.asIntN(32, gva >> 32n))];
  const exempt = (flags & flag.privilege_exempt) !== 0n;
  const user = !exempt && asUser(walker, flags);
  const mark = (flags & flag.set_page_table_bits) !== 0n;
  const accesses: number[] = [];
  if (!exempt && (flags & flag.validate_execute) !== 0n) accesses.push(ACCESS_EXECUTE);
  if (!exempt && (flags & flag.validate_read) !== 0n) accesses.push(ACCESS_READ);
  if ((flags & flag.validate_write) !== 0n && !exempt) accesses.push(ACCESS_WRITE);
  if (accesses.length === 0) accesses.push(ACCESS_READ);
  try {
    // Bits are set only when every access is allowed.
    for (const access of accesses) {
      const error = walk(walker, lo, hi, access, user, false);
      if (error >= 0) return { code: failure(error), gpn: 0 };
    }
    if (mark) { for (const access of accesses) walk(walker, lo, hi, access, user, true); }
  } catch (thrown) {
    if (thrown instanceof TableAccess) return { code: thrown.code, gpn: 0 };
    throw thrown;
  }
  return { code: result.SUCCESS, gpn: translation.gpn };
}

/** The result code of a walk that ended with a page fault's error code. */
function failure(error: number): number {
  if ((error & PF_RESERVED) !== 0) return result.INVALID_PAGE_TABLE_FLAGS;
  return (error & PF_PRESENT) !== 0 ? result.PRIVILEGE_VIOLATION : result.PAGE_NOT_PRESENT;
}

/** Whether the access is checked as one of CPL 3: as the flags say, else by the processor's own CPL. */
function asUser(walker: Cpu, flags: bigint): boolean {
  if ((flags & flag.supervisor_access) !== 0n) return false;
  if ((flags & flag.user_access) !== 0n) return true;
  const attributes = walker.s32[(CpuState.at.ss + 12) >>> 2] >>> 16;
  return (attributes >>> DPL_SHIFT & 3) === CPL_USER;
}

/** The part of a processor that a walk needs, over VTL0's state of `vp`; it works whether or not that VP runs here. */
function walkerOf(context: HypercallContext, vp: number): Cpu {
  const { partition } = context.facilities;
  const { memory } = partition;
  const v64 = new BigUint64Array(1);
  const refuse = (gpn: number, code: number): never => {
    throw new TableAccess(partition.vtl0Page(gpn, 0) === -1 ? result.GPA_UNMAPPED : code);
  };
  const gpnOf = (lo: number, hi: number) => (lo >>> 12) + (hi >>> 0) * 0x10_0000;
  const parts = {
    s32: new Int32Array(memory.buffer, partition.cpuState(vp), CpuState.size >>> 2),
    m32: memory.i32,
    v64,
    v32: new Int32Array(v64.buffer),
    bus: {
      page: (gpn: number, access: number) => {
        const offset = partition.vtl0Page(gpn, access === ACCESS_WRITE ? MAP_GPA.WRITE : MAP_GPA.READ);
        return offset < 0 ? -1 : offset;
      },
      mmioRead: (_cpu: Cpu, lo: number, hi: number) => refuse(gpnOf(lo, hi), result.GPA_NO_READ_ACCESS),
      mmioWrite: (_cpu: Cpu, lo: number, hi: number) => refuse(gpnOf(lo, hi), result.GPA_NO_WRITE_ACCESS),
    },
  };
  // A walk looks at nothing else of a processor (lib/cpu/paging.ts).
  return parts as unknown as Cpu;
}

/** Checks a call's header and translates; a number is the status of a call that fails. */
function translate(context: HypercallContext, input: DataView): number | GvaTranslation {
  const at = TranslateVirtualAddressX64.at;
  const partition = checkPartition(input, at.partition_id);
  if (partition !== Success) return partition;
  const vp = resolveVp(context, input.getUint32(at.vp_index, true));
  if (vp < 0) return InvalidVpIndex;
  const flags = input.getBigUint64(at.control_flags, true);
  if ((flags & (TranslateGvaControlFlagsX64.reserved | flag.shadow_stack)) !== 0n) return InvalidParameter;
  const vtl = resolveInputVtl(context, TranslateGvaControlFlagsX64.get(flags, "input_vtl_value"));
  if (vtl < 0) return InvalidParameter;
  const allowed = checkVtl(context, vp, vtl);
  if (allowed !== Success) return allowed;
  // VTL2's code is an agent's: it has no page tables.
  if (vtl !== 0) return AccessDenied;
  return translateGva(context, vp, flags, input.getBigUint64(at.gva_page, true));
}

/** The TranslateGvaResult word of a translation. */
function resultWord(context: HypercallContext, { code, gpn }: GvaTranslation): bigint {
  const { partition } = context.facilities;
  const ram = code === result.SUCCESS && partition.isRam(gpn);
  const { HvCacheTypeWriteBack, HvCacheTypeUncached } = HvCacheType.values;
  return TranslateGvaResult.make({
    result_code: code,
    cache_type: ram ? HvCacheTypeWriteBack : HvCacheTypeUncached,
    overlay_page: code === result.SUCCESS && partition.isOverlay(gpn),
  });
}

/** HvCallTranslateVirtualAddress. */
export const translateVirtualAddress: SimpleCall = {
  code: HypercallCode.values.HvCallTranslateVirtualAddress,
  vtl2Only: false,
  inputBytes: TranslateVirtualAddressX64.size,
  outputBytes: TranslateVirtualAddressOutput.size,
  run: (context, input, output) => {
    const translated = translate(context, input);
    if (typeof translated === "number") return translated;
    output.setBigUint64(TranslateVirtualAddressOutput.at.translation_result, resultWord(context, translated), true);
    output.setBigUint64(TranslateVirtualAddressOutput.at.gpa_page, BigInt(translated.gpn), true);
    return Success;
  },
};

/** HvCallTranslateVirtualAddressEx. Nothing here needs a hypervisor's own intercept: event_info stays zero. */
export const translateVirtualAddressEx: SimpleCall = {
  code: HypercallCode.values.HvCallTranslateVirtualAddressEx,
  vtl2Only: false,
  inputBytes: TranslateVirtualAddressX64.size,
  outputBytes: TranslateVirtualAddressExOutputX64.size,
  run: (context, input, output) => {
    const translated = translate(context, input);
    if (typeof translated === "number") return translated;
    output.setBigUint64(
      TranslateVirtualAddressExOutputX64.at["translation_result.result"],
      resultWord(context, translated),
      true,
    );
    output.setBigUint64(TranslateVirtualAddressExOutputX64.at.gpa_page, BigInt(translated.gpn), true);
    return Success;
  },
};

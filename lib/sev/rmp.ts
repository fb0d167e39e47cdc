/**
 * The reverse map table and the instructions that change it (AMD64 Architecture Programmer's Manual volume 2, section
 * 15.36; Linux `arch/x86/virt/svm/sev.c`; sev.md, section e).
 *
 * The table lies in shared memory: one 16-byte entry for each 4 KiB page, in the form of {@linkcode RMP_ENTRY_RAW}. Its
 * undocumented half holds the permissions of the four VMPLs, four bits each from bit 0 on, in bit 16 whether a processor
 * runs the VMSA in the page, and in bit 63 the lock that a
 * processor holds while it works on a 2 MiB region. Whether a page is part of a large one is told by the entry of the
 * 2 MiB-aligned address; everything else by the page's own entry, which an operation on a large page writes for all of
 * its 512 pages.
 *
 * A page's system-physical address is its byte offset in the machine's memory. Where the references leave the order of
 * failures open (h16), input comes first, then what the page is, then sizes, then permissions.
 *
 * @module
 */
import { NPF_EXITINFO1 } from "../layout/sev/exit_info.ts";
import { RMP_GEOMETRY, RmpResult, VMPL } from "../layout/sev/constants/rmp.ts";
import { RMP_RAW_LO, RMPADJUST_ATTRS } from "../layout/sev/rmp.ts";
import { type MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";

const { SUCCESS, FAIL_INPUT, FAIL_PERMISSION, FAIL_INUSE, FAIL_OVERLAP, FAIL_SIZEMISMATCH } = RmpResult.values;
const { ENTRY_SIZE, PAGE_SIZE_2M } = RMP_GEOMETRY;

/** 4 KiB pages of a large page. */
export const PAGES_PER_LARGE_PAGE = 512;
/** Offset of the word that holds the permissions in an entry. */
const PERMISSIONS = 8;
/** Offset of the word that holds the lock. */
const LOCK = 12;
/** The lock, in the highest word of an entry. */
const LOCKED: number = 0x8000_0000 | 0;
/** Bits of a VMPL's permissions. */
const PERMISSION_BITS = 4;
/** A processor runs the VMSA in this page; above the permissions of the four levels. */
const IN_USE = 1 << 16;
/** Every permission of a VMPL. */
const PERMISSIONS_ALL = 0xf;
/** Attempts to take a lock that another processor holds, before a guest's instruction gives up waiting. */
const LOCK_SPINS_MAX = 1 << 20;

/** Permission to read, as in RMPADJUST_ATTRS moved down to bit 0. */
export const PERMISSION_READ = 1;
/** Permission to write. */
export const PERMISSION_WRITE = 2;
/** Permission to execute at CPL 3. */
export const PERMISSION_USER_EXECUTE = 4;
/** Permission to execute at CPL 0 to 2. */
export const PERMISSION_SUPERVISOR_EXECUTE = 8;

const ASSIGNED = RMP_RAW_LO.low.assigned;
const LARGE = RMP_RAW_LO.low.pagesize;
const IMMUTABLE = RMP_RAW_LO.low.immutable;
const VMSA_HIGH = RMP_RAW_LO.high.vmsa;
const VALIDATED_HIGH = RMP_RAW_LO.high.validated;

/** What a check of an access says. */
export const RMP_CHECK = {
  /** The access may go on. */
  PASS: 0,
  /** Host: #PF with the RMP bit. Guest: #NPF with the RMP bit; with ENC as well when the access had the C bit. */
  OWNER: 1,
  /** Guest: #VC 404, the page is not validated. */
  NOT_VALIDATED: 2,
  /** Guest: #NPF with the RMP and VMPL bits. */
  VMPL: 3,
  /** Guest: #NPF with the RMP and SIZEM bits; PVALIDATE or RMPADJUST of a 4 KiB page in a large one. */
  SIZE: 4,
} as const;

/** One of {@linkcode RMP_CHECK}. */
export type RmpCheck = (typeof RMP_CHECK)[keyof typeof RMP_CHECK];

/** What RMPUPDATE makes of a page. */
export interface RmpState {
  /** To a guest, or to the firmware with `asid` 0; false makes the page shared. */
  readonly assigned: boolean;
  /** Guest, or 0. */
  readonly asid: number;
  /** Guest page number that the page backs. */
  readonly gpn: number;
  /** PAGE_SIZE_4K or PAGE_SIZE_2M of RMP_GEOMETRY. */
  readonly size: number;
  /** No later RMPUPDATE. */
  readonly immutable: boolean;
}

/** What an entry says, for listings, checks and dumps. */
export interface RmpEntry extends RmpState {
  /** Accepted by the guest. */
  readonly validated: boolean;
  /** Holds a VMSA. */
  readonly vmsa: boolean;
  /** Permissions of VMPL 0 to 3, PERMISSION_* bits. */
  readonly permissions: readonly number[];
}

/** What a guest's access is made for. */
export interface GuestAccess {
  /** The guest. */
  readonly asid: number;
  /** Its privilege level. */
  readonly vmpl: number;
  /** PERMISSION_* bits that the access needs. */
  readonly permissions: number;
}

/** What PVALIDATE answers. */
export interface PvalidateResult {
  /** Not PASS: the instruction faults instead of answering. */
  readonly check: RmpCheck;
  /** EAX, an `RmpResult`. */
  readonly result: number;
  /** CF: the page was in that state already. */
  readonly unchanged: boolean;
}

/** What RMPADJUST and RMPQUERY answer. */
export interface RmpadjustResult {
  /** Not PASS: the instruction faults instead of answering. */
  readonly check: RmpCheck;
  /** EAX, an `RmpResult`. */
  readonly result: number;
}

/** Where a reverse map table lies and what it covers. */
export interface RmpPlace {
  /** Byte offset of the entry of page 0, a multiple of 16. */
  readonly base: number;
  /** Pages covered, from address 0 on. */
  readonly pages: number;
  /** First page and number of pages of what RMPUPDATE may never change: the table itself. */
  readonly own?: { readonly first: number; readonly count: number };
}

/** Bytes of a table for `pages` pages. */
export function rmpBytes(pages: number): number {
  return pages * ENTRY_SIZE;
}

/** EXITINFO1 bits that a failed check of a guest's access sets; 0 for a check that is no nested page fault. */
export function npfBits(check: RmpCheck, encrypted: boolean): bigint {
  const { rmp, enc, vmpl, sizem } = NPF_EXITINFO1.mask;
  const base = rmp | (encrypted ? enc : 0n);
  switch (check) {
    case RMP_CHECK.OWNER:
      return base;
    case RMP_CHECK.VMPL:
      return base | vmpl;
    case RMP_CHECK.SIZE:
      return base | sizem;
    default:
      return 0n;
  }
}

/** A reverse map table. Methods take the caller's port, because entries are shared. */
export class Rmp {
  readonly memory: MachineMemory;
  readonly place: RmpPlace;

  /** The table at `place` of `memory`. */
  constructor(memory: MachineMemory, place: RmpPlace) {
    this.memory = memory;
    this.place = place;
  }

  /** Whether the table has an entry for page `page`. */
  covers(page: number): boolean {
    return page >= 0 && page < this.place.pages;
  }

  // --- Reading ------------------------------------------------------------------------------------------------------

  /** Whether page `page` is part of a large one. */
  isLarge(port: MemoryPort, page: number): boolean {
    return (port.load32(this.#entry(firstOfLarge(page))) & LARGE) !== 0;
  }

  /** Whether page `page` belongs to a guest or to the firmware. */
  isAssigned(port: MemoryPort, page: number): boolean {
    return this.#assigned(port, page);
  }

  /** What the entry of `page` says. */
  entry(port: MemoryPort, page: number): RmpEntry {
    const at = this.#entry(page);
    const lo = port.load32(at);
    const hi = port.load32(at + 4);
    const permissions = port.load32(at + PERMISSIONS);
    return {
      assigned: (lo & ASSIGNED) !== 0,
      asid: asidOf(hi),
      gpn: gpnOf(lo, hi),
      size: this.isLarge(port, page) ? PAGE_SIZE_2M : 0,
      immutable: (lo & IMMUTABLE) !== 0,
      validated: (hi & VALIDATED_HIGH) !== 0,
      vmsa: (hi & VMSA_HIGH) !== 0,
      permissions: [0, 1, 2, 3].map((level) => (permissions >>> (PERMISSION_BITS * level)) & PERMISSIONS_ALL),
    };
  }

  // --- Checks of accesses (e6) --------------------------------------------------------------------------------------

  /**
   * A write by the host, or by a guest without SNP, or an update of accessed and dirty bits. `large` when the mapping
   * that it goes through covers the whole 2 MiB region: that must not hold any assigned page.
   */
  checkHostWrite(port: MemoryPort, page: number, large = false): RmpCheck {
    if (!this.covers(page)) return RMP_CHECK.PASS;
    if (!large) return this.#assigned(port, page) ? RMP_CHECK.OWNER : RMP_CHECK.PASS;
    const first = firstOfLarge(page);
    const end = Math.min(first + PAGES_PER_LARGE_PAGE, this.place.pages);
    for (let each = first; each < end; each++) if (this.#assigned(port, each)) return RMP_CHECK.OWNER;
    return RMP_CHECK.PASS;
  }

  /** A write by a device: the IOMMU refuses it on an assigned page. */
  checkDmaWrite(port: MemoryPort, page: number): RmpCheck {
    return this.checkHostWrite(port, page);
  }

  /** An SNP guest's access with the C bit to guest page `gpn`, which page `page` backs. */
  checkGuestPrivate(port: MemoryPort, page: number, gpn: number, access: GuestAccess): RmpCheck {
    const at = this.#entry(page);
    const lo = port.load32(at);
    const hi = port.load32(at + 4);
    if ((lo & ASSIGNED) === 0 || asidOf(hi) !== access.asid || gpnOf(lo, hi) !== gpn) return RMP_CHECK.OWNER;
    if ((hi & VALIDATED_HIGH) === 0) return RMP_CHECK.NOT_VALIDATED;
    const granted = port.load32(at + PERMISSIONS) >>> (PERMISSION_BITS * access.vmpl);
    return (granted & access.permissions) === access.permissions ? RMP_CHECK.PASS : RMP_CHECK.VMPL;
  }

  /** An SNP guest's write without the C bit. Its reads are not checked. */
  checkGuestSharedWrite(port: MemoryPort, page: number): RmpCheck {
    return this.checkHostWrite(port, page);
  }

  /** Whether `page` may be run as a VMSA of guest `asid`: assigned, validated, with the VMSA bit. */
  isVmsa(port: MemoryPort, page: number, asid: number): boolean {
    if (!this.covers(page)) return false;
    const at = this.#entry(page);
    const hi = port.load32(at + 4);
    return (port.load32(at) & ASSIGNED) !== 0 && asidOf(hi) === asid &&
      (hi & (VMSA_HIGH | VALIDATED_HIGH)) === (VMSA_HIGH | VALIDATED_HIGH);
  }

  /** Notes that a processor runs the VMSA in `page`; false when another one does already: VMRUN fails with VMSA_BUSY. */
  tryEnter(port: MemoryPort, page: number): boolean {
    return (port.or32(this.#entry(page) + PERMISSIONS, IN_USE) & IN_USE) === 0;
  }

  /** Ends what {@linkcode Rmp.tryEnter} began. */
  leave(port: MemoryPort, page: number): void {
    port.and32(this.#entry(page) + PERMISSIONS, ~IN_USE);
  }

  // --- Instructions of the host -------------------------------------------------------------------------------------

  /** RMPUPDATE. Returns an `RmpResult`. */
  rmpupdate(port: MemoryPort, page: number, state: RmpState): number {
    const count = state.size === PAGE_SIZE_2M ? PAGES_PER_LARGE_PAGE : 1;
    if (page % count !== 0 || !this.covers(page) || !this.covers(page + count - 1)) return FAIL_INPUT;
    if (this.#isOwn(page, count)) return FAIL_PERMISSION;
    if (!this.#tryLock(port, page)) return FAIL_INUSE;
    const result = this.#update(port, page, count, state);
    this.#unlock(port, page);
    return result;
  }

  #update(port: MemoryPort, page: number, count: number, state: RmpState): number {
    const wasLarge = this.isLarge(port, page);
    for (let each = page; each < page + count; each++) {
      if ((port.load32(this.#entry(each)) & IMMUTABLE) !== 0) return FAIL_PERMISSION;
      if ((port.load32(this.#entry(each) + PERMISSIONS) & IN_USE) !== 0) return FAIL_INUSE;
    }
    if (count === 1 && wasLarge) return FAIL_OVERLAP;
    if (count > 1 && !wasLarge) {
      for (let each = page; each < page + count; each++) if (this.#assigned(port, each)) return FAIL_OVERLAP;
    }
    for (let each = 0; each < count; each++) {
      const large = state.assigned && count > 1 && each === 0;
      this.#write(port, page + each, state, state.gpn + each, large);
    }
    return SUCCESS;
  }

  #write(port: MemoryPort, page: number, state: RmpState, gpn: number, large: boolean): void {
    const at = this.#entry(page);
    const flags = state.assigned ? ASSIGNED | (large ? LARGE : 0) | (state.immutable ? IMMUTABLE : 0) : 0;
    const { lo, hi } = state.assigned ? pack(gpn, state.asid) : { lo: 0, hi: 0 };
    port.store32(at + PERMISSIONS, state.assigned ? PERMISSIONS_ALL : 0);
    port.store64(at, (BigInt(hi >>> 0) << 32n) | BigInt((lo | flags) >>> 0));
  }

  /** PSMASH: one large page becomes 512 small ones with consecutive guest addresses. Returns an `RmpResult`. */
  psmash(port: MemoryPort, page: number): number {
    if (page % PAGES_PER_LARGE_PAGE !== 0 || !this.covers(page)) return FAIL_INPUT;
    if (this.#isOwn(page, PAGES_PER_LARGE_PAGE)) return FAIL_PERMISSION;
    if (!this.#tryLock(port, page)) return FAIL_INUSE;
    const at = this.#entry(page);
    const lo = port.load32(at);
    let result: number = SUCCESS;
    if ((lo & ASSIGNED) === 0 || (lo & IMMUTABLE) !== 0) result = FAIL_PERMISSION;
    else if ((lo & LARGE) === 0) result = FAIL_INPUT;
    else port.store32(at, lo & ~LARGE);
    this.#unlock(port, page);
    return result;
  }

  // --- Instructions of the guest ------------------------------------------------------------------------------------

  /**
   * PVALIDATE of guest page `gpn`, which page `page` backs, by VMPL0 at CPL 0.
   *
   * @param size What ECX asks for: 0 for 4 KiB, 1 for 2 MiB; anything else is bad input.
   * @param mappedPrivate Whether the linear address is mapped with the C bit.
   */
  pvalidate(
    port: MemoryPort,
    page: number,
    gpn: number,
    options: {
      readonly asid: number;
      readonly size: number;
      readonly validate: boolean;
      readonly mappedPrivate: boolean;
    },
  ): PvalidateResult {
    const { asid, size, validate, mappedPrivate } = options;
    if (size > 1 || !mappedPrivate) return answer(FAIL_INPUT);
    const first = size === 1 ? firstOfLarge(page) : page;
    const firstGpn = size === 1 ? firstOfLarge(gpn) : gpn;
    if (!this.covers(first)) return { ...answer(SUCCESS), check: RMP_CHECK.OWNER };
    this.#lock(port, first);
    try {
      const check = this.#checkOwner(port, first, firstGpn, asid);
      if (check !== RMP_CHECK.PASS) return { ...answer(SUCCESS), check };
      const large = this.isLarge(port, first);
      if (size === 1 && !large) return answer(FAIL_SIZEMISMATCH);
      if (size === 0 && large) return { ...answer(SUCCESS), check: RMP_CHECK.SIZE };
      return this.#validate(port, first, large ? PAGES_PER_LARGE_PAGE : 1, validate);
    } finally {
      this.#unlock(port, first);
    }
  }

  #validate(port: MemoryPort, first: number, count: number, validate: boolean): PvalidateResult {
    const already = (port.load32(this.#entry(first) + 4) & VALIDATED_HIGH) !== 0;
    if (already === validate) return { ...answer(SUCCESS), unchanged: true };
    for (let page = first; page < first + count; page++) {
      const at = this.#entry(page) + 4;
      const hi = port.load32(at);
      port.store32(at, validate ? hi | VALIDATED_HIGH : hi & ~VALIDATED_HIGH);
    }
    return answer(SUCCESS);
  }

  /**
   * RMPADJUST by software at `access.vmpl`, CPL 0.
   *
   * @param attributes RDX, {@linkcode RMPADJUST_ATTRS}.
   */
  rmpadjust(
    port: MemoryPort,
    page: number,
    gpn: number,
    options: { readonly asid: number; readonly vmpl: number; readonly size: number; readonly attributes: bigint },
  ): RmpadjustResult {
    const { asid, vmpl, size, attributes } = options;
    const target = RMPADJUST_ATTRS.get(attributes, "target_vmpl");
    if (size > 1 || target >= VMPL.COUNT || (attributes & RMPADJUST_ATTRS.reserved) !== 0n) return answer(FAIL_INPUT);
    if (target <= vmpl) return answer(FAIL_PERMISSION);
    const first = size === 1 ? firstOfLarge(page) : page;
    if (!this.covers(first)) return { ...answer(SUCCESS), check: RMP_CHECK.OWNER };
    this.#lock(port, first);
    try {
      const check = this.#checkUsable(port, first, size === 1 ? firstOfLarge(gpn) : gpn, asid);
      if (check !== RMP_CHECK.PASS) return { ...answer(SUCCESS), check };
      const large = this.isLarge(port, first);
      if (size === 1 && !large) return answer(FAIL_SIZEMISMATCH);
      if (size === 0 && large) return { ...answer(SUCCESS), check: RMP_CHECK.SIZE };
      return this.#adjust(port, first, large ? PAGES_PER_LARGE_PAGE : 1, { vmpl, target, attributes });
    } finally {
      this.#unlock(port, first);
    }
  }

  #adjust(
    port: MemoryPort,
    first: number,
    count: number,
    request: { readonly vmpl: number; readonly target: number; readonly attributes: bigint },
  ): RmpadjustResult {
    const { vmpl, target, attributes } = request;
    const wanted = Number(attributes >> BigInt(RMPADJUST_ATTRS.shift.read)) & PERMISSIONS_ALL;
    const vmsa = (attributes & RMPADJUST_ATTRS.mask.vmsa) !== 0n;
    const entry = this.#entry(first);
    const own = port.load32(entry + PERMISSIONS) >>> (PERMISSION_BITS * vmpl);
    const wasVmsa = (port.load32(entry + 4) & VMSA_HIGH) !== 0;
    if ((wanted & ~own) !== 0 || (vmpl !== VMPL.MOST_PRIVILEGED && vmsa !== wasVmsa)) return answer(FAIL_PERMISSION);
    const shift = PERMISSION_BITS * target;
    for (let page = first; page < first + count; page++) {
      const at = this.#entry(page);
      const permissions = port.load32(at + PERMISSIONS);
      port.store32(at + PERMISSIONS, (permissions & ~(PERMISSIONS_ALL << shift)) | (wanted << shift));
      if (vmpl !== VMPL.MOST_PRIVILEGED) continue;
      const hi = port.load32(at + 4);
      port.store32(at + 4, vmsa ? hi | VMSA_HIGH : hi & ~VMSA_HIGH);
    }
    return answer(SUCCESS);
  }

  /** RMPQUERY by software at `vmpl`: the attributes are those of `target`, in the form of RMPADJUST_ATTRS. */
  rmpquery(
    port: MemoryPort,
    page: number,
    gpn: number,
    options: { readonly asid: number; readonly vmpl: number; readonly target: number },
  ): RmpadjustResult & { readonly attributes: bigint; readonly size: number } {
    const { asid, vmpl, target } = options;
    const nothing = { attributes: 0n, size: 0 };
    if (target >= VMPL.COUNT) return { ...answer(FAIL_INPUT), ...nothing };
    if (target < vmpl) return { ...answer(FAIL_PERMISSION), ...nothing };
    if (!this.covers(page)) return { ...answer(SUCCESS), ...nothing, check: RMP_CHECK.OWNER };
    const check = this.#checkUsable(port, page, gpn, asid);
    if (check !== RMP_CHECK.PASS) return { ...answer(SUCCESS), ...nothing, check };
    const { permissions, vmsa, size } = this.entry(port, page);
    const { shift, mask } = RMPADJUST_ATTRS;
    const attributes = BigInt(target) | (BigInt(permissions[target]) << BigInt(shift.read)) | (vmsa ? mask.vmsa : 0n);
    return { ...answer(SUCCESS), attributes, size };
  }

  // --- Launch -------------------------------------------------------------------------------------------------------

  /** What the firmware does with a page at launch: it belongs to the guest, is validated, and may hold a VMSA. */
  launch(port: MemoryPort, page: number, gpn: number, asid: number, vmsa: boolean): void {
    this.#write(port, page, { assigned: true, asid, gpn, size: 0, immutable: false }, gpn, false);
    const at = this.#entry(page) + 4;
    port.store32(at, port.load32(at) | VALIDATED_HIGH | (vmsa ? VMSA_HIGH : 0));
  }

  // --- Entries ------------------------------------------------------------------------------------------------------

  /** Byte offset of the entry of `page`. */
  #entry(page: number): number {
    return this.place.base + page * ENTRY_SIZE;
  }

  #assigned(port: MemoryPort, page: number): boolean {
    return (port.load32(this.#entry(page)) & ASSIGNED) !== 0;
  }

  #checkOwner(port: MemoryPort, page: number, gpn: number, asid: number): RmpCheck {
    const at = this.#entry(page);
    const lo = port.load32(at);
    const hi = port.load32(at + 4);
    const owned = (lo & ASSIGNED) !== 0 && asidOf(hi) === asid && gpnOf(lo, hi) === gpn;
    return owned ? RMP_CHECK.PASS : RMP_CHECK.OWNER;
  }

  #checkUsable(port: MemoryPort, page: number, gpn: number, asid: number): RmpCheck {
    const check = this.#checkOwner(port, page, gpn, asid);
    if (check !== RMP_CHECK.PASS) return check;
    const validated = (port.load32(this.#entry(page) + 4) & VALIDATED_HIGH) !== 0;
    return validated ? RMP_CHECK.PASS : RMP_CHECK.NOT_VALIDATED;
  }

  #isOwn(page: number, count: number): boolean {
    const { own } = this.place;
    return own !== undefined && page < own.first + own.count && page + count > own.first;
  }

  /** Locks the 2 MiB region of `page`; false when another processor holds it. */
  #tryLock(port: MemoryPort, page: number): boolean {
    return port.compareExchange32(this.#entry(firstOfLarge(page)) + LOCK, 0, LOCKED) === 0;
  }

  /** Waits for the region's lock, as a guest's instruction does. */
  #lock(port: MemoryPort, page: number): void {
    for (let spin = 0; spin < LOCK_SPINS_MAX; spin++) if (this.#tryLock(port, page)) return;
    throw new RangeError("An entry of the reverse map table stays locked");
  }

  #unlock(port: MemoryPort, page: number): void {
    port.exchange32(this.#entry(firstOfLarge(page)) + LOCK, 0);
  }
}

/** First page of the 2 MiB region of `page`. */
function firstOfLarge(page: number): number {
  return page - page % PAGES_PER_LARGE_PAGE;
}

/** An instruction's answer without a fault. */
function answer(result: number): PvalidateResult {
  return { check: RMP_CHECK.PASS, result, unchanged: false };
}

const GPN_SHIFT = RMP_RAW_LO.shift.gpa_pfn;
const GPN_LOW_BITS = 32 - GPN_SHIFT;
const GPN_HIGH_MASK = RMP_RAW_LO.high.gpa_pfn;
const ASID_HIGH_MASK = RMP_RAW_LO.high.asid;
const ASID_SHIFT = RMP_RAW_LO.shift.asid - 32;

/** Guest page number in an entry's first two words. */
function gpnOf(lo: number, hi: number): number {
  return (lo >>> GPN_SHIFT) + (hi & GPN_HIGH_MASK) * 2 ** GPN_LOW_BITS;
}

/** Address space id in an entry's second word. */
function asidOf(hi: number): number {
  return (hi & ASID_HIGH_MASK) >>> ASID_SHIFT;
}

/** The two words that hold a guest page number and an address space id. */
function pack(gpn: number, asid: number): { readonly lo: number; readonly hi: number } {
  return {
    lo: (gpn << GPN_SHIFT) | 0,
    hi: (Math.floor(gpn / 2 ** GPN_LOW_BITS) & GPN_HIGH_MASK) | (asid << ASID_SHIFT & ASID_HIGH_MASK),
  };
}

/** Page number of a physical address. */
export function pageOf(address: number): number {
  return Math.floor(address / PAGE_SIZE);
}

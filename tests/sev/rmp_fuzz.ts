/**
 * Random sequences of RMP operations, held against a second model that is written from the manual's tables alone: plain
 * objects, one rule at a time, no packing, no locks. `deno task fuzz` runs a million operations.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";
import { Random } from "../../lib/memory/random.ts";
import { Rmp, rmpBytes } from "../../lib/sev/rmp.ts";

/** Two 2 MiB regions and a part of a third that the table does not cover whole. */
const PAGES = 1024 + 100;
const LARGE = 512;
const ASIDS = 3;

interface Page {
  asid: number | null;
  gpn: number;
  validated: boolean;
  immutable: boolean;
  vmsa: boolean;
  large: boolean;
  perms: number[];
}

const free = (): Page => ({
  asid: null,
  gpn: 0,
  validated: false,
  immutable: false,
  vmsa: false,
  large: false,
  perms: [0, 0, 0, 0],
});

/** The checker's own idea of the table. */
class Model {
  readonly pages: Page[] = Array.from({ length: PAGES }, free);
  /** Which pages each (asid, gpn) validated, to show that validation is the guest's alone. */
  region(page: number): Page[] {
    const first = Math.floor(page / LARGE) * LARGE;
    return this.pages.slice(first, first + LARGE);
  }

  rmpupdate(page: number, s: { assigned: boolean; asid: number; gpn: number; size: number; immutable: boolean }) {
    const n = s.size ? LARGE : 1;
    if (page % n || page + n > PAGES) return 1;
    const target = this.pages.slice(page, page + n);
    if (target.some((p) => p.immutable)) return 2;
    const largeNow = this.pages[page].large;
    if (n === 1 && largeNow) return 4;
    if (n > 1 && !largeNow && target.some((p) => p.asid !== null)) return 4;
    target.forEach((_, k) => {
      this.pages[page + k] = s.assigned
        ? { ...free(), asid: s.asid, gpn: s.gpn + k, immutable: s.immutable, large: n > 1, perms: [15, 0, 0, 0] }
        : free();
    });
    return 0;
  }

  psmash(page: number) {
    if (page % LARGE || page >= PAGES) return 1;
    const p = this.pages[page];
    if (p.asid === null || p.immutable) return 2;
    if (!p.large) return 1;
    this.region(page).forEach((each) => each.large = false);
    return 0;
  }

  /** "npf", "size", or [result, carry]. */
  pvalidate(page: number, gpn: number, asid: number, size: number, validate: boolean, mappedPrivate: boolean) {
    if (size > 1 || !mappedPrivate) return [1, false];
    const down = (n: number) => size ? n - n % LARGE : n;
    const p = this.pages[down(page)];
    if (p.asid !== asid || p.gpn !== down(gpn)) return "npf";
    if (size && !p.large) return [6, false];
    if (!size && p.large) return "size";
    if (p.validated === validate) return [0, true];
    (size ? this.region(page) : [p]).forEach((each) => each.validated = validate);
    return [0, false];
  }

  rmpadjust(page: number, gpn: number, asid: number, vmpl: number, size: number, attributes: bigint) {
    const target = Number(attributes & 0xffn);
    const wanted = Number((attributes >> 8n) & 15n);
    const vmsa = (attributes & 0x10000n) !== 0n;
    if (size > 1 || target > 3 || (attributes & ~0x10fffn) !== 0n) return 1;
    if (target <= vmpl) return 2;
    const down = (n: number) => size ? n - n % LARGE : n;
    const p = this.pages[down(page)];
    if (p.asid !== asid || p.gpn !== down(gpn)) return "npf";
    if (!p.validated) return "vc";
    if (size && !p.large) return 6;
    if (!size && p.large) return "size";
    if (wanted & ~p.perms[vmpl] || (vmpl > 0 && vmsa !== p.vmsa)) return 2;
    (size ? this.region(page) : [p]).forEach((each) => {
      each.perms[target] = wanted;
      if (vmpl === 0) each.vmsa = vmsa;
    });
    return 0;
  }
}

const CHECKS = ["pass", "npf", "vc", "vmpl", "size"];

/** Runs `operations` random operations and compares results and, now and then, the whole table. */
export function fuzzRmp(seed: number, operations: number): void {
  const random = Random.seeded(seed);
  const memory = MachineMemory.allocate(rmpBytes(PAGES));
  const port = new DirectPort(memory);
  const rmp = new Rmp(memory, { base: 0, pages: PAGES });
  const model = new Model();
  const where = (k: number) => `seed ${seed}, operation ${k}`;
  for (let k = 0; k < operations; k++) {
    // Most operations meet on a few pages; large ones on region starts.
    const page = random.below(4) === 0
      ? random.below(PAGES + 8)
      : [0, 1, 2, 511, 512, 513, 1024, 1123][random.below(8)];
    const inside = page < PAGES;
    const before = inside ? { ...model.pages[page] } : free();
    const asid = 1 + random.below(ASIDS);
    const gpn = random.below(3) === 0 ? random.below(2000) : inside ? model.pages[page].gpn : page;
    const size = random.below(8) === 0 ? 2 : random.below(4) === 0 ? 1 : 0;
    const kind = random.below(8);
    if (kind < 3) {
      const s = {
        assigned: random.below(3) !== 0,
        asid,
        gpn: random.below(2) === 0 ? page : random.below(2000),
        size: size & 1,
        immutable: random.below(200) === 0,
      };
      assertEquals(rmp.rmpupdate(port, page, s), model.rmpupdate(page, s), where(k));
      if (inside && model.pages[page].validated) assert(before.validated, `${where(k)}: the host validated a page`);
    } else if (kind === 3) {
      assertEquals(rmp.psmash(port, page), model.psmash(page), where(k));
    } else if (!inside) {
      assertEquals(rmp.checkHostWrite(port, page), 0, where(k));
    } else if (kind < 6) {
      const owner = random.below(3) === 0 ? asid : model.pages[page].asid ?? asid;
      const validate = random.below(2) === 0;
      const mappedPrivate = random.below(8) !== 0;
      const got = rmp.pvalidate(port, page, gpn, { asid: owner, size, validate, mappedPrivate });
      const expected = model.pvalidate(page, gpn, owner, size, validate, mappedPrivate);
      assertEquals(got.check === 0 ? [got.result, got.unchanged] : CHECKS[got.check], expected, where(k));
    } else if (kind === 6) {
      const owner = random.below(3) === 0 ? asid : model.pages[page].asid ?? asid;
      const vmpl = random.below(4);
      const reserved = random.below(16) === 0 ? 1n << 20n : 0n;
      const attributes = BigInt(random.below(5) | random.below(16) << 8 | random.below(2) << 16) | reserved;
      const got = rmp.rmpadjust(port, page, gpn, { asid: owner, vmpl, size, attributes });
      const expected = model.rmpadjust(page, gpn, owner, vmpl, size, attributes);
      assertEquals(got.check === 0 ? got.result : CHECKS[got.check], expected, where(k));
    } else {
      const p = model.pages[page];
      assertEquals(rmp.checkHostWrite(port, page), p.asid === null ? 0 : 1, where(k));
      const vmpl = random.below(4);
      const permissions = 1 << random.below(4);
      const owner = random.below(3) === 0 ? asid : p.asid ?? asid;
      const expected = p.asid !== owner || p.gpn !== gpn
        ? "npf"
        : !p.validated
        ? "vc"
        : p.perms[vmpl] & permissions
        ? "pass"
        : "vmpl";
      assertEquals(
        CHECKS[rmp.checkGuestPrivate(port, page, gpn, { asid: owner, vmpl, permissions })],
        expected,
        where(k),
      );
      assertEquals(rmp.isVmsa(port, page, owner), p.asid === owner && p.validated && p.vmsa, where(k));
    }
    if (k % 10_000 === 0) compareAll(rmp, port, model, where(k));
  }
  compareAll(rmp, port, model, where(operations));
}

function compareAll(rmp: Rmp, port: DirectPort, model: Model, where: string): void {
  model.pages.forEach((p, page) => {
    const e = rmp.entry(port, page);
    const got = { asid: e.assigned ? e.asid : null, gpn: e.gpn, validated: e.validated, immutable: e.immutable };
    const expected = { asid: p.asid, gpn: p.gpn, validated: p.validated, immutable: p.immutable };
    assertEquals(got, expected, `${where}, page ${page}`);
    assertEquals([e.vmsa, e.size === 1, ...e.permissions], [p.vmsa, p.large, ...p.perms], `${where}, page ${page}`);
    if (!e.assigned) assert(!e.validated && !e.vmsa, `${where}: an unassigned page is validated`);
  });
}

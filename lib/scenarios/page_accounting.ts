/**
 * The question of the OpenBSD thread about `first_avail`: locore0 takes five pages off the end of its table, and
 * init_x86_64 adds two and three again. Is a page given twice, or lost? (openbsd/src sys/arch/amd64/amd64/locore0.S
 * TABLESIZE, machdep.c init_x86_64; sev.md b6, b7.)
 *
 * The computation is in pages and symbolic: the thread does not say how large `UPAGES` and the numbers of table entries are,
 * and the answer does not depend on them.
 *
 * @module
 */

/** A number of pages: a constant, and a factor for each term that is not defined here. */
export interface PageCount {
  readonly constant: number;
  readonly terms: Readonly<Record<string, number>>;
}

/** A part of the table that locore0 reserves. */
interface Area {
  readonly name: string;
  readonly pages: PageCount;
}

/** Somebody who takes pages from `first_avail` on. */
interface Taker {
  readonly name: string;
  /** Pages that it uses. */
  readonly uses: number;
  /** Pages by which it moves `first_avail` up. */
  readonly adjusts: number;
}

/** What is computed of one version of the code. */
export interface PageAccount {
  /** The version, in the thread's terms. */
  readonly version: string;
  /** `first_avail` at the entry of init_x86_64, in pages from the start of the table. */
  readonly passed: PageCount;
  /** `first_avail` behind each taker. */
  readonly after: readonly { readonly name: string; readonly firstAvail: PageCount }[];
  /** What is wrong; nothing when each taker has the pages that were reserved for it, and all others stay free. */
  readonly wrong: readonly string[];
}

/** Pages reserved for the GHCB. */
const GHCB_PAGES = 2;
/** Pages reserved for page-table entries that are needed before the pmap. */
const EARLY_PTE_PAGES = 3;

function constant(pages: number): PageCount {
  return { constant: pages, terms: {} };
}

function term(name: string): PageCount {
  return { constant: 0, terms: { [name]: 1 } };
}

function add(a: PageCount, b: PageCount, sign: 1 | -1 = 1): PageCount {
  const terms: Record<string, number> = { ...a.terms };
  for (const [name, factor] of Object.entries(b.terms)) terms[name] = (terms[name] ?? 0) + sign * factor;
  return {
    constant: a.constant + sign * b.constant,
    terms: Object.fromEntries(Object.entries(terms).filter(([, factor]) => factor !== 0)),
  };
}

/** The difference of two counts, when no term is left of it. */
function distance(from: PageCount, to: PageCount): number | undefined {
  const { constant, terms } = add(to, from, -1);
  return Object.keys(terms).length === 0 ? constant : undefined;
}

/** A count as text: `UPAGES + NDML3_ENTRIES + 6`. */
export function pageCountText({ constant, terms }: PageCount): string {
  const parts = Object.entries(terms).map(([name, factor]) => factor === 1 ? name : `${factor} * ${name}`);
  if (constant !== 0 || parts.length === 0) parts.push(`${constant}`);
  return parts.join(" + ");
}

/** The terms of TABLESIZE. The first may lie in any order; the last are the direct map's, the GHCB's and the early PTEs'. */
const AREAS: readonly Area[] = [
  ...["NKL4_KIMG_ENTRIES", "TABLE_L3_ENTRIES", "TABLE_L2_ENTRIES"].map((name) => ({ name, pages: term(name) })),
  { name: "1", pages: constant(1) },
  ...["UPAGES", "NDML3_ENTRIES", "NDML2_ENTRIES"].map((name) => ({ name, pages: term(name) })),
  { name: "GHCB", pages: constant(GHCB_PAGES) },
  { name: "early PTEs", pages: constant(EARLY_PTE_PAGES) },
];

/** TABLESIZE in pages: the sum of its parts. */
export const TABLE_PAGES: PageCount = AREAS.reduce((sum, { pages }) => add(sum, pages), constant(0));

/** The parts that lie behind `first_avail` when it is right, with where each begins. */
function reservedAreas(): { name: string; begin: PageCount; pages: number }[] {
  let begin = constant(0);
  return AREAS.flatMap(({ name, pages }) => {
    const here = begin;
    begin = add(begin, pages);
    return name === "GHCB" || name === "early PTEs" ? [{ name, begin: here, pages: pages.constant }] : [];
  });
}

/** A count as a distance from the table's end: `TABLESIZE - 5`. */
export function fromTableEnd(pages: PageCount): string {
  const off = distance(TABLE_PAGES, pages);
  if (off === undefined) return pageCountText(pages);
  return off === 0 ? "TABLESIZE" : `TABLESIZE ${off < 0 ? "-" : "+"} ${Math.abs(off)}`;
}

/** Follows `first_avail` from locore0 to the end of the two takers. */
function account(version: string, subtracted: number, takers: readonly Taker[]): PageAccount {
  const passed = add(TABLE_PAGES, constant(subtracted), -1);
  const wrong: string[] = [];
  const after: { name: string; firstAvail: PageCount }[] = [];
  const taken: { name: string; begin: PageCount; pages: number }[] = [];
  let firstAvail = passed;
  for (const { name, uses, adjusts } of takers) {
    taken.push({ name, begin: firstAvail, pages: uses });
    firstAvail = add(firstAvail, constant(adjusts));
    after.push({ name, firstAvail });
  }
  for (const area of reservedAreas()) {
    const taker = taken.find(({ name }) => name === area.name)!;
    const off = distance(area.begin, taker.begin)!;
    if (off !== 0) {
      wrong.push(`${area.name}: ${Math.abs(off)} pages ${off < 0 ? "below" : "above"} those reserved for it`);
    }
  }
  for (const [k, a] of taken.entries()) {
    for (const b of taken.slice(k + 1)) {
      const gap = distance(a.begin, b.begin)!;
      const shared = Math.min(a.pages - gap, b.pages);
      if (shared > 0) wrong.push(`${shared} pages are given to both ${a.name} and ${b.name}`);
    }
    const end = add(a.begin, constant(a.pages));
    const beyond = Math.min(distance(TABLE_PAGES, end)!, a.pages);
    if (beyond > 0) wrong.push(`${a.name}: ${beyond} pages beyond the table`);
    const free = Math.min(distance(firstAvail, end)!, a.pages);
    if (free > 0) wrong.push(`${a.name}: ${free} pages are given away again`);
  }
  const lost = distance(TABLE_PAGES, firstAvail)!;
  if (lost > 0) wrong.push(`${lost} pages behind the table are skipped`);
  return { version, passed, after, wrong };
}

const GHCB: Taker = { name: "GHCB", uses: GHCB_PAGES, adjusts: GHCB_PAGES };
const EARLY_PTES: Taker = { name: "early PTEs", uses: EARLY_PTE_PAGES, adjusts: EARLY_PTE_PAGES };

/** The code as it is, and as it would be if one of its adjustments were the mistake that the reviewer suspected. */
export function pageAccounts(): readonly PageAccount[] {
  const both = GHCB_PAGES + EARLY_PTE_PAGES;
  return [
    account("as committed: subtracted 2 + 3, added 2 and 3", both, [GHCB, EARLY_PTES]),
    account("without first_avail += 2", both, [{ ...GHCB, adjusts: 0 }, EARLY_PTES]),
    account("without first_avail += 3", both, [GHCB, { ...EARLY_PTES, adjusts: 0 }]),
    account("without subq $(NBPG*2)", EARLY_PTE_PAGES, [GHCB, EARLY_PTES]),
    account("without either subq", 0, [GHCB, EARLY_PTES]),
  ];
}

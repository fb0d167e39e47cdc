/**
 * Paging: walks of four levels of tables with their accessed bits, and translations that the TLB has. Each benchmark makes as
 * many translations as its name says.
 *
 * @module
 */
import { ACCESS_READ } from "../lib/cpu/bus.ts";
import { CR4_PAE } from "../lib/cpu/control_bits.ts";
import { CpuState, CR0_PE, CR0_PG, EFER_LMA, EFER_LME } from "../lib/cpu/state.ts";
import { newProcessor } from "../tests/cpu/processor.ts";

const at = CpuState.at;
/** Present, writable; and a page of 2 MiB instead of a table. */
const TABLE = 0x3n;
const LARGE = 0x80n;
/** Tables, one page each, and how many pages the last one maps. */
const [PML4, PDPT, PD, PT] = [0x1000, 0x2000, 0x3000, 0x4000];
const PAGES = 512;
const PAGE_BYTES = 4096;
/** Linear address from which on 2 MiB pages are mapped. */
const LARGE_AT = 0x20_0000;
const TRANSLATIONS = 10_000;

const { cpu } = newProcessor("long");
for (
  const [address, entry] of [[PML4, BigInt(PDPT) | TABLE], [PDPT, BigInt(PD) | TABLE], [
    PD,
    BigInt(PT) | TABLE,
  ]] as const
) {
  cpu.dv.setBigUint64(address, entry, true);
}
cpu.dv.setBigUint64(PD + 8, TABLE | LARGE, true);
for (let page = 0; page < PAGES; page++) cpu.dv.setBigUint64(PT + page * 8, BigInt(page * PAGE_BYTES) | TABLE, true);
cpu.sv.setInt32(at.cr0, CR0_PG | CR0_PE, true);
cpu.sv.setInt32(at.cr3, PML4, true);
cpu.sv.setInt32(at.cr4, CR4_PAE, true);
cpu.sv.setInt32(at.efer, EFER_LME | EFER_LMA, true);
cpu.flushCaches();

Deno.bench(`${TRANSLATIONS} walks of 4 KiB pages`, { group: "walk", baseline: true }, () => {
  for (let n = 0; n < TRANSLATIONS; n++) cpu.translate((n % PAGES) * PAGE_BYTES, 0, ACCESS_READ, false);
});

Deno.bench(`${TRANSLATIONS} walks of a 2 MiB page`, { group: "walk" }, () => {
  for (let n = 0; n < TRANSLATIONS; n++) cpu.translate(LARGE_AT + (n % PAGES) * PAGE_BYTES, 0, ACCESS_READ, false);
});

Deno.bench(`${TRANSLATIONS} loads that the TLB translates`, { group: "load", baseline: true }, () => {
  for (let n = 0; n < TRANSLATIONS; n++) cpu.readLinear32((n % PAGES) * PAGE_BYTES, 0, true);
});

Deno.bench(`${TRANSLATIONS} loads, each after a flush of the TLB`, { group: "load" }, () => {
  for (let n = 0; n < TRANSLATIONS; n++) {
    cpu.flushTlb();
    cpu.readLinear32((n % PAGES) * PAGE_BYTES, 0, true);
  }
});

/**
 * Bits of CR4, and which bits of the control registers exist (AMD64 Architecture Programmer's Manual volume 2, chapter 3).
 * The bits of CR0, EFER and RFLAGS stand beside the state.
 *
 * Not modelled, and so refused: VME and PVI, PCIDE, SMAP, 5-level paging, CET, keys of supervisor pages.
 *
 * @module
 */
import {
  CR0_AM,
  CR0_CD,
  CR0_EM,
  CR0_ET,
  CR0_MP,
  CR0_NE,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR0_TS,
  CR0_WP,
  EFER_LMA,
  EFER_LME,
  EFER_NXE,
  EFER_SCE,
} from "./state.ts";

/** CR0: the bits that exist; all others read as zero. */
export const CR0_DEFINED: number = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW |
  CR0_CD |
  CR0_PG;

/** CR4: RDTSC only at CPL 0. */
export const CR4_TSD = 1 << 2;
/** CR4: debugging extensions: DR4 and DR5 are undefined, I/O breakpoints exist. */
export const CR4_DE = 1 << 3;
/** CR4: page size extensions. */
export const CR4_PSE = 1 << 4;
/** CR4: physical address extensions. */
export const CR4_PAE = 1 << 5;
/** CR4: machine check enabled. */
export const CR4_MCE = 1 << 6;
/** CR4: global pages. */
export const CR4_PGE = 1 << 7;
/** CR4: RDPMC at every CPL. */
export const CR4_PCE = 1 << 8;
/** CR4: FXSAVE, FXRSTOR and SSE. */
export const CR4_OSFXSR = 1 << 9;
/** CR4: #XM instead of #UD for SIMD floating-point exceptions. */
export const CR4_OSXMMEXCPT = 1 << 10;
/** CR4: SGDT, SIDT, SLDT, STR, SMSW only at CPL 0. */
export const CR4_UMIP = 1 << 11;
/** CR4: RDFSBASE and its sisters. */
export const CR4_FSGSBASE = 1 << 16;
/** CR4: XSAVE and XCR0. */
export const CR4_OSXSAVE = 1 << 18;
/** CR4: no supervisor fetches from user pages. */
export const CR4_SMEP = 1 << 20;
/** CR4: protection keys of user pages, and PKRU. */
export const CR4_PKE = 1 << 22;

/** CR4: the bits that may be set; others raise #GP. */
export const CR4_DEFINED: number = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
  CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_PKE;

/** EFER: the bits that may be set; others raise #GP. */
export const EFER_DEFINED: number = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

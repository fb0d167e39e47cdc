/**
 * The environment of a floating-point operation: rounding, denormal handling and the exception flags it collects.
 *
 * The bits are those of MXCSR and of the x87 control and status words, which agree in bits 5:0 (Intel SDM volume 1,
 * 4.9, 8.1 and 10.2.3; AMD APM volume 1, 4.2.2 and 6.2).
 *
 * @module
 */

/** Invalid operation (IE). */
export const FLAG_INVALID = 0x01;
/** Denormal operand (DE). */
export const FLAG_DENORMAL = 0x02;
/** Division by zero (ZE). */
export const FLAG_ZERO_DIVIDE = 0x04;
/** Overflow (OE). */
export const FLAG_OVERFLOW = 0x08;
/** Underflow (UE). */
export const FLAG_UNDERFLOW = 0x10;
/** Inexact result, "precision" (PE). */
export const FLAG_INEXACT = 0x20;
/** The exceptions that are found before the result is computed: they win over the later ones. */
export const FLAGS_PRE_COMPUTATION = FLAG_INVALID | FLAG_DENORMAL | FLAG_ZERO_DIVIDE;
/** All six exceptions. */
export const FLAGS_ALL = 0x3f;

/** Round to nearest, ties to even. */
export const ROUND_NEAREST = 0;
/** Round towards minus infinity. */
export const ROUND_DOWN = 1;
/** Round towards plus infinity. */
export const ROUND_UP = 2;
/** Round towards zero. */
export const ROUND_TRUNCATE = 3;

/** MXCSR bit 6: denormal operands are zeros. */
export const MXCSR_DAZ = 1 << 6;
/** MXCSR bits 12:7: the exception masks, in the order of the flags. */
export const MXCSR_MASKS_SHIFT = 7;
/** MXCSR bits 14:13: rounding control. */
export const MXCSR_RC_SHIFT = 13;
/** MXCSR bit 15: tiny results become zeros while underflow is masked. */
export const MXCSR_FTZ = 1 << 15;
/** MXCSR after reset and in most programs: everything masked, round to nearest. */
export const MXCSR_DEFAULT = 0x1f80;

/** What an operation obeys and what it reports. One object serves many operations: `flags` collects. */
export class FloatEnvironment {
  /** Rounding control, one of `ROUND_*`. */
  rounding: number = ROUND_NEAREST;
  /** Bits of the result's significand for formats with precision control (x87): 24, 53 or 64. */
  precision = 64;
  /** Masks: bit set means the exception of the same bit of `flags` is masked. */
  masks: number = FLAGS_ALL;
  /** Denormal operands count as zeros (MXCSR.DAZ). */
  denormalsAreZeros = false;
  /** Tiny results become zeros while underflow is masked (MXCSR.FTZ). */
  flushToZero = false;
  /** Exceptions found, `FLAG_*`. */
  flags = 0;
  /** The inexact flag need not be computed: it is set already and masked. */
  inexactIsSticky = false;
  /** The last rounded result is greater in magnitude than the exact one (x87 C1). */
  roundedUp = false;
  /** The MXCSR that the fields above stand for, -1 when they stand for none. */
  #mxcsr = -1;

  /** Takes rounding, masks, DAZ and FTZ from MXCSR and clears the collected flags. */
  loadMxcsr(mxcsr: number): void {
    this.flags = 0;
    if (mxcsr === this.#mxcsr) return;
    this.#mxcsr = mxcsr;
    this.rounding = (mxcsr >> MXCSR_RC_SHIFT) & 3;
    this.masks = (mxcsr >> MXCSR_MASKS_SHIFT) & FLAGS_ALL;
    this.denormalsAreZeros = (mxcsr & MXCSR_DAZ) !== 0;
    this.flushToZero = (mxcsr & MXCSR_FTZ) !== 0;
    this.inexactIsSticky = (mxcsr & this.masks & FLAG_INEXACT) !== 0;
  }

  /**
   * Takes rounding, precision and masks from the x87 control word (Intel SDM volume 1, 8.1.5) and clears the collected
   * flags.
   */
  loadControlWord(fcw: number): void {
    this.#mxcsr = -1;
    this.rounding = (fcw >> 10) & 3;
    this.precision = PRECISIONS[(fcw >> 8) & 3];
    this.masks = fcw & FLAGS_ALL;
    this.denormalsAreZeros = false;
    this.flushToZero = false;
    this.inexactIsSticky = false;
    this.flags = 0;
    this.roundedUp = false;
  }

  /** True when the exceptions `flags` contain one that is not masked. */
  unmasked(flags: number): boolean {
    return (flags & ~this.masks & FLAGS_ALL) !== 0;
  }
}

/** Precision control 0, 1 (reserved: acts as the full precision), 2, 3. */
const PRECISIONS = [24, 64, 53, 64];

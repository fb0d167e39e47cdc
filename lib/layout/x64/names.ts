/**
 * Names of registers in the order in which arrays of structures hold them.
 *
 * @module
 */

/** General-purpose registers in instruction-encoding order: register page, register names. */
export const GPR_NAMES = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const,
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const,
] as const;

/** The same order with CR2 in RSP's place: the register contexts of the sidecar and of Linux. */
export const CONTEXT_GPR_NAMES = [
  ...["rax", "rcx", "rdx", "rbx", "cr2", "rbp", "rsi", "rdi"] as const,
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const,
] as const;

/** Segment registers in instruction-encoding order. */
export const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs"] as const;

/** The XMM registers that a register page and a hypercall message hold. */
export const XMM_LOW_NAMES = ["xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5"] as const;

/** All XMM registers. */
export const XMM_NAMES = [
  ...XMM_LOW_NAMES,
  ...["xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"] as const,
] as const;

/** x87 registers, from the top of the stack. */
export const ST_NAMES = ["st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"] as const;

/** The upper halves of the YMM registers, where those are stored apart from the XMM registers. */
export const YMM_NAMES = [
  ...["ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7"] as const,
  ...["ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15"] as const,
] as const;

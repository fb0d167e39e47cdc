/**
 * Bytes of the SEV instructions and number of the #VC exception (AMD64 Architecture Programmer's Manual volume 3).
 *
 * @module
 */

/** Machine code of the SEV instructions. */
export const SEV_INSTRUCTIONS = {
  /** VMMCALL with a REP prefix: always leaves an SEV-ES guest, whatever the intercepts say. */
  VMGEXIT: [0xf3, 0x0f, 0x01, 0xd9],
  /** The other encoding of VMGEXIT. */
  VMGEXIT_F2: [0xf2, 0x0f, 0x01, 0xd9],
  /** #UD when it is not intercepted; a #VC in an SEV-ES guest. */
  VMMCALL: [0x0f, 0x01, 0xd9],
  /** RAX address, ECX page size, EDX 1 to validate; EAX result, CF when nothing changed. */
  PVALIDATE: [0xf2, 0x0f, 0x01, 0xff],
  /** RAX address, RCX page size, RDX RMPADJUST_ATTRS; RAX result. */
  RMPADJUST: [0xf3, 0x0f, 0x01, 0xfe],
  /** RAX address, RDX target VMPL; RAX result, RDX attributes, RCX page size. */
  RMPQUERY: [0xf3, 0x0f, 0x01, 0xfd],
  /** RAX system physical address, RCX address of RMP_STATE; RAX result. */
  RMPUPDATE: [0xf2, 0x0f, 0x01, 0xfe],
  /** RAX system physical address, aligned to 2 MiB; RAX result. */
  PSMASH: [0xf3, 0x0f, 0x01, 0xff],
  /** RAX system physical address, RCX address of 16 bytes; RAX result. */
  RMPREAD: [0xf2, 0x0f, 0x01, 0xfd],
} as const;

/** Vectors of the exceptions that SEV adds. */
export const SEV_EXCEPTION = {
  /** #HV, hypervisor injection. */
  HV: 28,
  /** #VC, VMM communication; its error code is the exit code. */
  VC: 29,
} as const;

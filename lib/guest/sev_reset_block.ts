/**
 * The SEV-ES reset block of a guest image: where application processors begin, because a host cannot give an encrypted
 * processor its registers (OVMF `ResetVectorVtf0.asm`, SEV_INFO_BLOCK_GUID; QEMU `sev_es_find_reset_vector`).
 *
 * The block is `u32 address, u16 size, GUID`, like an entry of OVMF's table of GUIDs. Here it may lie anywhere in the
 * image, not only below 4 GiB.
 *
 * @module
 */

/** 00f771de-1a7e-4fcb-890e-68c77e2fb44e as it lies in memory. */
export const RESET_BLOCK_GUID: readonly number[] = [
  ...[0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f],
  ...[0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e],
];
/** Bytes of the block: address, size and GUID. */
export const RESET_BLOCK_BYTES = 22;
/** Offsets in the block. */
const ADDRESS = 0;
const SIZE = 4;
const GUID = 6;

/** The address in the first reset block of `memory`, or `undefined`. */
export function findResetBlock(memory: Uint8Array): number | undefined {
  for (let at = memory.indexOf(RESET_BLOCK_GUID[0]); at >= 0; at = memory.indexOf(RESET_BLOCK_GUID[0], at + 1)) {
    if (at < GUID || !RESET_BLOCK_GUID.every((byte, k) => memory[at + k] === byte)) continue;
    const view = new DataView(memory.buffer, memory.byteOffset + at - GUID, RESET_BLOCK_BYTES);
    if (view.getUint16(SIZE, true) === RESET_BLOCK_BYTES) return view.getUint32(ADDRESS, true);
  }
  return undefined;
}

/**
 * Copies blocks of the machine's memory. `copyWithin` on a shared buffer goes word by word behind a call that costs as much
 * as a hundred bytes do; a WebAssembly `memory.copy` is a plain `memmove`.
 *
 * @module
 */

/** Copies `length` bytes. */
export type BlockCopy = (to: number, from: number, length: number) => void;

/**
 * `(module (import "m" "m" (memory 0 65536 shared)) (func (export "c") (param i32 i32 i32) local.get 0 local.get 1
 * local.get 2 memory.copy))` in the WebAssembly binary format (WebAssembly Core Specification, section 5).
 */
// deno-fmt-ignore -- a line for each section
const MODULE = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
  0x01, 0x07, 0x01, 0x60, 0x03, 0x7f, 0x7f, 0x7f, 0x00,
  0x02, 0x0b, 0x01, 0x01, 0x6d, 0x01, 0x6d, 0x02, 0x03, 0x00, 0x80, 0x80, 0x04,
  0x03, 0x02, 0x01, 0x00,
  0x07, 0x05, 0x01, 0x01, 0x63, 0x00, 0x00,
  0x0a, 0x0e, 0x01, 0x0c, 0x00, 0x20, 0x00, 0x20, 0x01, 0x20, 0x02, 0xfc, 0x0a, 0x00, 0x00, 0x0b,
]);

let module: WebAssembly.Module | undefined;

/** The copy on `memory`. */
export function blockCopy(memory: WebAssembly.Memory): BlockCopy {
  module ??= new WebAssembly.Module(MODULE);
  return new WebAssembly.Instance(module, { m: { m: memory } }).exports.c as BlockCopy;
}

/**
 * The one shared memory of a machine, and the typed views through which it is read and written.
 *
 * Offsets below the machine's RAM are guest-physical addresses. The buffer belongs to a shared `WebAssembly.Memory`, so
 * that workers see the same bytes and a copy of it is a dump of the machine (DESIGN rule 1).
 *
 * @module
 */

/** Size of a page in bytes, for guests, the hypervisor and WebAssembly's own granularity divided by sixteen. */
export const PAGE_SIZE = 4096;
/** log2 of {@linkcode PAGE_SIZE}. */
export const PAGE_SHIFT = 12;
/** Page numbers that bit 0 of an address's high word is worth. */
const PAGES_OF_HIGH_WORD = 2 ** (32 - PAGE_SHIFT);

/** Number of the page of the address whose words are `low` and `high`; exact below 2^53. */
export function pageNumber(low: number, high: number): number {
  return (low >>> PAGE_SHIFT) + (high >>> 0) * PAGES_OF_HIGH_WORD;
}

/** Size in bytes of a WebAssembly page, the unit in which the memory is allocated. */
const WASM_PAGE_SIZE = 65536;

/** Typed views over one shared memory. All views cover the whole buffer; offsets are bytes unless a name says otherwise. */
export class MachineMemory {
  /** The WebAssembly memory; it can be posted to workers. */
  readonly wasm: WebAssembly.Memory;
  /** The buffer behind the views. */
  readonly buffer: SharedArrayBuffer;
  /** Bytes. */
  readonly u8: Uint8Array<SharedArrayBuffer>;
  /** 16-bit words; index is the byte offset divided by two. */
  readonly u16: Uint16Array<SharedArrayBuffer>;
  /** Signed 32-bit words; index is the byte offset divided by four. Also the view for `Atomics`. */
  readonly i32: Int32Array<SharedArrayBuffer>;
  /** Unsigned 32-bit words. */
  readonly u32: Uint32Array<SharedArrayBuffer>;
  /** 64-bit words; index is the byte offset divided by eight. */
  readonly u64: BigUint64Array<SharedArrayBuffer>;
  /** Unaligned little-endian access. */
  readonly view: DataView<SharedArrayBuffer>;

  /** Wraps an existing shared memory, such as one that a worker was sent. */
  constructor(wasm: WebAssembly.Memory) {
    this.wasm = wasm;
    const buffer = wasm.buffer;
    if (!(buffer instanceof SharedArrayBuffer)) throw new TypeError("Machine memory must be shared");
    this.buffer = buffer;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.view = new DataView(buffer);
  }

  /** Allocates zeroed shared memory of at least `bytes` bytes. */
  static allocate(bytes: number): MachineMemory {
    const pages = Math.ceil(bytes / WASM_PAGE_SIZE);
    return new MachineMemory(new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }));
  }
}

/**
 * Locked accesses for {@linkcode WasmCode} (WebAssembly Core Specification, threads). Addresses are expressions without an
 * offset.
 *
 * @module
 */
import type { Code, I32 } from "./wasm_code.ts";

/** Numbers of the WebAssembly binary format. */
const WASM = { PREFIX: 0xfe, AND: 0x2c, OR: 0x33, DROP: 0x1a, ALIGNMENT_32: 2 } as const;

function locked(operation: number, address: I32, value: I32): Code {
  return [...address, ...value, WASM.PREFIX, operation, WASM.ALIGNMENT_32, 0, WASM.DROP];
}

/** Bitwise and with the 32-bit word at `address`. */
export function lockedAnd32(address: I32, value: I32): Code {
  return locked(WASM.AND, address, value);
}

/** Bitwise or with the 32-bit word at `address`. */
export function lockedOr32(address: I32, value: I32): Code {
  return locked(WASM.OR, address, value);
}

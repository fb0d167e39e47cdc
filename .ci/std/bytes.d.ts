/** Type declarations of `@std/bytes` for the JavaScript of the npm package, which carries none. */

/** A fresh array over a buffer of its own; its type is not generic in older versions of TypeScript. */
type FreshBytes = ReturnType<Uint8Array["slice"]>;

export function concat(buffers: readonly Uint8Array[]): FreshBytes;
export function copy(src: Uint8Array, dst: Uint8Array, offset?: number): number;
export function endsWith(source: Uint8Array, suffix: Uint8Array): boolean;
export function equals(a: Uint8Array, b: Uint8Array): boolean;
export function includesNeedle(source: Uint8Array, needle: Uint8Array, start?: number): boolean;
export function indexOfNeedle(source: Uint8Array, needle: Uint8Array, start?: number): number;
export function lastIndexOfNeedle(source: Uint8Array, needle: Uint8Array, start?: number): number;
export function repeat(source: Uint8Array, count: number): FreshBytes;
export function startsWith(source: Uint8Array, prefix: Uint8Array): boolean;

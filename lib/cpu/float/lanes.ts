/**
 * Working registers of the SSE operations: two 128-bit operands and a result, seen as lanes of every width.
 *
 * An instruction copies its operands to A and B, calls operations lane by lane (`binary32.ts`, `binary64.ts`), and
 * takes R when no exception is unmasked.
 * They are scratch: nothing in them outlives an instruction.
 *
 * @module
 */

import { FloatEnvironment } from "./environment.ts";

const REGISTER_BYTES = 16;
const buffer = new ArrayBuffer(3 * REGISTER_BYTES);

/** First operand (the destination) as 32-bit lanes. */
export const A_U32: Uint32Array = new Uint32Array(buffer, 0, 4);
/** First operand as signed 32-bit lanes. */
export const A_I32: Int32Array = new Int32Array(buffer, 0, 4);
/** First operand as 64-bit lanes. */
export const A_U64: BigUint64Array = new BigUint64Array(buffer, 0, 2);
/** First operand as signed 64-bit lanes. */
export const A_I64: BigInt64Array = new BigInt64Array(buffer, 0, 2);
/** First operand as bytes. */
export const A_U8: Uint8Array = new Uint8Array(buffer, 0, 16);
/** First operand as signed bytes. */
export const A_I8: Int8Array = new Int8Array(buffer, 0, 16);
/** First operand as words. */
export const A_U16: Uint16Array = new Uint16Array(buffer, 0, 8);
/** First operand as signed words. */
export const A_I16: Int16Array = new Int16Array(buffer, 0, 8);
/** First operand as binary32 lanes. */
export const A_F32: Float32Array = new Float32Array(buffer, 0, 4);
/** First operand as binary64 lanes. */
export const A_F64: Float64Array = new Float64Array(buffer, 0, 2);

/** Second operand (the source) as 32-bit lanes. */
export const B_U32: Uint32Array = new Uint32Array(buffer, REGISTER_BYTES, 4);
/** Second operand as signed 32-bit lanes. */
export const B_I32: Int32Array = new Int32Array(buffer, REGISTER_BYTES, 4);
/** Second operand as 64-bit lanes. */
export const B_U64: BigUint64Array = new BigUint64Array(buffer, REGISTER_BYTES, 2);
/** Second operand as signed 64-bit lanes. */
export const B_I64: BigInt64Array = new BigInt64Array(buffer, REGISTER_BYTES, 2);
/** Second operand as bytes. */
export const B_U8: Uint8Array = new Uint8Array(buffer, REGISTER_BYTES, 16);
/** Second operand as signed bytes. */
export const B_I8: Int8Array = new Int8Array(buffer, REGISTER_BYTES, 16);
/** Second operand as words. */
export const B_U16: Uint16Array = new Uint16Array(buffer, REGISTER_BYTES, 8);
/** Second operand as signed words. */
export const B_I16: Int16Array = new Int16Array(buffer, REGISTER_BYTES, 8);
/** Second operand as binary32 lanes. */
export const B_F32: Float32Array = new Float32Array(buffer, REGISTER_BYTES, 4);
/** Second operand as binary64 lanes. */
export const B_F64: Float64Array = new Float64Array(buffer, REGISTER_BYTES, 2);

/** Result as 32-bit lanes. */
export const R_U32: Uint32Array = new Uint32Array(buffer, 2 * REGISTER_BYTES, 4);
/** Result as signed 32-bit lanes. */
export const R_I32: Int32Array = new Int32Array(buffer, 2 * REGISTER_BYTES, 4);
/** Result as 64-bit lanes. */
export const R_U64: BigUint64Array = new BigUint64Array(buffer, 2 * REGISTER_BYTES, 2);
/** Result as signed 64-bit lanes. */
export const R_I64: BigInt64Array = new BigInt64Array(buffer, 2 * REGISTER_BYTES, 2);
/** Result as bytes. */
export const R_U8: Uint8Array = new Uint8Array(buffer, 2 * REGISTER_BYTES, 16);
/** Result as signed bytes. */
export const R_I8: Int8Array = new Int8Array(buffer, 2 * REGISTER_BYTES, 16);
/** Result as words. */
export const R_U16: Uint16Array = new Uint16Array(buffer, 2 * REGISTER_BYTES, 8);
/** Result as signed words. */
export const R_I16: Int16Array = new Int16Array(buffer, 2 * REGISTER_BYTES, 8);
/** Result as binary32 lanes. */
export const R_F32: Float32Array = new Float32Array(buffer, 2 * REGISTER_BYTES, 4);
/** Result as binary64 lanes. */
export const R_F64: Float64Array = new Float64Array(buffer, 2 * REGISTER_BYTES, 2);

/** The environment of the SSE operations, loaded from MXCSR by each instruction. */
export const sse: FloatEnvironment = new FloatEnvironment();

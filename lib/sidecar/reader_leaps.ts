/**
 * The usual course of the client's reader at once (`Agent.leap`): a scan, and the completion of every run that it finds
 * ended. See `driver/leaps.ts`.
 *
 * @module
 */
import { SidecarDriverVpState } from "../layout/hyperv/constants/sidecar.ts";
import { CpuStatus } from "../layout/hyperv/sidecar.ts";
import { ClientRunState, SidecarClientState } from "./client_state.ts";
import { SidecarDriverState } from "./driver/state.ts";
import type { DriverThread } from "./driver/thread.ts";

const driver = SidecarDriverState.at;
const { AVAILABLE, ASYNC, ASYNC_STOPPING, ASYNC_STOPPED } = SidecarDriverVpState.values;
const { IDLE } = CpuStatus.values;
const { RUNNING, FINISHED } = ClientRunState.values;
const CLIENT_WORDS = SidecarClientState.size / 4;
/** Slot 0 is the base processor, which runs Linux. */
const FIRST_SLOT = 1;

/** The course of a reader that has been woken, to its next sleep. */
export class ReaderCourse {
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #vpCount: number;
  readonly #vpStates: number;
  readonly #statuses: number;
  readonly #scan: number;
  readonly #stopped: number;
  readonly #mutex: number;
  readonly #handlerActive: number;
  readonly #runStates: number;
  readonly #wait: number;
  readonly #bit: number;

  /** The course of `thread`; `clients` is where the node's client states lie. */
  constructor(thread: DriverThread, clients: number) {
    const { node } = thread;
    this.#u8 = node.memory.u8;
    this.#i32 = node.memory.i32;
    this.#vpCount = node.vpCount;
    this.#vpStates = node.vpStates;
    this.#statuses = node.statuses;
    this.#scan = node.needsVpScan >>> 2;
    this.#stopped = node.numVpsStopped >>> 2;
    this.#mutex = (node.driver + driver.scan_mutex) >>> 2;
    this.#handlerActive = (node.driver + driver.handler_active) >>> 2;
    this.#runStates = (clients + SidecarClientState.at.run_state) >>> 2;
    this.#wait = thread.waitWord >>> 2;
    this.#bit = thread.waitBit;
  }

  /** Takes it; false, with nothing done, where something is unusual. The thread is asleep then, or has found a run that nobody waits for. */
  take(): boolean {
    const u8 = this.#u8;
    const i32 = this.#i32;
    if (i32[this.#scan] === 0 || i32[this.#stopped] !== 0 || i32[this.#mutex] !== 0) return false;
    if (i32[this.#handlerActive] !== 0) return false;
    i32[this.#scan] = 0;
    let stopped = 0;
    for (let slot = FIRST_SLOT; slot < this.#vpCount; slot++) {
      const state = u8[this.#vpStates + slot];
      if (state !== ASYNC && state !== ASYNC_STOPPING) continue;
      if (u8[this.#statuses + slot] !== IDLE) continue;
      u8[this.#vpStates + slot] = ASYNC_STOPPED;
      stopped++;
    }
    for (let slot = FIRST_SLOT; stopped > 0 && slot < this.#vpCount; slot++) {
      if (u8[this.#vpStates + slot] !== ASYNC_STOPPED) continue;
      const runState = this.#runStates + slot * CLIENT_WORDS;
      if (i32[runState] !== RUNNING) break;
      u8[this.#vpStates + slot] = AVAILABLE;
      i32[runState] = FINISHED;
      stopped--;
    }
    i32[this.#stopped] = stopped;
    if (stopped === 0) i32[this.#wait] |= this.#bit;
    return true;
  }
}

/**
 * Runs one processor over a memory that the test shares with it: the code is there, the count of turns is in RCX.
 *
 * @module
 */
import { EXIT_HLT, EXIT_NONE } from "../../lib/cpu/state.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { newProcessor } from "./processor.ts";

/** What the test sends. */
export interface Order {
  /** The shared memory. */
  readonly wasm: WebAssembly.Memory;
  /** Which processor this is. */
  readonly n: number;
  /** Where the counter lies. */
  readonly address: number;
  /** Turns of the loop. */
  readonly turns: number;
}

const scope = self as unknown as { onmessage: (event: MessageEvent<Order>) => void; postMessage(done: boolean): void };

if (typeof (globalThis as { document?: unknown }).document === "undefined" && "postMessage" in self) {
  scope.onmessage = (event) => {
    const { wasm, n, address, turns } = event.data;
    const { cpu } = newProcessor("long", new MachineMemory(wasm), n);
    cpu.g64[7] = BigInt(address);
    cpu.g64[1] = BigInt(turns);
    let reason = EXIT_NONE;
    while (reason === EXIT_NONE) reason = cpu.run(10_000);
    scope.postMessage(reason === EXIT_HLT);
    self.close();
  };
}

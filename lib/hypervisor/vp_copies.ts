/**
 * The code that moves words between a processor's state and the pages that VTL2 shares with the hypervisor, bound to a
 * machine's memory. What it moves is said in `message_code.ts` and `register_page.ts`.
 *
 * @module
 */
import type { MachineMemory } from "../memory/machine_memory.ts";
import * as wasm from "../memory/wasm_code.ts";
import {
  cpuidMessage,
  interceptHeader,
  ioPortMessage,
  memoryMessage,
  type MessageOperands,
  msrMessage,
} from "./message_code.ts";
import { applyCode, fillCode } from "./register_page.ts";

/** Writes what of a message comes from the processor's state. Only the header by itself has to be told the access. */
export type WriteMessage = (
  message: number,
  cpuState: number,
  vpState: number,
  vpIndex: number,
  cpl: number,
  access: number,
) => void;

/** Parameters of {@linkcode WriteMessage}, and a local. */
const OPERANDS: MessageOperands = {
  targets: [wasm.local(0)],
  cpuState: wasm.local(1),
  vpState: wasm.local(2),
  vpIndex: wasm.local(3),
  cpl: wasm.local(4),
  scratch: 6,
};
const ACCESS = wasm.local(5);

function messageCode(code: wasm.Code): wasm.WasmCode<WriteMessage> {
  return new wasm.WasmCode({ parameters: 6, locals: 1, gives: "nothing", body: [code] });
}

const HEADER = messageCode(interceptHeader(OPERANDS, ACCESS));
const IO_PORT = messageCode(ioPortMessage(OPERANDS));
const CPUID = messageCode(cpuidMessage(OPERANDS));
const MSR = messageCode(msrMessage(OPERANDS));
const MEMORY = messageCode(memoryMessage(OPERANDS));

/** Byte offsets of the register page and of the processor's state. */
const [PAGE, CPU_STATE] = [wasm.local(0), wasm.local(1)];
const FILL = new wasm.WasmCode<(page: number, cpuState: number) => void>({
  parameters: 2,
  locals: 0,
  gives: "nothing",
  body: [fillCode(PAGE, CPU_STATE)],
});
const APPLY = new wasm.WasmCode<(page: number, cpuState: number) => void>({
  parameters: 2,
  locals: 0,
  gives: "nothing",
  body: [applyCode(PAGE, CPU_STATE)],
});

/** The functions on a machine's memory. */
export class VpCopies {
  /** The header of a message. */
  readonly header: WriteMessage;
  /** A port intercept. */
  readonly ioPortMessage: WriteMessage;
  /** A CPUID intercept. */
  readonly cpuidMessage: WriteMessage;
  /** An MSR intercept. */
  readonly msrMessage: WriteMessage;
  /** A memory intercept. */
  readonly memoryMessage: WriteMessage;
  /** Fills the register page. */
  readonly fillRegisterPage: (page: number, cpuState: number) => void;
  /** Applies what VTL2 has written to it. */
  readonly applyRegisterPage: (page: number, cpuState: number) => void;

  /** The functions on `memory`. */
  constructor(memory: MachineMemory) {
    this.header = HEADER.on(memory);
    this.ioPortMessage = IO_PORT.on(memory);
    this.cpuidMessage = CPUID.on(memory);
    this.msrMessage = MSR.on(memory);
    this.memoryMessage = MEMORY.on(memory);
    this.fillRegisterPage = FILL.on(memory);
    this.applyRegisterPage = APPLY.on(memory);
  }
}

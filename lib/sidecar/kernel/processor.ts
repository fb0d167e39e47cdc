/**
 * What the sidecar kernel's code needs of the processor that it runs on.
 *
 * The command loop is the same for a processor with a guest (`sidecar_vp.ts`) and for one whose guest is reduced to "VTL0
 * ran and left" (`guestless.ts`), in which the driver's protocol is explored alone.
 *
 * @module
 */
import { CommandPage } from "../../layout/hyperv/sidecar.ts";
import type { Agent } from "../../memory/agent.ts";
import type { StepId } from "../../memory/steps.ts";
import type { SidecarNode } from "../node.ts";

/** Words of `Agent.locals32` that the kernel's machines use. */
export const KERNEL_LOCAL = {
  /** 1 when the run under way was ended by an intercept. */
  INTERCEPT: 0,
  /** Record of a register command that is next, or 0. */
  RECORD: 1,
  /** How many commands the processor has completed, modulo 2^32. */
  COMMANDS: 2,
  /** 1 after a panic. */
  PANICKED: 3,
} as const;

/** A processor that executes the sidecar kernel. */
export interface SidecarProcessor extends Agent {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** Its number in the node. */
  readonly slot: number;
  /** Byte offset of its command page. */
  readonly commandPage: number;
  /** First step of what removal does before the last status: the overlays are unmapped and the APIC is disabled. */
  readonly unmap: StepId;
  /** Whether the sidecar kernel is to start on it again after its removal. */
  readonly restarted: boolean;
  /** Takes note of that. Returns the first step of the start. */
  restart(): StepId;
  /** First step of a command, or -1 when there is none of that number. */
  commandStep(command: number): StepId;
  /** One iteration of a run, once it is clear that it is not to stop: the step that follows. */
  runOnce(): StepId;
  /** The kernel panics with `text`. Returns the step of a processor that has. */
  panic(text: string): StepId;
}

const at = CommandPage.at;
/** Bytes of text that an error can have. */
const ERROR_MAX = 255;

/** Notes that the present command failed with `text`, cut without notice (openvmm openhcl/sidecar set_error). */
export function setError(processor: SidecarProcessor, text: string): void {
  const { u8 } = processor.memory;
  const bytes = new TextEncoder().encode(text).subarray(0, ERROR_MAX);
  const error = processor.commandPage + at.error;
  u8[error] = bytes.length;
  u8.set(bytes, error + 1);
  u8[processor.commandPage + at.has_error] = 1;
}

/** The text of the last command's error, or nothing when it succeeded. */
export function commandError(memory: { readonly u8: Uint8Array }, commandPage: number): string | undefined {
  const { u8 } = memory;
  if (u8[commandPage + at.has_error] === 0) return undefined;
  const error = commandPage + at.error;
  return new TextDecoder().decode(u8.slice(error + 1, error + 1 + u8[error]));
}

/**
 * The first page of a machine's model region: what belongs to the machine as a whole.
 *
 * @module
 */
import { bytes, u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { POLICIES_MAX } from "../memory/policy.ts";

/** Why a machine has ended. */
export const END = {
  /** It runs. */
  NONE: 0,
  /** Every VP is halted with interrupts off, or was never started. */
  HALT: 1,
  /** The guest wrote the exit port. */
  EXIT_PORT: 2,
  /** A VP took a triple fault. */
  TRIPLE_FAULT: 3,
  /** An assertion in VTL2 failed, or VTL2 met something that it does not handle. */
  VMM_CRASH: 4,
  /** A limit on exits or time was reached. */
  LIMIT: 5,
  /** The user interrupted the run. */
  INTERRUPTED: 6,
  /** No agent can go on, or one made no progress. */
  STUCK: 7,
  /** A worker failed. */
  WORKER_FAILED: 8,
  /** An encrypted guest asked its host for termination; the exit value is the low half of its request. */
  GUEST_TERMINATED: 9,
  /** The host of an encrypted guest refused to go on. */
  HOST_STOPPED: 10,
  /** VMRUN of an encrypted guest failed; the exit value is the exit code. */
  ENTRY_FAILED: 11,
} as const;

/** Names of {@linkcode END} as `run --json` prints them. */
export const END_NAMES = [
  "running",
  "halt",
  "exit-port",
  "triple-fault",
  "vmm-crash",
  "limit",
  "interrupted",
  "stuck",
  "worker-failed",
  "guest-terminated",
  "host-stopped",
  "entry-failed",
] as const;

/** How a machine ended. */
export type EndName = (typeof END_NAMES)[number];

/** Bytes of text that a crash report can hold. */
export const CRASH_TEXT_MAX = 256;

/** The machine's header. */
export const MachineHeader = structure("MachineHeader", 4096, [
  ["magic", 0, u32, "HEADER_MAGIC"],
  ["shutdown", 4, u32, "1 asks every worker to leave; set once"],
  ["end", 8, u32, "One of END; the first to set it wins"],
  ["exit_value", 12, u32, "What the guest wrote to the exit port"],
  ["end_vp", 16, u32, "VP that ended the machine"],
  ["workers_left", 20, u32, "How many workers have left"],
  ["virtual_ns", 24, u64, "Virtual time in nanoseconds, as a double (deterministic runtime)"],
  ["start_epoch_ns", 32, u64, "Wall-clock time at which the machine started, as a double (concurrent runtime)"],
  ["exit_sequence", 40, u32, "Number of the next recorded exit"],
  ["exit_limit", 44, u32, "Recorded exits after which the machine ends; 0 for no limit"],
  ["random", 48, u64, "State of the deterministic runtime's random numbers"],
  ["deterministic", 56, u32, "1 when time is virtual"],
  reserved(60, 4),
  ["crash_left", 64, u64, "Left value of the failed assertion"],
  ["crash_right", 72, u64, "Right value of it"],
  ["crash_step", 80, u32, "Step in which it failed"],
  ["crash_text_length", 84, u32, "Bytes of crash_text that are used"],
  ["crash_text", 88, bytes(CRASH_TEXT_MAX), "UTF-8 text of the assertion"],
  ["split_lock", 344, u32, "Serialises misaligned locked accesses of all processors"],
  ["hotplug_lock", 348, u32, "Linux's hot-plug lock: VP that is being brought online, or 0"],
  reserved(352, 32),
  ["policies", 384, bytes(POLICIES_MAX), "Chosen value of each policy, by its index"],
  reserved(512, 3584),
], "Not a structure of the modelled machine");

/** "EXBX", the first word of a machine's header. */
export const HEADER_MAGIC = 0x58425845;

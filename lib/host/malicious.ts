/**
 * A malicious host: an agent that at any step does what a host can do and no honest one would: it writes shared and private
 * memory, changes the RMP, injects events, alters what the guest is told, and runs one processor's VMSA on another.
 *
 * Which of these it does is decided by a stream of random numbers whose state is in its block, so that a run repeats.
 *
 * @module
 */
import { ATTENTION } from "../hypervisor/attention.ts";
import { GUEST_ASID, type SevMachine } from "../hypervisor/sev/machine.ts";
import type { Partition } from "../hypervisor/partition.ts";
import { VMCB_CONTROL, VMCB_EVENT_INJ_LO } from "../layout/sev/vmcb.ts";
import { Agent } from "../memory/agent.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import { Random } from "../memory/random.ts";
import { step, type StepId } from "../memory/steps.ts";
import { HostPort } from "./host_port.ts";

const vmcb = VMCB_CONTROL.at;
/** Of so many steps it does something in one. */
const STEPS_PER_ACT = 400;
/** Vectors and types that it injects: any that fit the field. */
const VECTORS = 256;
const EVENT_TYPES = 8;

/** The agent. */
export class MaliciousHost extends Agent {
  readonly sev: SevMachine;
  readonly partition: Partition;
  /** Guest memory, as any host reaches it. */
  readonly guest: HostPort;
  /** What it does next. */
  readonly random: Random;
  /** How often it has done something of each kind; only for reports. */
  readonly acts: Map<string, number> = new Map();

  /** The agent over the block at byte offset `block`, with its own `seed`. */
  constructor(block: number, sev: SevMachine, partition: Partition, port: MemoryPort, seed: number) {
    super("host.malicious", sev.memory, block, port);
    this.sev = sev;
    this.partition = partition;
    this.guest = new HostPort(sev.guestMemory, this);
    this.locals32[0] = seed;
    this.random = new Random(this.locals32, 0);
    this.step = ACT;
  }

  /** A random virtual processor's VMCB. */
  vmcbOfAny(): number {
    return this.sev.vmcb(this.random.below(this.sev.config.vps));
  }

  /** A random page of RAM. */
  anyPage(): number {
    return this.random.below(this.sev.config.ramBytes / PAGE_SIZE);
  }
}

/** One thing that only a malicious host does. */
type Act = (host: MaliciousHost) => void;

const ACTS: Readonly<Record<string, Act>> = {
  "write-shared": (host) => {
    const page = Number(host.memory.u64[(host.vmcbOfAny() + vmcb.ghcb_gpa) >>> 3] & 0xffff_f000n);
    if (page < host.sev.config.ramBytes) {
      host.guest.store8(page + host.random.below(PAGE_SIZE), host.random.next() & 0xff);
    }
  },
  "write-private": (host) => {
    host.guest.store8(host.anyPage() * PAGE_SIZE + host.random.below(PAGE_SIZE), host.random.next() & 0xff);
  },
  "rmpupdate": (host) => {
    if (host.sev.rmp === undefined) return;
    const assigned = host.random.below(2) === 0;
    const gpn = host.anyPage();
    const state = { assigned, asid: assigned ? GUEST_ASID : 0, gpn: assigned ? gpn : 0, size: 0, immutable: false };
    host.sev.guestMemory.rmpupdate(host.port, host.anyPage(), state);
    host.partition.flushTlbs(host.port);
  },
  "inject": (host) => {
    const event = VMCB_EVENT_INJ_LO.make({
      vector: host.random.below(VECTORS),
      type: host.random.below(EVENT_TYPES),
      error_code_valid: host.random.below(2),
      valid: 1,
    });
    host.memory.u32[(host.vmcbOfAny() + vmcb.event_inj) >>> 2] = event;
  },
  "answer-msr": (host) => {
    host.port.store64(
      host.vmcbOfAny() + vmcb.ghcb_gpa,
      (BigInt(host.random.next()) << 32n) | BigInt(host.random.next()),
    );
  },
  "foreign-vmsa": (host) => {
    const page = host.sev.vmsa(host.random.below(host.sev.config.vps));
    host.memory.u64[(host.vmcbOfAny() + vmcb.vmsa_pa) >>> 3] = BigInt(page);
  },
  "kick": (host) => {
    host.partition.signal(host.port, host.random.below(host.sev.config.vps), ATTENTION.STOP);
  },
};
const NAMES = Object.keys(ACTS);

/** Does something, or waits for a better moment. */
const ACT: StepId = step<MaliciousHost>("malicious-host.act", (host) => {
  if (host.random.below(STEPS_PER_ACT) !== 0) return ACT;
  const name = NAMES[host.random.below(NAMES.length)];
  ACTS[name](host);
  host.acts.set(name, (host.acts.get(name) ?? 0) + 1);
  return ACT;
});

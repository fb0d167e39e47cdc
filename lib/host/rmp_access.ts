/**
 * A host kernel that writes memory which a guest shares with it, while the guest has the state of that memory changed: what
 * the mail on RMP faults of May 2021 is about (sev.md e5, e10 to e16, d11).
 *
 * ```
 * host.writer    replies into a GHCB or a shared buffer: finds the page, checks it, writes it
 * host.psc       serves a page state change that another processor of the guest asks for
 * host.device    a device that vfio lets write to guest memory, behind the IOMMU
 * host.freer     frees a page that it had assigned (VMSA, firmware context) without taking it back, and uses it again
 * guest          asks for the page to be private, accepts it, and keeps something there
 * ```
 *
 * The pages and their entries in the reverse map table are real; what is left out is everything else of a host.
 *
 * @module
 */
import { RMP_GEOMETRY } from "../layout/sev/constants/rmp.ts";
import { u32 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { Agent, AgentBlock } from "../memory/agent.ts";
import { MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import { POLICIES_MAX, type Policy, policy, policyAt, policyNamed, policyValue } from "../memory/policy.ts";
import { DirectPort } from "../memory/port.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { Rmp, RMP_CHECK, rmpBytes } from "../sev/rmp.ts";

/** Whether private and shared memory of a guest are one mapping. */
export const BACKING = policy("host.backing", "What backs a guest page that can be private or shared", {
  "one-mapping": "one physical page, mapped by the host all the time (the world of the mail of May 2021)",
  "guest-memfd": "two: the host maps the shared one only, the private one comes from guest_memfd (Linux since 6.8)",
});

/** When the host looks whether a page is shared. */
export const CHECK = policy("host.check", "When the host looks whether a guest page that it is to write is shared", {
  "none": "never: the fault will tell (the patch series)",
  "at-conversion": "when the guest-physical address is turned into a host one (Dave Hansen in the mail)",
  "under-lock": "then, and the state may not change until the access is done",
});

/** What the host's page-fault handler does with an RMP fault of the kernel. */
export const ON_FAULT = policy("host.on-fault", "What the host does when its write raises #PF with the RMP bit", {
  "efault": "the copy helper returns -EFAULT and the request is given up (the mail's advice for races)",
  "recover-by-sharing": "the handler makes the page shared and the write is repeated (the patch series)",
  "bug-any-fault": "BUG: a fault on the kernel's own write is always a bug of the host",
  "bug-own-pages-only": "BUG on a page that the host itself had assigned, -EFAULT on a guest's",
});

/** Physical pages of the model. */
export const PAGE = {
  /** The guest's page in question. */
  SHARED: 2,
  /** What backs it while it is private, with guest_memfd. */
  PRIVATE: 3,
  /** A page that the host assigned for itself: a VMSA or a firmware context. */
  OWN: 4,
  /** Another guest's. */
  OTHER: 5,
} as const;

const PAGES = 8;
const GUEST_ASID = 1;
const OTHER_ASID = 2;
/** Byte offsets: the table, the state below, the agents' blocks. */
const TABLE = PAGES * PAGE_SIZE;
const STATE = TABLE + rmpBytes(PAGES);
const BLOCKS = STATE + 128;
const BLOCKS_MAX = 4;
const POLICY_AREA: number = BLOCKS + BLOCKS_MAX * AgentBlock.size;

/** What the agents know and leave behind. */
export const RmpAccessState = structure("RmpAccessState", 128, [
  ["lock", 0, u32, "1 while somebody keeps page states from changing (shared)"],
  ["mapped", 4, u32, "Accesses to the page that are under way (shared)"],
  ["request", 8, u32, "1 when the guest asks for the page to be private, 2 when that is done (shared)"],
  ["stopped", 12, u32, "1 when the host has stopped with a BUG"],
  ["stopped_at", 16, u32, "Page on whose fault it stopped"],
  ["faults", 20, u32, "RMP faults of the host's writes"],
  ["iommu_events", 24, u32, "Writes of the device that the IOMMU refused"],
  ["private_writes", 28, u32, "Writes of the host that reached memory which the guest keeps private"],
  ["changed_under_access", 32, u32, "Changes of a page's state while somebody accessed it"],
  ["stale_checks", 36, u32, "Writes to a page that was private in spite of the check, or without one"],
  ["guest_state", 40, u32, "What the guest takes the page for: 0 shared, 1 private and accepted"],
  ["own_error", 44, u32, "1 when the host has written a page that it had freed while it was assigned"],
  ["own_unnoticed", 48, u32, "1 when that did not stop it"],
  ["taken_away", 52, u32, "1 when the host has taken a private page from a guest that did not ask for it"],
  ["guest_failed", 56, u32, "1 when the guest has been refused or has lost its page"],
  reserved(60, 68),
], "Not a structure of the modelled machine");

const at = RmpAccessState.at;

/** What writes, and what the guest does. */
export type AccessCase = "ghcb" | "never-shared" | "dma" | "freed-page";

/** One host, one guest, one page. */
export class RmpAccess {
  readonly memory: MachineMemory;
  readonly rmp: Rmp;
  readonly agents: readonly RmpAccessAgent[];

  /** The model for a case; policies that are not given have their defaults. Throws `BadInput` for one that is not known. */
  constructor(which: AccessCase, policies: Readonly<Record<string, string>>) {
    this.memory = MachineMemory.allocate(POLICY_AREA + POLICIES_MAX);
    this.rmp = new Rmp(this.memory, { base: TABLE, pages: PAGES });
    for (const question of [BACKING, CHECK, ON_FAULT] as readonly { readonly name: string }[]) {
      const named = policyNamed(question.name);
      this.memory.u8[POLICY_AREA + named.index] = policyValue(named, policies[named.name] ?? named.values[0].name);
    }
    const port = new DirectPort(this.memory);
    const size = RMP_GEOMETRY.PAGE_SIZE_4K;
    const assign = (page: number, asid: number) =>
      this.rmp.rmpupdate(port, page, { assigned: true, asid, gpn: page, size, immutable: false });
    assign(PAGE.OTHER, OTHER_ASID);
    assign(PAGE.OWN, 0);
    const make = (name: string, first: StepId): RmpAccessAgent => {
      const agent = new RmpAccessAgent(name, this, BLOCKS + made.length * AgentBlock.size, port);
      agent.step = first;
      made.push(agent);
      return agent;
    };
    const made: RmpAccessAgent[] = [];
    switch (which) {
      case "ghcb":
        make("host.writer", FIND_PAGE);
        make("host.psc", PSC_WAIT);
        make("guest", GUEST_ASK);
        break;
      case "never-shared":
        // The guest accepted its GHCB's page as private memory and never made it shared.
        assign(this.is(BACKING, "guest-memfd") ? PAGE.PRIVATE : PAGE.SHARED, GUEST_ASID);
        this.set("guest_state", 1);
        make("host.writer", FIND_PAGE);
        break;
      case "dma":
        make("host.device", DEVICE_BEGIN);
        make("host.psc", PSC_WAIT);
        make("guest", GUEST_ASK);
        break;
      case "freed-page":
        make("host.freer", FREE_PAGE);
    }
    this.agents = made;
  }

  /** Whether a policy has this value. */
  is<V extends string>(question: Policy<V>, value: V): boolean {
    return policyAt(this.memory.u8, POLICY_AREA, question as unknown as Policy) === question.is[value];
  }

  /** A word of the state. */
  get(field: keyof typeof at): number {
    return this.memory.u32[(STATE + at[field]) >>> 2];
  }

  /** Sets a word of the state. */
  set(field: keyof typeof at, value: number): void {
    this.memory.u32[(STATE + at[field]) >>> 2] = value;
  }

  /** Byte offset of a word of the state. */
  at(field: keyof typeof at): number {
    return STATE + at[field];
  }

  /** What a step can change: entries, state, blocks, and the first words of each page. */
  get mutable(): readonly { readonly at: number; readonly bytes: number }[] {
    const words = [PAGE.SHARED, PAGE.PRIVATE, PAGE.OWN].map((page) => ({ at: page * PAGE_SIZE, bytes: 8 }));
    return [...words, { at: TABLE, bytes: BLOCKS + this.agents.length * AgentBlock.size - TABLE }];
  }

  /** Byte offset of the state. */
  get state(): number {
    return STATE;
  }

  /** The page that the host writes when it writes to the guest's page. */
  get target(): number {
    return PAGE.SHARED;
  }
}

/** An agent of the model. */
export class RmpAccessAgent extends Agent {
  readonly model: RmpAccess;

  /** An agent over the block at byte offset `block`. */
  constructor(name: string, model: RmpAccess, block: number, port: DirectPort) {
    super(name, model.memory, block, port);
    this.model = model;
  }

  /** Whether physical page `page` is assigned. */
  isAssigned(page: number): boolean {
    return this.model.rmp.isAssigned(this.port, page);
  }

  /** Counts something in the state. */
  count(field: keyof typeof at): void {
    this.port.add32(this.model.at(field), 1);
  }

  /** Whether the lock is free. */
  get lockFree(): boolean {
    return this.port.load32(this.model.at("lock")) === 0;
  }
}

/** Value that the host and the device write. */
const REPLY = 0x52n;

// --- The writer ------------------------------------------------------------------------------------------------------

/** With `under-lock` the writer first keeps page states from changing. */
const TAKE_LOCK: StepId = step<RmpAccessAgent>("rmp-access.take-lock", (agent) => {
  agent.port.exchange32(agent.model.at("lock"), 1);
  return CHECK_PAGE;
}, (agent) => agent.lockFree);

/** The guest-physical address is turned into a host one; what backs it is mapped. */
const FIND_PAGE: StepId = step<RmpAccessAgent>("rmp-access.gpa-to-hva", (agent) => {
  if (agent.model.is(CHECK, "under-lock")) return TAKE_LOCK;
  return agent.model.is(CHECK, "none") ? MAP_PAGE : CHECK_PAGE;
});

/** The host looks whether the guest has the page shared. */
const CHECK_PAGE: StepId = step<RmpAccessAgent>("rmp-access.check-state", (agent) => {
  const { model } = agent;
  const isPrivate = agent.isAssigned(model.is(BACKING, "guest-memfd") ? PAGE.PRIVATE : PAGE.SHARED);
  return isPrivate ? REFUSE : MAP_PAGE;
});

/** The access begins. */
const MAP_PAGE: StepId = step<RmpAccessAgent>("rmp-access.map", (agent) => {
  agent.count("mapped");
  return WRITE_PAGE;
});

/** The host writes, through the mapping that it has. */
const WRITE_PAGE: StepId = step<RmpAccessAgent>("rmp-access.write", (agent) => {
  const { model } = agent;
  const page = PAGE.SHARED;
  if (agent.isAssigned(page)) agent.count("stale_checks");
  if (model.rmp.checkHostWrite(agent.port, page) !== RMP_CHECK.PASS) return FAULT;
  // The guest's private memory is another page with guest_memfd.
  if (model.get("guest_state") === 1 && model.is(BACKING, "one-mapping")) agent.count("private_writes");
  agent.port.store64(page * PAGE_SIZE, REPLY);
  return UNMAP_PAGE;
});

/** #PF with the RMP bit. */
const FAULT: StepId = step<RmpAccessAgent>("rmp-access.rmp-fault", (agent) => {
  const { model } = agent;
  agent.count("faults");
  if (model.is(ON_FAULT, "bug-any-fault")) return bug(agent, PAGE.SHARED);
  if (model.is(ON_FAULT, "recover-by-sharing")) return TAKE_AWAY;
  return UNMAP_PAGE; // -EFAULT: the reply is given up
});

/** The handler makes the page shared, although nobody asked for that, and the write is repeated. */
const TAKE_AWAY: StepId = step<RmpAccessAgent>("rmp-access.recover-by-sharing", (agent) => {
  const { model } = agent;
  share(agent, PAGE.SHARED);
  model.set("taken_away", 1);
  if (model.get("guest_state") === 1) model.set("guest_failed", 1);
  return WRITE_PAGE;
});

function share(agent: RmpAccessAgent, page: number): void {
  const size = RMP_GEOMETRY.PAGE_SIZE_4K;
  agent.model.rmp.rmpupdate(agent.port, page, { assigned: false, asid: 0, gpn: 0, size, immutable: false });
}

/** The host's own assertion: it stops. */
function bug(agent: RmpAccessAgent, page: number): StepId {
  agent.model.set("stopped", 1);
  agent.model.set("stopped_at", page);
  return HALTED;
}

/** The access has ended. */
const UNMAP_PAGE: StepId = step<RmpAccessAgent>("rmp-access.unmap", (agent) => {
  agent.port.add32(agent.model.at("mapped"), -1);
  return agent.model.is(CHECK, "under-lock") ? RELEASE : HALTED;
});

/** A private page is not written: the guest gets an error. */
const REFUSE: StepId = step<RmpAccessAgent>("rmp-access.refuse", (agent) => {
  agent.model.set("guest_failed", 1);
  return agent.model.is(CHECK, "under-lock") ? RELEASE : HALTED;
});

/** Page states may change again. */
const RELEASE: StepId = step<RmpAccessAgent>("rmp-access.release-lock", (agent) => {
  agent.port.exchange32(agent.model.at("lock"), 0);
  return HALTED;
});

// --- Page state changes ----------------------------------------------------------------------------------------------

/** Another processor's VMGEXIT asks for the page to be private. */
const PSC_WAIT: StepId = step<RmpAccessAgent>(
  "rmp-access.psc-request",
  (agent) => agent.model.is(CHECK, "under-lock") ? PSC_LOCK : PSC_UPDATE,
  (agent) => agent.port.load32(agent.model.at("request")) === 1,
);

/** It waits for accesses that keep the state. */
const PSC_LOCK: StepId = step<RmpAccessAgent>("rmp-access.psc-take-lock", (agent) => {
  agent.port.exchange32(agent.model.at("lock"), 1);
  return PSC_UPDATE;
}, (agent) => agent.lockFree);

/** RMPUPDATE: of the page itself, or of the one that guest_memfd gives. */
const PSC_UPDATE: StepId = step<RmpAccessAgent>("rmp-access.psc-rmpupdate", (agent) => {
  const { model } = agent;
  const page = model.is(BACKING, "guest-memfd") ? PAGE.PRIVATE : PAGE.SHARED;
  if (page === PAGE.SHARED && agent.port.load32(model.at("mapped")) !== 0) agent.count("changed_under_access");
  const size = RMP_GEOMETRY.PAGE_SIZE_4K;
  model.rmp.rmpupdate(agent.port, page, { assigned: true, asid: GUEST_ASID, gpn: page, size, immutable: false });
  return PSC_DONE;
});

/** The guest is told. */
const PSC_DONE: StepId = step<RmpAccessAgent>("rmp-access.psc-answer", (agent) => {
  if (agent.model.is(CHECK, "under-lock")) agent.port.exchange32(agent.model.at("lock"), 0);
  agent.port.store32(agent.model.at("request"), 2);
  return HALTED;
});

// --- The guest -------------------------------------------------------------------------------------------------------

/** At any moment another of its processors asks for the page to be private. */
const GUEST_ASK: StepId = step<RmpAccessAgent>("rmp-access.guest-asks", (agent) => {
  agent.port.store32(agent.model.at("request"), 1);
  return GUEST_VALIDATE;
});

/** When it is, the guest accepts it with PVALIDATE and keeps something there. */
const GUEST_VALIDATE: StepId = step<RmpAccessAgent>("rmp-access.guest-pvalidates", (agent) => {
  const { model } = agent;
  const page = model.is(BACKING, "guest-memfd") ? PAGE.PRIVATE : PAGE.SHARED;
  const options = { asid: GUEST_ASID, size: 0, validate: true, mappedPrivate: true };
  const { check } = model.rmp.pvalidate(agent.port, page, page, options);
  if (check === RMP_CHECK.PASS) model.set("guest_state", 1);
  else model.set("guest_failed", 1);
  return HALTED;
}, (agent) => agent.port.load32(agent.model.at("request")) === 2);

// --- The device ------------------------------------------------------------------------------------------------------

/** vfio has pinned the page for the device. */
const DEVICE_BEGIN: StepId = step<RmpAccessAgent>("rmp-access.pin-for-dma", (agent) => {
  const { model } = agent;
  if (model.is(CHECK, "under-lock")) return DEVICE_LOCK;
  if (model.is(CHECK, "none")) return DEVICE_PIN;
  const isPrivate = agent.isAssigned(model.is(BACKING, "guest-memfd") ? PAGE.PRIVATE : PAGE.SHARED);
  return isPrivate ? HALTED : DEVICE_PIN;
});

const DEVICE_LOCK: StepId = step<RmpAccessAgent>("rmp-access.dma-take-lock", (agent) => {
  agent.port.exchange32(agent.model.at("lock"), 1);
  const isPrivate = agent.isAssigned(agent.model.is(BACKING, "guest-memfd") ? PAGE.PRIVATE : PAGE.SHARED);
  return isPrivate ? RELEASE : DEVICE_PIN;
}, (agent) => agent.lockFree);

const DEVICE_PIN: StepId = step<RmpAccessAgent>("rmp-access.dma-map", (agent) => {
  agent.count("mapped");
  return DEVICE_WRITE;
});

/** The device writes: the IOMMU checks the RMP and refuses, and the host reads an event (e6). */
const DEVICE_WRITE: StepId = step<RmpAccessAgent>("rmp-access.dma-write", (agent) => {
  const { model } = agent;
  if (agent.isAssigned(PAGE.SHARED)) agent.count("stale_checks");
  if (model.rmp.checkDmaWrite(agent.port, PAGE.SHARED) !== RMP_CHECK.PASS) {
    agent.count("iommu_events");
    return UNMAP_PAGE;
  }
  if (model.get("guest_state") === 1 && model.is(BACKING, "one-mapping")) agent.count("private_writes");
  agent.port.store64(PAGE.SHARED * PAGE_SIZE, REPLY);
  return UNMAP_PAGE;
});

// --- The host's own error --------------------------------------------------------------------------------------------

/** The host frees a page that is still assigned. */
const FREE_PAGE: StepId = step<RmpAccessAgent>("rmp-access.free-assigned-page", () => REUSE_PAGE);

/** The allocator gives it to somebody else in the kernel, who writes it. */
const REUSE_PAGE: StepId = step<RmpAccessAgent>("rmp-access.write-reused-page", (agent) => {
  const { model } = agent;
  model.set("own_error", 1);
  if (model.rmp.checkHostWrite(agent.port, PAGE.OWN) === RMP_CHECK.PASS) {
    agent.port.store64(PAGE.OWN * PAGE_SIZE, REPLY);
    return OWN_DONE;
  }
  agent.count("faults");
  if (model.is(ON_FAULT, "bug-any-fault") || model.is(ON_FAULT, "bug-own-pages-only")) return bug(agent, PAGE.OWN);
  // Not a copy to user space: with -EFAULT there is nobody to take the error.
  if (model.is(ON_FAULT, "recover-by-sharing")) {
    share(agent, PAGE.OWN);
    return REUSE_PAGE;
  }
  return OWN_DONE;
});

/** The write was made, or lost, and nobody has noticed. */
const OWN_DONE: StepId = step<RmpAccessAgent>("rmp-access.error-unnoticed", (agent) => {
  agent.model.set("own_unnoticed", 1);
  return HALTED;
});

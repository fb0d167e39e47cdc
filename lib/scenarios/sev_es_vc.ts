/**
 * The scenario `sev-es-vc`: the #VC handlers of an SEV-ES guest, as an OpenBSD developer proposed them and as they were
 * committed, against two hosts that follow their rules and one that does not.
 *
 * @module
 */
import type { System } from "../explore/system.ts";
import { placedInstructions, UNLISTED_COUNT, vcLabel, type VcProgram } from "../guest/programs/vc/kernel.ts";
import { HostVcpuState } from "../host/host_vcpu.ts";
import { CpuState } from "../cpu/state.ts";
import { GHCB } from "../layout/sev/ghcb.ts";
import { type Agent, AgentBlock } from "../memory/agent.ts";
import { fromTableEnd, pageAccounts } from "./page_accounting.ts";
import type { Choices, Scenario } from "./scenario.ts";
import { type Act, BAD_ANSWERS, BAD_MSR_ANSWERS, badHost, FORGED_EVENTS } from "./vc_host.ts";
import { VC_PROPERTIES, VcProperties } from "./vc_properties.ts";
import { chooser, ended, ENVIRONMENT_BLOCKS, mutableRanges, noteConsulted, vcAgents, vcMachine } from "./vc_system.ts";

type PropertyKey = keyof typeof VC_PROPERTIES;

/** What a value of the option `program` means. */
interface Part {
  /** What the guest executes. */
  readonly program: VcProgram;
  /** What the host does badly. */
  readonly acts: readonly Act[];
  /** What is asked of it. */
  readonly properties: readonly PropertyKey[];
}

const ALWAYS: readonly PropertyKey[] = ["fields", "secrets", "rip", "info", "silicon"];

const PARTS = {
  "boot": { program: "boot", acts: [], properties: [...ALWAYS, "listed"] },
  "ports": { program: "ports", acts: [], properties: [...ALWAYS, "listed"] },
  "registers": { program: "registers", acts: [], properties: [...ALWAYS, "listed"] },
  "xsave-leaf": { program: "xsave", acts: [], properties: ALWAYS },
  "user": { program: "user", acts: [], properties: [...ALWAYS, "user"] },
  "unlisted": { program: "unlisted", acts: [], properties: [...ALWAYS, "unlisted"] },
  "hidden-registers": { program: "host", acts: [], properties: [...ALWAYS, "listed", "shadow"] },
  "bad-answers": { program: "answered", acts: BAD_ANSWERS, properties: ["secrets", "silicon", "answers"] },
  "bad-early-answers": { program: "boot", acts: BAD_MSR_ANSWERS, properties: ["answers"] },
  "forged-vc": { program: "answered", acts: FORGED_EVENTS, properties: ["secrets", "forged"] },
} as const satisfies Record<string, Part>;

/** A value of the option `program`. */
export type VcPart = keyof typeof PARTS;
const PART_NAMES = Object.keys(PARTS) as VcPart[];
const HOST_NAMES = ["kvm", "vmd"] as const;

/** The pages of the code as it was committed. */
const COMMITTED_PAGES = pageAccounts()[0];

const PROGRAM_MEANING =
  "what the guest executes, or how the host errs; all but boot and bad-early-answers begin behind a boot that works";

/** The scenario. */
export const sevEsVc: Scenario = {
  name: "sev-es-vc",
  summary:
    "an SEV-ES guest's #VC handlers: two early handlers or one, ports above 7fff, 32-bit results, the host's verdict",
  shows: [
    "An SEV-ES guest handles its own exits: the processor raises #VC, and the guest's handler puts what the host needs into " +
    "the GHCB. OpenBSD's handlers were discussed as a draft and committed with changes. Here both are code of one guest " +
    "kernel, which a policy a question chooses between, and run against KVM's rules and vmd's.",
    "Two early handlers are needed where the kernel is entered in legacy and in compatibility mode; one where it is entered " +
    "in one. The draft's port number sign-extends into EXITINFO1 from 8000 on, and the first revision of the copy-in keeps " +
    "upper halves that the processor clears: both were repaired. A handler that reads instructions does not go together " +
    "with execute-only text.",
    "Neither version looks at what the host says of a request, and neither looks at the bytes of a CPUID: an error is taken " +
    "for an answer, by KVM's own rules for leaf D without XCR0, and a #VC that the host injects passes for a CPUID.",
    `The thread's question about first_avail: it is passed as ${fromTableEnd(COMMITTED_PAGES.passed)} and ends at ` +
    `${fromTableEnd(COMMITTED_PAGES.after.at(-1)!.firstAvail)}; ` +
    (COMMITTED_PAGES.wrong.length === 0
      ? "no page is given twice and none is lost."
      : COMMITTED_PAGES.wrong.join("; ")),
  ],
  source: "OpenBSD tech list, Re: SEV-ES guest: locore #VC trap handling, 2025-06-24",
  policies: [
    { policy: "vc.early-handler", values: ["32", "64", "both"] },
    { policy: "vc.boot", values: ["legacy", "compat"] },
    { policy: "vc.port-promotion", values: ["64-bit", "signed"] },
    { policy: "vc.result-merge", values: ["zero-extend", "upper-32-kept"] },
    { policy: "vc.exitinfo1", values: ["ignored", "checked"] },
    { policy: "vc.execute-only", values: ["no", "yes"] },
    { policy: "vc.opcode-check", values: ["as-published", "every-exit"] },
    { policy: "vmm.xsetbv-intercept", values: ["no", "yes"] },
    { policy: "vmm.cr8-shadow", values: ["no", "yes"] },
    { policy: "vmm.host-fpu-save", values: ["yes", "no"] },
  ],
  options: [
    { name: "program", meaning: PROGRAM_MEANING, values: PART_NAMES, default: "ports" },
    { name: "host", meaning: "whose rules the host follows", values: HOST_NAMES, default: "vmd" },
  ],
  properties: Object.values(VC_PROPERTIES),
  memoryModels: ["sc"],
  bounds: {},
  matrix: {
    parts: PART_NAMES.flatMap((program) => HOST_NAMES.map((host) => ({ program, host }))),
    memoryModels: ["sc"],
    bounds: {},
  },
  build: (policies, options, system) => {
    return build(policies, PARTS[options.program as VcPart], options.host as "kvm" | "vmd", system);
  },
};

function build(policies: Choices, { program, acts, properties }: Part, host: "kvm" | "vmd", name: string): System {
  const parts = vcMachine(host, program, policies);
  const { vp } = parts;
  const placed = placedInstructions(program);
  const environment: readonly Agent[] = program === "unlisted"
    ? [chooser(parts, UNLISTED_COUNT)]
    : acts.length === 0
    ? []
    : badHost(parts, ENVIRONMENT_BLOCKS, AgentBlock.size, acts);
  const agents = vcAgents(parts, environment);
  const made = new VcProperties(parts, program, placed, acts);
  const list = properties.map((key) => made.make(key));
  // What the kernel's code has looked at is known from its own memory, state by state.
  const [first, ...others] = list;
  const noting = { ...first, holds: () => (noteConsulted(parts), first.holds()) };
  return {
    name,
    policies,
    memory: vp.memory,
    agents,
    mutable: mutableRanges(parts, agents.map(({ agent }) => agent), program === "boot"),
    properties: [noting, ...others],
    finished: () => ended(parts) || vp.memory.u8[vcLabel("finished")] !== 0,
    over: () => ended(parts),
    afterRestore: () => vp.cpu.flushCaches(),
    structures: [
      { name: "guest", at: vp.cpuState, layout: CpuState },
      { name: "GHCB", at: vcLabel("GHCB"), layout: GHCB },
      { name: "host", at: parts.host.state, layout: HostVcpuState },
    ],
  };
}

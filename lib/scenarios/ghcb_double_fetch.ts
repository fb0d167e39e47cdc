/**
 * The scenario `ghcb-double-fetch`: a host that looks twice at what a guest's other processor may rewrite in between.
 *
 * The host is KVM's own steps for one VMGEXIT. The guest is reduced to what can hurt: one store by another of its
 * processors, to any of the fields that count, at any moment.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import type { Property, Range, System } from "../explore/system.ts";
import { HostVcpuState } from "../host/host_vcpu.ts";
import { VALIDATED } from "../host/kvm/vmgexit.ts";
import { KVM_EXIT } from "../host/kvm/exit.ts";
import { SevVpState, TURN } from "../hypervisor/sev/state.ts";
import { PscOperation } from "../layout/sev/constants/ghcb.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import { GHCB, type GhcbValidField } from "../layout/sev/ghcb.ts";
import { PSC_BUFFER, PSC_ENTRY } from "../layout/sev/psc.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { MachineHeader } from "../machine/header.ts";
import { Machine } from "../machine/machine.ts";
import { Agent, AgentBlock } from "../memory/agent.ts";
import type { MemoryPort } from "../memory/port.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { Ghcb } from "../sev/ghcb.ts";
import { pscEntryOffset } from "../sev/psc.ts";
import type { Choices, Scenario } from "./scenario.ts";

const EXIT = SevExitCode.values;
const RAM_BYTES = 1 << 20;
/** Where the GHCB lies, the pages whose state is to change, and the block of the other processor. */
const GHCB_AT = 0x10000;
const BUFFER = GHCB_AT + GHCB.at.shared_buffer;
const FIRST_PAGE = 0x20;
const WRITER_BLOCK = 0x30000;
/** Entries of the page state change, and as many as the other processor can make them. */
const ENTRIES = 2;
const ENTRIES_MAX = 4;
const PAGE_BYTES = 4096;

/** One store of the guest's other processor. */
interface Store {
  readonly at: number;
  readonly bytes: 2 | 8;
  readonly value: bigint;
}

const field = (name: GhcbValidField, value: bigint): Store => ({ at: GHCB_AT + GHCB.at[name], bytes: 8, value });

/** A request, what makes it, and the stores that can hurt. */
interface Request {
  readonly fields: Partial<Record<GhcbValidField, bigint>>;
  readonly buffer: readonly (readonly [offset: number, bytes: 2 | 8, value: bigint])[];
  readonly stores: readonly Store[];
}

const pscEntry = (page: number) => PSC_ENTRY.make({ gfn: page, operation: PscOperation.values.PRIVATE });

const REQUESTS: Readonly<Record<string, Request>> = {
  port: {
    // OUT to port 80, one byte; as an OUTS it would need a scratch area, which has not been checked.
    fields: { sw_exit_code: BigInt(EXIT.IOIO), sw_exit_info_1: 0x800010n, sw_exit_info_2: 0n, rax: 1n },
    buffer: [],
    stores: [
      field("sw_exit_code", BigInt(EXIT.MMIO_WRITE)),
      field("sw_exit_info_1", 0x800014n),
      field("sw_exit_info_2", 1n << 40n),
      field("rax", 2n),
    ],
  },
  psc: {
    fields: {
      sw_exit_code: BigInt(EXIT.SNP_PSC),
      sw_exit_info_1: 0n,
      sw_exit_info_2: 0n,
      sw_scratch: BigInt(BUFFER),
    },
    buffer: [
      [PSC_BUFFER.at.end_entry, 2, BigInt(ENTRIES - 1)],
      ...Array.from(
        { length: ENTRIES },
        (_, k): readonly [number, 8, bigint] => [pscEntryOffset(k), 8, pscEntry(FIRST_PAGE + k)],
      ),
    ],
    stores: [
      field("sw_exit_code", BigInt(EXIT.SNP_AP_CREATION)),
      field("sw_scratch", BigInt(RAM_BYTES) - 8n),
      { at: BUFFER + PSC_BUFFER.at.cur_entry, bytes: 2, value: 0n },
      { at: BUFFER + PSC_BUFFER.at.end_entry, bytes: 2, value: BigInt(ENTRIES_MAX - 1) },
      { at: BUFFER + pscEntryOffset(1), bytes: 8, value: pscEntry(RAM_BYTES / PAGE_BYTES) },
    ],
  },
};

/** The guest's other processor. */
class Writer extends Agent {
  readonly stores: readonly Store[];

  constructor(memory: Machine["memory"], port: MemoryPort, stores: readonly Store[]) {
    super("guest.vp1", memory, WRITER_BLOCK, port);
    this.stores = stores;
  }
}

/** It rewrites one of the fields, or none. */
const REWRITE: StepId = step<Writer>("guest.rewrite-ghcb", (writer) => {
  const chosen = writer.port.choose(writer.stores.length);
  const { at, bytes, value } = writer.stores[chosen];
  if (bytes === 2) writer.port.store16(at, Number(value));
  else writer.port.store64(at, value);
  return HALTED;
});

const USED = {
  name: "used-as-validated",
  sentence: "Exit code, exit information and scratch address are used as they were when they were validated.",
};
const ONCE = {
  name: "entries-once",
  sentence: "A page state change acts on each entry of its buffer once.",
};
const ANSWERED = {
  name: "host-goes-on",
  sentence: "Whatever the guest writes, the request is served or refused, and the host does not stop.",
};

/** The scenario. */
export const ghcbDoubleFetch: Scenario = {
  name: "ghcb-double-fetch",
  summary: "a host that reads a GHCB twice while another processor of the guest rewrites it",
  shows: [
    "The GHCB is shared: another processor of the guest can rewrite it while the host works on a request. KVM reads each " +
    "field once, into its own memory, before it validates anything. A host that reads a field again when it uses it has " +
    "validated something else: with one store the guest changes the exit code behind the check.",
    "The shared buffer is not part of that snapshot. KVM uses a scratch area inside the GHCB where it is: a guest that puts " +
    "back the index of a page state change makes the host act on entries again. That harms nobody but the guest, and the " +
    "index is held against a bound that was read once; a copy of the buffer ends it.",
  ],
  source: "Linux arch/x86/kvm/svm/sev.c sev_es_sync_from_ghcb, setup_vmgexit_scratch, snp_begin_psc",
  policies: [
    { policy: "host.ghcb-read", values: ["snapshot", "in-place"] },
    { policy: "host.scratch", values: ["in-place", "copied"] },
  ],
  options: [{ name: "request", meaning: "what the guest asks for", values: ["port", "psc"], default: "port" }],
  properties: [USED, ONCE, ANSWERED],
  memoryModels: ["sc", "tso"],
  bounds: {},
  matrix: { parts: [{ request: "port" }, { request: "psc" }], memoryModels: ["sc"], bounds: {} },
  build: (policies, options, system) => build(policies, REQUESTS[options.request], system),
};

function build(policies: Choices, request: Request, name: string): System {
  const machine = Machine.create({
    platform: "snp",
    vps: 1,
    ramBytes: RAM_BYTES,
    policies,
    devices: "pc",
    recordExits: false,
    hostPlacement: "processor",
  }, true);
  const { memory, map } = machine;
  const { sev } = machine.platform.sev;
  const host = machine.platform.sev.host(0);
  const vmcb = sev.vmcb(0);
  const ghcb = new Ghcb(memory.view, GHCB_AT);
  for (const [key, value] of Object.entries(request.fields)) ghcb.set(key as GhcbValidField, value!);
  for (const [offset, bytes, value] of request.buffer) {
    if (bytes === 2) memory.view.setUint16(BUFFER + offset, Number(value), true);
    else memory.view.setBigUint64(BUFFER + offset, value, true);
  }
  memory.u64[(vmcb + VMCB_CONTROL.at.exit_code) >>> 3] = BigInt(EXIT.VMGEXIT);
  memory.u64[(vmcb + VMCB_CONTROL.at.ghcb_gpa) >>> 3] = BigInt(GHCB_AT);
  host.set64("registered", BigInt(GHCB_AT / PAGE_BYTES) + 1n);
  host.step = KVM_EXIT;
  const writer = new Writer(memory, host.port, request.stores);
  writer.step = REWRITE;
  const turn = (sev.vpState(0) + SevVpState.at.turn) >>> 2;
  const rmp = sev.rmp!.place.base;
  const mutable: Range[] = [
    { at: host.block, bytes: AgentBlock.size },
    { at: WRITER_BLOCK, bytes: AgentBlock.size },
    { at: host.state, bytes: HostVcpuState.size },
    { at: host.scratch, bytes: PSC_BUFFER.size },
    { at: GHCB_AT + GHCB.at.rax, bytes: GHCB.at.x87_state_gpa - GHCB.at.rax },
    { at: BUFFER, bytes: PSC_BUFFER.size },
    { at: vmcb, bytes: VMCB_CONTROL.size },
    { at: sev.vpState(0), bytes: SevVpState.size },
    { at: map.cpuStates + CpuState.at.activity, bytes: 4 },
    { at: map.cpuStates + CpuState.at.attention, bytes: 4 },
    { at: map.header + MachineHeader.at.shutdown, bytes: 24 },
    { at: rmp, bytes: 16 },
    { at: rmp + 16 * FIRST_PAGE, bytes: 16 * ENTRIES },
    { at: FIRST_PAGE * PAGE_BYTES, bytes: ENTRIES * PAGE_BYTES },
  ];
  const validated = (host.state + HostVcpuState.at.validated) >>> 3;
  const properties: Property[] = [
    {
      ...USED,
      when: "always",
      holds: () =>
        memory.u64[validated] === 0n || VALIDATED.every((key, k) => host.get64(key) === memory.u64[validated + k]),
      kind: () => {
        const k = VALIDATED.findIndex((key, index) => host.get64(key) !== memory.u64[validated + index]);
        return `${VALIDATED[k]} was validated as 0x${memory.u64[validated + k].toString(16)} and is used as ` +
          `0x${host.get64(VALIDATED[k]).toString(16)}`;
      },
    },
    {
      ...ONCE,
      when: "always",
      holds: () => host.get32("psc_done") <= host.get32("psc_end") + 1,
      kind: "an entry of the page state change is acted on again",
    },
    {
      ...ANSWERED,
      when: "always",
      holds: () => !host.halted,
      kind: "the host stops the machine",
    },
  ];
  return {
    name,
    policies,
    memory,
    agents: [
      { agent: host, processor: 0 },
      { agent: writer, processor: 1, environment: true },
    ],
    mutable,
    properties,
    finished: () => memory.u32[turn] === TURN.GUEST,
    structures: [
      { name: "host", at: host.state, layout: HostVcpuState },
      { name: "GHCB", at: GHCB_AT, layout: GHCB },
    ],
  };
}

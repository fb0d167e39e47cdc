/**
 * The usual courses of the sidecar kernel, each at once (`Agent.leap`): from a parked processor's interrupt to the guest or
 * to the answer of a command that gets or sets registers, and from the guest's intercept to the answer of the run.
 *
 * A course ends at a step from which something unusual is to be done. The words that the base processor touches as well are
 * accessed in the same order as by the steps (`command_loop.ts`, `run_vp.ts`, `registers.ts`,
 * `../../hypervisor/vtl_return.ts`, `../../hypervisor/vtl_entry.ts`), with the same locked accesses; the rest is this
 * processor's own.
 *
 * @module
 */
import { ACTIVITY_RUNNING, CpuState, EXIT_IN, EXIT_IO } from "../../cpu/state.ts";
import { ATTENTION } from "../../hypervisor/attention.ts";
import { GUEST_RUN } from "../../hypervisor/guest.ts";
import { MESSAGE_TYPE } from "../../hypervisor/intercept_message.ts";
import { WRITE_INTERCEPT_MESSAGE } from "../../hypervisor/intercepts.ts";
import { ioPortMessage } from "../../hypervisor/message_code.ts";
import { applyCode, fillCode } from "../../hypervisor/register_page.ts";
import { EXIT_KIND, HypervisorVpState } from "../../hypervisor/vp_state.ts";
import { interceptEntryCode, REGISTER_PAGE, VTL_ENTRY, WRITE_ENTRY_REASON } from "../../hypervisor/vtl_entry.ts";
import { returnCode } from "../../hypervisor/vtl_return.ts";
import { HvVpAssistPage } from "../../layout/hyperv/assist_page.ts";
import { HvStatus } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import { SIDECAR } from "../../layout/hyperv/constants/sidecar.ts";
import { HvX64PendingExceptionEvent } from "../../layout/hyperv/events.ts";
import { HvMessage } from "../../layout/hyperv/messages.ts";
import { HvX64RegisterPage } from "../../layout/hyperv/register_page.ts";
import { HvRegisterAssoc } from "../../layout/hyperv/registers.ts";
import {
  CommandPage,
  ControlPage,
  CpuStatus,
  GetSetVpRegisterRequest,
  SidecarCommand,
} from "../../layout/hyperv/sidecar.ts";
import { AgentBlock } from "../../memory/agent.ts";
import { backwards } from "../../memory/copy_plan.ts";
import { NOT_COMBINED, type StepId } from "../../memory/steps.ts";
import { lockedAnd32, lockedOr32 } from "../../memory/wasm_atomics.ts";
import * as wasm from "../../memory/wasm_code.ts";
import { mayLeap } from "../driver/leaps.ts";
import { SidecarDriverState } from "../driver/state.ts";
import { SidecarVpGlobals } from "../memory.ts";
import { SIDECAR_SYNC } from "../policies.ts";
import { CHECK_STOP, COMMAND_DONE, SIDECAR_HALT } from "./command_loop.ts";
import { KERNEL_LOCAL } from "./processor.ts";
import { GET_VP_REGISTERS, SET_VP_REGISTERS, TARGET_VTL0 } from "./registers.ts";
import { CONTEXT, RUN_ONCE, SAVE_REGISTERS } from "./run_vp.ts";
import type { SidecarVp } from "./sidecar_vp.ts";

const cpu = CpuState.at;
const state = HypervisorVpState.at;
const command = CommandPage.at;
const control = ControlPage.at;
const assist = HvVpAssistPage.at;
const page = HvX64RegisterPage.at;
const { IDLE, RUN, STOP } = CpuStatus.values;
const { GET_VP_REGISTERS: GET, SET_VP_REGISTERS: SET, RUN_VP, NONE } = SidecarCommand.values;
const { Success } = HvStatus.values;

const WORD = 8;
/** Bits 63:12 of an overlay register hold the page's address. */
const GPA_MASK = ~0xfff;
const ENABLED = 1;
/** The request vector is the first of its word of the interrupt request register. */
const NOT_REQUESTED = ~1;
/** Bytes of a message that are copied always: as many as messages of ports, CPUID and MSRs have. */
const MESSAGE_FIRST = 144;
const PORT_OUT = EXIT_KIND["out"];
const PORT_IN = EXIT_KIND["in"];

const RIP = HvX64RegisterName.values.Rip;
/** First record of a command that sets registers. */
const RECORD: number = command.request_data + GetSetVpRegisterRequest.size;
/** Count and target of a command that sets one register of VTL0, in one word. */
const ONE_REGISTER = 1 | TARGET_VTL0 << 16;

// Parameters and locals of the functions.
const CPU_STATE = wasm.local(0);
const VP_STATE = wasm.local(1);
const COMMAND_PAGE = wasm.local(2);
const CONTROL_PAGE = wasm.local(3);
const STATUS = wasm.local(4);
const DRIVER = wasm.local(5);
const BLOCK = wasm.local(6);
const GLOBALS = wasm.local(7);
const REQUEST = wasm.local(8);
const VP_INDEX = wasm.local(9);
const CPL = wasm.local(10);
const PARAMETERS = 11;
const ASSIST_LOCAL = 11;
const PAGE_LOCAL = 12;
const COMMAND_LOCAL = 13;
const OTHER_LOCAL = 14;
const SCRATCH_LOCAL = 15;
const LOCALS = 5;
const ASSIST = wasm.local(ASSIST_LOCAL);
const PAGE = wasm.local(PAGE_LOCAL);
const COMMAND = wasm.local(COMMAND_LOCAL);
/** Not 0 when the registers of a command are not just RIP. */
const OTHER = wasm.local(OTHER_LOCAL);

/** One of the functions: the step that follows, or `NOT_COMBINED` with nothing done. */
type Course = (
  cpuState: number,
  vpState: number,
  commandPage: number,
  controlPage: number,
  status: number,
  driver: number,
  block: number,
  globals: number,
  request: number,
  vpIndex: number,
  cpl: number,
) => StepId;

/** Sets {@linkcode ASSIST} and {@linkcode PAGE}. */
const findPages: wasm.Code = [
  ...wasm.setLocal(ASSIST_LOCAL, wasm.load32(VP_STATE, state.assist_page)),
  ...wasm.setLocal(PAGE_LOCAL, wasm.load32(VP_STATE, state.register_page)),
];
const pagesDisabled = wasm.isZero(wasm.and(wasm.and(ASSIST, PAGE), wasm.constant(ENABLED)));
const toAddresses: wasm.Code = [
  ...wasm.setLocal(ASSIST_LOCAL, wasm.and(ASSIST, wasm.constant(GPA_MASK))),
  ...wasm.setLocal(PAGE_LOCAL, wasm.and(PAGE, wasm.constant(GPA_MASK))),
];

/** sidecar.store-idle, sidecar.raise-attention, sidecar.send-response-ipi: there is a response vector. */
const answer: wasm.Code = [
  wasm.store32(
    BLOCK,
    AgentBlock.at.locals + KERNEL_LOCAL.COMMANDS * 4,
    wasm.add(wasm.load32(BLOCK, AgentBlock.at.locals + KERNEL_LOCAL.COMMANDS * 4), wasm.constant(1)),
  ),
  wasm.store8(STATUS, 0, wasm.constant(IDLE)),
  wasm.store32(CONTROL_PAGE, control.needs_attention, wasm.constant(1)),
  lockedOr32(wasm.add(DRIVER, wasm.constant(SidecarDriverState.at.response_irr)), wasm.constant(1)),
  wasm.result(wasm.constant(SIDECAR_HALT)),
].flat();

/** sidecar.set-registers, sidecar.set-register, for RIP; then the answer. */
const setRip: wasm.Code = [
  wasm.orElse(SET_VP_REGISTERS, OTHER),
  wasm.store64(CPU_STATE, cpu.rip, wasm.load64(COMMAND_PAGE, RECORD + HvRegisterAssoc.at.value)),
  wasm.store8(COMMAND_PAGE, command.request_data + GetSetVpRegisterRequest.at.status, wasm.constant(0)),
  wasm.store8(COMMAND_PAGE, command.request_data + GetSetVpRegisterRequest.at.status + 1, wasm.constant(0)),
  answer,
].flat();

/** sidecar.park.halt and the command's course. */
function obey(): wasm.WasmCode<Course> {
  const isSet = wasm.equals(COMMAND, SET);
  const isGet = wasm.equals(COMMAND, GET);
  const isRun = wasm.equals(COMMAND, RUN_VP);
  const eventPending = wasm.and(
    wasm.load32(VP_STATE, state.pending_event0),
    wasm.constant(HvX64PendingExceptionEvent.low.event_pending),
  );
  return course(
    wasm.setLocal(COMMAND_LOCAL, wasm.load8(STATUS, 0)),
    wasm.orElse(
      NOT_COMBINED,
      wasm.differs(COMMAND, wasm.constant(RUN)),
      wasm.load32(VP_STATE, state.vtl2_irr_summary),
      wasm.and(wasm.load32(CPU_STATE, cpu.attention), wasm.constant(ATTENTION.VTL2_INTERRUPT)),
      wasm.isZero(wasm.load32(GLOBALS, SidecarVpGlobals.at.overlays_mapped)),
      wasm.isZero(wasm.load32(CONTROL_PAGE, control.response_vector)),
    ),
    wasm.setLocal(COMMAND_LOCAL, wasm.load32(COMMAND_PAGE, command.command)),
    // Before the locked access, so that the host fetches all the lines at a time.
    wasm.setLocal(
      OTHER_LOCAL,
      wasm.or(
        wasm.differs(wasm.load32(COMMAND_PAGE, command.request_data), wasm.constant(ONE_REGISTER)),
        wasm.differs(
          wasm.load32(COMMAND_PAGE, RECORD + HvRegisterAssoc.at.name),
          wasm.constant(RIP),
        ),
      ),
    ),
    wasm.orElse(NOT_COMBINED, wasm.isZero(wasm.or(isSet, isRun, isGet))),
    lockedAnd32(REQUEST, wasm.constant(NOT_REQUESTED)),
    wasm.store8(COMMAND_PAGE, command.has_error, wasm.constant(0)),
    wasm.store32(COMMAND_PAGE, command.command, wasm.constant(NONE)),
    wasm.when(isSet, setRip),
    wasm.when(isGet, wasm.result(wasm.constant(GET_VP_REGISTERS))),
    wasm.orElse(CHECK_STOP, wasm.equals(wasm.load8(STATUS, 0), STOP)),
    findPages,
    wasm.orElse(RUN_ONCE, pagesDisabled),
    toAddresses,
    wasm.orElse(
      RUN_ONCE,
      wasm.isNotZero64(wasm.load64(ASSIST, assist.vtl_return_actions)),
      wasm.load32(PAGE, page.dirty),
      eventPending,
      wasm.isNotZero64(wasm.load64(VP_STATE, state.deliverability)),
      wasm.differs(wasm.load32(CPU_STATE, cpu.activity), wasm.constant(ACTIVITY_RUNNING)),
    ),
    wasm.copy(ASSIST, COMMAND_PAGE, [[command["cpu_context.gps"], assist["vtl_control.registers"], 2 * WORD]]),
    // RAX and RCX too: what the hypercall page's code leaves in them goes at the return.
    wasm.copy(CPU_STATE, COMMAND_PAGE, CONTEXT),
    wasm.store32(VP_STATE, state.vtl2_step, wasm.constant(SAVE_REGISTERS)),
    applyCode(PAGE, CPU_STATE),
    returnCode(VP_STATE),
    wasm.result(wasm.constant(GUEST_RUN)),
  );
}

/** What must be zero for an intercept to take its usual course. */
const INTERCEPT_USUAL: readonly [wasm.I32, ...wasm.I32[]] = [
  pagesDisabled,
  wasm.load8(VP_STATE, state.vtl2_runnable),
  wasm.load32(CPU_STATE, cpu.event),
  wasm.differs(wasm.load32(VP_STATE, state.vtl2_step), wasm.constant(SAVE_REGISTERS)),
  wasm.isZero(wasm.load32(CONTROL_PAGE, control.response_vector)),
];

/** From the written message to the answer. */
function endRun(): wasm.Code {
  const message = (from: number, bytes: number): wasm.Code =>
    wasm.copy(COMMAND_PAGE, ASSIST, [[assist.intercept_message + from, command.intercept_message + from, bytes]]);
  const longer = wasm.exceeds(wasm.load32(VP_STATE, state.message_span), wasm.constant(MESSAGE_FIRST));
  return [
    interceptEntryCode(VP_STATE, ASSIST),
    fillCode(PAGE, CPU_STATE),
    wasm.copy(COMMAND_PAGE, CPU_STATE, backwards(CONTEXT)),
    message(0, MESSAGE_FIRST),
    wasm.when(longer, message(MESSAGE_FIRST, HvMessage.size - MESSAGE_FIRST)),
    wasm.store8(COMMAND_PAGE, command.request_data, wasm.constant(1)),
    answer,
  ].flat();
}

function course(...body: readonly wasm.Code[]): wasm.WasmCode<Course> {
  const end = wasm.constant(NOT_COMBINED); // every way through ends before it
  return new wasm.WasmCode({ parameters: PARAMETERS, locals: LOCALS, gives: "i32", body: [...body, end] });
}

/** From the written message on. */
const fromMessage = () => course(findPages, wasm.orElse(NOT_COMBINED, ...INTERCEPT_USUAL), toAddresses, endRun());

/** From the end of a command on. */
const done = () =>
  course(wasm.orElse(NOT_COMBINED, wasm.isZero(wasm.load32(CONTROL_PAGE, control.response_vector))), answer);

/** From a port exit on. */
function fromPort(): wasm.WasmCode<Course> {
  const out = wasm.isZero(wasm.and(wasm.load8(CPU_STATE, cpu.exit_flags), wasm.constant(EXIT_IN)));
  const kind = wasm.xor(wasm.constant(PORT_IN), wasm.and(out, wasm.constant(PORT_IN ^ PORT_OUT)));
  return course(
    findPages,
    wasm.orElse(
      NOT_COMBINED,
      ...INTERCEPT_USUAL,
      wasm.differs(wasm.load32(CPU_STATE, cpu.exit_reason), wasm.constant(EXIT_IO)),
    ),
    toAddresses,
    // The message before was one of the same type, so that every word that is not zero is written.
    wasm.orElse(
      NOT_COMBINED,
      wasm.differs(wasm.load32(ASSIST, assist.intercept_message), wasm.constant(MESSAGE_TYPE.IO_PORT)),
    ),
    wasm.increment64(wasm.add(VP_STATE, wasm.shiftLeft(kind, 3)), state.exits),
    ioPortMessage({
      targets: [wasm.add(ASSIST, wasm.constant(assist.intercept_message))],
      cpuState: CPU_STATE,
      vpState: VP_STATE,
      vpIndex: VP_INDEX,
      cpl: CPL,
      scratch: SCRATCH_LOCAL,
    }),
    endRun(),
  );
}

let compiled: { readonly [K in "obey" | "fromMessage" | "fromPort" | "done"]: wasm.WasmCode<Course> } | undefined;

/** The courses of one processor. */
export class KernelCourses {
  readonly #vp: SidecarVp;
  readonly #obey: Course;
  readonly #fromMessage: Course;
  readonly #fromPort: Course;
  readonly #done: Course;

  /** The courses of `vp`. */
  constructor(vp: SidecarVp) {
    compiled ??= { obey: obey(), fromMessage: fromMessage(), fromPort: fromPort(), done: done() };
    this.#vp = vp;
    this.#obey = compiled.obey.on(vp.memory);
    this.#fromMessage = compiled.fromMessage.on(vp.memory);
    this.#fromPort = compiled.fromPort.on(vp.memory);
    this.#done = compiled.done.on(vp.memory);
  }

  /** Whether `vp` may leap: its policies are the ones that the courses stand for. */
  static apply(vp: SidecarVp): boolean {
    const { partition } = vp;
    return mayLeap(vp.node) &&
      partition.policy(VTL_ENTRY) === VTL_ENTRY.is["shared-live"] &&
      partition.policy(REGISTER_PAGE) === REGISTER_PAGE.is.mapped &&
      partition.policy(SIDECAR_SYNC) === SIDECAR_SYNC.is.none;
  }

  /** The course that begins at `next`; as for `Agent.leap`. */
  take(next: StepId): StepId {
    switch (next) {
      case SIDECAR_HALT:
        return this.#take(this.#obey);
      case WRITE_INTERCEPT_MESSAGE:
        return this.#take(this.#fromPort);
      case WRITE_ENTRY_REASON:
        return this.#take(this.#fromMessage);
      case GET_VP_REGISTERS:
        return this.#accessRegisters(false);
      case SET_VP_REGISTERS:
        return this.#accessRegisters(true);
      case COMMAND_DONE:
        return this.#take(this.#done);
      default:
        return NOT_COMBINED;
    }
  }

  /** sidecar.get-registers or sidecar.set-registers, and sidecar.get-register or sidecar.set-register of each record. */
  #accessRegisters(sets: boolean): StepId {
    const { index, commandPage, cpu, memory: { u8, u16, u32, view }, vtl2Hypercalls: { registers } } = this.#vp;
    const data = commandPage + command.request_data;
    const count = u16[(data + GetSetVpRegisterRequest.at.count) >>> 1];
    const target = u8[data + GetSetVpRegisterRequest.at.target_vtl];
    if (count === 0 || count > SIDECAR.MAX_GET_SET_VP_REGISTERS || target !== TARGET_VTL0) return NOT_COMBINED;
    let status: number = Success;
    for (let k = 0; k < count && status === Success; k++) {
      const record = commandPage + RECORD + k * HvRegisterAssoc.size;
      const name = u32[(record + HvRegisterAssoc.at.name) >>> 2];
      const value = record + HvRegisterAssoc.at.value;
      status = sets ? registers.set(index, 0, name, view, value) : registers.get(index, 0, name, view, value);
      if (sets && name !== RIP) cpu.updateMode();
    }
    u16[(data + GetSetVpRegisterRequest.at.status) >>> 1] = status;
    return COMMAND_DONE;
  }

  #take(course: Course): StepId {
    const { cpuState, state, commandPage, node, slot, block, globals, index, cpu, port } = this.#vp;
    const after = course(
      cpuState,
      state,
      commandPage,
      node.controlPage,
      node.statuses + slot,
      node.driver,
      block,
      globals,
      node.requestWords[slot],
      index,
      cpu.cpl,
    );
    if (after === SIDECAR_HALT) node.wires.responded(port);
    return after;
  }
}

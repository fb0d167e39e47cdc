/**
 * The sidecar kernel's command loop (openvmm openhcl/sidecar/src/arch/x86_64/vp.rs: ap_run, park_until, run_vp,
 * raise_attention).
 *
 * Interrupts are off except while the processor is parked: `sti; hlt; cli` takes what is pending and nothing is lost
 * between the look at the status and the HLT.
 *
 * @module
 */
import { CommandPage, ControlPage, CpuStatus, SidecarCommand } from "../../layout/hyperv/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { SIDECAR_START_IPI } from "../policies.ts";
import { KERNEL_LOCAL, setError, type SidecarProcessor } from "./processor.ts";

const { REMOVED, IDLE, RUN, STOP, REMOVE } = CpuStatus.values;
const page = CommandPage.at;
const RESPONSE_VECTOR = ControlPage.at.response_vector;
const { INTERCEPT, COMMANDS } = KERNEL_LOCAL;

/** park_until: looks at the status, with interrupts off (a load-acquire). */
const PARK: StepId = step<SidecarProcessor>("sidecar.park.load-status", obeyStatus);

/**
 * sti; hlt; cli, and another look. The processor sleeps until an interrupt is pending and takes it, which drains the store
 * buffer: vector 0x20, whose handler writes EOI and returns.
 */
export const SIDECAR_HALT: StepId = step<SidecarProcessor>("sidecar.park.halt", (ap) => {
  ap.port.fence();
  ap.node.takeRequest(ap.port, ap.slot);
  return obeyStatus(ap);
}, (ap) => ap.node.requestPending(ap.port, ap.slot) && startHasArrived(ap));

/**
 * The first step of a processor that has nothing to do. Under policy `sidecar.start-ipi` `absorbed` it looks at the status
 * when it has taken the interrupt that follows every change of it, so that a run's own interrupt is never pending at the
 * first VTL return.
 */
export function park(ap: SidecarProcessor): StepId {
  return absorbs(ap) ? SIDECAR_HALT : PARK;
}

/** Does what the status asks for. */
function obeyStatus(ap: SidecarProcessor): StepId {
  const status = ap.port.load8(ap.node.statuses + ap.slot);
  switch (status) {
    case IDLE:
      return SIDECAR_HALT;
    case RUN:
    case STOP:
      return fetchCommand(ap);
    case REMOVE:
      return ap.unmap;
    default:
      return ap.panic(`unexpected cpu status ${CpuStatus.name(status)}`);
  }
}

/**
 * Takes the command out of the page, which belongs to this processor while the status is RUN or STOP, so that nobody can
 * see it halfway. Returns the command's first step.
 */
function fetchCommand(ap: SidecarProcessor): StepId {
  const { port, commandPage } = ap;
  port.store8(commandPage + page.has_error, 0);
  const command = port.load32(commandPage + page.command) >>> 0;
  port.store32(commandPage + page.command, SidecarCommand.values.NONE);
  if (command === SidecarCommand.values.NONE) return COMMAND_DONE;
  const first = ap.commandStep(command);
  if (first >= 0) return first;
  setError(ap, `unknown command ${SidecarCommand.name(command)}`);
  return COMMAND_DONE;
}

/** Whether no start is on its way whose interrupt has not been sent: another one, left over from a stop, does not count. */
function startHasArrived(ap: SidecarProcessor): boolean {
  return !absorbs(ap) || !ap.node.startIsDue(ap.port, ap.slot);
}

function absorbs({ node }: SidecarProcessor): boolean {
  return node.policy(SIDECAR_START_IPI) === SIDECAR_START_IPI.is.absorbed;
}

/** The command's results are in its page: the page goes back to the VMM (a release store). */
export const COMMAND_DONE: StepId = step<SidecarProcessor>("sidecar.store-idle", (ap) => {
  ap.locals32[COMMANDS]++;
  ap.port.store8(ap.node.statuses + ap.slot, IDLE);
  return ap.call(RAISE_ATTENTION, park(ap));
});

/** raise_attention (a release store). */
const RAISE_ATTENTION: StepId = step<SidecarProcessor>("sidecar.raise-attention", (ap) => {
  ap.port.store32(ap.node.needsAttention, 1);
  return SEND_RESPONSE;
});

/** Interrupts the base processor, when the driver has said how. */
const SEND_RESPONSE: StepId = step<SidecarProcessor>("sidecar.send-response-ipi", (ap) => {
  if (ap.port.load32(ap.node.controlPage + RESPONSE_VECTOR) !== 0) ap.node.sendResponse(ap.port);
  return ap.return();
});

// --- RUN_VP -------------------------------------------------------------------------------------------------------

/** Each iteration of a run begins with a look at the status (a relaxed load). */
export const CHECK_STOP: StepId = step<SidecarProcessor>("sidecar.run.load-status", (ap) => {
  if (ap.port.load8(ap.node.statuses + ap.slot) !== STOP) return ap.runOnce();
  ap.locals32[INTERCEPT] = 0;
  return WRITE_RESPONSE;
});

/** The run has ended: says whether by an intercept. */
export const WRITE_RESPONSE: StepId = step<SidecarProcessor>("sidecar.run.write-response", (ap) => {
  const intercept = ap.locals32[INTERCEPT];
  ap.locals32[INTERCEPT] = 0;
  return writeResponse(ap, intercept);
});

/** Writes the one byte of RunVpResponse; the other request data stay as they are. */
export function writeResponse(ap: SidecarProcessor, intercept: number): StepId {
  ap.port.store8(ap.commandPage + page.request_data, intercept);
  return COMMAND_DONE;
}

// --- REMOVE -------------------------------------------------------------------------------------------------------

/** The overlays are gone and the APIC is disabled: the processor is Linux's (a release store). */
export const STORE_REMOVED: StepId = step<SidecarProcessor>("sidecar.remove.store-removed", (ap) => {
  ap.port.store8(ap.node.statuses + ap.slot, REMOVED);
  return ap.call(RAISE_ATTENTION, PARKED_FOREVER);
});

/** The end of the sidecar kernel on this processor, unless somebody starts it there again. */
export const PARKED_FOREVER: StepId = step<SidecarProcessor>(
  "sidecar.parked-forever",
  (ap) => ap.restart(),
  (ap) => ap.restarted,
);

/** The end of a processor whose sidecar kernel has panicked. */
export const PANICKED: StepId = step<SidecarProcessor>("sidecar.panicked", () => PANICKED, () => false);

/**
 * The Hyper-V host of an SNP guest with a paravisor: it runs the VMPL that VMPL0 asks for, and VMPL0 again after every exit
 * (sev.md a19, section f; GHCB standardization, MSR protocol "Run VMPL").
 *
 * It knows of an exit what the VMCB says. A reflected #VC becomes an exception intercept message with vector 29, a nested page
 * fault a memory intercept message; both lie in a page that the guest shares, and VMPL0 believes neither without its VMSA.
 *
 * @module
 */
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_EXCEPTION } from "../../layout/sev/constants/instructions.ts";
import { PscOperation } from "../../layout/sev/constants/ghcb.ts";
import { VMPL } from "../../layout/sev/constants/rmp.ts";
import { HvMessageType } from "../../layout/hyperv/constants/messages.ts";
import {
  HvMessage,
  HvMessageHeader,
  HvX64ExceptionInterceptMessage,
  HvX64MemoryInterceptMessage,
} from "../../layout/hyperv/messages.ts";
import {
  GHCB_MSR_PSC_REQ,
  GHCB_MSR_PSC_RESP,
  GHCB_MSR_RUN_VMPL_REQ,
  GHCB_MSR_RUN_VMPL_RESP,
  GhcbMsrInfo,
} from "../../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL, VMCB_MISC_CTL } from "../../layout/sev/vmcb.ts";
import { GUEST_ASID, SHARED_PAGES } from "../../hypervisor/sev/machine.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { HOST_STOP, type HostVcpu } from "../host_vcpu.ts";
import { changePage } from "../kvm/page_state.ts";

const EXIT = SevExitCode.values;
const at = VMCB_CONTROL.at;
const types = HvMessageType.values;
const PAYLOAD = HvMessage.at.payload_buffer;
const VECTOR = PAYLOAD + HvX64ExceptionInterceptMessage.at.vector;
const GPA = PAYLOAD + HvX64MemoryInterceptMessage.at.guest_physical_address;
const LENGTH_SHIFT = BigInt(8 * HvMessageHeader.at.len);

/** Events that the host intercepts below a paravisor: those that are automatic, and those that OpenHCL's exit table knows. */
const INTERCEPTS: readonly number[] = [
  ...[EXIT.INTR, EXIT.NMI, EXIT.SMI, EXIT.INIT, EXIT.HLT, EXIT.SHUTDOWN, EXIT.EXCP18],
  ...[EXIT.CPUID, EXIT.IOIO, EXIT.MSR, EXIT.VMMCALL, EXIT.RDPMC, EXIT.INVD, EXIT.WBINVD, EXIT.XSETBV],
];

/** Makes a processor ready to run: VMPL0 executes first. */
export function resetHypervVcpu(host: HostVcpu): void {
  host.interceptAll(INTERCEPTS);
  host.setVmcb64(at.misc_ctl, VMCB_MISC_CTL.make({ np_enable: 1, sev_enable: 1, sev_es_enable: 1 }));
  host.setVmcb32(at.asid, GUEST_ASID);
  host.setVmcb64(at.vmsa_pa, BigInt(host.sev.vmsa(host.index)));
  host.step = HANDLE_EXIT;
}

/** Byte offset of the page in which VMPL0 is told what happened. */
function messagePage(host: HostVcpu): number {
  return host.sev.sharedPage(host.index, SHARED_PAGES.MESSAGE);
}

/** A VMPL has left. */
const HANDLE_EXIT: StepId = step<HostVcpu>("hyperv.handle-exit", (host) => {
  const vmpl0 = host.vmcb32(at.vmsa_pa) === host.sev.vmsa(host.index);
  host.count("requests");
  switch (host.exitCode) {
    case EXIT.VMGEXIT:
      return vmpl0 ? serve(host) : ENTER_VMPL0;
    case EXIT.EXCP0 + SEV_EXCEPTION.VC:
      return WRITE_EXCEPTION_MESSAGE;
    case EXIT.NPF:
      host.set32("page_faults", host.get32("page_faults") + 1);
      return WRITE_MEMORY_MESSAGE;
    case EXIT.VMSA_BUSY:
      return host.stop(HOST_STOP.ENTRY_FAILED, BigInt.asUintN(64, BigInt(host.exitCode)), HALTED);
    case EXIT.INVALID:
      return vmpl0 ? host.stop(HOST_STOP.ENTRY_FAILED, 0n, HALTED) : ENTER_VMPL0;
    default: // automatic: VMPL0 finds out
      return ENTER_VMPL0;
  }
}, (host) => host.hasTurn);

/** VMPL0 asks for something by the MSR protocol. */
function serve(host: HostVcpu): StepId {
  const info = GHCB_MSR_RUN_VMPL_REQ.get(host.vmcb64(at.ghcb_gpa), "info");
  return info === GhcbMsrInfo.values.PSC_REQ ? CHANGE_PAGE_STATE : RUN_VMPL;
}

/** A page is to be the host's, or the guest's again. */
const CHANGE_PAGE_STATE: StepId = step<HostVcpu>("hyperv.change-page-state", (host) => {
  const request = host.vmcb64(at.ghcb_gpa);
  const page = Number(GHCB_MSR_PSC_REQ.get(request, "gfn"));
  const operation = GHCB_MSR_PSC_REQ.get(request, "operation");
  const { PRIVATE, SHARED } = PscOperation.values;
  const changed = operation === PRIVATE || operation === SHARED
    ? changePage(host, page, operation === PRIVATE)
    : "unknown";
  if (changed === "again") return CHANGE_PAGE_STATE;
  const error = changed === "done" ? 0 : 1;
  host.setVmcb64(at.ghcb_gpa, GHCB_MSR_PSC_RESP.make({ info: GhcbMsrInfo.values.PSC_RESP, error }));
  return ENTER_VMPL0;
});

/** VMPL0 asks for a lower VMPL to run. */
const RUN_VMPL: StepId = step<HostVcpu>("hyperv.run-vmpl", (host) => {
  const request = host.vmcb64(at.ghcb_gpa);
  const vmpl = GHCB_MSR_RUN_VMPL_REQ.get(request, "vmpl");
  const known = GHCB_MSR_RUN_VMPL_REQ.get(request, "info") === GhcbMsrInfo.values.RUN_VMPL_REQ &&
    vmpl > VMPL.MOST_PRIVILEGED && vmpl <= VMPL.VTL0;
  if (!known) {
    host.count("refused");
    host.setVmcb64(at.ghcb_gpa, GHCB_MSR_RUN_VMPL_RESP.make({ info: GhcbMsrInfo.values.RUN_VMPL_RESP, error: 1 }));
    return ENTER_VMPL0;
  }
  host.setVmcb64(at.vmsa_pa, BigInt(host.sev.vmsa(host.index, vmpl)));
  return host.vmrun(HANDLE_EXIT);
});

/** A reflected #VC: nothing but that is known. */
const WRITE_EXCEPTION_MESSAGE: StepId = step<HostVcpu>("hyperv.write-exception-message", (host) => {
  const page = messagePage(host);
  const written = host.guest.storeBytes(page + VECTOR, 2, BigInt(SEV_EXCEPTION.VC)) &&
    announce(host, types.HvMessageTypeExceptionIntercept, HvX64ExceptionInterceptMessage.size);
  return written ? ENTER_VMPL0 : MESSAGE_PAGE_LOST;
});

/** A nested page fault that the RMP raised. */
const WRITE_MEMORY_MESSAGE: StepId = step<HostVcpu>("hyperv.write-memory-message", (host) => {
  const page = messagePage(host);
  const written = host.guest.store64(page + GPA, host.vmcb64(at.exit_info_2)) &&
    announce(host, types.HvMessageTypeGpaIntercept, HvX64MemoryInterceptMessage.size);
  return written ? ENTER_VMPL0 : MESSAGE_PAGE_LOST;
});

/** Writes a message's header, after its payload. */
function announce(host: HostVcpu, type: number, length: number): boolean {
  return host.guest.store64(
    messagePage(host),
    (BigInt(length) << LENGTH_SHIFT) | BigInt(type >>> 0),
  );
}

/** The guest has taken the page of its messages back: the host cannot write there. */
const MESSAGE_PAGE_LOST: StepId = step<HostVcpu>("hyperv.message-page-lost", (host) => {
  host.set32("faults", host.get32("faults") + 1);
  return host.stop(HOST_STOP.INVALID, 0n, HALTED);
});

/** VMPL0 goes on. */
const ENTER_VMPL0: StepId = step<HostVcpu>("hyperv.enter-vmpl0", (host) => {
  host.setVmcb64(at.vmsa_pa, BigInt(host.sev.vmsa(host.index)));
  return host.vmrun(HANDLE_EXIT);
});

/**
 * The GHCB MSR protocol as KVM serves it (Linux sev_handle_vmgexit_msr_protocol; sev.md d12).
 *
 * @module
 */
import { ACTIVITY_WAIT_FOR_SIPI } from "../../cpu/state.ts";
import { C_BIT } from "../../hypervisor/sev/machine.ts";
import { GHCB_HV_FEATURES, GHCB_PROTOCOL, PscOperation } from "../../layout/sev/constants/ghcb.ts";
import {
  GHCB_MSR,
  GHCB_MSR_CPUID_REQ,
  GHCB_MSR_CPUID_RESP,
  GHCB_MSR_HV_FEATURES_RESP,
  GHCB_MSR_PREFERRED_GPA_RESP,
  GHCB_MSR_PSC_REQ,
  GHCB_MSR_PSC_RESP,
  GHCB_MSR_REGISTER_GPA_REQ,
  GHCB_MSR_REGISTER_GPA_RESP,
  GHCB_MSR_SEV_INFO_RESP,
  GhcbMsrInfo,
} from "../../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { HOST_STOP, type HostVcpu, MP_STATE } from "../host_vcpu.ts";
import { answerCpuid } from "../sev_answers.ts";
import { REQUESTS } from "./exit.ts";
import { CHANGE_ONE_PAGE } from "./page_state.ts";
import { KVM_SIGNATURE } from "./requests.ts";

const GHCB_GPA = VMCB_CONTROL.at.ghcb_gpa;
const INFO = GhcbMsrInfo.values;
/** No preference, or a refusal: all ones. */
const NO_GFN = (1n << 52n) - 1n;
/** KVM's error of a page state change: not zero. */
const PSC_GENERIC = 0x8000_0000;

/** What the host can do: versions and the C bit. Also what is in the MSR at reset (a16). */
export function sevInfo(): bigint {
  return GHCB_MSR_SEV_INFO_RESP.make({
    info: INFO.SEV_INFO_RESP,
    cbit_position: C_BIT,
    min_version: GHCB_PROTOCOL.VERSION_MIN,
    max_version: GHCB_PROTOCOL.VERSION_MAX,
  });
}

/** Features of the hypervisor for an SNP guest. */
export function hypervisorFeatures(): bigint {
  return GHCB_HV_FEATURES.make({ snp: 1, ap_creation: 1 });
}

/** A request of the MSR protocol: the answer goes into the same field. */
export const MSR_PROTOCOL: StepId = step<HostVcpu>("kvm.msr-protocol", (host) => {
  const request = host.port.load64(host.vmcb + GHCB_GPA);
  const snp = host.sev.rmp !== undefined;
  const answer = (value: bigint): StepId => {
    host.port.store64(host.vmcb + GHCB_GPA, value);
    return REQUESTS;
  };
  switch (GHCB_MSR.get(request, "info")) {
    case INFO.SEV_INFO_REQ:
      return answer(sevInfo());
    case INFO.CPUID_REQ:
      return answer(cpuidAnswer(host, request, KVM_SIGNATURE));
    case INFO.AP_RESET_HOLD_REQ:
      host.set32("mp_state", MP_STATE.RESET_HOLD_MSR);
      host.vp.activity = ACTIVITY_WAIT_FOR_SIPI;
      return REQUESTS;
    case INFO.HV_FEATURES_REQ:
      if (!snp) break;
      return answer(
        GHCB_MSR_HV_FEATURES_RESP.make({ info: INFO.HV_FEATURES_RESP, features: hypervisorFeatures() }),
      );
    case INFO.PREFERRED_GPA_REQ:
      if (!snp) break;
      return answer(GHCB_MSR_PREFERRED_GPA_RESP.make({ info: INFO.PREFERRED_GPA_RESP, gfn: NO_GFN }));
    case INFO.REGISTER_GPA_REQ: {
      if (!snp) break;
      const gfn = BigInt(GHCB_MSR_REGISTER_GPA_REQ.get(request, "gfn"));
      host.set64("registered", gfn + 1n);
      return answer(GHCB_MSR_REGISTER_GPA_RESP.make({ info: INFO.REGISTER_GPA_RESP, gfn }));
    }
    case INFO.PSC_REQ: {
      if (!snp) break;
      const operation = GHCB_MSR_PSC_REQ.get(request, "operation");
      host.set32("psc_page", GHCB_MSR_PSC_REQ.get(request, "gfn") % 2 ** 32);
      host.set32("operation", operation);
      const known = operation === PscOperation.values.PRIVATE || operation === PscOperation.values.SHARED;
      if (known && host.sev.isRam(GHCB_MSR_PSC_REQ.get(request, "gfn"))) return host.call(CHANGE_ONE_PAGE, PSC_ANSWER);
      host.set32("psc_left", 1);
      return PSC_ANSWER;
    }
    case INFO.TERM_REQ:
      break;
    default:
      return REQUESTS; // an unknown code leaves the MSR as it was
  }
  // Termination, and what only an SNP guest may ask for: user space is told, and ends the machine.
  return host.stop(HOST_STOP.TERMINATED, request, HALTED);
});

/** The answer to a page state change. */
const PSC_ANSWER: StepId = step<HostVcpu>("kvm.msr-protocol-psc", (host) => {
  const error = host.get32("psc_left") === 0 ? 0 : PSC_GENERIC;
  host.port.store64(host.vmcb + GHCB_GPA, GHCB_MSR_PSC_RESP.make({ info: INFO.PSC_RESP, error }));
  return REQUESTS;
});

/** One register of a leaf; there is no subleaf. The reply keeps the request's register number. */
export function cpuidAnswer(host: HostVcpu, request: bigint, signature: string): bigint {
  const register = GHCB_MSR_CPUID_REQ.get(request, "register");
  const result = answerCpuid(host, GHCB_MSR_CPUID_REQ.get(request, "function"), 0, signature);
  return GHCB_MSR_CPUID_RESP.make({ info: INFO.CPUID_RESP, register, value: result[register] });
}

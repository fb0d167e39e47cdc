/**
 * CPUID intercepts (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_cpuid_intercept) and the leaves that the
 * VMM answers itself (vmm_core/src/cpuid).
 *
 * @module
 */
import { HV_CPUID } from "../../layout/hyperv/constants/cpuid.ts";
import { HvX64CpuidInterceptMessage } from "../../layout/hyperv/messages.ts";
import { completeInstruction, CONTEXT, instructionLength, PAYLOAD } from "../context.ts";
import type { HandlerResult, VmmVp } from "../vmm_vp.ts";

const at = HvX64CpuidInterceptMessage.at;
const LEAF = PAYLOAD + at.rax;
const SUBLEAF = PAYLOAD + at.rcx;
const DEFAULT_RAX = PAYLOAD + at.default_result_rax;
const DEFAULT_RBX = PAYLOAD + at.default_result_rbx;
const DEFAULT_RCX = PAYLOAD + at.default_result_rcx;
const DEFAULT_RDX = PAYLOAD + at.default_result_rdx;

/** Results of the CPUID that is handled, EAX EBX ECX EDX: private to one call. */
const results = new Int32Array(4);

/** Handles CPUID: the message's default results with the partition's answers laid over them, zero-extended. */
export function handleCpuid(vp: VmmVp): HandlerResult {
  const i32 = vp.memory.i32;
  const message = vp.message;
  results[0] = i32[(message + DEFAULT_RAX) >>> 2];
  results[1] = i32[(message + DEFAULT_RBX) >>> 2];
  results[2] = i32[(message + DEFAULT_RCX) >>> 2];
  results[3] = i32[(message + DEFAULT_RDX) >>> 2];
  vp.partition.overlayCpuid(i32[(message + LEAF) >>> 2] >>> 0, i32[(message + SUBLEAF) >>> 2] >>> 0, results);
  const context = vp.context >>> 2;
  i32[context + (CONTEXT.RAX >>> 2)] = results[0];
  i32[context + (CONTEXT.RAX >>> 2) + 1] = 0;
  i32[context + (CONTEXT.RBX >>> 2)] = results[1];
  i32[context + (CONTEXT.RBX >>> 2) + 1] = 0;
  i32[context + (CONTEXT.RCX >>> 2)] = results[2];
  i32[context + (CONTEXT.RCX >>> 2) + 1] = 0;
  i32[context + (CONTEXT.RDX >>> 2)] = results[3];
  i32[context + (CONTEXT.RDX >>> 2) + 1] = 0;
  return completeInstruction(vp, instructionLength(vp));
}

/** The virtualization stack's own leaves: vendor, interface, properties. Other leaves keep their default results. */
export function overlayVirtualizationStackCpuid(leaf: number, results: Int32Array | Uint32Array): void {
  switch (leaf) {
    case HV_CPUID.VIRTUALIZATION_STACK_CPUID_VENDOR:
      results[0] = HV_CPUID.VIRTUALIZATION_STACK_CPUID_PROPERTIES;
      results[1] = HV_CPUID.VENDOR_EBX;
      results[2] = HV_CPUID.VENDOR_ECX;
      results[3] = HV_CPUID.VENDOR_EDX_VS;
      return;
    case HV_CPUID.VIRTUALIZATION_STACK_CPUID_INTERFACE:
      results[0] = HV_CPUID.INTERFACE_SIGNATURE_VS1;
      results[1] = results[2] = results[3] = 0;
      return;
    case HV_CPUID.VIRTUALIZATION_STACK_CPUID_PROPERTIES:
      results[0] =
        results[1] =
        results[2] =
        results[3] =
          0;
  }
}

/**
 * The disputed points of OpenBSD's #VC handlers: what the draft of June 2025 does, what was committed, and what a reviewer
 * of either could ask for ("SEV-ES guest: locore #VC trap handling"; sev.md b1 to b22).
 *
 * The handlers have the code of every value; which one runs is told by a byte a policy in the guest's memory.
 *
 * @module
 */
import { type Policy, policy } from "../../../memory/policy.ts";

/** Which early handlers are installed. */
export const EARLY_HANDLER = policy("vc.early-handler", "Which handlers take a #VC before the guest is in long mode", {
  "32": "one of 32-bit code at 8-byte gate 29 (locore0.S as committed in August 2025)",
  "64": "one of 64-bit code at 16-byte gate 29",
  "both": "both: the two gates do not overlap (draft of June 2025)",
});

/** How the kernel is entered. */
export const BOOT = policy("vc.boot", "In which mode the kernel is entered", {
  "legacy": "32-bit legacy mode, paging off: firmware and boot loader (EFI on KVM)",
  "compat": "32-bit compatibility mode, long mode active: vmd's direct kernel launch",
});

/** How a port number gets into EXITINFO1. */
export const PORT_PROMOTION = policy("vc.port-promotion", "How the #VC handler shifts a port number into EXITINFO1", {
  "64-bit": "as a 64-bit number (trap.c as committed)",
  "signed": "as a 16-bit number that is promoted to int, then sign-extended (draft: uint16_t port)",
});

/** What a 32-bit result leaves of the register. */
export const RESULT_MERGE = policy("vc.result-merge", "What bits 63:32 of a register are after a 32-bit result", {
  "zero-extend": "zero, as the processor leaves them (ghcb.c revision 1.5)",
  "upper-32-kept": "what they were (ghcb.c revision 1.2)",
});

/** What is made of the host's verdict on a request. */
export const EXITINFO1 = policy("vc.exitinfo1", "Whether the handlers look at what the host says of a request", {
  "ignored": "no: neither at EXITINFO1 of the GHCB nor at the response code of the MSR protocol (trap.c, locore0.S)",
  "checked": "yes: anything but 0, or but the response that belongs to the request, stops the guest (Linux " +
    "verify_exception_info, do_vc_no_ghcb)",
});

/** Whether kernel text can be read. */
export const EXECUTE_ONLY = policy("vc.execute-only", "Whether the kernel's text can be executed but not read", {
  "no": "it can be read",
  "yes": "it cannot: a protection key without data access (the thread's question about XO kernels and PKU)",
});

/** Whether the bytes of the instruction are looked at. */
export const OPCODE_CHECK = policy(
  "vc.opcode-check",
  "For which exits the #VC handler looks at the instruction's bytes",
  {
    "as-published": "ports and MSRs; CPUID is taken from the error code alone (trap.c)",
    "every-exit": "every exit: the bytes must be those of an instruction that the exit code fits (Linux " +
      "vc_check_opcode_bytes)",
  },
);

/** The guest's policies, in the order of their bytes. */
export const VC_POLICIES: readonly Policy[] = [
  EARLY_HANDLER,
  BOOT,
  PORT_PROMOTION,
  RESULT_MERGE,
  EXITINFO1,
  EXECUTE_ONLY,
  OPCODE_CHECK,
];

/** Assembler text that compares the chosen value of `policy` with `value`, and notes that it has mattered. */
export function comparePolicy(policy: Policy, value: string): string {
  const index = VC_POLICIES.indexOf(policy);
  const number = policy.values.findIndex(({ name }) => name === value);
  return `mov byte [consulted + ${index}], 1\n        cmp byte [chosen + ${index}], ${number}`;
}

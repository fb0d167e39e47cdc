/**
 * The encrypted guest's #VC handler as a program of its own, to measure what its instructions cost: it is called again and
 * again as an event would call it, and never leaves. What stands for VMGEXIT and the host are a few stores.
 *
 * @module
 */
import { SEV_KERNEL_CONSTANTS } from "./sev_kernel_boot.ts";
import { SEV_KERNEL_EXITS } from "./sev_kernel_exits.ts";
import { SEV_KERNEL_VC } from "./sev_kernel_vc.ts";
import { VMGEXIT } from "./sev_parts.ts";

/** What stands for it and for the host: every field is valid, and there is no error. */
const ANSWERED = `
        mov qword [r12 + GHCB_VALID_LOW], -1
        mov qword [r12 + GHCB_VALID_HIGH], -1
        mov qword [r12 + GHCB_INFO1], 0
`;

/** What is measured. */
export interface HandledEvent {
  /** The exit code: an `EXIT_` name of the kernel's constants. */
  readonly code: string;
  /** The instruction that the handler is to find. */
  readonly instruction: string;
}

/** Where the program keeps what a processor of the kernel has. */
export interface HandlerPlaces {
  readonly stackTop: number;
  /** The GHCB, and at the kernel's distance from it the page that a nested #VC uses. */
  readonly ghcb: number;
  /** The processor's block. */
  readonly block: number;
}

/** The program's text: 64-bit code for a flat machine without encryption, for the project's assembler. */
export function sevHandlerMeasurement(event: HandledEvent, places: HandlerPlaces): string {
  const handler = `${SEV_KERNEL_VC}\n${SEV_KERNEL_EXITS}`
    .replaceAll(VMGEXIT, ANSWERED)
    .replaceAll("        wrmsr\n", "        nop\n");
  return `
${SEV_KERNEL_CONSTANTS}
        default rel
        mov rsp, ${places.stackTop}
        mov eax, ${places.block}
        xor edx, edx
        mov ecx, MSR_GS_BASE
        wrmsr
        mov qword [rax], ${places.ghcb}
again:
        mov rbx, rsp
        mov eax, ss
        push rax
        push rbx
        pushfq
        mov eax, cs
        push rax
        lea rax, [handled]
        push rax
        push ${event.code}
        mov eax, 0x40000080
        mov edx, 0x80
        jmp vc_handler
handled:
        ${event.instruction}
        jmp again
terminate:
        hlt
        jmp terminate
${handler}
protocol_version: dd 2
no_strings:       db 0
`;
}

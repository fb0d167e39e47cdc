import { assertEquals } from "@std/assert";
import { verifyVectors } from "../../lib/inspect/vectors.ts";

const DATA = new URL("../data/x86/", import.meta.url).pathname;

/**
 * Recordings that contradict the manuals. IRETQ to a CS that is a data segment, or with an SS that is a code segment, is
 * #GP(selector): AMD64 APM volume 3, "IRET" (READ_DESCRIPTOR with iret_chk and ss_chk); Intel SDM volume 2, "IRET/IRETD/IRETQ",
 * "Protected Mode Exceptions": #GP(selector) if the segment descriptor indicates it is not a code segment; if the stack
 * segment's descriptor is not a writable data segment. At CPL 3 the same processor faults so: IRETQ to a data segment gives
 * #GP with its selector, and with a code segment as SS #GP with that. At CPL 0 the recorder's instructions went through KVM's
 * instruction emulator (kvm_pvm), which checks privilege, presence and limits for IRETQ, but no types; no rule of a processor
 * does that, for the far returns among the recordings do check the type.
 */
const AGAINST_THE_MANUALS = ["system-00148", "system-00473", "system-00736"];

Deno.test("recorded system instructions agree, but for three recordings that contradict the manuals", async () => {
  const report = await verifyVectors([`${DATA}system.jsonl.gz`], { failuresPerClass: 100 });
  assertEquals(report.firstFailures.map((failure) => failure.id), AGAINST_THE_MANUALS);
  assertEquals(report.classes.system.passed, 1500 - AGAINST_THE_MANUALS.length);
});

Deno.test("recorded faults agree", async () => {
  const report = await verifyVectors([`${DATA}fault.jsonl.gz`]);
  assertEquals(report.firstFailures, []);
  assertEquals(report.classes.fault.passed, 2500);
});

import { assertEquals } from "@std/assert";
import { verifyVectors } from "../../../lib/inspect/vectors.ts";

const RECORDINGS = new URL("../../data/x86/", import.meta.url).pathname;
const CLASSES = ["sse-move", "sse-int", "sse-float", "sse-convert", "sse-later", "x87", "fxstate"];

for (const name of CLASSES) {
  Deno.test(`recordings of a real processor: every instruction of class ${name}`, async () => {
    const report = await verifyVectors([`${RECORDINGS}${name}.jsonl.gz`]);
    assertEquals(report.firstFailures, []);
    assertEquals(report.classes[name].failed, 0);
  });
}

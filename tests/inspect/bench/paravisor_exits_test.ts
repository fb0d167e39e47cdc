import { assert, assertEquals } from "@std/assert";
import { measureParavisor } from "../../../lib/inspect/bench/paravisor_exits.ts";

// A smoke run: no time is judged.
Deno.test("bench: every exit below OpenHCL on SNP, and every policy of copying the VMSA beside never copying", () => {
  const results = measureParavisor({ rounds: 1, warmUpMs: 1, roundMs: 2 });
  const [plain, copies] = [results.filter(({ offNs }) => offNs === undefined), results.slice(6)];
  assertEquals(plain.map(({ workload }) => workload), ["out", "in", "cpuid", "msr", "mmio", "hlt"]);
  for (const when of ["every-exit", "intercept", "crash-ctl", "off"]) {
    assert(copies.some(({ workload }) => workload === `out vmsa.when=${when}`), when);
  }
  for (const { workload, costNs } of results) assert(costNs > 0 && Number.isFinite(costNs), workload);
  const off = copies.find(({ workload }) => workload.endsWith("=off"))!;
  assertEquals(copies.every(({ offNs }) => offNs === off.costNs), true);
});

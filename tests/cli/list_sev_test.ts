import { assert, assertEquals, assertMatch } from "@std/assert";
import type { ConformanceRow } from "../../lib/scenarios/conformance.ts";
import { exitbox } from "./fixture.ts";

Deno.test("list conformance: what guests ask and hosts serve, by running them", async () => {
  const { code, out } = await exitbox("list", "conformance", "--json");
  assertEquals(code, 0);
  const rows: readonly ConformanceRow[] = JSON.parse(out).conformance;
  const row = (exit: string) => rows.find((candidate) => candidate.exit === exit)!;
  // sev.md b10, b11, b12 and b13: OpenBSD's handlers.
  assertEquals(row("CPUID").openbsd, "asks rax rcx");
  assertEquals(row("RDMSR").openbsd, "asks rcx");
  assertEquals(row("WRMSR").openbsd, "asks rax rcx rdx");
  assertEquals([row("IN").openbsd, row("OUT").openbsd], ["asks", "asks rax"]);
  const unlisted = ["IN, operand-size prefix and imm8", "INS", "OUTS, REP", "RDTSC", "device memory, read", "XSETBV"];
  for (const exit of unlisted) assertEquals(row(exit).openbsd, "stops", exit);
  // b10 and sev.md's table of what KVM requires: leaf D needs XCR0, which OpenBSD's handler does not send.
  assertEquals(row("CPUID, leaf D").openbsd, "asks rax rcx; takes the refusal of kvm for an answer");
  assertEquals(row("CPUID, leaf D").kernel, "asks rax rcx xcr0");
  // c2, c12 to c15: the built-in kernel follows Linux, but for what Linux sends without need: XCR0, and RAX of an IN.
  for (const exit of ["RDTSC", "RDTSCP", "RDPMC", "DR7 write", "VMMCALL", "WBINVD"]) {
    assertEquals(row(exit).kernel, `${row(exit).linux.split(",")[0]}; stops on vmd`, exit);
  }
  for (const exit of ["DR7 read", "MONITOR", "MWAIT", "INVD", "XSETBV", "page not validated"]) {
    assertEquals(row(exit).kernel, row(exit).linux, exit);
  }
  // d5 to d13: KVM serves what Linux asks; b34 and b36: vmd knows CPUID, ports and MSRs, no strings and nothing else.
  for (const { exit, linux, kvm, vmd } of rows) {
    if (!linux.startsWith("asks")) assertEquals([kvm, vmd], ["-", "-"], exit);
    else if (/^(CPUID|IN|OUT$|RDMSR|WRMSR)/.test(exit) && exit !== "INS") {
      assertEquals([kvm, vmd], ["serves", "serves"], exit);
    } else assertEquals(vmd, "stops the guest", exit);
  }
  assertEquals([row("AP reset hold").kvm, row("termination").kvm], ["waits", "ends the guest"]);
  // What the README shows is what the program says.
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const [, shown] = readme.match(/```\n *code {2}exit .*\n([^`]+)```/)!;
  for (const line of shown.trimEnd().split("\n")) {
    const [, exit, ...cells] = line.trim().split(/ {2,}/);
    const { kernel, openbsd, linux, kvm, vmd } = row(exit);
    assertEquals(cells, [kernel, openbsd, linux, kvm, vmd], exit);
  }
});

Deno.test("list page-accounting: OpenBSD adjusts first_avail once down and twice up; each adjustment is needed", async () => {
  const { versions, table_pages } = JSON.parse((await exitbox("list", "page-accounting", "--json")).out);
  // The thread's TABLESIZE: ... + 1 + UPAGES + ... + 2 + 3.
  assertMatch(table_pages, / \+ 6$/);
  for (const name of ["NKL4_KIMG", "TABLE_L3", "TABLE_L2", "NDML3", "NDML2"]) {
    assert(table_pages.includes(`${name}_ENTRIES`));
  }
  const [committed, ...others] = versions;
  assertEquals(committed.passed, "TABLESIZE - 5");
  assertEquals(committed.after.map((step: { first_avail: string }) => step.first_avail), [
    "TABLESIZE - 3",
    "TABLESIZE",
  ]);
  assertEquals(committed.wrong, []);
  for (const { version, wrong } of others) assert(wrong.length > 0, version);
  const shared = others.find(({ version }: { version: string }) => version === "without first_avail += 2");
  assert(shared.wrong.includes("2 pages are given to both GHCB and early PTEs"));
  const text = (await exitbox("list", "page-accounting")).out;
  assertMatch(text, /^as committed.* TABLESIZE - 5 .* TABLESIZE {2,}each page is given once, none is lost$/m);
});

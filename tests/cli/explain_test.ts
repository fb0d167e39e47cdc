import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exitbox } from "./fixture.ts";

const FINGERPRINT = "context.rax == ((message.rax + 0xB0) & 0xFFFFFFFF)";
/** Two combinations: the published driver, with the assertion and without. */
const FEW = Object.entries({
  "vtl.entry": "shared-live",
  "driver.publish": "claim-then-start",
  "driver.rearm": "no",
  "driver.scan": "status-then-state",
  "sidecar.sync": "none",
  "register-page": "mapped",
}).flatMap(([policy, value]) => ["--policy", `${policy}=${value}`]);

Deno.test("explain: a table, a schedule, the bounds and the command that repeats it", async () => {
  const { code, out } = await exitbox("explain", "sidecar-rax", "--observe", FINGERPRINT, ...FEW, "--preemptions", "2");
  assertEquals(code, 0);
  assertMatch(out, /^possible: OUT, add EAX, 0xb0 \(32-bit\), OUT; .*; device: its answer does not matter$/m);
  assertMatch(out, /^not possible: no crash\n.*vmm\.io-rax=rax-from-message/m);
  assertStringIncludes(out, "sidecar.run.save-registers");
  assertStringIncludes(out, "Why each context switch is needed:");
  assertStringIncludes(out, "Within two port exits, 2 preemptions (IN, OUTS and INS: 1), 0 VTL2 interrupts");
  assertMatch(out, /\nexitbox explain sidecar-rax --observe 'context\.rax == .*' --policy vtl.entry=shared-live .*\n$/);
});

Deno.test("explain --json: a row for each combination, the schedule within", async () => {
  const words = ["explain", "sidecar-rax", "--observe", FINGERPRINT, ...FEW, "--preemptions", "2", "--json"];
  const { code, out } = await exitbox(...words);
  const { scenario, observe, rows } = JSON.parse(out);
  assertEquals([code, scenario, observe, rows.length], [0, "sidecar-rax", FINGERPRINT, 2]);
  const [assertion, message] = rows;
  assertEquals(Object.keys(assertion), ["policies", "memory_model", "possible", "guest", "device", "schedule"]);
  assertEquals([assertion.policies["vmm.io-rax"], assertion.possible, assertion.memory_model], ["assert", true, "sc"]);
  assertEquals(assertion.schedule.property, "no-vmm-crash");
  assertEquals([message.possible, message.guest, message.device, message.schedule], [false, null, null, null]);
});

Deno.test("explain: bad input is one line and exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["sidecar-rax"], /explain needs --observe EXPR/],
    [["sidecar-rax", "--observe", "message.rax =="], /--observe: column 15: the end where a number/],
    [["sidecar-rax", "--observe", "message.rxa == 1"], /column 1: "message.rxa" is not a register .*message\.rax/],
    [["sidecar-rox", "--observe", "1 == 1"], /Unknown scenario "sidecar-rox".*sidecar-rax/],
    [["sidecar-completion", "--observe", "1 == 1"], /explain takes sidecar-rax/],
    [["sidecar-rax", "--observe", "1 == 1", "--policy", "sev.ghcb=none"], /policy/],
  ];
  for (const [words, message] of cases) {
    const { code, err } = await exitbox("explain", ...words);
    assertEquals(code, 2, words.join(" "));
    assertMatch(err, message);
    assert(!err.trimEnd().includes("\n"));
  }
});

import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { searchCombination } from "../../lib/scenarios/combination.ts";
import { scenarioFile } from "../../lib/scenarios/file.ts";
import { buildSystem, combinations, parseOptions } from "../../lib/scenarios/scenario.ts";

/** The example in the documentation of the module. */
async function documented(): Promise<string> {
  const source = await Deno.readTextFile(new URL("../../lib/scenarios/file.ts", import.meta.url));
  const block = source.match(/^ \* ```json\n([^]*?)^ \* ```$/m)![1];
  return block.replace(/^ \* ?/gm, "");
}

const NOW = () => 0;

Deno.test("a scenario file: the documented example runs", async () => {
  const scenario = scenarioFile(await documented(), "example.json");
  assertEquals(scenario.options.map(({ name, values }) => [name, values]), [
    ["guest", ["in", "in-bytes"]],
    ["answer", ["90", "255"]],
  ]);
  const verdicts = combinations(scenario).map((policies) => {
    const { properties } = searchCombination(scenario, policies, "sc", NOW);
    return properties.filter(({ verdict }) => verdict !== "holds").map(({ property, verdict }) => [property, verdict]);
  });
  // With registers that are the lower VTL's nothing goes wrong; with VTL2's own the guest ends with others.
  assertEquals(verdicts, [[], [["transparency", "violated"], ["byte", "violated"]]]);
});

Deno.test("a scenario file: bytes and assembler text of the same program are the same guest", async () => {
  const scenario = scenarioFile(await documented(), "example.json");
  const [first, second] = ["in", "in-bytes"].map((guest) =>
    buildSystem(scenario, {}, parseOptions(scenario, `guest=${guest}`))
  );
  assertEquals(first.memory.u8.slice(0x7c00, 0x8000), second.memory.u8.slice(0x7c00, 0x8000));
});

Deno.test("a scenario file: the driver alone, with stops and CPU hotplug", () => {
  const text = JSON.stringify({
    machine: { platform: "sidecar-driver", vps: 1, rounds: 1 },
    environment: [{ agent: "cpu-hotplug", vp: 1 }, { agent: "cancel" }],
    policies: { "driver.remove-wait": ["until-removed", "until-remove"] },
    properties: ["no-early-start", "no-deadlock"],
    memory_models: ["sc", "tso"],
  });
  const scenario = scenarioFile(text, "mine.json");
  const verdicts = combinations(scenario).map((policies) =>
    searchCombination(scenario, policies, "tso", NOW).properties.map(({ verdict }) => verdict)
  );
  assertEquals(verdicts, [["holds", "holds"], ["violated", "violated"]]);
});

const GUEST = { machine: { platform: "kernel" }, guests: { g: { bytes: "fa f4" } } };

Deno.test("a scenario file: what is wrong in it is said in one line that names the file and the field", () => {
  const cases: [unknown, RegExp][] = [
    ["{", /^f\.json: not a whole JSON document: /],
    [[], /^f\.json: a JSON object is expected$/],
    [{}, /^f\.json: field "machine\.platform": text is expected$/],
    [
      { machine: { platform: "arm" } },
      /field "machine\.platform": "arm" is not one of sidecar, kernel, sidecar-driver$/,
    ],
    [{ ...GUEST, guets: {} }, /field "guets": unknown, did you mean "guests"\?$/],
    [{ ...GUEST, machine: { platform: "kernel", vps: 2 } }, /field "machine\.vps": unknown/],
    [{ machine: GUEST.machine }, /field "guests": at least one guest is expected$/],
    [{ ...GUEST, guests: { g: {} } }, /field "guests\.g\.bytes": either this or "assembler" is expected$/],
    [
      { ...GUEST, guests: { g: { bytes: "f" } } },
      /field "guests\.g\.bytes": pairs of hexadecimal digits are expected$/,
    ],
    [{ ...GUEST, guests: { g: { bytes: "f4".repeat(2000) } } }, /2000 bytes, at most 1024 are expected$/],
    [{ ...GUEST, guests: { g: { assembler: "mvo al, 1" } } }, /field "guests\.g\.assembler": .*mvo/],
    [
      { ...GUEST, policies: { "vtl.enty": "x" } },
      /field "policies\.vtl\.enty": Unknown policy .* did you mean "vtl\.entry"/,
    ],
    [
      { ...GUEST, policies: { "vtl.entry": ["x"] } },
      /field "policies\.vtl\.entry": Policy "vtl\.entry" has no value "x"/,
    ],
    [{ ...GUEST, properties: ["transparancy"] }, /field "properties": unknown property .* did you mean "transparency"/],
    [{ ...GUEST, properties: [] }, /field "properties": at least one is expected$/],
    [
      { ...GUEST, properties: [{ name: "p", sentence: "s", address: 0, bytes: "00" }] },
      /field "properties\[0\]\.address": a whole number from 31744 to/,
    ],
    [{ ...GUEST, environment: [{ agent: "vtl2-interrupt", times: -1 }] }, /field "environment\[0\]\.times": a whole/],
    [{ ...GUEST, environment: [{ agent: "gremlin" }] }, /field "environment\[0\]\.agent": "gremlin" is not one of/],
    [{ ...GUEST, environment: [{ agent: "device", answers: [] }] }, /answers": at least one number is expected$/],
    [{ ...GUEST, memory_models: ["arm"] }, /field "memory_models": "arm" is not one of sc, tso$/],
    [{ ...GUEST, bounds: { preemptions: 1.5 } }, /field "bounds\.preemptions": a whole number from 0 to/],
    [{ ...GUEST, bounds: { stats: 1 } }, /field "bounds\.stats": unknown, did you mean "states"/],
    [{ machine: { platform: "sidecar-driver", vps: 9 } }, /field "machine\.vps": a whole number from 1 to 8/],
    [{ ...GUEST, machine: { platform: "sidecar-driver" } }, /field "guests": the driver alone has no guest$/],
    [
      { machine: { platform: "sidecar-driver" }, environment: [{ agent: "stop" }, { agent: "stop", vp: 1 }] },
      /stop of processor 1 is given twice$/,
    ],
  ];
  for (const [value, message] of cases) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const error = assertThrows(() => scenarioFile(text, "f.json"), BadInput);
    assertMatch(error.message, message);
    assertMatch(error.message, /^f\.json: [^\n]+$/);
  }
});

Deno.test("a scenario file: a guest that never ends is bad input, not a hang", () => {
  for (const bytes of ["eb fe", "66 ba 00 03 ee eb fd"]) {
    const scenario = scenarioFile(JSON.stringify({ ...GUEST, guests: { g: { bytes } } }), "f.json");
    const error = assertThrows(() => buildSystem(scenario), BadInput);
    assertMatch(error.message, /^f\.json: guests\.[a-z]+: the guest does not come to its end: [^\n]+$/);
  }
});

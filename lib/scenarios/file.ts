/**
 * Scenarios that users write as JSON files: a guest on a sidecar or kernel processor, or the sidecar driver alone.
 *
 * ```json
 * {
 *   "summary": "does a byte that the guest reads survive an interrupt of VTL2?",
 *   "machine": { "platform": "sidecar" },
 *   "guests": {
 *     "in": { "assembler": "mov dx, 0x300\n in al, dx\n mov [0x7e00], al\n cli\n hlt" },
 *     "in-bytes": { "bytes": "66 ba 00 03 ec 88 04 25 00 7e 00 00 fa f4" }
 *   },
 *   "environment": [{ "agent": "vtl2-interrupt", "times": 1 }, { "agent": "device", "answers": ["0x5a", "0xff"] }],
 *   "policies": { "vtl.entry": ["shared-live", "vtl2-restored"] },
 *   "properties": [
 *     "no-vmm-crash",
 *     "transparency",
 *     { "name": "byte", "sentence": "0x7e00 is not 0 at the end.", "address": "0x7e00", "bytes": "00", "is": "not" }
 *   ],
 *   "memory_models": ["sc"],
 *   "bounds": { "preemptions": 2, "states": 100000 }
 * }
 * ```
 *
 * - `machine.platform`: `sidecar`, `kernel` (exits are handled in place) or `sidecar-driver` (no guest; `vps` and `rounds`).
 * - `guests`: 64-bit code, as assembler text or as hexadecimal bytes, that is loaded at 0x7c00, may use the memory up to
 *   0x8000, and ends with `cli` and `hlt`. With several, the matrix covers them all; `file.json:guest=NAME` is one of them.
 * - `environment`: `vtl2-interrupt` (`times`), `device` (`answers` to every read of a port or of device memory: one of
 *   them for a whole run), `conversion` (to a Linux processor after the first exit). With `sidecar-driver`: `stop`,
 *   `cancel` and `cpu-hotplug`, each with `vp`.
 * - `policies`: values to compare; the first is the one for which nothing else is asked. One value alone fixes a policy.
 * - `properties`: names of the machine's or of the driver's properties, or bytes of the guest's memory that have to be (`is`:
 *   `equal`), or must not be (`not`), there at the end.
 *
 * @module
 */
import type { Property } from "../explore/system.ts";
import { assemble } from "../guest/assembler/assemble.ts";
import { BadInput } from "../memory/bad_input.ts";
import { driverScenario } from "./driver_file.ts";
import { type FileHead, headOf, propertyNames } from "./file_head.ts";
import { JsonFields } from "./json_fields.ts";
import { MACHINE_PROPERTIES, machineProperties } from "./machine_properties.ts";
import { GUEST_ORIGIN, type GuestSetting, type MachineSystem, machineSystem } from "./machine_system.ts";
import type { Choices, NamedProperty, Scenario, ScenarioOption } from "./scenario.ts";

/** Bytes from {@linkcode GUEST_ORIGIN} on that a guest may use, and that are part of the explored state. */
const GUEST_BYTES = 0x400;
/** Most guests, and most answers of the device, of one file. */
const CHOICES_MAX = 256;
/** Most VTL2 interrupts. */
const INTERRUPTS_MAX = 8;

const FIELDS = [
  "summary",
  "shows",
  "source",
  "machine",
  "guests",
  "environment",
  "policies",
  "properties",
  "memory_models",
  "bounds",
];

/** Bytes of the guest's memory that have to be there at the end, or must not. */
interface MemoryProperty extends NamedProperty {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly is: "equal" | "not";
}

/** The scenario in the text of a file; `name` is its path. Throws {@linkcode BadInput} that names file and field. */
export function scenarioFile(text: string, name: string): Scenario {
  const file = JsonFields.parse(text, name);
  file.only(FIELDS);
  const machine = file.object("machine");
  const platform = machine.word("platform", ["sidecar", "kernel", "sidecar-driver"]);
  const head = headOf(file, name);
  if (platform === "sidecar-driver") {
    if (file.has("guests")) throw file.bad("guests", "the driver alone has no guest");
    return driverScenario(file, head);
  }
  machine.only(["platform"]);
  return guestScenario(file, head, platform, name);
}

// --- Guests -------------------------------------------------------------------------------------------------------

/** What the environment of a guest does. */
interface Environment {
  readonly interrupts: number;
  readonly answers: readonly number[];
  readonly conversion: boolean;
}

function guestScenario(file: JsonFields, head: FileHead, platform: "sidecar" | "kernel", name: string): Scenario {
  const guests = guestsOf(file.object("guests"), file);
  const environment = environmentOf(file);
  const memoryProperties: MemoryProperty[] = [];
  const known = MACHINE_PROPERTIES.map((property) => property.name);
  const names = propertyNames(file, known, (fields) => {
    memoryProperties.push(memoryProperty(fields));
    return memoryProperties.at(-1)!.name;
  });
  const sentences: readonly NamedProperty[] = [...MACHINE_PROPERTIES, ...memoryProperties];
  const answers = environment.answers.map(String);
  const options: ScenarioOption[] = [
    { name: "guest", meaning: "the guest's program", values: [...guests.keys()], default: [...guests.keys()][0] },
    { name: "answer", meaning: "what the device answers", values: answers, default: answers[0] },
  ];
  return {
    ...head,
    options,
    properties: names.map((property) => {
      const { sentence } = sentences.find((candidate) => candidate.name === property)!;
      return { name: property, sentence };
    }),
    matrix: {
      parts: [...guests.keys()].flatMap((guest) => answers.map((answer) => ({ guest, answer }))),
      memoryModels: head.memoryModels,
      bounds: head.bounds,
    },
    build: (policies, { guest, answer }, system) => {
      const setting: GuestSetting = {
        platform,
        code: guests.get(guest)!,
        answer: Number(answer),
        interrupts: environment.interrupts,
        converts: environment.conversion,
      };
      return build(system, setting, policies, (machine) => {
        const all = [...machineProperties(machine), ...memoryProperties.map((property) => inMemory(machine, property))];
        return names.map((property) => all.find((candidate) => candidate.name === property)!);
      }, `${name}: guests.${guest}`);
    },
  };
}

function build(
  system: string,
  setting: GuestSetting,
  policies: Choices,
  properties: (system: MachineSystem) => Property[],
  place: string,
): MachineSystem {
  try {
    return machineSystem(system, setting, policies, properties);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new BadInput(`${place}: the guest does not come to its end: ${error.message}`);
  }
}

function guestsOf(guests: JsonFields, file: JsonFields): Map<string, Uint8Array> {
  const programs = new Map<string, Uint8Array>();
  for (const name of guests.names) {
    if (!/^[\w-]+$/.test(name)) throw guests.bad(name, "a name of letters, digits and hyphens is expected");
    programs.set(name, codeOf(guests.object(name)));
  }
  if (programs.size === 0) throw file.bad("guests", "at least one guest is expected");
  if (programs.size > CHOICES_MAX) throw file.bad("guests", `at most ${CHOICES_MAX} guests are expected`);
  return programs;
}

function codeOf(guest: JsonFields): Uint8Array {
  guest.only(["assembler", "bytes"]);
  if (guest.has("assembler") === guest.has("bytes")) throw guest.bad("bytes", 'either this or "assembler" is expected');
  const code = guest.has("bytes") ? hexBytes(guest, "bytes") : assembled(guest);
  if (code.length > GUEST_BYTES) throw guest.bad("bytes", `${code.length} bytes, at most ${GUEST_BYTES} are expected`);
  return code;
}

function assembled(guest: JsonFields): Uint8Array {
  try {
    return assemble(guest.text("assembler"), { origin: GUEST_ORIGIN, bits: 64 }).bytes;
  } catch (error) {
    throw error instanceof BadInput ? guest.bad("assembler", error.message) : error;
  }
}

function hexBytes(fields: JsonFields, field: string): Uint8Array {
  const digits = fields.text(field).replace(/\s+/g, "");
  if (digits === "" || !/^([0-9a-fA-F]{2})+$/.test(digits)) {
    throw fields.bad(field, "pairs of hexadecimal digits are expected");
  }
  return Uint8Array.from(digits.match(/../g)!, (pair) => parseInt(pair, 16));
}

function environmentOf(file: JsonFields): Environment {
  let interrupts = 0;
  let answers: readonly number[] = [0];
  let conversion = false;
  for (const entry of file.list("environment")) {
    if (typeof entry === "string") throw file.bad("environment", `an object with "agent" is expected, not "${entry}"`);
    const agent = entry.word("agent", ["vtl2-interrupt", "device", "conversion"]);
    entry.only(["agent", ...(agent === "vtl2-interrupt" ? ["times"] : agent === "device" ? ["answers"] : [])]);
    if (agent === "vtl2-interrupt") interrupts = entry.integer("times", 0, INTERRUPTS_MAX, 1);
    else if (agent === "device") answers = [...new Set(entry.integers("answers", 0, 0xffff_ffff))];
    else conversion = true;
  }
  if (answers.length > CHOICES_MAX) throw file.bad("environment", `at most ${CHOICES_MAX} answers are expected`);
  return { interrupts, answers, conversion };
}

function memoryProperty(fields: JsonFields): MemoryProperty {
  fields.only(["name", "sentence", "address", "bytes", "is"]);
  const name = fields.text("name");
  if (!/^[a-z0-9.-]+$/.test(name)) {
    throw fields.bad("name", "lower-case letters, digits, dots and hyphens are expected");
  }
  if (MACHINE_PROPERTIES.some((property) => property.name === name)) throw fields.bad("name", "that name is taken");
  const bytes = hexBytes(fields, "bytes");
  const address = fields.integer("address", GUEST_ORIGIN, GUEST_ORIGIN + GUEST_BYTES - bytes.length);
  return { name, sentence: fields.text("sentence"), address, bytes, is: fields.word("is", ["equal", "not"], "equal") };
}

/** The property in a machine: asked when the guest has come to its end. */
function inMemory(system: MachineSystem, { name, sentence, address, bytes, is }: MemoryProperty): Property {
  const found = () => system.memory.u8.subarray(address, address + bytes.length);
  const equal = () => found().every((byte, index) => byte === bytes[index]);
  return {
    name,
    sentence,
    when: "end",
    kind: () =>
      `0x${address.toString(16)} holds ${[...found()].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}`,
    holds: () => !(system.finished?.() ?? true) || equal() === (is === "equal"),
  };
}

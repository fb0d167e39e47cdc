import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { record, type Schedule, scheduleText, withPolicies } from "../../lib/explore/schedule.ts";
import { reportOf } from "../../lib/cli/errors.ts";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { findCommand, parseCommandLine } from "../../lib/cli/parse.ts";
import { Printer } from "../../lib/cli/printer.ts";
import { buildSystem } from "../../lib/scenarios/scenario.ts";
import { sidecarRax } from "../../lib/scenarios/sidecar_rax.ts";
import { sidecarRemove } from "../../lib/scenarios/sidecar_remove.ts";
import { Random } from "../../lib/memory/random.ts";

/** Schedules that are changed; every choice takes a step that can be taken. */
function originals(): Schedule[] {
  return [sidecarRemove, sidecarRax].map((scenario) => {
    const engine = new Engine(buildSystem(scenario, {}, {}), "tso");
    const random = Random.seeded(5);
    const choices: { actor: number; outcome: number }[] = [];
    engine.chooser = { nextChoice: (count) => random.below(count) };
    while (choices.length < 12 && engine.enabled() !== 0) {
      const actors = engine.actorNames.map((_, actor) => actor).filter((actor) => engine.isEnabled(actor));
      const actor = actors[random.below(actors.length)];
      engine.execute(actor);
      choices.push({ actor, outcome: engine.outcome });
    }
    return record(engine, choices, { property: "no-deadlock", kind: "x" });
  });
}

const ODD: readonly unknown[] = ["", "x", "constructor", "\u0000", -1, 0, 1, 2 ** 40, 1.5, null, true, [], {}];

/** The schedule with something else somewhere, and a digest that fits. */
function edited(schedule: Schedule, random: Random): Schedule {
  const copy = JSON.parse(JSON.stringify(schedule));
  const { choices } = copy;
  const pick = () => random.below(choices.length);
  const odd = ODD[random.below(ODD.length)];
  switch (random.below(8)) {
    case 0:
      copy[["scenario", "property", "kind", "memory_model", "start", "cycle_from"][random.below(6)]] = odd;
      break;
    case 1:
      choices[pick()][["agent", "step", "outcome", "state"][random.below(4)]] = odd;
      break;
    case 2:
      choices.splice(pick(), 1);
      break;
    case 3:
      choices.splice(pick(), 0, choices[pick()]);
      break;
    case 4:
      copy.policies[Object.keys(copy.policies)[0] ?? "x"] = odd;
      break;
    case 5:
      choices[pick()].outcome = random.below(1000);
      break;
    case 6:
      copy.cycle_from = pick();
      break;
    default:
      copy.choices = choices.slice(0, pick());
  }
  try {
    return withPolicies(copy, copy.policies);
  } catch {
    return copy;
  }
}

/** The text with some of its characters changed or cut off. */
function garbled(text: string, random: Random): string {
  const at = random.below(text.length);
  const letter = String.fromCharCode(random.below(128));
  const changed = text.slice(0, at) + letter + text.slice(at + random.below(3));
  return random.below(4) === 0 ? changed.slice(0, random.below(changed.length)) : changed;
}

/** Exit code and standard error of a command that runs in this process. */
async function inProcess(words: readonly string[]): Promise<{ code: number; err: string }> {
  let err = "";
  const sink = (write: (text: string) => void) => ({
    writeSync: (bytes: Uint8Array) => (write(new TextDecoder().decode(bytes)), bytes.length),
    isTerminal: () => false,
  });
  const printer = new Printer({
    color: "never",
    quiet: true,
    output: sink(() => {}),
    error: sink((text) => err += text),
  });
  try {
    const { command, rest } = findCommand(words, COMMANDS);
    const { values, operands } = parseCommandLine(command, rest);
    // deno-lint-ignore no-explicit-any -- as the main module does it
    const code = await command.run({ values: values as any, operands, words, printer, commands: COMMANDS });
    return { code, err };
  } catch (error) {
    const { code, text } = reportOf(error);
    return { code, err: err + (text ?? "") };
  }
}

/** How many schedules are tried; a longer run is a matter of minutes. */
const TRIES = Number(Deno.env.get("REPLAY_FUZZ") ?? 120);

Deno.test("replay: no schedule that was changed by hand or by accident ends in anything but 0, 2, 11, 12, 13 or 21", async () => {
  const random = Random.seeded(20);
  const schedules = originals();
  const path = await Deno.makeTempFile({ suffix: ".json" });
  const seen = new Map<number, number>();
  try {
    for (let k = 0; k < TRIES; k++) {
      const schedule = schedules[random.below(schedules.length)];
      const text = random.below(3) === 0
        ? garbled(scheduleText(schedule), random)
        : scheduleText(edited(schedule, random));
      await Deno.writeTextFile(path, text);
      const flags = [[], ["--json"], ["--to", "30"], ["--from", "3"]][random.below(4)];
      const { code, err } = await inProcess(["replay", path, ...flags]);
      const known = [EXIT.CLEAN, EXIT.USAGE, EXIT.DEADLOCK, EXIT.SAFETY, EXIT.LIVENESS, EXIT.DIVERGED];
      assert((known as number[]).includes(code), `exit code ${code} for ${text}: ${err}`);
      if (code === EXIT.USAGE) assertEquals(err.split("\n").length, 1, err);
      seen.set(code, (seen.get(code) ?? 0) + 1);
    }
  } finally {
    await Deno.remove(path);
  }
  assert(seen.get(EXIT.USAGE)! > 0 && seen.get(EXIT.DIVERGED)! > 0, JSON.stringify([...seen]));
});

/**
 * The command `bench explore`.
 *
 * @module
 */

import { EXPLORE_WORKLOADS, type ExploreBench, measureExplore } from "../scenarios/bench.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { grouped } from "./explore_output.ts";
import { toggle } from "./flags.ts";

/** The command `bench explore`. */
export const benchExploreCommand: Command = command({
  name: "bench explore",
  summary: "measure how many states a second the explorer visits",
  examples: [
    ["exitbox bench explore", "the sidecar driver with three processors, and a guest with its exits"],
    ["exitbox bench explore --quick", "a tenth of the states"],
    ["exitbox bench explore --json", "one JSON array"],
  ],
  operands: null,
  flags: {
    Measurement: { quick: toggle("a tenth of the states, less exact") },
    Results: { json: toggle("one JSON array on standard output") },
  },
  details: [
    "One thread, sequential consistency, nothing left out but states that were seen; the fastest of three rounds. driver: " +
    "the protocol alone, three processors. driver-checked: the same with the scenario's properties checked in every " +
    "state. guest: a sidecar processor whose guest makes port exits, real code in the loop; a transition is a step.",
  ],
  run({ values, printer }) {
    const results: ExploreBench[] = [];
    for (const workload of EXPLORE_WORKLOADS) {
      printer.progress(`bench explore: ${workload.name}`);
      results.push(measureExplore(workload, values.quick, () => performance.now()));
    }
    if (values.json) {
      printer.json(results);
      return EXIT.CLEAN;
    }
    const right = (title: string) => ({ title, align: "right" as const });
    printer.table(
      [{ title: "workload", align: "left" }, ...["states", "transitions", "states/s", "transitions/s", "s"].map(right)],
      results.map((result) => [
        result.workload,
        grouped(result.states),
        grouped(result.transitions),
        grouped(Math.round(result.states_per_second)),
        grouped(Math.round(result.transitions_per_second)),
        result.seconds.toFixed(2),
      ]),
    );
    return EXIT.CLEAN;
  },
});

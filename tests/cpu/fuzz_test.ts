import { assertEquals } from "@std/assert";
import { EXIT_BUS } from "../../lib/cpu/state.ts";
import { fuzz, MODES } from "./fuzz.ts";

/** Programs in each mode. */
const PROGRAMS = 6700;

for (const mode of MODES) {
  Deno.test(`Random programs in ${mode} mode end in modelled events only`, () => {
    const ends = fuzz(mode, 20261121, PROGRAMS);
    let total = 0;
    for (const [reason, times] of ends) {
      assertEquals(reason >= 0 && reason < EXIT_BUS, true);
      total += times;
    }
    assertEquals(total, PROGRAMS);
  });
}

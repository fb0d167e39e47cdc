import { fuzzRmp } from "./rmp_fuzz.ts";

/** Operations of a short run. */
const OPERATIONS = 60_000;

Deno.test("RMP: random operations agree with a model written from the manual's tables", () => {
  const seed = 20260;
  console.log(`seed ${seed}`);
  fuzzRmp(seed, OPERATIONS);
});

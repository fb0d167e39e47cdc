/** The worker module of the tests of parallel searches. */
import { serveShares } from "../../lib/explore/parallel_worker.ts";
import { counters, type CounterSpec } from "./counter_system.ts";

serveShares((spec: CounterSpec) => counters(spec));

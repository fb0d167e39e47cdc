import { assertEquals } from "@std/assert";
import { CpuState, EXIT_NONE } from "../../lib/cpu/state.ts";
import { guestMachine } from "./guest_machine.ts";

/** Three instructions a turn. */
const SPIN = ".spin: pause\n inc eax\n jmp .spin";

Deno.test("PAUSE: without a limit a loop of them goes on to the end of the budget", () => {
  const { cpu } = guestMachine("long", SPIN);
  assertEquals(cpu.run(3000), EXIT_NONE);
  assertEquals([cpu.g32[0], cpu.pausing], [1000, false]);
});

Deno.test("PAUSE: the limit ends a run behind the last PAUSE, and the next run begins to count again", () => {
  const { cpu } = guestMachine("long", SPIN);
  const rip = () => cpu.s64[CpuState.at.rip >> 3];
  const counted = () => Number(cpu.s64[CpuState.at.instructions >> 3]);
  const start = rip();
  cpu.pauseLimit = 10;
  assertEquals(cpu.run(3000), EXIT_NONE);
  assertEquals([cpu.g32[0], rip() - start, counted(), cpu.pausing], [9, 2n, 28, true]);
  assertEquals(cpu.run(3000), EXIT_NONE);
  assertEquals([cpu.g32[0], counted(), cpu.pausing], [19, 58, true]);
  // Fewer PAUSEs than the limit: the budget ends it.
  assertEquals(cpu.run(9), EXIT_NONE);
  assertEquals([counted(), cpu.pausing], [67, false]);
});

import { assert, assertEquals } from "@std/assert";
import { DeterministicRuntime } from "../../lib/machine/deterministic.ts";
import { drainExitRing, EXIT_RING_SIZE } from "../../lib/hypervisor/exit_log.ts";
import { END_NAMES, HEADER_MAGIC } from "../../lib/machine/header.ts";
import { Random } from "../../lib/memory/random.ts";
import { gates, guestMachine } from "./guest_fixture.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";

/** Programs for each mode, and steps of each: an exit takes some twenty where host and paravisor take theirs. */
const MACHINES = {
  kernel: { programs: 900, steps: 150, config: { platform: "kernel" } },
  bare: { programs: 200, steps: 150, config: { platform: "bare" } },
  openhcl: { programs: 60, steps: 900, config: { platform: "snp", paravisor: "openhcl" } },
} as const;
const BYTES = 64;
const SEED = 0x5eed;

/** What makes exits and changes modes; random bytes alone seldom do. */
const OPENINGS: readonly (readonly number[])[] = [
  [0x0f, 0x01, 0xd9], // vmmcall
  [0x0f, 0x01, 0xc1], // vmcall
  [0x0f, 0x30], // wrmsr
  [0x0f, 0x32], // rdmsr
  [0x0f, 0xa2], // cpuid
  [0xf4], // hlt
  [0xfb], // sti
  [0xee],
  [0xed],
  [0xf3, 0x6e],
  [0xf3, 0x6d],
  [0x0f, 0x22, 0xc0],
  [0x0f, 0x20, 0xe0],
  [0x44, 0x0f, 0x22, 0xc0],
  [0xcf],
  [0xcd, 0x03],
  [0xf3, 0xa4],
  [0xf3, 0xab],
  [0xbf, 0x00, 0x00, 0xc0, 0xfe], // mov edi, fec00000
  [0xbf, 0x00, 0x03, 0xe0, 0xfe], // mov edi, fee00300
  [0xb9, 0x00, 0x01, 0x00, 0x40], // mov ecx, 40000100
  [0xb9, 0x00, 0x00, 0x00, 0x40], // mov ecx, 40000000
  [0x89, 0x07], // mov [edi], eax
  [0x8b, 0x07],
  [0x31, 0xd2],
];

/** A random program. */
function program(random: Random): number[] {
  const bytes: number[] = [];
  while (bytes.length < BYTES) {
    if (random.below(3) !== 0) bytes.push(...OPENINGS[random.below(OPENINGS.length)]);
    else for (let k = random.below(6); k >= 0; k--) bytes.push(random.below(256));
  }
  return bytes.slice(0, BYTES);
}

for (const platform of ["kernel", "bare", "openhcl"] as const) {
  const { programs, steps, config } = MACHINES[platform];
  for (const mode of ["real", "protected", "long"] as const) {
    Deno.test(`fuzz: random programs end in modelled events only (${platform}, ${mode} mode)`, () => {
      const origin = mode === "real" ? 0x7c00 : 0x100000;
      // In long mode exceptions lead to code that skips a byte, so that programs get further.
      const handled = gates(Object.fromEntries(Array.from({ length: 32 }, (_, vector) => [vector, "skip"])));
      const start = mode === "long" ? `jmp start\nskip: inc qword [rsp]\n iretq\nstart: ${handled}` : "nop";
      const bits = mode === "real" ? 16 : mode === "protected" ? 32 : 64;
      const prefix = assemble(start, { origin, bits }).bytes;
      const machine = guestMachine(new Uint8Array([...prefix, ...new Uint8Array(BYTES).fill(0x90)]), {
        ...config,
        mode,
        vps: 2,
        ramBytes: mode === "real" ? 1 << 20 : (1 << 20) + (1 << 16),
        recordExits: true,
      });
      const { u8, u32 } = machine.memory;
      const fresh = u8.slice();
      const random = Random.seeded(SEED);
      const ends: Record<string, number> = {};
      let exits = 0;
      machine.onFull = () => void (exits += drain());
      const drain = () =>
        [0, 1].reduce(
          (sum, vp) => sum + drainExitRing(machine.memory, machine.map.exitRings + vp * EXIT_RING_SIZE).length,
          0,
        );
      for (let number = 0; number < programs; number++) {
        u8.set(fresh);
        const bytes = program(random);
        u8.set(bytes, origin + prefix.length);
        for (const vp of [0, 1]) machine.processor(vp).cpu.flushCaches();
        const runtime = new DeterministicRuntime(machine, { seed: number });
        try {
          for (let k = 0; k < steps && runtime.step(); k++);
        } catch (error) {
          const hex = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
          throw new Error(`seed ${SEED}, program ${number} in ${mode} mode on ${platform}: ${hex}`, { cause: error });
        }
        exits += drain();
        const end = END_NAMES[machine.end];
        ends[end] = (ends[end] ?? 0) + 1;
        assertEquals(u32[machine.header >>> 2], HEADER_MAGIC);
        assert(end !== "worker-failed" && end !== undefined);
      }
      console.log(`seed ${SEED}, ${programs} programs on ${platform}, ${mode}:`, ends, `${exits} exits`);
      assert(exits > programs / 2);
    });
  }
}

import { assert } from "@std/assert";
import { sevKernelSecret } from "../../lib/guest/programs/sev_kernel.ts";
import { loadSevGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine } from "../../lib/machine/run.ts";

const RAM_BYTES = 6 << 20;
const RUNS = 8;

/** Whether the host can read eight bytes in a row of the secret. */
function leaks(machine: Machine, secret: Uint8Array): boolean {
  const { sev, host } = { sev: machine.platform.sev.sev, host: machine.platform.sev.host(0) };
  const seen = new Uint8Array(RAM_BYTES);
  sev.guestMemory.hostBytes(host.port, 0, seen);
  const decoder = new TextDecoder("windows-1252");
  const text = decoder.decode(seen);
  for (let k = 0; k + 8 <= secret.length; k++) {
    if (text.includes(decoder.decode(secret.subarray(k, k + 8)))) return true;
  }
  return false;
}

for (const platform of ["sev-es", "snp"] as const) {
  Deno.test(`${platform}: whatever a malicious host does, the guest's secret stays its own`, async () => {
    const ends = new Map<string, number>();
    for (let seed = 1; seed <= RUNS; seed++) {
      const config = {
        platform,
        vps: 2,
        ramBytes: RAM_BYTES,
        policies: {},
        devices: "pc",
        recordExits: false,
      } as const;
      const machine = Machine.create({ ...config, maliciousHost: seed }, true);
      loadSevGuest(machine);
      const { address, bytes } = sevKernelSecret();
      const secret = machine.memory.u8.slice(address, address + bytes);
      let steps = 0;
      const report = await runMachine(machine, {
        seed,
        timeLimitSeconds: 20,
        onStep: () => {
          if (++steps === STEPS_MAX) machine.finish(LIMIT, 0);
        },
      });
      ends.set(report.end, (ends.get(report.end) ?? 0) + 1);
      assert(report.problems.length === 0, `seed ${seed}: ${report.problems}`);
      assert(!leaks(machine, secret), `seed ${seed}: the secret can be read after ${report.end}`);
    }
    // The host was in the way more often than not.
    assert((ends.get("exit-port") ?? 0) < RUNS, JSON.stringify([...ends]));
  });
}

/** Steps after which a run is ended that the host has stopped. */
const STEPS_MAX = 40_000;
/** END.LIMIT. */
const LIMIT = 5;

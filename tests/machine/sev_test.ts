import { assert, assertEquals, assertThrows } from "@std/assert";
import { sevKernelSecret } from "../../lib/guest/programs/sev_kernel.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { loadSevGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine, type RunReport } from "../../lib/machine/run.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";

const RAM_BYTES = 8 << 20;

function config(part: Partial<MachineConfig>): MachineConfig {
  return { platform: "sev-es", vps: 1, ramBytes: RAM_BYTES, policies: {}, devices: "pc", recordExits: false, ...part };
}

async function run(
  part: Partial<MachineConfig>,
  deterministic: boolean,
  seed = 1,
): Promise<{ machine: Machine; report: RunReport; text: string }> {
  const machine = Machine.create(config(part), deterministic);
  loadSevGuest(machine);
  let text = "";
  const report = await runMachine(machine, {
    seed,
    timeLimitSeconds: 90,
    onSerial: (bytes) => text += new TextDecoder().decode(bytes),
  });
  return { machine, report, text };
}

function assertDone({ report, text }: { report: RunReport; text: string }, vps: number, what: string): void {
  assertEquals([report.end, report.exitValue], ["exit-port", 0], `${what}: ${text}`);
  assert(text.includes(`all ${vps} VPs are done`), text);
  for (let vp = 0; vp < vps; vp++) assert(text.includes(`VP ${vp}: long mode, vendor AuthenticAMD`), text);
}

for (const platform of ["sev-es", "snp"] as const) {
  Deno.test(`${platform}: the built-in kernel boots on one to five VPs under kvm, whatever the schedule`, async () => {
    for (const [vps, seed] of [[1, 1], [2, 2], [3, 3], [5, 4]]) {
      const outcome = await run({ platform, vps }, true, seed);
      assertDone(outcome, vps, `${vps} VPs, seed ${seed}`);
      assert(outcome.text.includes(platform === "snp" ? "SEV-SNP" : "SEV-ES, C bit 51, GHCB protocol 2"));
      assert(outcome.text.includes("timer interrupt"));
    }
  });

  Deno.test(`${platform}: the same seed gives the same run`, async () => {
    const [a, b] = [await run({ platform, vps: 2 }, true, 9), await run({ platform, vps: 2 }, true, 9)];
    assertEquals(a.text, b.text);
    assertEquals(a.report.vps, b.report.vps);
    assertEquals(a.machine.memory.u8.slice(0, RAM_BYTES), b.machine.memory.u8.slice(0, RAM_BYTES));
  });
}

for (const [platform, hostPlacement] of [["sev-es", "processor"], ["snp", "worker"]] as const) {
  Deno.test(`${platform}: two VPs in workers, the host on ${hostPlacement} of its own`, async () => {
    const outcome = await run({ platform, vps: 2, hostPlacement }, false);
    assertDone(outcome, 2, hostPlacement);
    assert(outcome.report.clean);
  });
}

Deno.test("sev-es: the kernel boots under vmd, which serves no strings and no device memory", async () => {
  const outcome = await run({ host: "vmd" }, true);
  assertDone(outcome, 1, "vmd");
  assert(outcome.text.includes("GHCB protocol 1"));
});

Deno.test("vmd: refuses SNP guests and more than one VP", () => {
  assertThrows(() => Machine.create(config({ platform: "snp", host: "vmd" }), true), BadInput, "SNP");
  assertThrows(() => Machine.create(config({ vps: 2, host: "vmd" }), true), BadInput, "one VP");
});

Deno.test("what the host can read of guest memory contains no eight bytes of the secret", async () => {
  for (const platform of ["sev-es", "snp"] as const) {
    const { machine } = await run({ platform, vps: 2 }, true);
    const { sev } = machine.platform;
    const host = machine.platform.sev.host(0);
    const seen = new Uint8Array(RAM_BYTES + 2 * 4096);
    sev.sev.guestMemory.hostBytes(host.port, 0, seen.subarray(0, RAM_BYTES));
    for (let vp = 0; vp < 2; vp++) {
      sev.sev.guestMemory.hostBytes(
        host.port,
        sev.sev.vmsa(vp),
        seen.subarray(RAM_BYTES + vp * 4096).subarray(0, 4096),
      );
    }
    const { address, bytes } = sevKernelSecret();
    const secret = machine.memory.u8.slice(address, address + bytes);
    // Every byte has a character of its own in this encoding, so that whole strings can be searched.
    const decoder = new TextDecoder("windows-1252");
    const text = decoder.decode(seen);
    for (let k = 0; k + 8 <= bytes; k++) {
      assert(!text.includes(decoder.decode(secret.subarray(k, k + 8))), `${platform}: window ${k} of the secret`);
    }
    // The registers that hold it are in the VMSA, which really contains it: the guest finds it there.
    const vmsa = machine.memory.u8.subarray(sev.sev.vmsa(0), sev.sev.vmsa(0) + 4096);
    const own = vmsa.subarray(0x470, 0x480).join();
    assertEquals(own, secret.subarray(0, 16).join());
  }
});

Deno.test("an encrypted machine that was never told to boot an image ends at VMRUN's checks or a fault, not in a crash", async () => {
  for (const platform of ["sev-es", "snp"] as const) {
    const machine = Machine.create(config({ platform }), true);
    const report = await runMachine(machine, { seed: 1, timeLimitSeconds: 5 });
    assert(["entry-failed", "triple-fault", "host-stopped"].includes(report.end), report.end);
  }
});

import { assert, assertEquals } from "@std/assert";
import { CpuState } from "../../lib/cpu/state.ts";
import { sevKernelSecret } from "../../lib/guest/programs/sev_kernel.ts";
import { compareViews, HostView, type HostViewRecord } from "../../lib/inspect/host_view.ts";
import { loadSevGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine } from "../../lib/machine/run.ts";

const RAM_BYTES = 6 << 20;

async function view(
  platform: "sev-es" | "snp",
  options: { vps?: number; variant?: number; seed?: number; host?: "kvm" | "vmd"; leak?: boolean } = {},
): Promise<HostViewRecord[]> {
  const { vps = 1, variant = 0, seed = 1, host = "kvm", leak = false } = options;
  const config = { platform, vps, ramBytes: RAM_BYTES, policies: {}, devices: "pc", recordExits: false, host } as const;
  const machine = Machine.create(config, true);
  loadSevGuest(machine, { variant });
  const records: HostViewRecord[] = [];
  const secret = sevKernelSecret();
  const marks = { ranges: [secret], gpr: false, xmm: true };
  const states = (vp: number) => machine.map.cpuStates + vp * CpuState.size;
  const views = new HostView(machine.platform.sev.sev, states, marks, (record) => records.push(record));
  // The first VP's GHCB: what a guest would do that copies a secret into shared memory.
  const shared = 0x401000 + 0xa00;
  const report = await runMachine(machine, {
    seed,
    timeLimitSeconds: 60,
    onStep: (agent, step) => {
      if (leak && views.exits === 40) machine.memory.u8.copyWithin(shared, secret.address + 3, secret.address + 19);
      views.followStep(agent, step);
      views.poll();
    },
  });
  assertEquals([report.end, report.exitValue], ["exit-port", 0]);
  assertEquals(views.exits, records.length);
  assertEquals(views.leaks > 0, leak);
  return records;
}

Deno.test("host view: of the kernel's run it is empty of the secret, on one and two VPs and under both hosts", async () => {
  for (const platform of ["sev-es", "snp"] as const) {
    for (const vps of [1, 2]) {
      const records = await view(platform, { vps });
      assert(records.length > 50);
      assertEquals(records.flatMap((record) => record.leaks), []);
      assertEquals(new Set(records.map((record) => record.vp)).size, vps);
    }
  }
  await view("sev-es", { host: "vmd" });
});

Deno.test("host view: a secret that is copied into shared memory is found, with its place and name", async () => {
  const records = await view("sev-es", { leak: true });
  const leak = records.flatMap((record) => record.leaks)[0];
  assertEquals(leak, { where: "shared", address: 0x401a00, secret: leak.secret });
  assert(leak.secret.startsWith("range") || leak.secret.startsWith("xmm"));
});

Deno.test("host view: shows exits, the GHCB's fields as they change, and ciphertext that has changed", async () => {
  const records = await view("snp");
  const codes = new Set(records.map((record) => record.code));
  for (const code of ["VMGEXIT", "EFER_WRITE_TRAP", "CR0_WRITE_TRAP", "HLT"]) assert(codes.has(code), code);
  const changes = records.flatMap((record) => record.shared);
  assert(changes.some((change) => change.field === "GHCB.sw_exit_code" || change.field === "GHCB.rax"));
  assert(changes.some((change) => change.writer?.startsWith("vp0 in sev.run-guest")));
  assert(records.some((record) => record.ciphertext.length > 0));
});

Deno.test("noninterference: two runs that differ in their secret only show the host the same", async () => {
  for (const platform of ["sev-es", "snp"] as const) {
    const [first, second] = [await view(platform), await view(platform, { variant: 1 })];
    const { difference } = compareViews(first, second);
    assertEquals(difference, undefined);
  }
});

Deno.test("noninterference: a secret that reaches shared memory is named by field, exit and writer", async () => {
  const [first, second] = [await view("sev-es", { leak: true }), await view("sev-es", { leak: true, variant: 1 })];
  const { difference } = compareViews(first, second);
  assertEquals(difference?.what, "GHCB.shared_buffer at 0x401a00");
  assert(difference?.writer !== undefined);
  assert(difference.first !== difference.second);
});

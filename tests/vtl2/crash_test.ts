import { assertEquals } from "@std/assert";
import { CpuState } from "../../lib/cpu/state.ts";
import { PartitionState } from "../../lib/hypervisor/partition.ts";
import { readExit } from "../../lib/inspect/exit_records.ts";
import { HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import {
  gpr,
  guestMachine,
  type GuestOptions,
  type GuestRun,
  RAM_BYTES,
  register,
  runGuest,
} from "../machine/guest_fixture.ts";
import { SILICON_CASES } from "./silicon_cases.ts";

const RAX = 0xaabb_ccdd_1122_3344n;
const OUT = `mov rax, 0x${RAX.toString(16)}\n out 0x80, al\n cli\n hlt`;

/** Runs `source` on the kernel platform. */
function kernel(source: string, options: GuestOptions = {}): Promise<GuestRun> {
  return runGuest(guestMachine(source, options));
}

Deno.test("VMM crash: message.rax that is not the context's is recorded with both values, VP and step", async () => {
  for (const concurrent of [false, true]) {
    const result = await kernel(OUT, { policies: { "vtl.entry": "vtl2-restored" }, concurrent });
    assertEquals([result.end, result.clean], ["vmm-crash", true]);
    const { vp, step, assertion, left, right } = result.vmmCrash!;
    // The context was saved from registers in which the return stub had moved its control input, 0, to RAX.
    assertEquals([vp, step, assertion, left, right], [
      0,
      "vmm.handle-io-port",
      "message.rax == cpu_context.gps[RAX]",
      RAX,
      0n,
    ]);
    // The guest stands at the instruction.
    assertEquals(register(result.machine, 0, CpuState.at.rip), 0x10000an);
  }
});

Deno.test("VMM crash: the value of the other policy takes RAX from the message, and the guest goes on", async () => {
  const result = await kernel(OUT, { policies: { "vtl.entry": "vtl2-restored", "vmm.io-rax": "rax-from-message" } });
  assertEquals([result.end, gpr(result.machine, 0, 0)], ["halt", RAX]);
});

Deno.test("VMM crash: a VTL call enters VTL2 with reason 1, which OpenHCL's kernel does not know", async () => {
  // HvCallVtlCall through the hypercall page: code 11 in ECX, control input 0 in RAX.
  const result = await kernel(`
        mov ecx, 0x40000000
        mov eax, 1
        xor edx, edx
        wrmsr
        mov ecx, 0x40000001
        mov eax, 0x40001
        wrmsr
        xor eax, eax
        mov ecx, 0x11
        vmmcall
        hlt`);
  assertEquals([result.end, result.vmmCrash?.step, result.vmmCrash?.left], [
    "vmm-crash",
    "mshv.unknown-entry-reason",
    1n,
  ]);
  assertEquals(result.vps[0].exits["vtl-call"], 1);
});

// --- One test for each policy that tells OpenHCL from silicon ------------------------------------------------------------

for (const { policy, source, see, openhcl, silicon } of SILICON_CASES) {
  Deno.test(`policy ${policy}: openhcl and silicon differ as they should`, async () => {
    assertEquals(see(await kernel(source), 0), openhcl, "default");
    assertEquals(see(await kernel(source, { policies: { [policy]: "openhcl" } }), 0), openhcl);
    assertEquals(see(await kernel(source, { policies: { [policy]: "silicon" } }), 0), silicon);
    assertEquals(see(await kernel(source, { platform: "bare" }), 0), silicon, "bare");
  });
}

Deno.test("policy vmm.mmio-cmpxchg: openhcl writes device memory only when equal, silicon always", async () => {
  const accesses = async (value: string) => {
    const machine = guestMachine("mov edi, 0xd0000000\n xor eax, eax\n lock cmpxchg [rdi], ecx\n cli\n hlt", {
      policies: { "vmm.mmio-cmpxchg": value },
      recordExits: true,
    });
    const seen: string[] = [];
    await runGuest(machine, { onExit: (record) => seen.push(...readExit(record).accesses.map(({ type }) => type)) });
    return [seen, gpr(machine, 0, 0)];
  };
  assertEquals(await accesses("openhcl"), [["mmio-read"], 0xffff_ffffn]);
  assertEquals(await accesses("silicon"), [["mmio-read", "mmio-write"], 0xffff_ffffn]);
});

// --- What VTL2 configures --------------------------------------------------------------------------------------------

/** VsmPartitionConfig as OpenHCL writes it, with some bits off. */
function without(run: ReturnType<typeof guestMachine>, bit: number): void {
  const config = (run.platform.partition.state + PartitionState.at.vsm_partition_config) >>> 2;
  run.memory.i32[config] &= ~(1 << bit);
}

Deno.test("VsmPartitionConfig: without intercept_cpuid_unimplemented an unknown leaf is answered with zeros", async () => {
  const source = "mov eax, 0x40000080\n cpuid\n cli\n hlt";
  const seen = await kernel(source);
  assertEquals([seen.vps[0].exits.cpuid, gpr(seen.machine, 0, 0)], [1, 0x40000082n]);
  const machine = guestMachine(source);
  without(machine, 10);
  const unseen = await runGuest(machine);
  assertEquals([unseen.end, unseen.vps[0].exits.cpuid, gpr(machine, 0, 0)], ["halt", undefined, 0n]);
});

Deno.test("HvCallInstallIntercept: with all CPUID leaves asked for, the hypervisor's own answers are the defaults", async () => {
  const source = "mov eax, 1\n cpuid\n cli\n hlt";
  const usual = await kernel(source);
  assertEquals(usual.vps[0].exits.cpuid, undefined);
  const machine = guestMachine(source);
  machine.memory.u8[machine.platform.partition.state + PartitionState.at.intercept_all_cpuid] = 1;
  const all = await runGuest(machine);
  assertEquals(all.vps[0].exits.cpuid, 1);
  for (const number of [0, 1, 2, 3]) assertEquals(gpr(machine, 0, number), gpr(usual.machine, 0, number));
});

Deno.test("VsmPartitionConfig: without intercept_unrecoverable_exception a triple fault ends the machine unseen by VTL2", async () => {
  const source = "lidt [abs 0x30000]\n ud2";
  const seen = guestMachine(source);
  assertEquals((await runGuest(seen)).end, "triple-fault");
  const intercepts = (machine: typeof seen) =>
    machine.memory.i32[(machine.processor(0).state + HypervisorVpState.at.entry_reason) >>> 2];
  assertEquals(intercepts(seen), 3);
  const machine = guestMachine(source);
  without(machine, 11);
  assertEquals((await runGuest(machine)).end, "triple-fault");
  assertEquals(intercepts(machine), 0);
});

// --- Pages ------------------------------------------------------------------------------------------------------------

Deno.test("protections: VTL0 reads ones from VTL2's pages and changes nothing there", async () => {
  const machine = guestMachine(`
        mov rbx, ${RAM_BYTES + 0x3000}
        mov rax, [rbx]
        mov rcx, 0x1234
        mov [rbx + 0x800], rcx
        cli
        hlt`);
  const at = RAM_BYTES + 0x3800;
  const before = machine.memory.view.getBigUint64(at, true);
  const result = await runGuest(machine);
  assertEquals([result.end, gpr(machine, 0, 0)], ["halt", 0xffff_ffff_ffff_ffffn]);
  assertEquals([result.vps[0].exits["mmio-read"], result.vps[0].exits["mmio-write"]], [1, 1]);
  assertEquals(machine.memory.view.getBigUint64(at, true), before);
});

Deno.test("protections: a page that VTL2 protects intercepts writes, and VTL2's VMM carries them out in RAM", async () => {
  const source = "mov rax, [abs 0x30000]\n mov qword [abs 0x30000], 7\n mov rcx, [abs 0x30000]\n cli\n hlt";
  const machine = guestMachine(source);
  const READ_EXECUTE = 0b1101;
  machine.platform.partition.setVtl0Rights(0x30, READ_EXECUTE);
  const result = await runGuest(machine);
  assertEquals([result.end, gpr(machine, 0, 1)], ["halt", 7n]);
  assertEquals([result.vps[0].exits["mmio-read"], result.vps[0].exits["mmio-write"]], [undefined, 1]);
});

Deno.test("overlays: the hypercall page and SIMP hide RAM while enabled and give it back", async () => {
  const machine = guestMachine(`
        mov qword [abs 0x40000], 0x11
        mov qword [abs 0x60000], 0x22
        mov ecx, 0x40000000
        mov eax, 1
        xor edx, edx
        wrmsr
        mov ecx, 0x40000001
        mov eax, 0x40001
        wrmsr
        mov ecx, 0x40000083
        mov eax, 0x60001
        wrmsr
        mov r8, [abs 0x40000]
        mov r9, [abs 0x60000]
        mov qword [abs 0x60000], 0x33
        xor eax, eax
        wrmsr
        mov ecx, 0x40000001
        wrmsr
        mov r10, [abs 0x40000]
        mov r11, [abs 0x60000]
        cli
        hlt`);
  const result = await runGuest(machine);
  assertEquals(result.end, "halt");
  // VMMCALL and RET.
  assertEquals(gpr(machine, 0, 8) & 0xffff_ffffn, 0xc3d9_010fn);
  assertEquals([gpr(machine, 0, 9), gpr(machine, 0, 10), gpr(machine, 0, 11)], [0n, 0x11n, 0x22n]);
});

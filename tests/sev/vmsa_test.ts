import { assertEquals, assertThrows } from "@std/assert";
import { CpuState } from "../../lib/cpu/state.ts";
import { V_INTR_CTRL, VMSA } from "../../lib/layout/sev/vmsa.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { Random } from "../../lib/memory/random.ts";
import { BOOT_RESET_EIP, launchVmsa } from "../../lib/sev/measurement.ts";
import { maskQwords, protectedQwords, ProtectedVmsa } from "../../lib/sev/register_protection.ts";
import { invalidVmsa, isBusy, loadVmsa, saveVmsa } from "../../lib/sev/vmsa.ts";

const PAGE = 0x1000;
const STATE = 0x2000;
const cpu = CpuState.at;

/** A memory with a valid VMSA at PAGE. */
function machine(): MachineMemory {
  const memory = MachineMemory.allocate(0x4000);
  memory.u8.set(
    launchVmsa("qemu", { resetEip: BOOT_RESET_EIP, signature: 0x800f12, features: 0n, boot: true }),
    PAGE,
  );
  return memory;
}

/** Fills everything that a VMSA holds of the processor's state with random values that it can hold. */
function randomState(memory: MachineMemory, seed: number): void {
  const random = Random.seeded(seed);
  for (let at = STATE; at < STATE + cpu.apic_base; at += 4) memory.u32[at / 4] = random.next();
  for (const segment of ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const) {
    memory.u16[(STATE + cpu[segment]) / 2 + 7] &= 0xf0ff;
  }
  for (const table of ["gdtr", "idtr"] as const) {
    memory.u16.fill(0, (STATE + cpu[table]) / 2, (STATE + cpu[table]) / 2 + 3);
  }
  memory.u64[(STATE + cpu.efer) / 8] &= 0xd01n;
  memory.u64[(STATE + cpu.cr8) / 8] = 0n; // V_TPR, not in the VMSA
  memory.u64[(STATE + cpu.tsc_aux) / 8] &= 0xffffffffn;
  const fx = STATE + cpu.fx;
  for (let at = fx; at < fx + 512; at++) memory.u8[at] = random.below(256);
  memory.u8[fx + 5] = 0;
  memory.u32.fill(0, (fx + 28) / 4, (fx + 32) / 4); // MXCSR_MASK is the processor's
  for (let n = 0; n < 8; n++) memory.u8.fill(0, fx + 32 + 16 * n + 10, fx + 48 + 16 * n);
  memory.u8.fill(0, fx + 416, fx + 512);
}

Deno.test("VMSA: what an exit saves, VMRUN loads, bit by bit", () => {
  for (const protect of [[], protectedQwords(new Uint8Array(64).fill(0xff, 0, 15))]) {
    for (let seed = 1; seed < 20; seed++) {
      const memory = machine();
      randomState(memory, seed);
      const before = memory.u8.slice(STATE, STATE + 0x500);
      saveVmsa(memory, STATE, PAGE, protect);
      memory.u8.fill(0, STATE, STATE + cpu.apic_base);
      memory.u8.fill(0, STATE + cpu.fx, STATE + cpu.fx + 512);
      maskQwords(memory.i32, PAGE, protect);
      loadVmsa(memory, STATE, PAGE);
      assertEquals(memory.u8.slice(STATE, STATE + cpu.apic_base), before.slice(0, cpu.apic_base));
      assertEquals(memory.u8.slice(STATE + cpu.fx, STATE + cpu.fx + 512), before.slice(cpu.fx, cpu.fx + 512));
    }
  }
});

Deno.test("VMSA: registers lie at the offsets of the manual, attributes without the gap", () => {
  const memory = machine();
  randomState(memory, 7);
  saveVmsa(memory, STATE, PAGE);
  const vmsa = VMSA.accessor(memory.view, PAGE);
  assertEquals(vmsa.rax, memory.u64[(STATE + cpu.gpr) / 8]);
  assertEquals(vmsa.r15, memory.u64[(STATE + cpu.gpr) / 8 + 15]);
  const attributes = memory.u16[(STATE + cpu.cs) / 2 + 7];
  assertEquals(vmsa.cs.attrib, (attributes & 0xff) | (attributes >> 4 & 0xf00));
  assertEquals(vmsa.cpl, memory.u16[(STATE + cpu.ss) / 2 + 7] >> 5 & 3);
  assertEquals(vmsa.efer & 0x1000n, 0x1000n);
});

Deno.test("VMRUN: a VMSA as QEMU launches it is valid", () => {
  assertEquals(invalidVmsa(machine(), PAGE), undefined);
});

Deno.test("VMRUN: reserved bits and impossible modes make exit code INVALID", () => {
  const cases: readonly (readonly [field: keyof typeof VMSA.at, value: bigint, reason: string])[] = [
    ["efer", 0n, "EFER.SVME is clear"],
    ["efer", 0x1002n, "EFER has reserved bits set"],
    ["cr0", 1n << 32n, "CR0 has reserved bits set"],
    ["cr0", 0x20000010n, "CR0.NW is set and CR0.CD is clear"],
    ["cr0", 0x80000010n, "CR0.PG is set and CR0.PE is clear"],
    ["cr4", 1n << 31n, "CR4 has reserved bits set"],
    ["cr3", 1n << 60n, "CR3 has reserved bits set"],
    ["dr6", 1n << 40n, "DR6 has reserved bits set"],
    ["dr7", 1n << 40n, "DR7 has reserved bits set"],
    ["rflags", 0n, "RFLAGS has reserved bits wrong"],
    ["rflags", 0x8002n, "RFLAGS has reserved bits wrong"],
    ["efer", 0x1400n, "EFER.LMA disagrees with EFER.LME and CR0.PG"],
    ["xcr0", 0n, "XCR0 lacks the x87 state"],
    ["sev_features", 1n << 40n, "SEV_FEATURES has reserved bits set"],
    ["sev_features", 0x18n, "Restricted and alternate injection exclude each other"],
  ];
  for (const [field, value, reason] of cases) {
    const memory = machine();
    memory.view.setBigUint64(PAGE + VMSA.at[field], value, true);
    assertEquals(invalidVmsa(memory, PAGE), reason);
  }
});

Deno.test("VMRUN: long mode needs PAE and a code segment that is not both 64-bit and 32-bit", () => {
  const memory = machine();
  const vmsa = VMSA.accessor(memory.view, PAGE);
  vmsa.efer = 0x1500n;
  vmsa.cr0 = 0x80000011n;
  assertEquals(invalidVmsa(memory, PAGE), "Long mode is on and CR4.PAE is clear");
  vmsa.cr4 = 0x20n;
  assertEquals(invalidVmsa(memory, PAGE), undefined);
  vmsa.cs.attrib = 0x69b;
  assertEquals(invalidVmsa(memory, PAGE), "CS.L and CS.D are both set");
});

Deno.test("VMRUN: the C bit may be set in CR3", () => {
  const memory = machine();
  VMSA.accessor(memory.view, PAGE).cr3 = 1n << 51n;
  assertEquals(invalidVmsa(memory, PAGE), undefined);
});

Deno.test("VMRUN: the guest-busy bit", () => {
  const memory = machine();
  assertEquals(isBusy(memory, PAGE), false);
  VMSA.accessor(memory.view, PAGE).vintr_ctrl = V_INTR_CTRL.mask.guest_busy;
  assertEquals(isBusy(memory, PAGE), true);
});

// --- Register protection (openvmm openhcl/hcl/src/vmsa.rs, test_init and test_reg_access) ---------------------------

function wrapped(bitmap: Uint8Array): { view: DataView; vmsa: ProtectedVmsa } {
  const view = new DataView(new ArrayBuffer(4096));
  return { view, vmsa: new ProtectedVmsa(view, 0, bitmap) };
}

Deno.test("register protection: byte 5 bit 7 is RIP, byte 18 bits 0 and 1 are XMM1", () => {
  const bitmap = new Uint8Array(64);
  bitmap[5] = 128;
  bitmap[18] = 3;
  assertEquals(protectedQwords(bitmap), [0x178, 0x480, 0x488]);
  assertEquals(VMSA.at.rip, 0x178);
  assertEquals(VMSA.at.fpreg_xmm + 16, 0x480);
});

Deno.test("register protection: stored is value XOR nonce, 32-bit fields use their half, direct fields do not", () => {
  const { view, vmsa } = wrapped(new Uint8Array(64).fill(0xff));
  view.setBigUint64(VMSA.at.reg_prot_nonce, 0xffffffffffffffffn, true);
  vmsa.set64("rip", 0x55n);
  assertEquals(view.getBigUint64(VMSA.at.rip, true), 0xffffffffffffffaan);
  assertEquals(vmsa.get64("rip"), 0x55n);
  vmsa.set32("tsc_aux", 0x55);
  assertEquals(view.getUint32(VMSA.at.tsc_aux, true), 0xffffffaa);
  assertEquals(vmsa.get32("tsc_aux"), 0x55);
  vmsa.set8("vmpl", 2);
  assertEquals(view.getUint8(VMSA.at.vmpl), 2);
});

Deno.test("register protection: after a reset every protected register reads zero and is stored as the nonce", () => {
  const bitmap = new Uint8Array(64);
  bitmap[5] = 128;
  const { view, vmsa } = wrapped(bitmap);
  view.setBigUint64(VMSA.at.rax, 99n, true);
  vmsa.reset(0x1122334455667788n);
  assertEquals(vmsa.get64("rip"), 0n);
  assertEquals(view.getBigUint64(VMSA.at.rip, true), 0x1122334455667788n);
  assertEquals(view.getBigUint64(VMSA.at.rax, true), 0n);
});

Deno.test("register protection: a bitmap that protects a directly used field is refused", () => {
  const { vmsa } = wrapped(new Uint8Array(64).fill(0xff));
  assertThrows(() => vmsa.reset(1n), TypeError, "vmpl");
});

Deno.test("register protection: an exit stores the same register differently the next time", () => {
  const memory = machine();
  randomState(memory, 9);
  const bitmap = new Uint8Array(64);
  bitmap[5] = 128;
  const protect = protectedQwords(bitmap);
  saveVmsa(memory, STATE, PAGE, protect);
  const first = memory.u64[(PAGE + VMSA.at.rip) / 8];
  saveVmsa(memory, STATE, PAGE, protect);
  const second = memory.u64[(PAGE + VMSA.at.rip) / 8];
  assertEquals(first === second, false);
  const vmsa = new ProtectedVmsa(memory.view, PAGE, bitmap);
  assertEquals(vmsa.get64("rip"), memory.u64[(STATE + cpu.rip) / 8]);
});

Deno.test("register protection: a field that an exit does not save keeps its true value under the next nonce", () => {
  const memory = machine();
  randomState(memory, 9);
  const bitmap = new Uint8Array(64);
  bitmap[VMSA.at.xss >> 6] |= 1 << ((VMSA.at.xss & 63) >> 3);
  const vmsa = new ProtectedVmsa(memory.view, PAGE, bitmap);
  vmsa.set64("xss", 0x1234n);
  for (let exit = 0; exit < 3; exit++) {
    saveVmsa(memory, STATE, PAGE, protectedQwords(bitmap));
    assertEquals(vmsa.get64("xss"), 0x1234n);
  }
});

import { assertEquals, assertThrows } from "@std/assert";
import { SEV_FEATURES, VMSA } from "../../../lib/layout/sev/vmsa.ts";
import { ProtectedVmsa } from "../../../lib/sev/register_protection.ts";
import { initVmsa, vmplOf } from "../../../lib/vtl2/snp/init_vmsa.ts";
import { copySharedRegisters, restoreReturnRegisters, SHARED_QWORDS } from "../../../lib/vtl2/snp/vtl_switch.ts";

const BITMAP = new Uint8Array(64);
for (const offset of [VMSA.at.rax, VMSA.at.r15, VMSA.at.fpreg_xmm + 24, VMSA.at.rip]) {
  BITMAP[offset >> 6] |= 1 << ((offset & 63) >> 3);
}

function vmsa(nonce: bigint, vtl: 0 | 1): { view: DataView; vmsa: ProtectedVmsa } {
  const view = new DataView(new ArrayBuffer(4096));
  const made = new ProtectedVmsa(view, 0, BITMAP);
  initVmsa(made, { vtl, inherited: 0xffffffffn, vtom: 1n << 46n, nonce });
  return { view, vmsa: made };
}

Deno.test("f1: a lower VTL's VMSA has its VMPL, features, a harmless exit, SVME, and is busy", () => {
  for (const vtl of [0, 1] as const) {
    const { vmsa: made } = vmsa(77n, vtl);
    assertEquals(made.get8("vmpl"), vtl === 0 ? 2 : 1);
    const features = made.get64("sev_features");
    const names = ["snp", "vtom", "reflect_vc", "debug_swap", "alternate_injection", "vmsa_reg_prot"] as const;
    for (const name of names) assertEquals(SEV_FEATURES.get(features, name), 1, name);
    assertEquals(SEV_FEATURES.get(features, "restricted_injection"), 0);
    assertEquals(made.exitCode, 0x60);
    assertEquals(made.get64("efer"), 0x1000n);
    assertEquals(made.get64("vintr_ctrl"), 1n << 63n);
    assertEquals(made.get64("virtual_tom"), 1n << 46n);
    assertEquals(made.get64("rip"), 0n);
  }
  assertEquals(vmplOf(2), 0);
});

Deno.test("f12: a bitmap that protects the exit code is refused at reset", () => {
  const bitmap = new Uint8Array(64);
  bitmap[VMSA.at.guest_exit_code >> 6] = 1 << ((VMSA.at.guest_exit_code & 63) >> 3);
  const made = new ProtectedVmsa(new DataView(new ArrayBuffer(4096)), 0, bitmap);
  assertThrows(() => made.reset(1n), TypeError, "guest_exit_code");
});

Deno.test("f30: a switch copies exactly the shared registers; nonces differ, values agree", () => {
  const { vmsa: source, view: sourceView } = vmsa(0x1111n, 0);
  const { vmsa: target, view } = vmsa(0x2222n, 1);
  for (let offset = 0; offset < 0x670; offset += 8) {
    if (offset === VMSA.at.reg_prot_nonce) continue;
    source.setQword(offset, BigInt(0x5000 + offset));
    target.setQword(offset, BigInt(0x9000 + offset));
  }
  copySharedRegisters(source, target);
  const shared = new Set(SHARED_QWORDS);
  for (let offset = 0; offset < 0x670; offset += 8) {
    if (offset === VMSA.at.reg_prot_nonce) continue;
    assertEquals(target.qword(offset), BigInt((shared.has(offset) ? 0x5000 : 0x9000) + offset), offset.toString(16));
  }
  // The same value is stored differently under another nonce.
  const at = VMSA.at.rax;
  assertEquals(view.getBigUint64(at, true) === sourceView.getBigUint64(at, true), false);
});

Deno.test("f30, f31: the registers named there, and no others, are shared", () => {
  const names = (text: string) => text.split(" ");
  const copied = names("rax rbx rcx rdx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 xcr0 cr2 dr0 dr1 dr2 dr3 u_cet");
  const kept = names("rsp rip rflags cr0 cr3 cr4 efer dr6 dr7 spec_ctrl xss s_cet ssp");
  const offset = (name: string) => VMSA.at[name as "rax"];
  for (const name of copied) assertEquals(SHARED_QWORDS.includes(offset(name)), true, name);
  for (const name of kept) assertEquals(SHARED_QWORDS.includes(offset(name)), false, name);
  // 80 bytes of x87, 256 of XMM and of YMM, and four shadow-stack pointers beside the registers above.
  assertEquals(SHARED_QWORDS.length, copied.length + 10 + 32 + 32 + 4);
});

Deno.test("f31: a VTL return gives VTL0 the RAX and RCX of the assist page", () => {
  const { vmsa: target } = vmsa(5n, 0);
  restoreReturnRegisters(target, 0xaan, 0xbbn);
  assertEquals([target.get64("rax"), target.get64("rcx")], [0xaan, 0xbbn]);
});

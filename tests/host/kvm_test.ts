import { assert, assertEquals } from "@std/assert";
import { SevExitCode } from "../../lib/layout/sev/constants/exit_codes.ts";
import { GhcbMalformedInput, KVM_REQUIRED_FIELDS, PSC_ERROR } from "../../lib/layout/sev/constants/ghcb.ts";
import { GHCB } from "../../lib/layout/sev/ghcb.ts";
import { PSC_ENTRY } from "../../lib/layout/sev/psc.ts";
import { BUFFER, exitFields, GHCB_GPA, hostFixture, RAM_BYTES } from "./host_fixture.ts";

const EXIT = SevExitCode.values;
const REASON = GhcbMalformedInput.values;

/** Both words of the answer. */
function answer(fixture: ReturnType<typeof hostFixture>): [bigint | undefined, bigint | undefined] {
  return [fixture.ghcb.get("sw_exit_info_1"), fixture.ghcb.get("sw_exit_info_2")];
}

Deno.test("d2: the order is map, bitmap, snapshot, usage, clear, validate, serve, reply", () => {
  const fixture = hostFixture();
  assert(fixture.request({ ...exitFields(EXIT.CPUID), rax: 0, rcx: 0 }));
  const order = [
    "kvm.handle-exit",
    "kvm.read-ghcb-msr",
    "kvm.map-ghcb",
    "kvm.copy-valid-bitmap",
    "kvm.snapshot-field",
    "kvm.read-usage",
    "kvm.clear-valid-bitmap",
    "kvm.validate-request",
    "kvm.serve-request",
    "kvm.emulate-cpuid",
    "kvm.unmap-scratch",
    "kvm.write-exit-info-1",
    "kvm.write-register",
    "kvm.inject-event",
    "kvm.vmrun",
  ];
  const at = order.map((name) => fixture.steps.indexOf(name));
  assert(at.every((index) => index >= 0));
  assertEquals(at, [...at].sort((a, b) => a - b));
});

Deno.test("d5: usage other than 0 is error 2, missing exit fields error 4, an unknown exit code error 6", () => {
  const fixture = hostFixture();
  const usage = (GHCB_GPA + GHCB.at.ghcb_usage) >>> 2;
  fixture.machine.memory.u32[usage] = 1;
  assert(fixture.request(exitFields(EXIT.CPUID)));
  assertEquals(answer(fixture), [2n, BigInt(REASON.INVALID_USAGE)]);
  fixture.machine.memory.u32[usage] = 0;
  assert(fixture.request({ sw_exit_code: EXIT.CPUID, sw_exit_info_1: 0 }));
  assertEquals(answer(fixture), [2n, BigInt(REASON.MISSING_INPUT)]);
  for (const code of [0x1234, 0x80000099, EXIT.HLT, EXIT.VMGEXIT, EXIT.SNP_PSC, EXIT.SNP_AP_CREATION]) {
    assert(fixture.request({ ...exitFields(code), rax: 0, sw_scratch: BUFFER }));
    assertEquals(answer(fixture), [2n, BigInt(REASON.INVALID_EVENT)], SevExitCode.name(code));
  }
});

Deno.test("d5: each field of the published table is missed, and only then", () => {
  for (const { exits, needs } of KVM_REQUIRED_FIELDS) {
    for (const name of exits) {
      if (name === "TERM_REQUEST" || name === "UNSUPPORTED_EVENT" || name === "AP_RESET_HOLD") continue;
      const snp = name.startsWith("SNP_");
      for (const missing of [undefined, ...needs]) {
        const fixture = hostFixture({ platform: snp ? "snp" : "sev-es" });
        const info1 = name === "IOIO" ? 0x11 : 0; // IN of a byte: an OUT needs RAX
        const fields: Record<string, bigint | number> = { ...exitFields(SevExitCode.valueOf(name)!, info1) };
        for (const field of needs) if (field !== missing) fields[field] = field === "sw_scratch" ? BUFFER : 0;
        assert(fixture.request(fields), name);
        const refused = answer(fixture)[0] === 2n && answer(fixture)[1] === BigInt(REASON.MISSING_INPUT);
        assertEquals(refused, missing !== undefined, `${name} without ${missing}`);
      }
    }
  }
});

Deno.test("d7: every reply writes RAX, RBX, RCX, RDX and marks them valid; registers not sent are zero", () => {
  const fixture = hostFixture();
  fixture.ghcb.set("rbx", 99n);
  assert(fixture.request({ ...exitFields(EXIT.NMI_COMPLETE) }));
  const valid = fixture.ghcb.validFields();
  assertEquals(valid, ["rax", "rcx", "rdx", "rbx", "sw_exit_info_1", "sw_exit_info_2"]);
  assertEquals(["rax", "rbx", "rcx", "rdx"].map((field) => fixture.ghcb.get(field as "rax")), [0n, 0n, 0n, 0n]);
});

Deno.test("d8: scratch 0, overflow, outside RAM, or in the GHCB outside its shared buffer is error 3", () => {
  const fixture = hostFixture();
  const mmio = (scratch: bigint) => {
    assert(fixture.request({ ...exitFields(EXIT.MMIO_READ, 0xfee00020, 4), sw_scratch: scratch }));
    return answer(fixture);
  };
  const error: [bigint, bigint] = [2n, BigInt(REASON.INVALID_SCRATCH_AREA)];
  for (
    const scratch of [
      0n,
      2n ** 64n - 2n,
      BigInt(RAM_BYTES - 2),
      BigInt(GHCB_GPA),
      BigInt(BUFFER - 1),
      BigInt(GHCB_GPA + 0xff0 - 3),
    ]
  ) {
    assertEquals(mmio(scratch), error, scratch.toString(16));
  }
  assertEquals(mmio(BigInt(GHCB_GPA + 0xff0 - 4)), [0n, 0n]);
  assertEquals(mmio(BigInt(BUFFER)), [0n, 0n]);
  assertEquals(fixture.machine.memory.view.getUint32(BUFFER, true), 0); // APIC ID 0
});

Deno.test("d9: a string longer than sixteen pages, or with a count above INT_MAX, is refused", () => {
  const fixture = hostFixture();
  const outs = (0x3f8 << 16) | (1 << 4) | (1 << 2);
  for (const count of [65537n, 0x8000_0000n, 2n ** 63n]) {
    assert(fixture.request({ ...exitFields(EXIT.IOIO, outs, count), sw_scratch: BUFFER }));
    assertEquals(answer(fixture), [2n, BigInt(REASON.INVALID_SCRATCH_AREA)]);
  }
  assert(fixture.request({ ...exitFields(EXIT.IOIO, outs, 3), sw_scratch: BUFFER }));
  assertEquals(answer(fixture), [0n, 0n]);
  assertEquals(fixture.steps.filter((name) => name === "kvm.string-element").length, 3);
});

Deno.test("d10: an unknown MSR makes the guest raise #GP, valid, type 3, without an error code", () => {
  const fixture = hostFixture();
  assert(fixture.request({ ...exitFields(EXIT.MSR), rcx: 0xc0010fff }));
  assertEquals(answer(fixture), [1n, 0x8000030dn]);
});

Deno.test("d1: address 0 and an address without memory are logged, and the guest goes on", () => {
  const fixture = hostFixture();
  assertEquals(fixture.msr(0n), 0n);
  assertEquals(fixture.msr(BigInt(RAM_BYTES)), BigInt(RAM_BYTES));
  assertEquals(fixture.steps.includes("kvm.snapshot-field"), false);
});

Deno.test("d4: an SNP guest that has not registered its GHCB is stopped", () => {
  const fixture = hostFixture({ platform: "snp" });
  fixture.host.set64("registered", 0n);
  assertEquals(fixture.request({ ...exitFields(EXIT.CPUID), rax: 0, rcx: 0 }), false);
  assertEquals(fixture.host.halted, true);
});

Deno.test("d12: the MSR protocol's answers; an unknown code leaves the MSR as it was", () => {
  const fixture = hostFixture({ platform: "snp" });
  assertEquals(fixture.msr(0x002n), 0x0002000133000001n); // versions 1 to 2, C bit 51
  assertEquals(fixture.msr(0x080n)! & 0xfffn, 0x081n);
  assertEquals(fixture.msr(0x080n)! >> 12n, 3n); // SNP and AP creation
  assertEquals(fixture.msr(0x010n), 0xfffffffffffff011n);
  assertEquals(fixture.msr(0x1234012n), 0x1234013n);
  assertEquals(fixture.msr(0x777n), 0x777n);
  assertEquals(fixture.msr(0x8000001fc0000004n)! & 0xffff_ffffn, 0xc0000005n);
  assertEquals(fixture.msr(0x0000000000021100n), undefined); // terminate
});

Deno.test("PSC by the MSR protocol changes the page's owner; a page outside RAM is an error", () => {
  const fixture = hostFixture({ platform: "snp" });
  const { rmp } = fixture.host.sev;
  assertEquals(rmp!.isAssigned(fixture.host.port, 0x123), false);
  assertEquals(fixture.msr(0x0010000000123014n), 0x015n);
  assertEquals(rmp!.entry(fixture.host.port, 0x123).validated, false);
  assertEquals(rmp!.isAssigned(fixture.host.port, 0x123), true);
  assertEquals(fixture.msr(0x0020000000123014n), 0x015n);
  assertEquals(rmp!.isAssigned(fixture.host.port, 0x123), false);
  assertEquals(fixture.msr(0x0010000012345014n)! >> 63n, 1n);
});

/** Writes a page state change request into the shared buffer. */
function psc(
  fixture: ReturnType<typeof hostFixture>,
  current: number,
  end: number,
  entries: readonly bigint[],
): bigint {
  const { view, u8 } = fixture.machine.memory;
  u8.fill(0, BUFFER, BUFFER + 2032);
  view.setUint16(BUFFER, current, true);
  view.setUint16(BUFFER + 2, end, true);
  entries.forEach((entry, k) => view.setBigUint64(BUFFER + 8 + 8 * k, entry, true));
  assert(fixture.request({ ...exitFields(EXIT.SNP_PSC), sw_scratch: BUFFER }));
  assertEquals(fixture.ghcb.get("sw_exit_info_1"), 0n); // h14: the error is in SW_EXITINFO2
  return fixture.ghcb.get("sw_exit_info_2")!;
}

Deno.test("d16 to d18: PSC buffers: errors of header and entry, large pages, progress", () => {
  const fixture = hostFixture({ platform: "snp" });
  const { rmp } = fixture.host.sev;
  const entry = (gfn: number, operation: number, pagesize = 0, cur_page = 0) =>
    PSC_ENTRY.make({ gfn, operation, pagesize, cur_page });
  assertEquals(psc(fixture, 0, 253, []), PSC_ERROR.INVALID_HEADER);
  assertEquals(psc(fixture, 0, 0, [entry(1, 1, 1)]), PSC_ERROR.INVALID_ENTRY);
  assertEquals(psc(fixture, 0, 0, [entry(1, 1, 0, 2)]), PSC_ERROR.INVALID_ENTRY);
  assertEquals(psc(fixture, 0, 0, [entry(0x40000, 1)]), PSC_ERROR.GENERIC);
  assertEquals(psc(fixture, 0, 1, [entry(0x100, 1), entry(0x101, 2)]), 0n);
  assertEquals(fixture.machine.memory.view.getUint16(BUFFER, true), 2);
  assertEquals(PSC_ENTRY.get(fixture.machine.memory.view.getBigUint64(BUFFER + 8, true), "cur_page"), 1);
  // The GHCB itself lies in the second large page, so the first one is what can be changed whole; 4K pages in it forbid it.
  assertEquals(psc(fixture, 0, 0, [entry(0, 1, 1)]), 0n);
  assertEquals(rmp!.isLarge(fixture.host.port, 0), false);
  assertEquals(rmp!.isAssigned(fixture.host.port, 511), true);
  assertEquals(psc(fixture, 0, 0, [entry(0, 2, 1)]), 0n);
  assertEquals(psc(fixture, 0, 0, [entry(0, 1, 1)]), 0n);
  assertEquals(PSC_ENTRY.get(fixture.machine.memory.view.getBigUint64(BUFFER + 8, true), "cur_page"), 512);
});

Deno.test("an unassigned page that the guest touches privately is given to it; the other way round too", () => {
  const fixture = hostFixture({ platform: "snp" });
  const { rmp } = fixture.host.sev;
  const npf = (page: number, enc: boolean) =>
    fixture.exit(EXIT.NPF, (1n << 31n) | (enc ? 1n << 34n : 0n), BigInt(page) << 12n);
  assert(npf(0x150, true));
  assertEquals(rmp!.entry(fixture.host.port, 0x150).assigned, true);
  assert(npf(0x150, false));
  assertEquals(rmp!.entry(fixture.host.port, 0x150).assigned, false);
});

Deno.test("AP creation: unaligned, 2M-aligned and foreign VMSAs, other features, unknown processors are invalid input", () => {
  const fixture = hostFixture({ platform: "snp" });
  const ask = (info1: bigint, vmsa: number, rax = 1n) => {
    assert(fixture.request({ ...exitFields(EXIT.SNP_AP_CREATION, info1, vmsa), rax }));
    return answer(fixture)[0];
  };
  const vp1 = 1n << 32n;
  assertEquals(ask(vp1 | 1n, 0x100001), 2n);
  assertEquals(ask(vp1 | 1n, 0x200000), 2n);
  assertEquals(ask(vp1 | 1n, RAM_BYTES + 0x1000), 2n);
  assertEquals(ask(vp1 | 1n, 0x101000, 3n), 2n);
  assertEquals(ask((7n << 32n) | 1n, 0x101000), 2n);
  assertEquals(ask(vp1 | (1n << 16n) | 1n, 0x101000), 2n); // VMPL bits are not 0
  assertEquals(ask(vp1 | 1n, 0x101000), 0n);
  assertEquals(fixture.host.peer(1).get64("ap_vmsa"), 0x101000n);
});

Deno.test("d15: without a security processor a guest request is answered with firmware error -1 and no error of the VMM", () => {
  const fixture = hostFixture({ platform: "snp" });
  const ask = (request: number, response: number) => {
    assert(fixture.request(exitFields(EXIT.SNP_GUEST_REQUEST, request, response)));
    return answer(fixture);
  };
  assertEquals(ask(0x301000, 0x302000), [0n, 0xffffffffn]);
  // Both page-aligned, different, and memory.
  const invalid = [2n, BigInt(REASON.INVALID_INPUT)] as [bigint, bigint];
  assertEquals(ask(0x301008, 0x302000), invalid);
  assertEquals(ask(0x301000, 0x301000), invalid);
  assertEquals(ask(0x301000, RAM_BYTES), invalid);
});

Deno.test("d15: an extended request for a report gets an empty table of certificates; other messages do not look at RAX", () => {
  const fixture = hostFixture({ platform: "snp" });
  const { u8 } = fixture.machine.memory;
  const ask = (type: number, certificates: number, pages: number) => {
    u8[0x301034] = type;
    u8.fill(0xaa, 0x303000, 0x304000);
    const fields = exitFields(EXIT.SNP_EXT_GUEST_REQUEST, 0x301000, 0x302000);
    assert(fixture.request({ ...fields, rax: certificates, rbx: pages }));
    return answer(fixture);
  };
  const REPORT = 5;
  const KEY = 3;
  assertEquals(ask(REPORT, 0x303000, 1), [0n, 0xffffffffn]);
  assertEquals([...u8.subarray(0x303000, 0x303018)], new Array(24).fill(0));
  assertEquals(u8[0x303018], 0xaa);
  assertEquals(ask(REPORT, 0x303008, 1), [2n, BigInt(REASON.INVALID_INPUT)]);
  assertEquals(ask(KEY, 0x303008, 1), [0n, 0xffffffffn]);
  assertEquals(ask(REPORT, 0x303000, 0), [0n, 0xffffffffn]);
  assertEquals(u8[0x303000], 0xaa);
});

Deno.test("requests for debug registers, RDPMC, WBINVD, INVD, MONITOR and MWAIT are answered, and change nothing else", () => {
  const fixture = hostFixture();
  const quiet = ["DR7_READ", "DR7_WRITE", "RDPMC", "WBINVD", "INVD", "MONITOR", "MWAIT"] as const;
  for (const name of quiet) {
    const registers = { rax: 0x400, rbx: 2, rcx: 3, rdx: 4 };
    assert(fixture.request({ ...exitFields(EXIT[name]), ...registers }), name);
    assertEquals(answer(fixture), [0n, 0n], name);
    const rax = name === "RDPMC" ? 0n : 0x400n;
    assertEquals([fixture.ghcb.get("rax"), fixture.ghcb.get("rcx")], [rax, 3n], name);
  }
  assert(fixture.request(exitFields(EXIT.RDTSC)));
  assertEquals([fixture.ghcb.isValid("rax"), fixture.ghcb.isValid("rdx"), fixture.ghcb.get("rcx")], [true, true, 0n]);
  assert(fixture.request({ ...exitFields(EXIT.VMMCALL), rax: 1, cpl: 0 }));
  assertEquals(fixture.ghcb.get("rax"), BigInt.asUintN(64, -1000n)); // KVM_ENOSYS
});

Deno.test("a GHCB address above memory or unaligned is no GHCB: the first is logged, the second is the MSR protocol", () => {
  const fixture = hostFixture({ platform: "snp" });
  // The low bits name a request of the protocol; a code that is none leaves the MSR as it was.
  assertEquals(fixture.msr(BigInt(GHCB_GPA + 8)), BigInt(GHCB_GPA + 8));
  assertEquals(fixture.steps.includes("kvm.map-ghcb"), false);
  assertEquals(fixture.msr(2n ** 52n - 4096n), 2n ** 52n - 4096n);
  assertEquals(fixture.steps.includes("kvm.snapshot-field"), false);
});

import { assert, assertEquals, assertThrows } from "@std/assert";
import { callHypercall } from "../../lib/hypervisor/hypercalls/dispatch.ts";
import { PartitionState } from "../../lib/hypervisor/partition.ts";
import { VpRegisters } from "../../lib/hypervisor/registers.ts";
import { findExitStreams, readRecordedProgram } from "../../lib/inspect/exits.ts";
import { writeExitRegisters } from "../../lib/inspect/exit_registers.ts";
import { writeBootTables } from "../../lib/guest/initial_state.ts";
import { END } from "../../lib/machine/header.ts";
import { setRegisters } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { queueMessage } from "../../lib/vtl2/handlers/deliverability.ts";
import type { KernelVp } from "../../lib/vtl2/kernel_vp.ts";
import { gates, gpr, guestMachine, RAM_BYTES, siliconPolicies } from "../machine/guest_fixture.ts";
import { decode } from "../hypervisor/raw_decoder.ts";
import { InterceptChecker } from "./intercept_checker.ts";

/** Register names and a status of hyperv.constants.json. */
const VSM_CAPABILITIES = 0xd0006;
const VSM_PARTITION_CONFIG = 0xd0007;
const REGISTER_PAGE = 0x9001c;
const HV_STATUS_INVALID_REGISTER_VALUE = 0x50;
const DATA = new URL("../data/exits/", import.meta.url).pathname;
const MODES = { real16: "real", prot32: "protected", long64: "long" } as const;

Deno.test("intercepts: every message, register page and run page of the recorded programs is the processor's state", async () => {
  const seen: Record<string, number> = {};
  for (const path of await findExitStreams([DATA])) {
    const { stream: { header }, image } = await readRecordedProgram(path);
    const machine = Machine.create({
      platform: "kernel",
      vps: 1,
      ramBytes: Math.max(1 << 20, header.memory),
      policies: siliconPolicies(),
      devices: "recorded",
      cpuid: [...header.cpuid].map(([leaf, values]) => [leaf, ...values] as const),
      endPort: header.endPort,
      recordExits: false,
    }, true);
    writeBootTables(machine.memory.u8.subarray(0, header.memory), MODES[header.mode]);
    machine.memory.u8.set(image, header.load);
    setRegisters(machine, (view, base) => writeExitRegisters(view, base, header.initial));
    const checker = new InterceptChecker(machine);
    assert(checker.run(2_000_000), `${header.program} ends`);
    for (const [message, count] of Object.entries(checker.seen)) seen[message] = (seen[message] ?? 0) + count;
  }
  assertEquals(Object.keys(seen).sort(), [
    "HvMessageTypeMsrIntercept",
    "HvMessageTypeUnmappedGpa",
    "HvMessageTypeX64IoPortIntercept",
  ]);
  assert(Object.values(seen).reduce((sum, count) => sum + count) > 3500);
});

/** A guest that makes the hypervisor send every message that VTL2 can get from it, with values that tell registers apart. */
const EVERY_MESSAGE = `
        default rel
        ${gates({ 6: "undefined", 0x20: "legacy", 0x50: "level", 0x60: "message" })}
        mov rbp, 0x5555666677778888
        mov rsi, 0x1111222233334444
        mov r8, 0x8888000000000008
        mov r9, 0x9999000000000009
        mov r15, 0xffff00000000000f
        movq xmm0, rbp
        movq xmm5, rsi
        movlhps xmm5, xmm0
        mov rax, 3
        mov cr8, rax
        mov rax, 0xaabbccddeeff0011
        mov ebx, 0xb0b0b0b0
        ; ports
        out 0x80, al
        out 0x80, ax
        out 0x80, eax
        mov dx, 0x3fd
        in al, dx
        in ax, 0x80
        in eax, 0x80
        mov esi, 0x30000
        mov edi, 0x30100
        mov ecx, 3
        mov dx, 0x80
        rep outsb
        mov ecx, 2
        rep insw
        outsd
        insd
        xor ecx, ecx
        rep outsb
        ; device memory, and VTL2's own
        mov rbx, 0xfec00000
        mov dword [rbx], 1
        mov eax, [rbx + 0x10]
        lock xadd [rbx], eax
        mov rbx, ${RAM_BYTES}
        mov rax, [rbx]
        mov [rbx + 8], rax
        movdqu xmm1, [rbx]
        ; CPUID, MSRs
        mov eax, 0x40000080
        mov rcx, 0x1234567800000003
        cpuid
        mov ecx, 0x40000100
        mov rax, 0x1122334455667788
        mov rdx, 0x99aabbccddeeff00
        wrmsr
        rdmsr
        ; an exception that VTL2 asked to see: its handler leaves things as they are
        ud2
        ; hypercall page, and a hypercall that VTL2 handles
        mov ecx, 0x40000000
        mov eax, 1
        xor edx, edx
        wrmsr
        mov ecx, 0x40000001
        mov eax, 0x40001
        wrmsr
        mov rcx, 0x1005d
        mov rdx, 0x1234
        xor r8d, r8d
        mov eax, 0x40000
        call rax
        xor eax, eax
        mov cr8, rax
        ; local APIC on; PIT to the I/O APIC's input 2, level-triggered, vector 50
        mov rbx, 0xfee00000
        mov dword [rbx + 0xf0], 0x1ff
        mov rsi, 0xfec00000
        mov dword [rsi], 0x14
        mov dword [rsi + 0x10], 0x8050
        mov al, 0x34
        out 0x43, al
        mov al, 0xff
        out 0x40, al
        out 0x40, al
.wait:  sti
        hlt
        cli
        cmp byte [abs 0x50000], 0
        je .wait
        ; PIC at vectors 20 and 28, IRQ 0 on
        mov al, 0x11
        out 0x20, al
        mov al, 0x20
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xfe
        out 0x21, al
.wait2: sti
        hlt
        cli
        cmp byte [abs 0x50001], 0
        je .wait2
        mov al, 0xff
        out 0x21, al
        ; SynIC: message page, SINT 2 on vector 60; then ask the test for two messages
        mov ecx, 0x40000083
        mov eax, 0x60001
        xor edx, edx
        wrmsr
        mov ecx, 0x40000092
        mov eax, 0x60
        wrmsr
        mov ecx, 0x40000080
        mov eax, 1
        wrmsr
        out 0x81, al
.wait3: sti
        hlt
        cli
        cmp byte [abs 0x50002], 2
        jb .wait3
        lidt [abs 0x50010]
        ud2
undefined:
        add qword [rsp], 2
        iretq
level:  inc byte [abs 0x50000]
        ; the timer's output stays high: masked, it does not interrupt again after the EOI
        mov dword [rsi], 0x14
        mov dword [rsi + 0x10], 0x18050
        mov dword [rbx + 0xb0], 0
        iretq
legacy: push rax
        inc byte [abs 0x50001]
        mov al, 0x20
        out 0x20, al
        pop rax
        iretq
message:
        push rax
        push rcx
        push rdx
        inc byte [abs 0x50002]
        mov dword [abs 0x60200], 0
        mov ecx, 0x40000084
        wrmsr
        mov dword [rbx + 0xb0], 0
        pop rdx
        pop rcx
        pop rax
        iretq
`;

/** Runs that guest with the checker; every message must come. */
function everyMessage(policies: Record<string, string>): void {
  const machine = guestMachine(EVERY_MESSAGE, { policies });
  const vp = machine.processor(0) as KernelVp;
  const { i32, u32, u16 } = machine.memory;
  const exceptions = (machine.platform.partition.state + PartitionState.at.exception_intercepts) >>> 2;
  i32[exceptions] = 1 << 6;
  const checker = new InterceptChecker(machine);
  checker.expectedEoi = 0x50;
  checker.expectedSints = 1 << 2;
  checker.onIntercept = (message) => {
    // VTL2's handler leaves the guest at the instruction: once is enough.
    if (message === "HvMessageTypeExceptionIntercept") i32[exceptions] = 0;
    const port = u16[(vp.vmm.message + 16 + 40) >>> 1];
    if (message === "HvMessageTypeX64IoPortIntercept" && port === 0x81) {
      const text = machine.map.header - 2048; // the end of the message page, whose last slots nobody uses
      u32[text >>> 2] = 1;
      queueMessage(vp.vmm, 2, text);
      queueMessage(vp.vmm, 2, text);
    }
  };
  assert(checker.run(200_000), "the guest ends");
  assertEquals(machine.end, END.TRIPLE_FAULT);
  assertEquals(Object.keys(checker.seen).sort(), [
    "HvMessageTypeExceptionIntercept",
    "HvMessageTypeGpaIntercept",
    "HvMessageTypeHypercallIntercept",
    "HvMessageTypeMsrIntercept",
    "HvMessageTypeSynicSintDeliverable",
    "HvMessageTypeUnmappedGpa",
    "HvMessageTypeUnrecoverableException",
    "HvMessageTypeX64ApicEoi",
    "HvMessageTypeX64CpuidIntercept",
    "HvMessageTypeX64InterruptionDeliverable",
    "HvMessageTypeX64IoPortIntercept",
  ]);
  assertEquals(checker.seen.HvMessageTypeSynicSintDeliverable, 2);
}

Deno.test("intercepts: a guest that makes the hypervisor send every message finds all of them complete", () => {
  everyMessage({});
});

/** Calls HvCallModifyVtlProtectionMask from VTL2 for one page of VTL0. */
function protect(machine: Machine, gpn: number, flags: number): void {
  const { facilities } = machine.platform;
  const events = { vtl2Started: () => {}, vtl0Started: () => {} };
  const input = new DataView(new ArrayBuffer(24));
  input.setBigUint64(0, 0xffff_ffff_ffff_ffffn, true);
  input.setUint32(8, flags, true);
  input.setUint8(12, 0x10);
  input.setBigUint64(16, BigInt(gpn), true);
  const caller = { facilities, registers: new VpRegisters(facilities), events, vp: 0, vtl: 2 };
  assertEquals(callHypercall(caller, 0xc, new Uint8Array(input.buffer), 1).status, 0);
}

Deno.test("intercepts: HvCallModifyVtlProtectionMask makes intercepts of VTL0's reads, writes and fetches", () => {
  const machine = guestMachine(`
        mov rbx, 0x30000
        mov rax, [rbx]
        mov [rbx + 8], rax
        mov rcx, [rbx + 8]
        mov rdx, [rbx + 0x2000]
        mov [rbx + 0x2000], rdx
        mov rdi, 0x31000
        jmp rdi`);
  const { view } = machine.memory;
  view.setBigUint64(0x30000, 0x1234n, true);
  view.setUint32(0x31000, 0xc3c6ff48, true); // inc rsi
  const [NONE, READ, READ_WRITE] = [0, 1, 3];
  protect(machine, 0x30, NONE);
  protect(machine, 0x31, READ_WRITE);
  protect(machine, 0x32, READ);
  const checker = new InterceptChecker(machine);
  const seen: string[] = [];
  checker.onIntercept = (message) => {
    const payload = (machine.processor(0) as KernelVp).vmm.message + 16;
    const access = ["read", "write", "execute"][machine.memory.u8[payload + 5]];
    seen.push(`${message} ${access} ${view.getBigUint64(payload + 56, true).toString(16)}`);
  };
  assert(checker.run(10_000));
  assertEquals(seen, [
    "HvMessageTypeGpaIntercept read 30000",
    "HvMessageTypeGpaIntercept write 30008",
    "HvMessageTypeGpaIntercept read 30008",
    "HvMessageTypeGpaIntercept write 32000",
    "HvMessageTypeGpaIntercept execute 31000",
  ]);
  // The VMM carried out the accesses to data; an instruction without one is fatal for it.
  assertEquals([gpr(machine, 0, 1), machine.end], [0x1234n, END.VMM_CRASH]);
});

Deno.test("intercepts: without an intercept page they come through SINT0 and its slot of the message page", () => {
  everyMessage({ "intercept-page": "unavailable" });
});

Deno.test("intercepts: without an intercept page VTL2 can neither see nor ask for one", () => {
  const { platform } = guestMachine("hlt", { policies: { "intercept-page": "unavailable" } });
  const registers = new VpRegisters(platform.facilities);
  const capability = 1n << 27n;
  const asked = 1n << 12n;
  assertEquals(registers.get64(0, 2, VSM_CAPABILITIES)! & capability, 0n);
  assertEquals(registers.get64(0, 2, VSM_PARTITION_CONFIG)! & asked, 0n);
  assertEquals(registers.set64(0, 2, VSM_PARTITION_CONFIG, asked), HV_STATUS_INVALID_REGISTER_VALUE);
  assertEquals(registers.get64(0, 2, REGISTER_PAGE), 0n);
});

Deno.test("intercepts: the sidecar kernel cannot do without an intercept page", () => {
  assertThrows(
    () => guestMachine("hlt", { platform: "sidecar", vps: 2, policies: { "intercept-page": "unavailable" } }),
    BadInput,
    "intercept-page=unavailable",
  );
});

Deno.test("intercepts: HLT leaves to VTL2 only for a caller who asks for it, and OpenHCL's VMM does not know the message", () => {
  const parked = new InterceptChecker(guestMachine("hlt"));
  assert(parked.run(1000));
  assertEquals([parked.machine.end, parked.seen], [END.HALT, {}]);
  const machine = guestMachine("hlt", { haltIntercept: true });
  const checker = new InterceptChecker(machine);
  assert(checker.run(1000));
  assertEquals([machine.end, checker.seen], [END.VMM_CRASH, { HvMessageTypeX64Halt: 1 }]);
});

Deno.test("intercepts: a memory message names the linear address of the access, of each part of one that crosses pages", () => {
  const linear = 0x4000_0000n;
  const device = 0xfec0_0000n;
  // Linear 40000000 and 40200000 are the devices' 2 MiB: two large pages that a guest adds to its tables.
  const machine = guestMachine(`
    mov rdi, cr3
    mov rdi, [rdi]
    and rdi, -4096
    mov qword [rdi + 8], 0x180003
    mov eax, 0xfec00083
    mov [abs 0x180000], rax
    mov [abs 0x180008], rax
    mov eax, [abs 0x40000010]
    mov [abs 0x40000014], eax
    mov eax, [abs 0x401ffffe]
    hlt
  `);
  const addresses: bigint[][] = [];
  const checker = new InterceptChecker(machine);
  checker.onIntercept = (message) => {
    assertEquals(message, "HvMessageTypeUnmappedGpa");
    const vp = machine.processor(0);
    const payload = vp.message + 16;
    const fields = decode("HvX64MemoryInterceptMessage", machine.memory.u8.slice(payload, payload + 0x50), 0);
    addresses.push([fields.get("guest_virtual_address")!, fields.get("guest_physical_address")!]);
    assertEquals(fields.get("memory_access_info.gva_valid"), 1n);
    assertEquals(fields.get("memory_access_info.gva_gpa_valid"), 1n);
  };
  checker.run(5000);
  assertEquals(addresses, [
    [linear + 0x10n, device + 0x10n],
    [linear + 0x14n, device + 0x14n],
    [linear + 0x1ffffen, device + 0x1ffffen],
  ]);
});

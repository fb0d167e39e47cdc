/** Encrypted guests and hosts that break the rules: what the references say happens, and never a failure of the machine. */
import { assert, assertEquals } from "@std/assert";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import { parseImage } from "../../lib/guest/image.ts";
import { SevVp } from "../../lib/hypervisor/sev/sev_vp.ts";
import { SevVpState } from "../../lib/hypervisor/sev/state.ts";
import { VMSA } from "../../lib/layout/sev/vmsa.ts";
import { loadGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine, type RunReport } from "../../lib/machine/run.ts";

const RAM_BYTES = 2 << 20;
/** VMGEXIT, and the GHCB MSR. */
const VMGEXIT = "db 0xf3, 0x0f, 0x01, 0xd9";
const GHCB_MSR = "mov ecx, 0xc0010130";

interface Setting {
  readonly platform: "sev-es" | "snp";
  readonly mode: "real" | "long";
  readonly host?: "kvm" | "vmd";
  readonly before?: (machine: Machine) => void;
}

async function run(source: string, setting: Setting): Promise<{ machine: Machine; report: RunReport }> {
  const { platform, mode, host = "kvm", before } = setting;
  const config = {
    platform,
    host,
    vps: 1,
    ramBytes: RAM_BYTES,
    policies: {},
    devices: "pc",
    recordExits: false,
  } as const;
  const machine = Machine.create(config, true);
  const bits = mode === "real" ? 16 : 64;
  const { bytes } = assemble(`bits ${bits}\n${source}`, { origin: mode === "real" ? 0x7c00 : 0x100000, bits });
  loadGuest(machine, parseImage(bytes, "guest", { mode }));
  before?.(machine);
  const report = await runMachine(machine, { seed: 1, timeLimitSeconds: 0.3 });
  assertEquals(report.problems, []);
  return { machine, report };
}

/** How many #VC the guest has taken. */
function exceptions(machine: Machine): number {
  return machine.memory.u32[((machine.processor(0) as SevVp).sevState + SevVpState.at.exceptions) >>> 2];
}

Deno.test("a guest whose #VC handler returns to the same instruction goes round until a limit ends it", async () => {
  // The vector of #VC at 29 * 4; real mode pushes no error code.
  const source = "mov word [0x74], handler\nmov word [0x76], 0\ncpuid\nhlt\nhandler: iret\n";
  const { machine, report } = await run(source, { platform: "sev-es", mode: "real" });
  assertEquals(report.end, "limit");
  assert(exceptions(machine) > 100);
  assertEquals((machine.processor(0) as SevVp).unhandledVc, undefined);
});

/** A guest in 64-bit code whose #VC handler is the text `handler`. */
function withHandler(body: string, handler: string): string {
  return `
        default rel
        mov rsp, stack_top
        lea rax, [handler]
        lea rdi, [idt + 29 * 16]
        mov [rdi], ax
        mov dx, cs
        mov [rdi + 2], dx
        mov word [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], ax
        lidt [idt_pointer]
        ${body}
.end:   cli
        hlt
        jmp .end
handler:
        ${handler}
        align 8, 0
idt_pointer:
        dw 30 * 16 - 1
        dq idt
        align 4096, 0
idt:    times 4096 db 0
stack:  times 8192 db 0
stack_top:
`;
}

Deno.test("#VC in a #VC handler is delivered like any other; one that never ends runs out of stack, and the guest shuts down", async () => {
  // Each odd #VC executes a CPUID in the handler; the nested one advances over it, then the outer one over its own.
  const twice = withHandler(
    "xor r8, r8\ncpuid\ncpuid\nmov eax, 0\nout 0xf4, eax",
    `
        inc r8
        test r8, 1
        jz .inner
        cpuid                           ; nested once
.inner: add qword [rsp + 8], 2
        cmp r8, 4
        jae .hold
        add rsp, 8
        iretq
.hold:  mov [0x100000], r8
        hlt
        jmp .hold
`,
  );
  const { machine } = await run(twice, { platform: "sev-es", mode: "long" });

  assertEquals(machine.memory.u64[0x100000 >>> 3], 4n); // twice, and nested in each
  const endless = await run(withHandler("cpuid", "cpuid"), { platform: "snp", mode: "long" });
  // The stack grows down over the guest's own IDT: when no #VC can be delivered any more, the processor shuts down.
  assertEquals(endless.report.end, "triple-fault");
  assert(exceptions(endless.machine) > 100);
});

Deno.test("a VMSA with a reserved bit, and one that is no VMSA, do not run: VMRUN fails, and the host stops", async () => {
  const breaks: ((machine: Machine, vmsa: number) => void)[] = [
    ({ memory }, vmsa) => memory.u32[(vmsa + VMSA.at.efer) >>> 2] |= 1 << 1,
    ({ memory }, vmsa) => memory.u32[(vmsa + VMSA.at.cr4) >>> 2] |= 1 << 31,
    ({ memory }, vmsa) => memory.u32[((vmsa + VMSA.at.dr7) >>> 2) + 1] = 1,
    ({ memory }, vmsa) => memory.u8[vmsa + VMSA.at.cpl] = 4,
    ({ memory }, vmsa) => memory.u8.fill(0, vmsa, vmsa + 4096),
  ];
  for (const platform of ["sev-es", "snp"] as const) {
    for (const damage of breaks) {
      const before = (machine: Machine) => damage(machine, machine.platform.sev.sev.vmsa(0));
      const { report } = await run("hlt", { platform, mode: "long", before });
      assertEquals(report.end, "entry-failed");
    }
  }
});

Deno.test("a GHCB that an SNP guest has not registered stops the machine; without SNP there is nothing to register", async () => {
  const source = `${GHCB_MSR}\nmov eax, 0x101000\nxor edx, edx\nwrmsr\n${VMGEXIT}\ncli\nhlt\n`;
  assertEquals((await run(source, { platform: "snp", mode: "long" })).report.end, "host-stopped");
  const { report } = await run(source, { platform: "sev-es", mode: "long" });
  assertEquals(report.end, "halt"); // answered as a request in which nothing is valid
});

Deno.test("an unaligned GHCB is a request of the MSR protocol: kvm ignores a code that is none, vmd stops", async () => {
  const source = `${GHCB_MSR}\nmov eax, 0x101777\nxor edx, edx\nwrmsr\n${VMGEXIT}\n` +
    `${GHCB_MSR}\nmov eax, 0x100\nwrmsr\n${VMGEXIT}\n`;
  for (const platform of ["sev-es", "snp"] as const) {
    assertEquals((await run(source, { platform, mode: "long" })).report.end, "guest-terminated");
  }
  assertEquals((await run(source, { platform: "sev-es", mode: "long", host: "vmd" })).report.end, "host-stopped");
});

Deno.test("a guest whose GHCB is private gets no answer: the host reads ciphertext and its write faults or is lost", async () => {
  // On SNP the page is assigned: the write of the answer faults and the guest goes on without one (e10, e12).
  const register = `${GHCB_MSR}\nmov eax, 0x100012\nxor edx, edx\nwrmsr\n${VMGEXIT}\n`;
  const source = `${register}${GHCB_MSR}\nmov eax, 0x100000\nxor edx, edx\nwrmsr\n${VMGEXIT}\n` +
    `${GHCB_MSR}\nmov eax, 0x100\nwrmsr\n${VMGEXIT}\n`;
  const { machine, report } = await run(source, { platform: "snp", mode: "long" });
  assertEquals(report.end, "guest-terminated");
  assert(machine.platform.sev.host(0).get32("faults") > 0);
});

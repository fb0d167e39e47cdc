import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { GUEST_ASID, SHARED_PAGES } from "../../../lib/hypervisor/sev/machine.ts";
import { RMP_GEOMETRY, VMPL } from "../../../lib/layout/sev/constants/rmp.ts";
import { SevExitCode } from "../../../lib/layout/sev/constants/exit_codes.ts";
import { RMPADJUST_ATTRS } from "../../../lib/layout/sev/rmp.ts";
import { VMCB_CONTROL } from "../../../lib/layout/sev/vmcb.ts";
import { V_INTR_CTRL, VMSA } from "../../../lib/layout/sev/vmsa.ts";
import type { Machine } from "../../../lib/machine/machine.ts";
import type { SnpVp } from "../../../lib/vtl2/snp/snp_vp.ts";
import { gates, gpr, guestMachine, type GuestRun, runGuest, word } from "../../machine/guest_fixture.ts";

const OPENHCL = { platform: "snp", paravisor: "openhcl" } as const;

function parts(machine: Machine) {
  const vp = machine.processor(0) as SnpVp;
  return { vp, sev: vp.sev, vmsa: vp.vmsaPage(0) };
}

/** Runs a guest; `onStep` is called after every step with its name. */
async function run(source: string, onStep: (step: string, machine: Machine) => void): Promise<GuestRun> {
  const machine = guestMachine(source, OPENHCL);
  return await runGuest(machine, { onStep: (_, step) => onStep(step, machine) });
}

const OUT = "  mov rbx, 0x1122334455667788\n  out 0x80, al\n  out 0x80, al\n  cli\n  hlt";

Deno.test("f20: the VMSA is busy while its exit is handled, and free when the lower VTL runs", async () => {
  const busy = new Map<string, Set<boolean>>();
  await run(OUT, (step, machine) => {
    const { vmsa } = parts(machine);
    const is = (word(machine, vmsa + VMSA.at.vintr_ctrl) & V_INTR_CTRL.mask.guest_busy) !== 0n;
    busy.set(step, (busy.get(step) ?? new Set()).add(is));
  });
  for (const step of ["openhcl-snp.take-message", "openhcl-snp.handle-io-port", "openhcl-snp.offer-interrupt"]) {
    assertEquals([...busy.get(step)!], [true], step);
  }
  for (const step of ["openhcl-snp.run-vmpl", "hyperv.run-vmpl", "sev.leave-lower-vmpl"]) {
    assertEquals([...busy.get(step)!], [false], step);
  }
});

Deno.test("f20: VMRUN of a busy VMSA fails with VMSA_BUSY, and the guest does not run", async () => {
  let done = false;
  const result = await run(OUT, (step, machine) => {
    const { sev, vmsa } = parts(machine);
    // The host answers VMPL0's exit by running VMPL2 at once, when VMPL2 has just left.
    if (done || step !== "hyperv.enter-vmpl0") return;
    done = true;
    machine.memory.u64[(sev.vmcb(0) + VMCB_CONTROL.at.vmsa_pa) >>> 3] = BigInt(vmsa);
    machine.memory.i32[((vmsa + VMSA.at.vintr_ctrl) >>> 2) + 1] |= V_INTR_CTRL.high.guest_busy;
  });
  assertEquals([result.end, result.vps[0].exits.out], ["entry-failed", 1]);
  const code = word(result.machine, parts(result.machine).sev.vmcb(0) + VMCB_CONTROL.at.exit_code);
  assertEquals(BigInt.asIntN(64, code), BigInt(SevExitCode.values.VMSA_BUSY));
});

Deno.test("f24: an exit that has been handled reads as INTR, so that it is not handled again", async () => {
  const codes = new Set<bigint>();
  await run(OUT, (step, machine) => {
    if (step === "openhcl-snp.exit-handled") codes.add(word(machine, parts(machine).vmsa + VMSA.at.guest_exit_code));
  });
  assertEquals([...codes], [BigInt(SevExitCode.values.INTR)]);
});

Deno.test("f11: the same register is stored differently at every exit, and its true value stays", async () => {
  const stored: bigint[] = [];
  await run(OUT, (step, machine) => {
    const { vp, vmsa } = parts(machine);
    if (step !== "openhcl-snp.handle-io-port") return;
    assertEquals(vp.vmsa(0).get64("rbx"), 0x1122334455667788n);
    stored.push(word(machine, vmsa + VMSA.at.rbx));
  });
  assertEquals(stored.length, 2);
  assertNotEquals(stored[0], stored[1]);
});

Deno.test("a nested fault with a host's message about something else is spurious: the guest tries again", async () => {
  let lies = 3;
  const { machine, end } = await run(
    "  mov rdi, 0xd0000000\n  mov eax, [rdi]\n  mov ecx, eax\n  cli\n  hlt",
    (step, m) => {
      if (step !== "hyperv.enter-vmpl0" || lies === 0) return;
      const { sev } = parts(m);
      lies--;
      m.memory.u8.fill(0xee, sev.sharedPage(0, SHARED_PAGES.MESSAGE), sev.sharedPage(0, SHARED_PAGES.MESSAGE) + 256);
    },
  );
  assertEquals(end, "halt");
  assertEquals(parts(machine).vp.get("spurious"), 3);
  assertEquals(gpr(machine, 0, 1), 0xffff_ffffn, "nothing is behind that address");
});

/** Takes VTL0's right to write a page, or gives it back. */
function setWritable(machine: Machine, page: number, writable: boolean): void {
  const { vp, sev } = parts(machine);
  const rights = { read: 1, write: writable, user_execute: 1, supervisor_execute: 1 };
  const attributes = RMPADJUST_ATTRS.make({ target_vmpl: VMPL.VTL0, ...rights });
  const options = { asid: GUEST_ASID, vmpl: VMPL.MOST_PRIVILEGED, size: RMP_GEOMETRY.PAGE_SIZE_4K, attributes };
  assertEquals(sev.rmp!.rmpadjust(vp.port, page, page, options).result, 0);
  vp.cpu.flushTlb();
}

Deno.test("f21, f22: an interrupt whose delivery a fault interrupted is delivered once the fault is gone, and once", async () => {
  const STACK = 0x1c0000;
  let revoked = false;
  const { machine, end } = await run(
    `  mov rsp, ${STACK}
  mov dword [rsp - 8], 0
  ${gates({ 0x30: "taken" })}
  mov ecx, 0x1b
  rdmsr
  or eax, 0xc00
  wrmsr
  mov ecx, 0x80f
  mov eax, 0x1ff
  xor edx, edx
  wrmsr
  mov ecx, 0x83f
  mov eax, 0x30
  wrmsr
  sti
  nop
  nop
  cli
  hlt
taken:
  inc r15
  mov ecx, 0x80b
  xor eax, eax
  xor edx, edx
  wrmsr
  iretq`,
    (step, m) => {
      // The interrupt is in the VMSA; the page for its frame goes away before the processor delivers it.
      const offered = parts(m).vp.get("offered");
      if (!revoked && step === "openhcl-snp.offer-interrupt" && offered === 0x30) {
        revoked = true;
        setWritable(m, (STACK - 1) >> 12, false);
      }
      if (step === "hyperv.write-memory-message") setWritable(m, (STACK - 1) >> 12, true);
    },
  );
  assertEquals([end, revoked], ["halt", true]);
  const { vp } = parts(machine);
  assert(vp.get("guest_busy") >= 1, "the exit left the VMSA busy");
  assertEquals(gpr(machine, 0, 15), 1n, "interrupts taken");
});

Deno.test("a fault on memory that VTL0 may not use is a machine check, and without a handler a triple fault", async () => {
  let revoked = false;
  const { end } = await run("  out 0x80, al\n  mov [abs 0x170000], eax\n  hlt", (step, m) => {
    if (!revoked && step === "openhcl-snp.handle-io-port") setWritable(m, 0x170, false);
    revoked ||= step === "openhcl-snp.handle-io-port";
  });
  assertEquals(end, "triple-fault");
});

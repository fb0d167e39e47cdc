import { assert, assertEquals } from "@std/assert";
import { HostView } from "../../../lib/inspect/host_view.ts";
import { SHARED_PAGES } from "../../../lib/hypervisor/sev/machine.ts";
import { VMSA } from "../../../lib/layout/sev/vmsa.ts";
import { CrashAnnouncement, CrashCopyState } from "../../../lib/vtl2/snp/crash_copy.ts";
import type { SnpVp } from "../../../lib/vtl2/snp/snp_vp.ts";
import { gpr, guestMachine, runGuest, word } from "../../machine/guest_fixture.ts";

/** A register that is worth keeping; the value that the guest leaves in it does not look like an address or a count. */
const SECRET = 0x5ec2e7001234abcdn;

/** Writes P3, makes other exits, reads P3 back into R8, and reports a crash. */
const GUEST = `
  mov rbx, ${SECRET}
  mov ecx, 0x40000103
  mov eax, 0x7000
  xor edx, edx
  wrmsr
  in al, 0x80
  out 0x80, al
  rdmsr
  mov r8, rax
  mov ecx, 0x40000105
  mov edx, 0x80000000
  xor eax, eax
  wrmsr
  cli
  hlt`;

/** The pull request: every exit, in every build, announced through P3 and P4. */
const PULL_REQUEST = { "vmsa.build": "debug" };
/** The combination that satisfies every property of the scenario. */
const ANSWER = {
  "vmsa.when": "crash-ctl",
  "vmsa.publish": "host-notification",
  "vmsa.opt-in": "yes",
  "vmsa.size-check": "assert-where-used",
  "vmsa.copy": "sequence-word",
};

/** What the guest, its owner and the host have in the end. */
async function run(policies: Record<string, string>) {
  const machine = guestMachine(GUEST, { platform: "snp", paravisor: "openhcl", policies });
  const { sev } = machine.platform.sev;
  const view = new HostView(sev, () => machine.map.cpuStates, { ranges: [], gpr: true, xmm: false }, () => {});
  const result = await runGuest(machine, { onStep: () => view.poll() });
  assertEquals(result.end, "halt");
  const page = sev.sharedPage(0, SHARED_PAGES.CRASH);
  const told = CrashAnnouncement.accessor(machine.memory.view, sev.sharedPage(0, SHARED_PAGES.ANNOUNCEMENT));
  const nonce = word(machine, page + VMSA.at.reg_prot_nonce);
  return {
    readBack: gpr(machine, 0, 8),
    crash: result.vps[0].guestCrash!.parameters.slice(3),
    stored: word(machine, page + VMSA.at.rbx),
    rbx: word(machine, page + VMSA.at.rbx) ^ nonce,
    page,
    told,
    leaks: view.leaks,
    copies: machine.memory.u32[((machine.processor(0) as SnpVp).crashCopy.state + CrashCopyState.at.copies) >>> 2],
  };
}

Deno.test("openvmm 3386 in a running machine: the guest's P3 and P4 are lost, and its registers are the host's", async () => {
  const { readBack, crash, rbx, stored, page, told, leaks } = await run(PULL_REQUEST);
  assertEquals([readBack, crash], [BigInt(page), [BigInt(page), 1648n]]);
  // What is stored is masked; the nonce that unmasks it lies beside it.
  assert(stored !== SECRET);
  assertEquals(rbx, SECRET);
  assert(leaks > 0, "the host view sees the nonce");
  assertEquals([told.address, told.announced_exit, told.sequence], [BigInt(page), 0, 0]);
});

Deno.test("openvmm 3386 in a running machine: the review's clearing of P3 and P4 takes them too", async () => {
  const { readBack, crash, rbx, leaks } = await run({ "vmsa.disabled": "clear-p3p4" });
  assertEquals([readBack, crash, rbx, leaks], [0n, [0n, 0n], 0n, 0]);
});

Deno.test("openvmm 3386 in a running machine: nothing is copied unless it is asked for", async () => {
  const { readBack, crash, stored, told, leaks } = await run({});
  assertEquals([readBack, crash, stored, told.address, leaks], [0x7000n, [0x7000n, 0n], 0n, 0n, 0]);
});

Deno.test("openvmm 3386 in a running machine: the answer leaves P3 and P4, and shows one whole exit to who has agreed", async () => {
  const { readBack, crash, rbx, page, told } = await run(ANSWER);
  assertEquals([readBack, crash], [0x7000n, [0x7000n, 0n]]);
  assertEquals(rbx, SECRET);
  // The WRMSR of CTL is the fifth exit: P3 written, IN, OUT, P3 read, CTL written.
  assertEquals([told.address, told.size, told.sequence], [BigInt(page), 1648n, 2]);
  assertEquals([told.vp, told.vtl, told.exit, told.announced_exit], [0, 0, 5, 5]);
});

Deno.test("openvmm 3386 in a running machine: a message comes with every #VC, so copying when one is pending copies as often", async () => {
  const asked = { "vmsa.opt-in": "yes" };
  const copies = async (when: string) => (await run({ ...asked, "vmsa.when": when })).copies;
  // Six exits, the last of them a HLT, which is automatic and comes without a message.
  assertEquals(await copies("every-exit"), 6);
  assertEquals(await copies("intercept"), 5);
  assertEquals([await copies("crash-ctl"), await copies("off")], [1, 0]);
});

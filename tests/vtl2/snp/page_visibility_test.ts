import { assert, assertEquals } from "@std/assert";
import { PAGE_SIZE } from "../../../lib/memory/machine_memory.ts";
import type { SnpVp } from "../../../lib/vtl2/snp/snp_vp.ts";
import { gpr, guestMachine, type GuestRun, runGuest } from "../../machine/guest_fixture.ts";

const INPUT = 0x150000;
const PAGE = 0x170000;
/** Where the guest maps the alias above the virtual top of memory. */
const ALIAS = 2n ** 39n + BigInt(PAGE);
const SECRET = 0x1122334455667788n;

/** HvCallModifySparseGpaPageHostVisibility of PAGE; its result in RAX. */
const visibility = (value: number, gpn = PAGE / PAGE_SIZE) => `
  mov rdi, ${INPUT}
  mov qword [rdi], -1
  mov qword [rdi + 8], ${value}
  mov qword [rdi + 16], ${gpn}
  mov rcx, 0x1000000db
  mov rdx, rdi
  xor r8, r8
  vmmcall`;

/** The hypercall page, and 2 MiB of the alias at 2^39. */
const START = `
  mov rsp, 0x1c0000
  mov ecx, 0x40000000
  mov eax, 1
  xor edx, edx
  wrmsr
  mov ecx, 0x40000001
  mov eax, 0x190001
  wrmsr
  mov rax, cr3
  mov qword [rax + 8], 0x160003
  mov qword [abs 0x160000], 0x161003
  mov rbx, 0x400000000083
  mov [abs 0x161000], rbx
  mov rsi, ${ALIAS}
  mov rbx, ${SECRET}`;

async function run(source: string, vps = 1): Promise<GuestRun> {
  const machine = guestMachine(`${START}\n${source}\n  cli\n  hlt`, { platform: "snp", paravisor: "openhcl", vps });
  return await runGuest(machine);
}

/** What the host reads of a page. */
function hostReads({ machine }: GuestRun): bigint {
  const { sev } = machine.platform.sev;
  const bytes = new Uint8Array(8);
  sev.guestMemory.hostBytes(machine.platform.sev.host(0).port, PAGE, bytes);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

Deno.test("f28: a page that the guest shares is the host's to read, through the alias; nothing else is", async () => {
  const shared = await run(`${visibility(3)}\n  mov r9, rax\n  mov [rsi], rbx`);
  assertEquals([shared.end, gpr(shared.machine, 0, 9)], ["halt", 1n << 32n], "one element, Success");
  assertEquals(hostReads(shared), SECRET);
  const vp = shared.machine.processor(0) as SnpVp;
  const entry = vp.sev.rmp!.entry(vp.port, PAGE / PAGE_SIZE);
  assertEquals([entry.assigned, entry.validated], [false, false]);
  const hidden = await run(`  mov [abs ${PAGE}], rbx`);
  assert(hostReads(hidden) !== SECRET, "ciphertext");
});

Deno.test("f28: a page taken back is validated, the lower VTLs' again, and not what the host wrote", async () => {
  const back = await run(
    `${visibility(3)}\n  mov [rsi], rbx\n${
      visibility(0)
    }\n  mov r9, rax\n  mov r10, [abs ${PAGE}]\n  mov [abs ${PAGE}], rbx`,
  );
  assertEquals([back.end, gpr(back.machine, 0, 9)], ["halt", 1n << 32n]);
  assert(gpr(back.machine, 0, 10) !== SECRET, "contents do not survive");
  assert(hostReads(back) !== SECRET);
  const vp = back.machine.processor(0) as SnpVp;
  const { assigned, validated, permissions } = vp.sev.rmp!.entry(vp.port, PAGE / PAGE_SIZE);
  assertEquals([assigned, validated, permissions[1], permissions[2]], [true, true, 0xf, 0xf]);
});

Deno.test("f26: a shared page through its private address is a machine check", async () => {
  assertEquals((await run(`${visibility(3)}\n  mov [abs ${PAGE}], rbx`)).end, "triple-fault");
});

Deno.test("a private page through the alias reads as ciphertext", async () => {
  const { machine, end } = await run(`  mov [abs ${PAGE}], rbx\n  mov r9, [rsi]`);
  assertEquals(end, "halt");
  assert(gpr(machine, 0, 9) !== SECRET);
});

Deno.test("pages that are not there, visibilities that do not exist and input that does not fit are refused", async () => {
  const status = async (source: string) => Number(gpr((await run(source)).machine, 0, 0) & 0xffffn);
  assertEquals(await status(visibility(3, 0x12345678)), 5, "InvalidParameter");
  assertEquals(await status(visibility(1)), 5);
  assertEquals(
    await status(`  mov rcx, 0x1000000db\n  mov rdx, ${INPUT + 0xff0}\n  vmmcall`),
    3,
    "InvalidHypercallInput",
  );
  assertEquals(await status(`  mov rcx, 0xdb\n  mov rdx, ${INPUT}\n  vmmcall`), 3);
});

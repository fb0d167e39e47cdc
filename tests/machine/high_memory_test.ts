import { assertEquals } from "@std/assert";
import { type GuestImage, parseImage } from "../../lib/guest/image.ts";
import { RAM_MAX } from "../../lib/machine/config.ts";
import { loadDemoGuest, loadGuest } from "../../lib/machine/load.ts";
import type { Platform } from "../../lib/machine/config.ts";
import type { Machine } from "../../lib/machine/machine.ts";
import { gpr, guestMachine, type GuestRun, runGuest, word } from "./guest_fixture.ts";

/** Where these guests have their data: above 2 GiB, where a signed 32-bit byte offset would be negative. */
const HIGH = 0xa000_0000;
const PLATFORMS: readonly Platform[] = ["bare", "kernel"];

/** Runs a long-mode guest with all the memory there can be; pages that nobody touches cost nothing. */
function run(platform: Platform, source: string): Promise<GuestRun> {
  return runGuest(guestMachine(`HIGH equ ${HIGH}\n${source}`, { platform, ramBytes: RAM_MAX }));
}

/** Data, stack, string and locked accesses, in and across pages, and code; counts what went well in R15. */
const ACCESSES = `
  mov rsp, HIGH + 0x8000
  mov rbx, HIGH
  mov rax, 0x1122334455667788
  xor r15d, r15d
  mov [rbx], rax
  cmp [rbx], rax
  call count
  mov byte [rbx+9], 0x5a
  cmp byte [rbx+9], 0x5a
  call count
  mov word [rbx+0x11], 0x1234
  cmp word [rbx+0x11], 0x1234
  call count
  mov [rbx+0xffc], rax
  cmp [rbx+0xffc], rax
  call count
  movups xmm0, [rbx]
  movups [rbx+0x1ff3], xmm0
  cmp [rbx+0x1ff3], rax
  call count
  mov rcx, 1
  lock xadd [rbx], rcx
  cmp rcx, rax
  call count
  lock inc qword [rbx+0xffd]
  push rax
  pop rcx
  cmp rcx, rax
  call count
  mov rsi, rbx
  mov rdi, HIGH + 0x100003
  mov ecx, 8192
  rep movsb
  mov rdx, HIGH + 0x100003 + 0x1ff3
  cmp [rdx], rax
  call count
  mov rdi, HIGH + 0x200000
  mov ecx, 1024
  rep stosq
  cmp [rdi-8], rax
  call count
  mov rdi, HIGH + 0x300000
  mov dword [rdi], 0xc3909090
  call rdi
  mov eax, 5
  mov dword [rdi], 0xc3c8ff90
  call rdi
  cmp eax, 4
  call count
  cli
  hlt
count:
  jne different
  inc r15
different:
  ret`;

for (const platform of PLATFORMS) {
  Deno.test(`${platform}: accesses and code above 2 GiB`, async () => {
    const { machine, end } = await run(platform, ACCESSES);
    assertEquals(end, "halt");
    assertEquals(gpr(machine, 0, 15), 10n);
    assertEquals(word(machine, HIGH), 0x1122334455667789n);
  });

  Deno.test(`${platform}: page tables, strings for ports and a hypercall page above 2 GiB`, async () => {
    const { machine, end, text } = await run(
      platform,
      `mov rsp, HIGH + 0x8000
       mov rbx, HIGH + 0x10000
       lea rax, [rbx + 0x1007]
       mov [rbx], rax
       lea rax, [rbx + 0x2007]
       mov [rbx + 0x1000 + 8*2], rax
       lea rax, [rbx + 0x3007]
       mov [rbx + 0x1000], rax
       mov rax, HIGH + 0x87
       mov [rbx + 0x2000 + 8*((HIGH >> 21) & 511)], rax
       mov qword [rbx + 0x3000], 0x87
       mov cr3, rbx
       mov rsi, HIGH
       mov dword [rsi], 0x68676968
       mov edx, 0x3f8
       mov ecx, 4
       rep outsb
       mov rdi, HIGH + 0xffe
       mov edx, 0x3fd
       mov ecx, 4
       rep insb
       mov ecx, 0x40000000
       mov eax, 1
       xor edx, edx
       wrmsr
       mov ecx, 0x40000001
       mov eax, HIGH + 0x20001
       wrmsr
       mov ecx, 0x7fff
       mov rax, HIGH + 0x20000
       call rax
       mov r14, rax
       cli
       hlt`,
    );
    assertEquals(end, "halt");
    assertEquals(text, "high");
    assertEquals(word(machine, HIGH + 0xffe) & 0xffff_ffffn, 0x60606060n); // line status: transmitter empty
    assertEquals(word(machine, HIGH + 0x11000 + 16) & 0x20n, 0x20n); // accessed
    if (platform === "kernel") assertEquals(gpr(machine, 0, 14), 2n); // HV_STATUS_INVALID_HYPERCALL_CODE
  });
}

Deno.test("an image above 2 GiB is loaded where it says, and runs", async () => {
  const entry = HIGH + 0x1000;
  const image: GuestImage = parseImage(new Uint8Array([0xb0, 0x2a, 0xe6, 0xf4]), "high", { mode: "long", load: entry });
  const machine: Machine = guestMachine("hlt", { ramBytes: RAM_MAX });
  loadGuest(machine, image);
  const report = await runGuest(machine);
  assertEquals([report.end, report.exitValue], ["exit-port", 0x2a]);
});

for (const [platform, concurrent] of [["kernel", false], ["kernel", true], ["sidecar", false]] as const) {
  const runtime = concurrent ? "concurrent" : "deterministic";
  Deno.test(`${platform}, ${runtime}: every exit of the demo guest with VTL2 and all state above 2 GiB`, async () => {
    const machine = guestMachine("hlt", { platform, vps: 2, ramBytes: RAM_MAX, concurrent });
    loadDemoGuest(machine);
    const { end, exitValue, problems } = await runGuest(machine, { timeLimitSeconds: 60 });
    assertEquals([end, exitValue, problems], ["exit-port", 0, []]);
  });
}

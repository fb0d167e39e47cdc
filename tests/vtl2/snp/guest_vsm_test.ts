import { assertEquals } from "@std/assert";
import { gpr, guestMachine, runGuest, word } from "../../machine/guest_fixture.ts";

const OPENHCL = { platform: "snp", paravisor: "openhcl" } as const;
const INPUT = 0x180000;
const PAGE = 0x190000;
const ASSIST = 0x1a0000;
const OUT = 0x1b0000;

/** Registers of the calling code, as an InitialVpContextX64 at INPUT + 0x10 that starts at `entry`. */
const CONTEXT = `
  mov rdi, ${INPUT}
  mov qword [rdi], -1
  mov dword [rdi + 8], -2
  mov dword [rdi + 12], 1
  lea rax, [rel entry]
  mov [rdi + 0x10], rax
  mov qword [rdi + 0x18], 0x1d0000
  mov qword [rdi + 0x20], 2
  mov word [rdi + 0x34], 8
  mov word [rdi + 0x36], 0xa09b
  mov dword [rdi + 0x30], 0xffffffff
  mov word [rdi + 0x84], 16
  mov word [rdi + 0x86], 0xc093
  mov dword [rdi + 0x80], 0xffffffff
  mov ecx, 0xc0000080
  rdmsr
  mov [rdi + 0xc8], eax
  mov rax, cr0
  mov [rdi + 0xd0], rax
  mov rax, cr3
  mov [rdi + 0xd8], rax
  mov rax, cr4
  mov [rdi + 0xe0], rax
  mov rax, 0x0007040600070406
  mov [rdi + 0xe8], rax`;

/** Enables the hypercall page, VTL1 of the partition and of the processor; statuses go to OUT and OUT + 8. */
const ENABLE = `
  mov rsp, 0x1c0000
  mov ecx, 0x40000000
  mov eax, 1
  xor edx, edx
  wrmsr
  mov ecx, 0x40000001
  mov eax, ${PAGE + 1}
  wrmsr
  mov rdi, ${INPUT}
  mov qword [rdi], -1
  mov qword [rdi + 8], 1
  mov rcx, 0x0d
  mov rdx, rdi
  xor r8, r8
  vmmcall
  mov [abs ${OUT}], rax
  ${CONTEXT}
  mov rcx, 0x0f
  mov rdx, ${INPUT}
  xor r8, r8
  vmmcall
  mov [abs ${OUT + 8}], rax`;

/** Runs a guest whose VTL1 starts at \`entry\`; both VTLs use the same page tables. */
async function run(vtl0: string, vtl1: string) {
  const machine = guestMachine(`${ENABLE}\n${vtl0}\n  cli\n  hlt\nentry:\n${vtl1}`, OPENHCL);
  const result = await runGuest(machine);
  assertEquals([result.end, result.vmmCrash, result.problems], ["halt", undefined, []]);
  return machine;
}

const CALL = "xor eax, eax\n  mov ecx, 0x11\n  vmmcall";
const RETURN = "xor eax, eax\n  mov ecx, 0x12\n  vmmcall";
const FAST_RETURN = "mov eax, 1\n  mov ecx, 0x12\n  vmmcall";

Deno.test("f32: enabling VTL1 loads its VMSA and copies nothing; a call enters it, a return goes on behind the call", async () => {
  const machine = await run(
    `mov rbx, 0x1111
     mov r15, 0x2222
     ${CALL}
     mov rsi, rbx
     mov rdi, rsp
     ${CALL}`,
    `mov [abs ${OUT + 16}], rsp
     mov [abs ${OUT + 24}], rbx
     mov [abs ${OUT + 32}], r15
     mov rbx, 0x3333
     ${FAST_RETURN}
     mov rbx, 0x4444
     ${FAST_RETURN}`,
  );
  assertEquals([word(machine, OUT), word(machine, OUT + 8)], [0n, 0n], "statuses of the calls that enable VTL1");
  // RSP is each VTL's own; RBX and R15 are shared, in both directions (f30, f31).
  assertEquals([16, 24, 32].map((at) => word(machine, OUT + at)), [0x1d0000n, 0x1111n, 0x2222n]);
  assertEquals([gpr(machine, 0, 6), gpr(machine, 0, 7), gpr(machine, 0, 3)], [0x3333n, 0x1c0000n, 0x4444n]);
});

Deno.test("f31: a return that is not fast gives VTL0 the RAX and RCX of VTL1's assist page; the entry reason is a VTL call", async () => {
  const machine = await run(
    `${CALL}
     mov r8, rax
     mov r9, rcx`,
    `mov ecx, 0x40000073
     mov eax, ${ASSIST + 1}
     xor edx, edx
     wrmsr
     mov qword [abs ${ASSIST + 16}], 0x77
     mov qword [abs ${ASSIST + 24}], 0x88
     ${RETURN}
     jmp $`,
  );
  assertEquals([gpr(machine, 0, 8), gpr(machine, 0, 9)], [0x77n, 0x88n]);
  const again = await run(
    `${CALL}\n${CALL}`,
    `mov ecx, 0x40000073
     mov eax, ${ASSIST + 1}
     xor edx, edx
     wrmsr
     ${FAST_RETURN}
     mov eax, [abs ${ASSIST + 8}]
     mov [abs ${OUT + 16}], rax
     ${FAST_RETURN}`,
  );
  assertEquals(word(again, OUT + 16), 1n);
});

Deno.test("f32: VTL calls need an enabled VTL1, VTL0 has nowhere to return to, and VTL1 is enabled once", async () => {
  const undefinedCode = (call: string) => `
    mov dword [abs 0x20060], 0
    lea rax, [rel fault]
    mov [abs 0x20060], ax
    mov dword [abs 0x20062], 0x8e000008
    mov byte [abs 0x20064], 0
    shr rax, 16
    mov [abs 0x20066], ax
    mov qword [abs 0x20068], 0
    mov word [abs 0x1fff0], 4095
    mov qword [abs 0x1fff2], 0x20000
    lidt [abs 0x1fff0]
    ${call}
    mov r10, 1
    jmp done
fault:
    mov r10, 6
done:`;
  const machine = guestMachine(
    `mov rsp, 0x1c0000\nmov ecx, 0x40000000\nmov eax, 1\nxor edx, edx\nwrmsr\nmov ecx, 0x40000001\nmov eax, ${PAGE + 1}
     wrmsr\n${undefinedCode(CALL)}\ncli\nhlt`,
    OPENHCL,
  );
  assertEquals((await runGuest(machine)).end, "halt");
  assertEquals(gpr(machine, 0, 10), 6n, "#UD without VTL1");
  const other = await run(
    `mov rcx, 0x0d
     mov rdi, ${INPUT}
     mov qword [rdi + 8], 1
     mov rdx, rdi
     vmmcall
     mov [abs ${OUT + 16}], rax
     ${undefinedCode(RETURN)}`,
    "jmp $",
  );
  assertEquals([word(other, OUT + 16) & 0xffffn, gpr(other, 0, 10)], [0x86n, 6n], "already enabled; #UD for a return");
});

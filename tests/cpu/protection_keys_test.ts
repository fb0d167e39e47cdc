import { assertEquals } from "@std/assert";
import { guestMachine } from "./guest_machine.ts";
import { CODE0, DATA0, FLAT32, gate64, gdt, idt, INTERRUPT32, LONG, segment } from "./tables.ts";

/** Runs 64-bit code whose second 2 MiB have key 3; what it wrote to port 80, or the vector of its exception. */
function outputs(body: string): number[] {
  const machine = guestMachine(
    "long",
    `lgdt [gdtp]
     lidt [idtp]
     or dword [0x300c], 3 << 27
     mov rax, cr3
     mov cr3, rax
     ${body}
     mov al, 0x99
     jmp end
     pf: pop rax
     out 0x80, eax
     mov al, 14
     jmp end
     gp: mov al, 13
     jmp end
     ud: mov al, 6
     end: out 0x80, al
     out 0xf4, al
     ${gdt([segment(CODE0, LONG), segment(DATA0, FLAT32)], "dq")}
     ${
      idt(16, {
        14: gate64(INTERRUPT32, 8, "pf"),
        13: gate64(INTERRUPT32, 8, "gp"),
        6: gate64(INTERRUPT32, 8, "ud"),
      }, 16)
    }`,
  );
  machine.run();
  return machine.out.slice(0, -1);
}

const ENABLE = "mov rax, cr4\nbts eax, 22\nmov cr4, rax\nxor ecx, ecx\nxor edx, edx";
const DISABLE_ACCESS = `${ENABLE}\nmov eax, 1 << 6\nwrpkru`;
const DISABLE_WRITE = `${ENABLE}\nmov eax, 2 << 6\nwrpkru`;
const READ = "mov ebx, [0x200000]";
const WRITE = "mov [0x200000], ebx";

Deno.test("RDPKRU and WRPKRU: #UD without CR4.PKE, #GP unless ECX, and EDX of WRPKRU, are zero", () => {
  for (const instruction of ["rdpkru", "wrpkru"]) {
    assertEquals(outputs(`xor ecx, ecx\n${instruction}`), [6], instruction);
  }
  assertEquals(outputs(`${ENABLE}\nmov ecx, 1\nrdpkru`), [13]);
  assertEquals(outputs(`${ENABLE}\nmov ecx, 1\nwrpkru`), [13]);
  assertEquals(outputs(`${ENABLE}\nmov edx, 1\nwrpkru`), [13]);
  assertEquals(
    outputs(`${ENABLE}\nmov eax, 0x55555554\nwrpkru\nmov edx, 7\nrdpkru\nout 0x80, eax\nmov eax, edx\nout 0x80, eax`),
    [
      0x55555554,
      0,
      0x99,
    ],
  );
});

Deno.test("protection keys: a translation that was used already obeys a later WRPKRU", () => {
  const KEY = 1 << 5; // the key's bit of a page fault's error code
  assertEquals(outputs(`${READ}\n${DISABLE_ACCESS}\n${READ}`), [KEY | 1, 14]);
  assertEquals(outputs(`${WRITE}\n${DISABLE_WRITE}\n${READ}\n${WRITE}`), [KEY | 3, 14]);
  assertEquals(outputs(`${DISABLE_ACCESS}\nxor eax, eax\nwrpkru\n${READ}\n${WRITE}`), [0x99]);
});

Deno.test("protection keys: text without data access is executed and not read", () => {
  const copied = "mov dword [0x200000], 0xc390c390"; // NOP, RET
  assertEquals(outputs(`${copied}\n${DISABLE_ACCESS}\nmov eax, 0x200002\ncall rax`), [0x99]);
  assertEquals(outputs(`${copied}\n${DISABLE_ACCESS}\nmov eax, 0x200002\ncall rax\nmov al, [rax]`), [0x21, 14]);
});

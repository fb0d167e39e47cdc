/** What an instruction of an encrypted guest becomes: #VC for its own handler, an automatic exit, or nothing. */
import { assertEquals } from "@std/assert";
import { CpuState } from "../../../lib/cpu/state.ts";
import { assemble } from "../../../lib/guest/assembler/assemble.ts";
import { parseImage } from "../../../lib/guest/image.ts";
import { GUEST_ASID } from "../../../lib/hypervisor/sev/machine.ts";
import { C_BIT_HIGH } from "../../../lib/hypervisor/sev/sev_bus.ts";
import { SevVp } from "../../../lib/hypervisor/sev/sev_vp.ts";
import { SevVpState } from "../../../lib/hypervisor/sev/state.ts";
import { SevExitCode } from "../../../lib/layout/sev/constants/exit_codes.ts";
import { VMSA } from "../../../lib/layout/sev/vmsa.ts";
import { loadGuest } from "../../../lib/machine/load.ts";
import { Machine } from "../../../lib/machine/machine.ts";
import { stepName } from "../../../lib/memory/steps.ts";

const RAM_BYTES = 4 << 20;
const ORIGIN = 0x100000;
/** A page that no image uses, in the second large page of the tables. */
const DATA = 0x300000;

interface Setting {
  readonly platform?: "sev-es" | "snp";
  readonly host?: "kvm" | "vmd";
  /** What is done to the machine before its guest runs. */
  readonly before?: (machine: Machine) => void;
}

/** What the first event of a guest is. A #VC that another access than a move raises is found by its missing handler. */
interface Event {
  /** `vc` and the exit code, or `exit` and the exit code; `none` when the next HLT was reached. */
  readonly what: string;
  readonly info1: bigint;
  readonly info2: bigint;
  /** RIP, relative to the instruction tried. */
  readonly rip: number;
  readonly rax: bigint;
  readonly machine: Machine;
}

/** Executes `prepare` and then `instruction` in 64-bit code; both are followed by HLT. */
function event(instruction: string, setting: Setting = {}, prepare = ""): Event {
  const { platform = "sev-es", host = "kvm", before } = setting;
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
  const { bytes, labels } = assemble(`bits 64\n${prepare}\ntried: ${instruction}\nhlt\ntimes 256 db 0\n`, {
    origin: ORIGIN,
    bits: 64,
  });
  loadGuest(machine, parseImage(bytes, "tried", { mode: "long" }));
  before?.(machine);
  const vp = machine.processor(0) as SevVp;
  const tried = Number(labels.get("tried"));
  for (let k = 0; k < 100; k++) {
    machine.platform.sev.host(0).takeSteps(100);
    vp.takeSteps(1);
    const name = stepName(vp.step);
    if (name === "sev.raise-vc" || name === "sev.vmexit") return seen(machine, vp, name, tried);
  }
  throw new Error(`${instruction} makes no event`);
}

function seen(machine: Machine, vp: SevVp, step: string, tried: number): Event {
  const { u64 } = machine.memory;
  const rip = Number(u64[(vp.cpuState + CpuState.at.rip) >>> 3]) - tried;
  const code = SevExitCode.name(vp.exitCode);
  const passed = step === "sev.vmexit" && code === "HLT" && rip > 1;
  const unhandled = vp.unhandledVc;
  const undelivered = unhandled === undefined ? `exit ${code}` : `vc ${SevExitCode.name(unhandled)}`;
  return {
    what: passed ? "none" : step === "sev.raise-vc" ? `vc ${code}` : undelivered,
    info1: u64[(vp.sevState + SevVpState.at.exit_info_1) >>> 3],
    info2: u64[(vp.sevState + SevVpState.at.exit_info_2) >>> 3],
    rip,
    rax: u64[(vp.cpuState + CpuState.at.gpr) >>> 3],
    machine,
  };
}

/** Instructions with what they become under kvm and under vmd; a #VC leaves RIP where it is. */
const INSTRUCTIONS: readonly (readonly [text: string, kvm: string, vmd: string, prepare?: string])[] = [
  ["cpuid", "vc CPUID", "vc CPUID"],
  ["in al, 0x71", "vc IOIO", "vc IOIO"],
  ["in eax, dx", "vc IOIO", "vc IOIO"],
  ["out dx, ax", "vc IOIO", "vc IOIO"],
  ["outsb", "vc IOIO", "vc IOIO", "lea rsi, [rel tried]"],
  ["rep insb", "vc IOIO", "vc IOIO", `mov ecx, 3\nmov edi, ${ORIGIN}`],
  ["rdmsr", "vc MSR", "vc MSR", "mov ecx, 0x1b"],
  ["wrmsr", "vc MSR", "vc MSR", "mov ecx, 0x10"],
  ["rdtsc", "none", "none"],
  ["rdtscp", "none", "vc RDTSCP"],
  ["rdpmc", "vc RDPMC", "none", "xor ecx, ecx"],
  ["wbinvd", "vc WBINVD", "none"],
  ["invd", "vc INVD", "none"],
  ["db 0x0f, 0x01, 0xc8 ; monitor", "vc MONITOR", "vc MONITOR"],
  ["db 0x0f, 0x01, 0xc9 ; mwait", "vc MWAIT", "vc MWAIT"],
  ["db 0x0f, 0x01, 0xd9 ; vmmcall", "vc VMMCALL", "vc VMMCALL"],
  ["mov rax, dr7", "vc DR7_READ", "none"],
  ["mov dr7, rax", "vc DR7_WRITE", "none", "mov eax, 0x400"],
  ["mov rax, dr0", "none", "none"],
  ["mov dr0, rax", "none", "none"],
  ["pause", "none", "none"],
];

for (const [index, host] of ["kvm", "vmd"].entries()) {
  Deno.test(`a8: under ${host} an intercepted instruction is a #VC with its exit code, and RIP stays`, () => {
    for (const [text, ...rest] of INSTRUCTIONS) {
      const { what, rip } = event(text, { host: host as "kvm" }, rest[2]);
      assertEquals(what, rest[index], text);
      if (what.startsWith("vc")) assertEquals(rip, 0, text);
    }
  });
}

Deno.test("a7, a12: VMGEXIT and HLT leave with RIP behind the instruction, and the #VC handler is not asked", () => {
  for (const prefix of ["0xf3", "0xf2"]) {
    const { what, rip } = event(`db ${prefix}, 0x0f, 0x01, 0xd9`);
    assertEquals([what, rip], ["exit VMGEXIT", 4]);
  }
  const { what, rip } = event("hlt");
  assertEquals([what, rip], ["exit HLT", 1]);
});

Deno.test("a11: a write trap comes after the write, with the new value; vmd has none for CR8", () => {
  const cr8 = event("mov cr8, rax", {}, "mov eax, 5");
  assertEquals([cr8.what, cr8.info1, cr8.rip], ["exit CR8_WRITE_TRAP", 5n, 4]);
  assertEquals(event("mov cr8, rax", { host: "vmd" }, "mov eax, 5").what, "none");
  for (const host of ["kvm", "vmd"] as const) {
    const cr4 = event("mov cr4, rax", { host }, "mov rax, cr4\nor eax, 4");
    assertEquals([cr4.what, cr4.info1 & 4n, cr4.rip], ["exit CR4_WRITE_TRAP", 4n, 3]);
    const cr0 = event("mov cr0, rax", { host }, "mov rax, cr0\nor eax, 0x20");
    assertEquals([cr0.what, cr0.info1, cr0.rip], ["exit CR0_WRITE_TRAP", cr0.rax, 3]);
    const efer = event("wrmsr", { host }, "mov ecx, 0xc0000080\nrdmsr\nor eax, 0x800");
    assertEquals([efer.what, efer.info1 & 0x800n, efer.rip], ["exit EFER_WRITE_TRAP", 0x800n, 2]);
  }
});

Deno.test("a15: the GHCB MSR is read and written without an exit; SEV_STATUS says what the guest is", () => {
  const ghcb = event("rdmsr", {}, "mov ecx, 0xc0010130\nmov eax, 0x201000\nxor edx, edx\nwrmsr\nxor eax, eax");
  assertEquals([ghcb.what, ghcb.rax], ["none", 0x201000n]);
  assertEquals(event("rdmsr", {}, "mov ecx, 0xc0010131").rax, 3n);
  assertEquals(event("rdmsr", { platform: "snp" }, "mov ecx, 0xc0010131").rax, 7n);
});

Deno.test("a9: device memory is a #VC with exit code 400, for the guest to decode", () => {
  for (const platform of ["sev-es", "snp"] as const) {
    for (const text of ["mov eax, [rbx]", "mov [rbx], eax", "add [rbx], eax", "movsx ecx, word [rbx]"]) {
      const { what, rip } = event(text, { platform }, "mov ebx, 0xfee00020");
      assertEquals([what, rip], ["vc NPF", 0], text);
    }
  }
});

/** EXITINFO1 of a nested page fault: present, user, on the final address. */
const NPF = 1n | 4n | 1n << 32n;
const WRITE = 2n;
const FETCH = 16n;
const RMP = 1n << 31n;
const ENC = 1n << 34n;
const VMPL = 1n << 36n;

/** Gives the data page to the guest. */
function assign(machine: Machine): void {
  const { sev } = machine.platform.sev;
  sev.assignPage(machine.platform.sev.host(0).port, DATA / 4096);
}

/** Maps the large page of the data without the C bit. */
function mapShared(machine: Machine): void {
  const { u32 } = machine.memory;
  const vp = machine.processor(0) as SevVp;
  let table = u32[(vp.cpuState + CpuState.at.cr3) >>> 2];
  for (let level = 0; level < 2; level++) table = u32[table >>> 2] & ~0xfff;
  u32[((table + 8 * (DATA >>> 21)) >>> 2) + 1] &= ~C_BIT_HIGH;
}

Deno.test("e6: a private access to a page that is not the guest's leaves with the RMP and ENC bits", () => {
  for (const [text, bits] of [["mov al, [rbx]", 0n], ["mov [rbx], al", WRITE]] as const) {
    const { what, info1, info2, rip } = event(text, { platform: "snp" }, `mov ebx, ${DATA + 8}`);
    assertEquals([what, info1, info2, rip], ["exit NPF", NPF | RMP | ENC | bits, BigInt(DATA + 8), 0], text);
  }
});

Deno.test("e6: a private access to a page that the guest has not validated is a #VC 404", () => {
  for (const text of ["mov al, [rbx]", "mov [rbx], al", "inc byte [rbx]"]) {
    const { what, rip } = event(text, { platform: "snp", before: assign }, `mov ebx, ${DATA}`);
    assertEquals([what, rip], ["vc PAGE_NOT_VALIDATED", 0], text);
  }
});

Deno.test("e6: a shared write to a private page leaves without ENC; a shared read of it gives ciphertext", () => {
  const before = (machine: Machine) => {
    assign(machine);
    mapShared(machine);
  };
  const write = event("mov [rbx], al", { platform: "snp", before }, `mov ebx, ${DATA}`);
  assertEquals([write.what, write.info1], ["exit NPF", NPF | RMP | WRITE]);
  const read = event("mov rax, [rbx]", { platform: "snp", before }, `mov ebx, ${DATA}`);
  const { guestMemory } = read.machine.platform.sev.sev;
  const ciphertext = guestMemory.loadAlien(read.machine.platform.sev.host(0).port, DATA, 8);
  assertEquals([read.what, read.rax], ["none", ciphertext]);
  const shared = event("mov [rbx], rax", { platform: "snp", before: mapShared }, `mov ebx, ${DATA}\nmov eax, 7`);
  assertEquals([shared.what, shared.machine.memory.u64[DATA >>> 3]], ["none", 7n]);
});

Deno.test("e6: what its VMPL may not do leaves with the VMPL bit, a fetch too", () => {
  const before = (machine: Machine) => {
    const { sev } = machine.platform.sev;
    machine.memory.u8[sev.vmsa(0) + VMSA.at.vmpl] = 1;
  };
  const { what, info1, info2 } = event("nop", { platform: "snp", before });
  // The first thing that is not granted is the walk of its page tables.
  assertEquals([what, info1 & (RMP | ENC | VMPL | FETCH)], ["exit NPF", RMP | ENC | VMPL]);
  assertEquals(info1 & 1n << 33n, 1n << 33n);
  assertEquals(info2 < BigInt(RAM_BYTES), true);
});

Deno.test("e6: PVALIDATE of a page that is not the guest's leaves; of a shared mapping it fails with input; CF tells no change", () => {
  const pvalidate = "db 0xf2, 0x0f, 0x01, 0xff";
  const registers = `mov eax, ${DATA}\nxor ecx, ecx\nmov edx, 1`;
  const foreign = event(pvalidate, { platform: "snp" }, registers);
  assertEquals([foreign.what, foreign.info1], ["exit NPF", NPF | RMP | ENC]);
  const done = event(`${pvalidate}\nsetc bl`, { platform: "snp", before: assign }, `${registers}\nmov ebx, 0`);
  assertEquals([done.what, done.rax], ["none", 0n]);
  const { sev, host } = { sev: done.machine.platform.sev.sev, host: done.machine.platform.sev.host(0) };
  assertEquals(sev.rmp!.entry(host.port, DATA / 4096).validated, true);
  const shared = event(pvalidate, { platform: "snp", before: mapShared }, registers);
  assertEquals([shared.what, shared.rax], ["none", 1n]);
  assertEquals(event(pvalidate, {}, registers).what, "exit SHUTDOWN"); // #UD without SNP, and no handler
});

Deno.test("SEV-ES: a page takes the view that the guest writes it through; the other view reads scrambled", () => {
  const write = event("mov [rbx], rax", { before: mapShared }, `mov ebx, ${DATA}\nmov eax, 7`);
  const { guestMemory } = write.machine.platform.sev.sev;
  const { port } = write.machine.platform.sev.host(0);
  assertEquals([write.what, guestMemory.isPrivate(port, DATA / 4096)], ["none", false]);
  assertEquals(write.machine.memory.u64[DATA >>> 3], 7n);
  const read = event("mov rax, [rbx]", { before: mapShared }, `mov ebx, ${DATA}`);
  assertEquals(read.rax === 0n, false);
  assertEquals(GUEST_ASID, 1);
});

Deno.test("a #VC that finds no handler shuts the guest down, and is named; real mode goes through its empty vector", () => {
  const config = {
    platform: "sev-es",
    vps: 1,
    ramBytes: RAM_BYTES,
    policies: {},
    devices: "pc",
    recordExits: false,
  } as const;
  for (const mode of ["protected", "long", "real"] as const) {
    const machine = Machine.create(config, true);
    loadGuest(machine, parseImage(new Uint8Array([0x0f, 0xa2, 0xf4]), "cpuid", { mode }));
    const vp = machine.processor(0) as SevVp;
    machine.platform.sev.host(0).takeSteps(100);
    vp.runQuantum = 4;
    vp.takeSteps(4);
    assertEquals(vp.unhandledVc, SevExitCode.values.CPUID, mode);
    if (mode === "real") assertEquals(machine.memory.u64[(vp.cpuState + CpuState.at.rip) >>> 3] < 0x40n, true);
    else assertEquals(SevExitCode.name(vp.exitCode), "SHUTDOWN", mode);
  }
});

Deno.test("the RMP is asked when a translation is made, and not at an access whose translation is known", () => {
  const loop = "mov ecx, 500\nagain: mov rax, [rbx]\nadd [rbx + 8], rax\npush rax\npop rax\ndec ecx\njnz again";
  const counted = (prepare: string) => {
    let asked = 0;
    const before = (machine: Machine) => {
      const rmp = machine.platform.sev.sev.rmp!;
      const check = rmp.checkGuestPrivate.bind(rmp);
      rmp.checkGuestPrivate = (...access) => {
        asked++;
        return check(...access);
      };
    };
    assertEquals(
      event("nop", { platform: "snp", before }, `lea rbx, [rel tried + 64]\nlea rsp, [rbx + 64]\n${prepare}`).what,
      "none",
    );
    return asked;
  };
  assertEquals(counted(loop), counted(loop.replace("500", "1")));
});

/** The policies that tell OpenHCL from silicon, each with a program that shows which of the two it is. */
import { CpuState } from "../../lib/cpu/state.ts";
import { gpr, type GuestRun, register } from "../machine/guest_fixture.ts";

/** One policy. */
export interface SiliconCase {
  readonly policy: string;
  /** Long-mode program. */
  readonly source: string;
  /** What to look at after the run of the program on VP `vp`. */
  readonly see: (run: GuestRun, vp: number) => bigint | string;
  /** What is seen under each value. */
  readonly openhcl: bigint | string;
  readonly silicon: bigint | string;
}

/** All but `vmm.mmio-cmpxchg`, whose difference only the device sees. */
export const SILICON_CASES: readonly SiliconCase[] = [
  {
    policy: "vmm.in-upper-rax",
    source: "mov rax, -1\n in al, 0x80\n cli\n hlt",
    see: (run, vp) => gpr(run.machine, vp, 0),
    openhcl: 0xffff_ffffn,
    silicon: 0xffff_ffff_ffff_ffffn,
  },
  {
    policy: "vmm.hypercall-rip",
    // A hypercall that VTL2 handles, with a prefix that it does not count: the guest goes on in the middle of the
    // instruction, whose last byte makes an FPREM1 of the CMC behind it.
    source: `
        mov ecx, 0x40000000
        mov eax, 1
        xor edx, edx
        wrmsr
        mov ecx, 0x40000001
        mov eax, 0x40001
        wrmsr
        mov rcx, 0x1005d
        mov edx, 0x77
        xor r8d, r8d
        db 0x66, 0x0f, 0x01, 0xd9
        cmc
        cli
        hlt`,
    see: (run, vp) => register(run.machine, vp, CpuState.at.rflags) & 1n,
    openhcl: 0n,
    silicon: 1n,
  },
  {
    policy: "vmm.unknown-msr",
    source: "mov ecx, 0x1234\n mov eax, 5\n rdmsr\n cli\n hlt",
    see: (run, vp) => [run.end, run.end === "halt" ? gpr(run.machine, vp, 0) : 0n].join(),
    openhcl: "halt,0",
    silicon: "triple-fault,0",
  },
  {
    policy: "vmm.io-single-step",
    // With TF set, #DB follows the OUT on silicon; without an IDT that is a triple fault.
    source: "pushfq\n or qword [rsp], 0x100\n popfq\n out 0x80, al\n cli\n hlt",
    see: (run, vp) => register(run.machine, vp, CpuState.at.rip),
    // POPFQ sets TF behind itself: the OUT is the first instruction that is traced, the CLI the second.
    openhcl: 0x10000dn,
    silicon: 0x10000cn,
  },
];

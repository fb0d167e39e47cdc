/**
 * The guest-visible state of one virtual processor as it lies in the shared memory: registers, control state, the live
 * x87/SSE image, pending events and the record of the last exit.
 *
 * Segment and table registers have the form of `HvX64SegmentRegister` and `HvX64TableRegister` (TLFS, "Virtual Processor
 * Register Formats"), so that messages and register pages are filled by copying. Nothing here is a cache: a copy of these
 * bytes is a copy of the processor.
 *
 * @module
 */

import { array, bytes, u16, u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";

/** A segment register; attributes in the descriptor's form: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15. */
const SegmentRegister = structure("SegmentRegister", 16, [
  ["base", 0, u64, "Linear base address"],
  ["limit", 8, u32, "Last valid byte, in bytes whatever the granularity"],
  ["selector", 12, u16, "Visible selector"],
  ["attributes", 14, u16, "Type, S, DPL, P, AVL, L, D/B, G"],
]);

/** GDTR or IDTR. */
const TableRegister = structure("TableRegister", 16, [
  reserved(0, 6),
  ["limit", 6, u16, "Last valid byte"],
  ["base", 8, u64, "Linear base address"],
]);

/** General-purpose registers in encoding order. */
const GPR_NAMES = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** The layout of a virtual processor's state; offsets are bytes from a base that is a multiple of 64. */
export const CpuState = structure("CpuState", 0x600, [
  ["gpr", 0x000, array(u64, 16, GPR_NAMES), "General-purpose registers in encoding order"],
  ["rip", 0x080, u64, "Instruction pointer"],
  ["rflags", 0x088, u64, "Flags; complete whenever the processor is not running"],
  ["es", 0x090, SegmentRegister, "Extra segment"],
  ["cs", 0x0a0, SegmentRegister, "Code segment"],
  ["ss", 0x0b0, SegmentRegister, "Stack segment"],
  ["ds", 0x0c0, SegmentRegister, "Data segment"],
  ["fs", 0x0d0, SegmentRegister, "FS; its base is MSR FS_BASE"],
  ["gs", 0x0e0, SegmentRegister, "GS; its base is MSR GS_BASE"],
  ["ldtr", 0x0f0, SegmentRegister, "Local descriptor table register"],
  ["tr", 0x100, SegmentRegister, "Task register"],
  ["gdtr", 0x110, TableRegister, "Global descriptor table register"],
  ["idtr", 0x120, TableRegister, "Interrupt descriptor table register"],
  ["cr0", 0x130, u64, "Control register 0"],
  ["cr2", 0x138, u64, "Page-fault linear address"],
  ["cr3", 0x140, u64, "Page-table base"],
  ["cr4", 0x148, u64, "Control register 4"],
  ["cr8", 0x150, u64, "Task priority, bits 7:4 of the APIC's TPR"],
  ["efer", 0x158, u64, "Extended feature enable register"],
  ["xcr0", 0x160, u64, "Extended control register 0"],
  ["dr0", 0x168, u64, "Breakpoint address 0"],
  ["dr1", 0x170, u64, "Breakpoint address 1"],
  ["dr2", 0x178, u64, "Breakpoint address 2"],
  ["dr3", 0x180, u64, "Breakpoint address 3"],
  ["dr6", 0x188, u64, "Debug status"],
  ["dr7", 0x190, u64, "Debug control"],
  ["star", 0x198, u64, "MSR C0000081, SYSCALL selectors"],
  ["lstar", 0x1a0, u64, "MSR C0000082, SYSCALL target of 64-bit code"],
  ["cstar", 0x1a8, u64, "MSR C0000083, SYSCALL target of compatibility code"],
  ["sfmask", 0x1b0, u64, "MSR C0000084, flags that SYSCALL clears"],
  ["kernel_gs_base", 0x1b8, u64, "MSR C0000102, what SWAPGS exchanges with the base of GS"],
  ["sysenter_cs", 0x1c0, u64, "MSR 174"],
  ["sysenter_esp", 0x1c8, u64, "MSR 175"],
  ["sysenter_eip", 0x1d0, u64, "MSR 176"],
  ["pat", 0x1d8, u64, "MSR 277, page attribute table"],
  ["tsc_aux", 0x1e0, u64, "MSR C0000103, what RDTSCP and RDPID return"],
  ["apic_base", 0x1e8, u64, "MSR 1B"],
  ["mtrr_def_type", 0x1f0, u64, "MSR 2FF"],
  ["mtrr_fixed", 0x1f8, array(u64, 11), "Fixed-range MTRRs: MSR 250, 258, 259, 268 to 26F"],
  ["mtrr_variable", 0x250, array(u64, 16), "Variable-range MTRRs, base and mask in turn: MSR 200 to 20F"],
  reserved(0x2d0, 32),
  ["tsc_offset", 0x2f0, u64, "What is added to the machine's time-stamp counter"],
  ["instructions", 0x2f8, u64, "Instructions completed since reset"],
  ["fx", 0x300, bytes(512), "Live x87 and SSE state as an FXSAVE64 image"],
  ["interrupt_shadow", 0x500, u32, "SHADOW_STI, SHADOW_MOV_SS: the next instruction takes no interrupt"],
  ["nmi_masked", 0x504, u32, "1 from the delivery of an NMI to the next IRET"],
  ["nmi_pending", 0x508, u32, "1 when an NMI waits"],
  ["activity", 0x50c, u32, "ACTIVITY_RUNNING, ACTIVITY_HALTED, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI"],
  ["event", 0x510, u32, "Event to deliver at the next entry: EVENT_VALID, type, EVENT_HAS_ERROR and vector"],
  ["event_error", 0x514, u32, "Its error code"],
  ["event_length", 0x518, u32, "Length of the instruction that raised a software event, in bytes"],
  ["attention", 0x51c, u32, "ATTENTION_* bits that another agent sets to be noticed at the next block boundary"],
  ["event_cr2", 0x520, u64, "CR2 of a page fault to deliver"],
  ["pending_db", 0x528, u32, "DR6 bits of a debug trap that waits for the end of an interrupt shadow"],
  ["split_lock", 0x52c, u32, "Lock word of a processor that has none in common with others"],
  ["exit_reason", 0x530, u32, "What the last run stopped for: EXIT_*"],
  ["exit_length", 0x534, u32, "Length of the instruction, in bytes; 0 when it was not decoded"],
  ["exit_bytes", 0x538, bytes(16), "The instruction's bytes"],
  ["exit_byte_count", 0x548, u32, "How many of them are valid"],
  ["exit_port", 0x54c, u16, "Port of an I/O exit"],
  ["exit_size", 0x54e, u8, "Access size in bytes: 1, 2, 4 or 8"],
  ["exit_flags", 0x54f, u8, "EXIT_IN, EXIT_STRING, EXIT_REP"],
  ["exit_gpa", 0x550, u64, "Guest-physical address of a memory exit"],
  ["exit_gva", 0x558, u64, "Linear address of a memory exit or of a string port access"],
  ["exit_access", 0x560, u32, "ACCESS_READ, ACCESS_WRITE or ACCESS_EXECUTE"],
  [
    "exit_vector",
    0x564,
    u32,
    "Vector of an intercepted exception, or of the event whose delivery shut the processor down",
  ],
  ["exit_error", 0x568, u32, "Its error code"],
  ["exit_has_error", 0x56c, u32, "1 when it has one"],
  ["exit_msr", 0x570, u32, "Index of an intercepted MSR"],
  ["exit_write", 0x574, u32, "1 for WRMSR and for a write to memory"],
  ["exit_value", 0x578, u64, "The value that WRMSR, OUT or a store would write"],
  ["exit_gva_valid", 0x580, u32, "1 when exit_gva holds the address"],
  ["pkru", 0x584, u32, "Rights of the protection keys: access disable and write disable, two bits a key"],
  reserved(0x588, 0x78),
], "State of one virtual processor");

const at = CpuState.at;

/** Index of RIP's low half among 32-bit words of the state; the high half follows. */
export const RIP: number = at.rip >> 2;
/** Index of RFLAGS' low half. */
export const RFLAGS: number = at.rflags >> 2;
/** Byte offset of the record of segment 0 (ES); the others follow every {@linkcode SEGMENT_BYTES}. */
export const SEGMENTS: number = at.es;
/** Bytes of a segment record. */
export const SEGMENT_BYTES = 16;
/** Byte offset of the x87/SSE image. */
export const FX: number = at.fx;
/** Byte offset of XMM0 in the state. */
export const XMM: number = at.fx + 160;
/** Byte offset of MXCSR in the state. */
export const MXCSR: number = at.fx + 24;

/** Segment register numbers, as instructions encode them; LDTR and TR follow. */
export const ES = 0;
/** Code segment. */
export const CS = 1;
/** Stack segment. */
export const SS = 2;
/** Data segment. */
export const DS = 3;
/** FS. */
export const FS = 4;
/** GS. */
export const GS = 5;
/** Local descriptor table register, in the order of the state. */
export const LDTR = 6;
/** Task register, in the order of the state. */
export const TR = 7;

/** Register numbers in encoding order. */
export const RAX = 0;
/** RCX. */
export const RCX = 1;
/** RDX. */
export const RDX = 2;
/** RBX. */
export const RBX = 3;
/** RSP. */
export const RSP = 4;
/** RBP. */
export const RBP = 5;
/** RSI. */
export const RSI = 6;
/** RDI. */
export const RDI = 7;

/** RFLAGS: carry. */
export const FLAG_CF = 0x1;
/** RFLAGS: parity. */
export const FLAG_PF = 0x4;
/** RFLAGS: auxiliary carry. */
export const FLAG_AF = 0x10;
/** RFLAGS: zero. */
export const FLAG_ZF = 0x40;
/** RFLAGS: sign. */
export const FLAG_SF = 0x80;
/** RFLAGS: trap. */
export const FLAG_TF = 0x100;
/** RFLAGS: interrupt enable. */
export const FLAG_IF = 0x200;
/** RFLAGS: direction. */
export const FLAG_DF = 0x400;
/** RFLAGS: overflow. */
export const FLAG_OF = 0x800;
/** RFLAGS: I/O privilege level, two bits. */
export const FLAG_IOPL = 0x3000;
/** RFLAGS: nested task. */
export const FLAG_NT = 0x4000;
/** RFLAGS: resume. */
export const FLAG_RF = 0x10000;
/** RFLAGS: virtual-8086 mode. */
export const FLAG_VM = 0x20000;
/** RFLAGS: alignment check. */
export const FLAG_AC = 0x40000;
/** RFLAGS: virtual interrupt flag. */
export const FLAG_VIF = 0x80000;
/** RFLAGS: virtual interrupt pending. */
export const FLAG_VIP = 0x100000;
/** RFLAGS: CPUID can be executed. */
export const FLAG_ID = 0x200000;
/** The six arithmetic flags. */
export const FLAGS_ARITHMETIC: number = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF;
/** Every flag that RFLAGS has; the others read as zero, but for bit 1. */
export const FLAGS_DEFINED = 0x3f7fd5;
/** RFLAGS bit 1, which always reads as one. */
export const FLAG_ONE = 0x2;

/** CR0: protection enable. */
export const CR0_PE = 0x1;
/** CR0: monitor coprocessor. */
export const CR0_MP = 0x2;
/** CR0: emulation, no x87. */
export const CR0_EM = 0x4;
/** CR0: task switched. */
export const CR0_TS = 0x8;
/** CR0: extension type, always one. */
export const CR0_ET = 0x10;
/** CR0: numeric error. */
export const CR0_NE = 0x20;
/** CR0: write protect. */
export const CR0_WP = 0x10000;
/** CR0: alignment mask. */
export const CR0_AM = 0x40000;
/** CR0: not write-through. */
export const CR0_NW = 0x20000000;
/** CR0: cache disable. */
export const CR0_CD = 0x40000000;
/** CR0: paging, as an int32. */
export const CR0_PG: number = 0x80000000 | 0;
/** EFER: SYSCALL enable. */
export const EFER_SCE = 0x1;
/** EFER: long mode enable. */
export const EFER_LME = 0x100;
/** EFER: long mode active. */
export const EFER_LMA = 0x400;
/** EFER: no-execute enable. */
export const EFER_NXE = 0x800;

/** Attributes of a segment: accessed (type bit 0). */
export const SEG_ACCESSED = 0x1;
/** Attributes: writable data or readable code (type bit 1). */
export const SEG_WRITABLE = 0x2;
/** Attributes: expand-down data or conforming code (type bit 2). */
export const SEG_EXPAND_DOWN = 0x4;
/** Attributes: code (type bit 3). */
export const SEG_CODE = 0x8;
/** Attributes: code or data, not a system segment. */
export const SEG_S = 0x10;
/** Attributes: present; clear for a null or unusable segment. */
export const SEG_PRESENT = 0x80;
/** Attributes: 64-bit code. */
export const SEG_LONG = 0x2000;
/** Attributes: default operand size or big stack. */
export const SEG_BIG = 0x4000;
/** Attributes: granularity. */
export const SEG_GRANULARITY = 0x8000;

/** interrupt_shadow: after STI that set IF. */
export const SHADOW_STI = 1;
/** interrupt_shadow: after a load of SS. */
export const SHADOW_MOV_SS = 2;

/** activity: executes instructions. */
export const ACTIVITY_RUNNING = 0;
/** activity: HLT, until an interrupt. */
export const ACTIVITY_HALTED = 1;
/** activity: triple fault. */
export const ACTIVITY_SHUTDOWN = 2;
/** activity: after INIT, until SIPI. */
export const ACTIVITY_WAIT_FOR_SIPI = 3;

/** event: valid. */
export const EVENT_VALID: number = 0x80000000 | 0;
/** event: an error code is pushed. */
export const EVENT_HAS_ERROR = 0x800;
/** event: shift of the type (EVENT_TYPE_*), bits 10:8. */
export const EVENT_TYPE_SHIFT = 8;
/** event type: external interrupt. */
export const EVENT_TYPE_INTERRUPT = 0;
/** event type: NMI. */
export const EVENT_TYPE_NMI = 2;
/** event type: exception. */
export const EVENT_TYPE_EXCEPTION = 3;
/** event type: INT n. */
export const EVENT_TYPE_SOFTWARE = 4;

/** attention: ask the bus for an interrupt when one can be taken. */
export const ATTENTION_INTERRUPT = 1;
/** attention: return from `run` with EXIT_NONE. */
export const ATTENTION_STOP = 2;
/** attention: drop the address translations; the processor clears the bit. */
export const ATTENTION_FLUSH = 4;

/** exit_flags: IN or INS. */
export const EXIT_IN = 1;
/** exit_flags: INS or OUTS. */
export const EXIT_STRING = 2;
/** exit_flags: with a repeat prefix. */
export const EXIT_REP = 4;

/** Exit reason: the budget was used up or attention was asked for. */
export const EXIT_NONE = 0;
/** Exit reason: port access. */
export const EXIT_IO = 1;
/** Exit reason: access to memory that the bus does not map. */
export const EXIT_MMIO = 2;
/** Exit reason: CPUID. */
export const EXIT_CPUID = 3;
/** Exit reason: RDMSR or WRMSR. */
export const EXIT_MSR = 4;
/** Exit reason: HLT. */
export const EXIT_HLT = 5;
/** Exit reason: VMCALL, VMMCALL or VMGEXIT. */
export const EXIT_HYPERCALL = 6;
/** Exit reason: an exception that the bus intercepts. */
export const EXIT_EXCEPTION = 7;
/** Exit reason: triple fault. */
export const EXIT_SHUTDOWN = 8;
/** Exit reason: RDTSC or RDTSCP. */
export const EXIT_RDTSC = 10;
/** First exit reason that a bus may use for its own purposes. */
export const EXIT_BUS = 32;

/** stop: the running block's own bytes were written. */
export const STOP_SMC = 1;
/** stop: leave `run` with the reason in the exit record; RIP stays at the instruction. */
export const STOP_EXIT = 2;
/** stop: leave `run` after this instruction has completed. */
export const STOP_AFTER = 4;

export { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE } from "./bus.ts";

/**
 * Numbers of the sidecar kernel, its memory layout and its driver (openvmm `openhcl/sidecar`,
 * `openhcl/sidecar_defs`).
 *
 * @module
 */

import { openEnum } from "../../open_enum.ts";

/** Limits and sizes. (openvmm: openhcl/sidecar_defs) */
export const SIDECAR = {
  /** Nodes at most. */
  MAX_NODES: 0x000080,
  /** Processors that PerCpuState covers. */
  NUM_CPUS_SUPPORTED_FOR_PER_CPU_STATE: 0x000190,
  /** Bytes of a page. */
  PAGE_SIZE: 0x001000,
  /** Private pages of a processor. */
  PER_VP_PAGES: 0x00000b,
  /** Shared pages of a processor: command page and register page. */
  PER_VP_SHMEM_PAGES: 0x000002,
  /** Pages of a processor's stack. */
  STACK_PAGES: 0x000003,
  /** Registers in one command at most. */
  MAX_GET_SET_VP_REGISTERS: 0x00001f,
  /** Bytes of request_data in the command page. */
  REQUEST_DATA_SIZE: 0x000400,
  /** Bytes of a node with one processor: 4096 * (1 + 13 * vp_count). */
  required_memory_1_vp: 0x00e000,
  /** Bytes of a node with 32 processors. */
  required_memory_32_vps: 0x1a1000,
  /** Processors in a node at most. */
  MAX_SIDECAR_NODE_SIZE: 0x000020,
  /** Vector of the request interrupt. */
  IRQ_VECTOR: 0x000020,
  /** What a processor writes to SVR when it starts. */
  SVR_ENABLED: 0x0001ff,
  /** What a processor writes to SVR when it is removed. */
  SVR_DISABLED: 0x0000ff,
} as const;

/**
 * Slots in a processor's last-level page table; slot i maps PER_VP_WINDOW + i * 4096. (openvmm:
 * openhcl/sidecar/src/arch/x86_64/mod.rs addr_space)
 */
export const SIDECAR_PT_INDEX = {
  SELF: 0x0000,
  HYPERCALL_INPUT: 0x0001,
  HYPERCALL_OUTPUT: 0x0002,
  COMMAND_PAGE: 0x0003,
  GLOBALS: 0x0004,
  ASSIST_PAGE: 0x0005,
  CONTROL_PAGE: 0x0006,
  REGISTER_PAGE: 0x0007,
  TEMPORARY_MAP: 0x0100,
  STACK: 0x01fd,
  STACK_END: 0x0200,
} as const;

/**
 * Order of a processor's private pages by physical address. (openvmm:
 * openhcl/sidecar/src/arch/x86_64/{init.rs,mod.rs})
 */
export const SIDECAR_PRIVATE_PAGE = {
  PML4: 0x0,
  PDPT: 0x1,
  PD: 0x2,
  PT: 0x3,
  STACK_0_LOWEST_VA: 0x4,
  STACK_1: 0x5,
  STACK_2: 0x6,
  GLOBALS: 0x7,
  ASSIST_PAGE: 0x8,
  HYPERCALL_INPUT: 0x9,
  HYPERCALL_OUTPUT: 0xa,
} as const;

/** Virtual addresses of the sidecar kernel. (openvmm: openhcl/sidecar/src/arch/x86_64/{entry.S,mod.rs}) */
export const SIDECAR_VA = {
  /** Where the image is mapped. */
  IMAGE_BASE: 0xffffff8000000000n,
  /** Top-level slot of all of it. */
  PML4_INDEX: 0x1ff,
  /** Where a processor's own pages are mapped. */
  PER_VP_WINDOW: 0xffffff8000200000n,
  /** End of the stack; a processor starts with RSP 8 below. */
  STACK_TOP: 0xffffff8000400000n,
  /** Command page. */
  COMMAND_PAGE: 0xffffff8000203000n,
  /** CommandPage.cpu_context, which FS addresses. */
  CPU_CONTEXT_FS_BASE: 0xffffff8000203010n,
  /** VP assist page. */
  ASSIST_PAGE: 0xffffff8000205000n,
  /** Control page. */
  CONTROL_PAGE: 0xffffff8000206000n,
  /** Register page. */
  REGISTER_PAGE: 0xffffff8000207000n,
} as const;

/** Registers with which VTL2 of a sidecar processor starts. (openvmm: openhcl/sidecar/src/arch/x86_64/init.rs) */
export const SIDECAR_AP_INITIAL_CONTEXT = {
  cs_selector: 0x10,
  cs_limit: 0xffffffff,
  cs_attributes: 0xa09b,
  data_selector: 0x18,
  data_limit: 0xffffffff,
  data_attributes: 0xc093,
  tr_selector: 0x0,
  tr_limit: 0xffff,
  tr_attributes: 0x8b,
  gdt_limit: 0x1f,
  idt_limit: 0x20f,
  rflags: 0x2,
  efer: 0xd00,
  cr0: 0x80000021,
  cr4: 0x260,
  pat: 0x7040600070406,
} as const;

/**
 * State of a sidecar processor in Linux's driver; private to it. ASYNC_STARTING is not in its first version, and the
 * number is ours. (microsoft/OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c)
 */
export const SidecarDriverVpState = openEnum("SidecarDriverVpState", {
  AVAILABLE: 0x00,
  SYNC: 0x01,
  ASYNC: 0x02,
  ASYNC_STOPPING: 0x03,
  ASYNC_STOPPED: 0x04,
  REMOVED: 0xff,
  ASYNC_STARTING: 0x05,
});

/** Requests of the sidecar device. (openvmm: openhcl/sidecar_client ioctl) */
export const SIDECAR_IOCTL = {
  /** Argument: number of the processor. */
  START: 0x0000b8f0,
  /** Argument: number of the processor. */
  STOP: 0x0000b8f1,
  /** Argument: number of the processor. */
  RUN: 0x0000b8f2,
  /** Returns a SidecarInfo. */
  INFO: 0x800cb8f3,
} as const;

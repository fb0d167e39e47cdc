/**
 * Pages that the sidecar kernel shares with the boot shim, with Linux's sidecar driver and with the VMM's client
 * (openvmm `openhcl/sidecar_defs`, `openhcl/sidecar_client`).
 *
 * A node is a group of processors that share one control page. Each of its processors has a command page and a
 * register page; while `cpu_status` is IDLE the VMM owns the command page, otherwise the sidecar kernel does.
 *
 * @module
 */

import { array, bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { openEnum } from "../open_enum.ts";
import { reserved, structure } from "../structure.ts";
import { Fxsave } from "../x64/fxsave.ts";
import { CONTEXT_GPR_NAMES } from "../x64/names.ts";
import { HvStatus } from "./constants/hypercalls.ts";
import { HvInputVtl, TranslateGvaControlFlagsX64, TranslateVirtualAddressExOutputX64 } from "./hypercalls.ts";
import { HvMessage } from "./messages.ts";
import { HvX64RegisterPage } from "./register_page.ts";

/** Command that the VMM leaves in the command page. */
export const SidecarCommand = openEnum("SidecarCommand", {
  NONE: 0,
  RUN_VP: 1,
  GET_VP_REGISTERS: 2,
  SET_VP_REGISTERS: 3,
  TRANSLATE_GVA: 4,
});

/** Value of a byte of `cpu_status`: who owns a sidecar processor and what it is asked to do. */
export const CpuStatus = openEnum("CpuStatus", {
  REMOVED: 0,
  IDLE: 1,
  RUN: 2,
  STOP: 3,
  REMOVE: 4,
});

/** Which processors the sidecar starts, where the boot shim overrides the rule. */
export const PerCpuState = structure("PerCpuState", 0x191, [
  ["per_cpu_state_specified", 0x000, u8, "Not 0 when the table below counts"],
  ["sidecar_starts_cpu", 0x001, bytes(400), "One byte for each VP index: not 0 when the sidecar starts it"],
], "openvmm: openhcl/sidecar_defs PerCpuState");

/** One node as the boot shim hands it to the sidecar kernel. */
export const SidecarNodeParams = structure("SidecarNodeParams", 0x18, [
  ["memory_base", 0x00, u64, "Physical address of the node's memory"],
  ["memory_size", 0x08, u64, "Bytes of it"],
  ["base_vp", 0x10, u32, "Index of the node's first virtual processor, which Linux starts"],
  ["vp_count", 0x14, u32, "Virtual processors in the node, the first included"],
], "openvmm: openhcl/sidecar_defs SidecarNodeParams");

/** What the boot shim tells the sidecar kernel. */
export const SidecarParams = structure("SidecarParams", 0x1000, [
  ["hypercall_page", 0x000, u64, "Physical address of the hypercall page"],
  ["enable_logging", 0x008, u8, "Not 0 to log"],
  reserved(0x009, 3),
  ["node_count", 0x00c, u32, "Nodes that follow"],
  ["nodes", 0x010, array(SidecarNodeParams, 128), "The nodes"],
  ["initial_state", 0xc10, PerCpuState, "Overrides for single processors"],
  reserved(0xda1, 607),
], "openvmm: openhcl/sidecar_defs SidecarParams");

/** Text of a failed command. */
export const CommandError = structure("CommandError", 0x100, [
  ["len", 0x00, u8, "Bytes of text"],
  ["buf", 0x01, bytes(255), "The text, UTF-8, cut without notice"],
], "openvmm: openhcl/sidecar_defs CommandError");

/** Where a node's shared pages lie, as the sidecar kernel reports. */
export const SidecarNodeOutput = structure("SidecarNodeOutput", 0x18, [
  ["control_page", 0x00, u64, "Physical address of the control page"],
  ["shmem_pages_base", 0x08, u64, "Physical address of the first processor's pair of command and register page"],
  ["shmem_pages_size", 0x10, u64, "Bytes of all pairs"],
], "openvmm: openhcl/sidecar_defs SidecarNodeOutput");

/** What the sidecar kernel reports to the boot shim. */
export const SidecarOutput = structure("SidecarOutput", 0xd00, [
  ["error", 0x000, CommandError, "Why the start failed; empty when it did not"],
  ["nodes", 0x100, array(SidecarNodeOutput, 128), "The nodes"],
], "openvmm: openhcl/sidecar_defs SidecarOutput");

/** Control page of a node. */
export const ControlPage = structure("ControlPage", 0x1000, [
  ["index", 0x000, u32, "Number of the node, in the order of creation"],
  ["base_cpu", 0x004, u32, "Index of the node's first virtual processor"],
  ["cpu_count", 0x008, u32, "Virtual processors in the node, the first included"],
  ["request_vector", 0x00c, u32, "Interrupt vector that wakes a sidecar processor"],
  ["response_cpu", 0x010, u32, "APIC id that takes the sidecar's interrupts"],
  ["response_vector", 0x014, u32, "Vector of those interrupts; 0 for none"],
  ["needs_attention", 0x018, u32, "Set to 1 by a sidecar processor that has finished something"],
  reserved(0x01c, 36),
  ["cpu_status", 0x040, array(CpuStatus.u8, 4032), "One byte for each processor of the node"],
], "openvmm: openhcl/sidecar_defs ControlPage");

/** Registers that the sidecar loads before and stores after running VTL0. */
export const CpuContextX64 = structure("CpuContextX64", 0x400, [
  [
    "gps",
    0x000,
    array(u64, 16, CONTEXT_GPR_NAMES),
    "General-purpose registers; slot 4 is CR2, because RSP is private to each VTL",
  ],
  ["fx_state", 0x080, Fxsave, "x87, MXCSR and XMM registers"],
  reserved(0x280, 384),
], "openvmm: openhcl/sidecar_defs CpuContextX64");

/** Command page of a sidecar processor. */
export const CommandPage = structure("CommandPage", 0x1000, [
  ["command", 0x000, SidecarCommand.u32, "What to do at the next RUN"],
  ["has_error", 0x004, u8, "Not 0 when the last command failed"],
  reserved(0x005, 11),
  ["cpu_context", 0x010, CpuContextX64, "Shared registers of VTL0"],
  [
    "intercept_message",
    0x410,
    HvMessage,
    "Message of the last intercept; older bytes stay after an entry by interrupt",
  ],
  ["error", 0x510, CommandError, "Why the last command failed"],
  ["request_data", 0x610, bytes(1024), "Input of a command, then its result"],
  reserved(0xa10, 1520),
], "openvmm: openhcl/sidecar_defs CommandPage");

/** Head of request_data for GET_VP_REGISTERS and SET_VP_REGISTERS; `count` HvRegisterAssoc records follow it. */
export const GetSetVpRegisterRequest = structure("GetSetVpRegisterRequest", 0x10, [
  ["count", 0x00, u16, "Records that follow; at most 31"],
  ["target_vtl", 0x02, HvInputVtl, "VTL whose registers are meant"],
  reserved(0x03, 1),
  ["status", 0x04, HvStatus.u16, "Hypercall status of the first record that failed, or 0"],
  reserved(0x06, 10),
], "openvmm: openhcl/sidecar_defs GetSetVpRegisterRequest");

/** request_data of TRANSLATE_GVA. */
export const TranslateGvaRequest = structure("TranslateGvaRequest", 0x10, [
  ["gvn", 0x00, u64, "Guest-virtual page number"],
  ["control_flags", 0x08, TranslateGvaControlFlagsX64, "How to translate"],
], "openvmm: openhcl/sidecar_defs TranslateGvaRequest");

/** request_data after TRANSLATE_GVA. */
export const TranslateGvaResponse = structure("TranslateGvaResponse", 0x50, [
  ["status", 0x00, HvStatus.u16, "Hypercall status"],
  reserved(0x02, 14),
  ["output", 0x10, TranslateVirtualAddressExOutputX64, "Result of the translation; zero when the call failed"],
], "openvmm: openhcl/sidecar_defs TranslateGvaResponse");

/** request_data after RUN_VP. */
export const RunVpResponse = structure("RunVpResponse", 0x01, [
  ["intercept", 0x00, u8, "1 when an intercept ended the run, 0 when a stop did"],
], "openvmm: openhcl/sidecar_defs RunVpResponse");

/** A processor's pair of shared pages, as the VMM maps them. */
export const VpSharedPages = structure("VpSharedPages", 0x2000, [
  ["command_page", 0x0000, CommandPage, "Command page"],
  ["register_page", 0x1000, HvX64RegisterPage, "Register page"],
], "openvmm: openhcl/sidecar_client");

/** A processor's pair of shared pages; slot i of a node lies at `shmem_pages_base` + i * 8192. */
export const SidecarVpSharedMemory = structure("SidecarVpSharedMemory", 0x2000, [
  ["command_page", 0x0000, CommandPage, "Command page"],
  ["register_page", 0x1000, HvX64RegisterPage, "Register page"],
], "openvmm: openhcl/sidecar_client VpSharedPages, openhcl/sidecar_defs PER_VP_SHMEM_PAGES");

/** What Linux's sidecar driver says about a node. */
export const SidecarInfo = structure("SidecarInfo", 0x0c, [
  ["base_cpu", 0x00, u32, "Number of the node's first processor"],
  ["cpu_count", 0x04, u32, "Processors in the node"],
  ["per_cpu_shmem", 0x08, u32, "Bytes of shared memory for each"],
], "openvmm: openhcl/sidecar_client");

/**
 * A processor of the `kernel` platform as OpenHCL has set it up before its VMM runs the VP for the first time
 * (openhcl.md b and e, "Setup").
 *
 * @module
 */
import { CpuState, FX } from "../cpu/state.ts";
import { assistPageEnabled, messagePlaceChanged } from "../hypervisor/intercept_message.ts";
import { type Partition, PartitionState } from "../hypervisor/partition.ts";
import { INTERCEPT_SINT } from "../hypervisor/virtual_processor.ts";
import { INTERCEPT_PAGE, REGISTER_PAGE } from "../hypervisor/vtl_entry.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvRegisterVsmPartitionConfig } from "../layout/hyperv/registers.ts";
import { HvSynicScontrol, HvSynicSint } from "../layout/hyperv/synic.ts";
import { KERNEL_PAGES, kernelPage, MESSAGE_PAGE } from "./kernel_pages.ts";
import type { KernelVp } from "./kernel_vp.ts";

const at = HypervisorVpState.at;
const cpu = CpuState.at;
const GPRS = 16;
/** Slot 4 of the context's registers is CR2. */
const CR2_SLOT = 4;
const FX_WORDS = 64;
/** Bit 0 of an overlay register: enabled. */
const ENABLE = 1;
/** Vector of the hypervisor's interrupts in VTL2 (Linux, HYPERVISOR_CALLBACK_VECTOR). */
const HYPERVISOR_CALLBACK_VECTOR = 0xf3;

/** Whether intercept messages can come in the assist page, as OpenHCL's kernel learns it from VsmCapabilities. */
function interceptPageAvailable(partition: Partition): boolean {
  return partition.policy(INTERCEPT_PAGE) === INTERCEPT_PAGE.is.available;
}

/**
 * Enables VTL2 of a processor with its assist page and its register page, or the message page when there is no other way
 * for intercepts: the kernel maps a register page only where it has an intercept page. `kernelPages` is where the
 * kernel's pages begin.
 */
export function startKernelVp(vp: KernelVp, kernelPages: number): void {
  const { u8, u32 } = vp.memory;
  u8[vp.state + at.vtl2_enabled] = 1;
  u8[vp.state + at.vtl2_runnable] = 1;
  const assist = kernelPage(kernelPages, vp.index, KERNEL_PAGES.ASSIST);
  u32[(vp.state + at.assist_page) >>> 2] = assist | ENABLE;
  assistPageEnabled(vp.memory, vp.state, assist);
  if (!interceptPageAvailable(vp.partition)) {
    enableMessages(vp, kernelPage(kernelPages, vp.index, MESSAGE_PAGE));
  } else if (vp.partition.policy(REGISTER_PAGE) !== REGISTER_PAGE.is.unmapped) {
    u32[(vp.state + at.register_page) >>> 2] = kernelPage(kernelPages, vp.index, KERNEL_PAGES.REGISTER) | ENABLE;
  }
  loadContext(vp);
}

/** Enables VTL2's SynIC with its message page, and the SINT of intercepts. */
function enableMessages(vp: KernelVp, page: number): void {
  const synic = vp.vtl2Synic;
  synic.simp = BigInt(page) | BigInt(ENABLE);
  synic.setSint(INTERCEPT_SINT, HvSynicSint.make({ vector: HYPERVISOR_CALLBACK_VECTOR, auto_eoi: true }));
  synic.scontrol = HvSynicScontrol.make({ enabled: true });
  messagePlaceChanged(vp.memory, vp.state, synic.slot(INTERCEPT_SINT));
}

/** Asks for the intercepts that OpenHCL installs and configures VSM as it does (openhcl.md e, "Setup"). */
export function startKernelPartition(partition: Partition): void {
  const { u8, u64 } = partition.memory;
  u8[partition.state + PartitionState.at.apic_eoi_intercept] = 1;
  u8[partition.state + PartitionState.at.synic_intercept] = 1;
  u8[partition.state + PartitionState.at.retarget_intercept] = 1;
  u64[(partition.state + PartitionState.at.vsm_partition_config) >>> 3] = HvRegisterVsmPartitionConfig.make({
    default_vtl_protection_mask: 0xf,
    enable_vtl_protection: true,
    zero_memory_on_reset: true,
    intercept_cpuid_unimplemented: true,
    intercept_page: interceptPageAvailable(partition),
    intercept_unrecoverable_exception: true,
    intercept_not_present: true,
    intercept_system_reset: true,
  });
}

/** Takes the VP's shared registers from the processor into the run page: what the VMM's first entry loads back. */
export function loadContext(vp: KernelVp): void {
  const { u64 } = vp.memory;
  const context = (vp.runPage + hcl_run.at["context.gps_no_rsp"]) >>> 3;
  for (let k = 0; k < GPRS; k++) if (k !== CR2_SLOT) u64[context + k] = u64[((vp.cpuState + cpu.gpr) >>> 3) + k];
  u64[context + CR2_SLOT] = u64[(vp.cpuState + cpu.cr2) >>> 3];
  const fx = (vp.runPage + hcl_run.at["context.fx_state"]) >>> 3;
  for (let k = 0; k < FX_WORDS; k++) u64[fx + k] = u64[((vp.cpuState + FX) >>> 3) + k];
  vp.setState(at.fx_saved, 1);
}

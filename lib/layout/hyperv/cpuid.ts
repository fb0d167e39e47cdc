/**
 * What the hypervisor's CPUID leaves say (Hyper-V TLFS, "Feature discovery"; openvmm `vm/hv1/hvdef`).
 *
 * A 128-bit value holds EAX in bits 31:0, then EBX, ECX and EDX.
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u128, u32, u64 } from "../field_type.ts";
import { HvPartitionIsolationType } from "./constants/hypercalls.ts";

/** What a partition may do, EAX and EBX of leaf 40000003. */
export const HvPartitionPrivilege = bits("HvPartitionPrivilege", u64, [
  [0, 1, "access_vp_runtime_msr", "MSR 40000010"],
  [1, 1, "access_partition_reference_counter", "MSR 40000020"],
  [2, 1, "access_synic_msrs", "MSRs of the synthetic interrupt controller"],
  [3, 1, "access_synthetic_timer_msrs", "MSRs of the synthetic timers"],
  [4, 1, "access_apic_msrs", "MSRs 40000070 to 40000072"],
  [5, 1, "access_hypercall_msrs", "MSRs 40000000 and 40000001"],
  [6, 1, "access_vp_index", "MSR 40000002"],
  [7, 1, "access_reset_msr", "MSR 40000003"],
  [8, 1, "access_stats_msr", "Statistics pages"],
  [9, 1, "access_partition_reference_tsc", "MSR 40000021"],
  [10, 1, "access_guest_idle_msr", "MSR 400000f0"],
  [11, 1, "access_frequency_msrs", "MSRs 40000022 and 40000023"],
  [12, 1, "access_debug_msrs", "Debug MSRs"],
  [13, 1, "access_reenlightenment_ctrls", "MSRs 40000106 to 40000108"],
  [14, 1, "access_root_scheduler_msr", "MSRs of the root scheduler"],
  [15, 1, "access_tsc_invariant_controls", "MSR 40000118"],
  [32, 1, "create_partitions", "Create partitions"],
  [33, 1, "access_partition_id", "Ask for its own partition id"],
  [34, 1, "access_memory_pool", "Deposit and withdraw memory"],
  [35, 1, "adjust_message_buffers", "Adjust message buffers"],
  [36, 1, "post_messages", "HvCallPostMessage"],
  [37, 1, "signal_events", "HvCallSignalEvent"],
  [38, 1, "create_port", "Create ports"],
  [39, 1, "connect_port", "Connect to ports"],
  [40, 1, "access_stats", "Map statistics"],
  [43, 1, "debugging", "Debug other partitions"],
  [44, 1, "cpu_management", "Manage processors"],
  [45, 1, "configure_profiler", "Configure the profiler"],
  [46, 1, "access_vp_exit_tracing", "Trace exits"],
  [47, 1, "enable_extended_gva_ranges_flush_va_list", "Extended ranges in address-list flushes"],
  [48, 1, "access_vsm", "Virtual secure mode"],
  [49, 1, "access_vp_registers", "HvCallGetVpRegisters and HvCallSetVpRegisters"],
  [51, 1, "fast_hypercall_output", "Output of fast hypercalls in XMM registers"],
  [52, 1, "enable_extended_hypercalls", "Extended hypercalls"],
  [53, 1, "start_virtual_processor", "HvCallStartVirtualProcessor"],
  [54, 1, "isolation", "The partition is isolated"],
], "openvmm: vm/hv1/hvdef HvPartitionPrivilege");

/** Leaf 40000003. */
export const HvFeatures = bits("HvFeatures", u128, [
  [0, 64, "privileges", "HvPartitionPrivilege"],
  [64, 4, "max_supported_cstate", "Deepest C-state"],
  [68, 1, "hpet_needed_for_c3_power_state_deprecated", "No longer used"],
  [69, 1, "invariant_mperf_available", "MPERF counts at a constant rate"],
  [70, 1, "supervisor_shadow_stack_available", "Supervisor shadow stacks"],
  [71, 1, "arch_pmu_available", "Architectural performance counters"],
  [72, 1, "exception_trap_intercept_available", "Trap-like exception intercepts"],
  [96, 1, "mwait_available_deprecated", "No longer used"],
  [97, 1, "guest_debugging_available", "Guest debugging"],
  [98, 1, "performance_monitors_available", "Performance monitors"],
  [99, 1, "cpu_dynamic_partitioning_available", "Processors can be added"],
  [100, 1, "xmm_registers_for_fast_hypercall_available", "Fast hypercalls may use XMM registers"],
  [101, 1, "guest_idle_available", "MSR 400000f0"],
  [102, 1, "hypervisor_sleep_state_support_available", "Sleep states"],
  [103, 1, "numa_distance_query_available", "NUMA distances"],
  [104, 1, "frequency_regs_available", "MSRs 40000022 and 40000023"],
  [105, 1, "synthetic_machine_check_available", "Synthetic machine checks"],
  [106, 1, "guest_crash_regs_available", "MSRs 40000100 to 40000105"],
  [107, 1, "debug_regs_available", "Debug MSRs"],
  [108, 1, "npiep1_available", "Prevention of descriptor-table stores at CPL 3"],
  [109, 1, "disable_hypervisor_available", "The hypervisor can be disabled"],
  [110, 1, "extended_gva_ranges_for_flush_virtual_address_list_available", "Extended ranges in address-list flushes"],
  [111, 1, "fast_hypercall_output_available", "Output of fast hypercalls in XMM registers"],
  [112, 1, "svm_features_available", "Shared virtual memory"],
  [113, 1, "sint_polling_mode_available", "Polling of synthetic interrupt sources"],
  [114, 1, "hypercall_msr_lock_available", "The lock bit of MSR 40000001"],
  [115, 1, "direct_synthetic_timers", "Direct mode of synthetic timers"],
  [116, 1, "register_pat_available", "PAT as a virtual-processor register"],
  [117, 1, "register_bndcfgs_available", "BNDCFGS as a virtual-processor register"],
  [118, 1, "watchdog_timer_available", "Watchdog timer"],
  [119, 1, "synthetic_time_unhalted_timer_available", "Time-unhalted timer"],
  [120, 1, "device_domains_available", "Device domains"],
  [121, 1, "s1_device_domains_available", "Stage-1 device domains"],
  [122, 1, "lbr_available", "Last-branch records"],
  [123, 1, "ipt_available", "Processor trace"],
  [124, 1, "cross_vtl_flush_available", "TLB flushes across VTLs"],
  [125, 1, "idle_spec_ctrl_available", "Speculation control at idle"],
  [126, 1, "translate_gva_flags_available", "Further flags of HvCallTranslateVirtualAddress"],
  [127, 1, "apic_eoi_intercept_available", "HvInterceptTypeX64ApicEoi"],
], "openvmm: vm/hv1/hvdef HvFeatures");

/** Leaf 40000004: what the guest is advised to do. */
export const HvEnlightenmentInformation = bits("HvEnlightenmentInformation", u128, [
  [0, 1, "use_hypercall_for_address_space_switch", "Switch address spaces by hypercall"],
  [1, 1, "use_hypercall_for_local_flush", "Flush the local TLB by hypercall"],
  [
    2,
    1,
    "use_hypercall_for_remote_flush_and_local_flush_entire",
    "Flush remote TLBs, and the whole local one, by hypercall",
  ],
  [3, 1, "use_apic_msrs", "Use MSRs for EOI, ICR and TPR"],
  [4, 1, "use_hv_register_for_reset", "Reset by MSR 40000003"],
  [5, 1, "use_relaxed_timing", "Timeouts should be relaxed"],
  [6, 1, "use_dma_remapping_deprecated", "No longer used"],
  [7, 1, "use_interrupt_remapping_deprecated", "No longer used"],
  [8, 1, "use_x2_apic_msrs", "Use x2APIC MSRs"],
  [9, 1, "deprecate_auto_eoi", "Do not use automatic EOI"],
  [10, 1, "use_synthetic_cluster_ipi", "Send IPIs by HvCallSendSyntheticClusterIpi"],
  [11, 1, "use_ex_processor_masks", "Use sparse processor sets"],
  [12, 1, "nested", "The hypervisor is itself a guest"],
  [13, 1, "use_int_for_mbec_system_calls", "Use INT for system calls under mode-based execute control"],
  [14, 1, "use_vmcs_enlightenments", "Use the enlightened VMCS"],
  [15, 1, "use_synced_timeline", "Time lines are synchronised"],
  [16, 1, "core_scheduler_requested", "The core scheduler is wanted"],
  [17, 1, "use_direct_local_flush_entire", "Flush the whole local TLB directly"],
  [18, 1, "no_non_architectural_core_sharing", "Virtual processors share a core only when the topology says so"],
  [19, 1, "use_x2_apic", "Use x2APIC"],
  [20, 1, "restore_time_on_resume", "Restore time on resume"],
  [21, 1, "use_hypercall_for_mmio_access", "Access device memory by hypercall"],
  [22, 1, "use_gpa_pinning_hypercall", "Pin pages by hypercall"],
  [23, 1, "wake_vps", "Virtual processors must be woken"],
  [32, 32, "long_spin_wait_count", "Spins before HvCallNotifyLongSpinWait; all ones for never"],
  [64, 7, "implemented_physical_address_bits", "Physical address bits"],
], "openvmm: vm/hv1/hvdef HvEnlightenmentInformation");

/** Leaf 40000006: hardware features that the hypervisor uses. */
export const HvHardwareFeatures = bits("HvHardwareFeatures", u128, [
  [0, 1, "apic_overlay_assist_in_use", "APIC overlay assist"],
  [1, 1, "msr_bitmaps_in_use", "MSR bitmaps"],
  [2, 1, "architectural_performance_counters_in_use", "Architectural performance counters"],
  [3, 1, "second_level_address_translation_in_use", "Nested paging"],
  [4, 1, "dma_remapping_in_use", "DMA remapping"],
  [5, 1, "interrupt_remapping_in_use", "Interrupt remapping"],
  [6, 1, "memory_patrol_scrubber_present", "Memory patrol scrubber"],
  [7, 1, "dma_protection_in_use", "DMA protection"],
  [8, 1, "hpet_requested", "The HPET is wanted"],
  [9, 1, "synthetic_timers_volatile", "Synthetic timers are lost in sleep"],
  [10, 4, "hypervisor_level", "Nesting level"],
  [14, 1, "physical_destination_mode_required", "APIC destinations must be physical"],
  [15, 1, "use_vmfunc_for_alias_map_switch", "VMFUNC switches alias maps"],
  [16, 1, "hv_register_for_memory_zeroing_supported", "Memory zeroing register"],
  [17, 1, "unrestricted_guest_supported", "Real mode runs natively"],
  [18, 1, "rdt_afeatures_supported", "Resource allocation"],
  [19, 1, "rdt_mfeatures_supported", "Resource monitoring"],
  [20, 1, "child_perfmon_pmu_supported", "Children may use performance counters"],
  [21, 1, "child_perfmon_lbr_supported", "Children may use last-branch records"],
  [22, 1, "child_perfmon_ipt_supported", "Children may use processor trace"],
  [23, 1, "apic_emulation_supported", "Hardware APIC virtualisation"],
  [24, 1, "child_x2_apic_recommended", "Children should use x2APIC"],
  [25, 1, "hardware_watchdog_reserved", "The hardware watchdog is taken"],
  [26, 1, "device_access_tracking_supported", "Device accesses are tracked"],
  [27, 1, "hardware_gpa_access_tracking_supported", "Guest-physical accesses are tracked by hardware"],
  [32, 8, "device_domain_input_width", "Address bits of device domains"],
], "openvmm: vm/hv1/hvdef HvHardwareFeatures");

/** EAX of leaf 4000000a. */
export const HvNestedVirtFeaturesEax = bits("HvNestedVirtFeaturesEax", u32, [
  [0, 8, "enlightened_vmcs_version_low", "Lowest version of the enlightened VMCS"],
  [8, 8, "enlightened_vmcs_version_high", "Highest version of the enlightened VMCS"],
  [17, 1, "nested_flush_virtual_hypercall", "Direct virtual flush hypercalls"],
  [18, 1, "flush_guest_physical_hypercall", "Guest-physical flush hypercalls"],
  [19, 1, "msr_bitmap", "Enlightened MSR bitmap"],
  [20, 1, "virtualization_exception", "Virtualization exceptions in place of page faults"],
  [21, 1, "debug_ctl", "DEBUGCTL is supported"],
  [22, 1, "enlightened_npt_tlb", "Enlightened TLB with nested page tables"],
], "openvmm: vm/hv1/hvdef HvNestedVirtFeaturesEax");

/** Leaf 4000000c. */
export const HvIsolationConfiguration = bits("HvIsolationConfiguration", u128, [
  [0, 1, "paravisor_present", "A paravisor runs above the guest"],
  [32, 4, "isolation_type", "How the partition is isolated", HvPartitionIsolationType],
  [37, 1, "shared_gpa_boundary_active", "shared_gpa_boundary_bits counts"],
  [38, 6, "shared_gpa_boundary_bits", "Bit number above which addresses are shared (vTOM)"],
], "openvmm: vm/hv1/hvdef HvIsolationConfiguration");

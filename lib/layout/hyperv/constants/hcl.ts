/**
 * Numbers of OpenHCL's VTL device and run page (openvmm `openhcl/hcl`).
 *
 * @module
 */

/** Request numbers of the VTL device, under magic 0xb8. (openvmm: openhcl/hcl/src/ioctl.rs) */
export const HCL_IOCTL = {
  CHECK_EXTENSION: 0x00,
  GET_VP_REGISTERS: 0x05,
  SET_VP_REGISTERS: 0x06,
  RESTORE_PARTITION_TIME: 0x13,
  CREATE_VTL: 0x1d,
  HVCALL_SETUP: 0x1e,
  HVCALL: 0x1f,
  ADD_VTL0_MEMORY: 0x21,
  SET_POLL_FILE: 0x25,
  RETURN_TO_LOWER_VTL: 0x27,
  PVALIDATE: 0x28,
  RMPADJUST: 0x29,
  TDCALL: 0x32,
  READ_VMX_CR4_FIXED1: 0x33,
  GUEST_VSM_VMSA_PFN: 0x34,
  RMPQUERY: 0x35,
  INVLPGB: 0x36,
  TLBSYNC: 0x37,
  KICKCPUS: 0x38,
  MAP_REDIRECTED_DEVICE_INTERRUPT: 0x39,
  SECURE_AVIC_VTL0_PFN: 0x40,
} as const;

/** What CHECK_EXTENSION can be asked for. (openvmm: openhcl/hcl/src/ioctl.rs) */
export const HCL_CAP = {
  REGISTER_PAGE: 0x1,
  VTL_RETURN_ACTION: 0x2,
  DR6_SHARED: 0x3,
  LOWER_VTL_TIMER_VIRT: 0x4,
} as const;

/**
 * Page offset at which to map a processor's page of the VTL device: this value or'ed with the processor's number.
 * (openvmm: openhcl/hcl/src/protocol.rs)
 */
export const HCL_MMAP_PAGE = {
  RUN_PAGE: 0x000000,
  REGISTER_PAGE: 0x010000,
  VMSA_PAGE: 0x020000,
  APIC_PAGE: 0x030000,
  GUEST_VSM_VMSA_PAGE: 0x040000,
} as const;

/** Flags and values of the run page. (openvmm: openhcl/hcl/src/protocol.rs) */
export const HCL = {
  /** Bit of hcl_run.flags: do not enter the lower VTL, only wait. */
  RUN_FLAG_HALTED: 0x0001,
  /** Bytes of VTL return actions. */
  VTL_RETURN_ACTION_SIZE: 0x0100,
  /** Action: signal an event. */
  RETURN_ACTION_TYPE_SIGNAL_EVENT: 0x0001,
  /** Actions that fit. */
  RETURN_ACTION_SIGNAL_EVENT_SLOTS: 0x0010,
  /** EnterMode.FAST. */
  ENTER_MODE_FAST: 0x0000,
  /** EnterMode.PLAY_IDLE. */
  ENTER_MODE_PLAY_IDLE: 0x0001,
  /** EnterMode.IDLE_TO_VTL0. */
  ENTER_MODE_IDLE_TO_VTL0: 0x0002,
} as const;

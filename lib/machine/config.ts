/**
 * What a machine is made of, as plain data that a worker can be sent and a file can hold.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { sidecarTopology } from "../sidecar/memory.ts";

/** The platforms, with who handles an exit. */
export const PLATFORMS = {
  bare: "the host's VMM, in place; no VTL2 (the reference machine)",
  kernel: "OpenHCL's VMM in VTL2 on the same processor",
  sidecar: "OpenHCL's VMM on the base processor, through the VP's command page",
  "sev-es": "the guest's own #VC handler and GHCB, then the host's VMM",
  snp: "the guest's own #VC handler in VMPL0 memory that an RMP protects, then the host's VMM; or a paravisor",
} as const;

/** Who has VMPL0 of an SNP guest, `--paravisor`. */
export const PARAVISORS = {
  none: "the guest itself: it needs #VC handlers of its own",
  openhcl: "OpenHCL's VMM: any guest runs, at VMPL2, and Hyper-V's host runs what VMPL0 asks for",
} as const;

/** A platform's name. */
export type Platform = keyof typeof PLATFORMS;

/** Which devices answer ports and device memory. */
export type DeviceModel = "pc" | "recorded" | "caller";

/** A machine's configuration. */
export interface MachineConfig {
  /** Who handles exits. */
  readonly platform: Platform;
  /** Number of virtual processors, 1 to {@linkcode VPS_MAX}. */
  readonly vps: number;
  /** Guest RAM in bytes, a multiple of 4096, at most {@linkcode RAM_MAX}. */
  readonly ramBytes: number;
  /** Chosen policy values by policy name; the others have their defaults. */
  readonly policies: Readonly<Record<string, string>>;
  /** Devices behind ports and device memory. */
  readonly devices: DeviceModel;
  /** CPUID leaves that replace the machine's own: leaf, EAX, EBX, ECX, EDX; other leaves are then 0. */
  readonly cpuid?: readonly (readonly [leaf: number, eax: number, ebx: number, ecx: number, edx: number])[];
  /** Port whose OUT ends a machine with recorded devices. */
  readonly endPort?: number;
  /** Whether exits are recorded into the exit rings. */
  readonly recordExits: boolean;
  /** NUMA nodes over which the processors of the `sidecar` platform are spread; 1 when absent. */
  readonly sidecarNodes?: number;
  /**
   * The processors that the sidecar starts (the per-CPU overrides of its boot parameters); Linux starts the others, which
   * handle their exits themselves. All but the base processors when absent.
   */
  readonly sidecarVps?: readonly number[];
  /** The processor on which the guest starts; VP 0 when absent. */
  readonly bootVp?: number;
  /** Sends a Halt intercept to VTL2 instead of parking the VP. */
  readonly haltIntercept?: boolean;
  /** The host of an encrypted guest; `kvm` when absent. */
  readonly host?: "kvm" | "vmd";
  /** Who has VMPL0 of an SNP guest: the guest itself when absent, or OpenHCL with the guest at a lower VMPL. */
  readonly paravisor?: "openhcl";
  /** Adds a malicious host beside the honest one, with this seed. */
  readonly maliciousHost?: number;
  /** Whether the host of an encrypted guest has a worker of its own (when absent), or shares those of the processors. */
  readonly hostPlacement?: "worker" | "processor";
  /** Workers of the concurrent runtime, at most one for each processor and the host; see `seats.ts` for when it is absent. */
  readonly workers?: number;
}

/** Most virtual processors of a machine. */
export const VPS_MAX = 256;
/** Most guest RAM in bytes: the memory is one 32-bit WebAssembly memory that holds more than the guest's RAM. */
export const RAM_MAX = 3 * 1024 ** 3;
/** Least guest RAM in bytes: the first MiB, where real mode lives. */
export const RAM_MIN = 1024 ** 2;

/** Throws {@linkcode BadInput} unless the numbers of a configuration make sense. */
export function checkConfig(config: MachineConfig): void {
  const { vps, ramBytes } = config;
  if (!Number.isInteger(vps) || vps < 1 || vps > VPS_MAX) throw new BadInput(`${vps} VPs, expected 1 to ${VPS_MAX}`);
  if (!Number.isInteger(ramBytes) || ramBytes < RAM_MIN || ramBytes > RAM_MAX || ramBytes % PAGE_SIZE !== 0) {
    throw new BadInput(`${ramBytes} bytes of memory, expected a multiple of 4096 from 1M to 3G`);
  }
  checkSidecar(config);
}

/** Throws {@linkcode BadInput} unless the sidecar's topology makes sense. */
function checkSidecar({ platform, vps, sidecarNodes, sidecarVps }: MachineConfig): void {
  if (sidecarNodes === undefined && sidecarVps === undefined) return;
  if (platform !== "sidecar") throw new BadInput(`Platform "${platform}" has no sidecar nodes or VPs`);
  const most = Math.min(vps, SIDECAR.MAX_NODES);
  if (sidecarNodes !== undefined && !(Number.isInteger(sidecarNodes) && sidecarNodes >= 1 && sidecarNodes <= most)) {
    throw new BadInput(`${sidecarNodes} sidecar nodes of ${vps} VPs, expected 1 to ${most}`);
  }
  const nodes = sidecarTopology(vps, sidecarNodes);
  for (const vp of sidecarVps ?? []) {
    if (!Number.isInteger(vp) || vp < 0 || vp >= vps) throw new BadInput(`Sidecar VP ${vp}, expected 0 to ${vps - 1}`);
    if (nodes.some(({ baseVp, vpCount }) => vp > baseVp && vp < baseVp + vpCount)) continue;
    throw new BadInput(`VP ${vp} is the base processor of its node, which Linux starts, and cannot be a sidecar VP`);
  }
}

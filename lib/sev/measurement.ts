/**
 * The launch digest of an encrypted guest: what the firmware measures, page by page (SEV-SNP firmware ABI,
 * SNP_LAUNCH_UPDATE; SEV API, LAUNCH_MEASURE; sev.md g1 to g6).
 *
 * SNP: the digest begins as zeros, and each page makes it SHA-384 of a page information structure that holds the digest so
 * far, the SHA-384 of the page, its type, permissions and address. SEV-ES: one SHA-256 over all measured bytes.
 *
 * @module
 */
import { SNP_LAUNCH, SnpPageType } from "../layout/sev/constants/firmware.ts";
import { SNP_PAGE_INFO } from "../layout/sev/launch.ts";
import { VMSA } from "../layout/sev/vmsa.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { ProtectedVmsa, TWEAK_BITMAP_BYTES } from "./register_protection.ts";
import { EFER_SVME } from "./vmsa.ts";

/** Bytes of an SNP launch digest. */
export const LAUNCH_DIGEST_BYTES = 48;

const TYPE = SnpPageType.values;
const info = SNP_PAGE_INFO.at;

/** The types of page whose contents are measured; of the others only the fact that they are there. */
const MEASURED_TYPES: ReadonlySet<number> = new Set([TYPE.NORMAL, TYPE.VMSA]);

/** Hash of a copy of `bytes`: the Web Crypto API refuses bytes of a shared buffer. */
async function digest(algorithm: "SHA-256" | "SHA-384", bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return new Uint8Array(await crypto.subtle.digest(algorithm, copy));
}

/** SHA-384 of a page's bytes, which may be shared. */
export function pageDigest(page: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  return digest("SHA-384", page);
}

/** An SNP launch digest under way. */
export class SnpLaunchDigest {
  #value: Uint8Array<ArrayBuffer>;

  /** A digest that begins at `start`, or at zeros. */
  constructor(start: Uint8Array = new Uint8Array(LAUNCH_DIGEST_BYTES)) {
    if (start.length !== LAUNCH_DIGEST_BYTES) throw new TypeError(`A launch digest has ${LAUNCH_DIGEST_BYTES} bytes`);
    this.#value = Uint8Array.from(start);
  }

  /** The digest so far. */
  get value(): Uint8Array {
    return this.#value.slice();
  }

  /** Adds a page of `type` (`SnpPageType`) at guest-physical address `gpa`; `page` counts for measured types only. */
  async addPage(type: number, gpa: bigint, page?: Uint8Array): Promise<void> {
    const contents = MEASURED_TYPES.has(type) && page !== undefined ? await pageDigest(page) : undefined;
    await this.addPageDigest(type, gpa, contents);
  }

  /** Adds a page whose contents have this SHA-384; zeros for a type that is not measured. */
  async addPageDigest(type: number, gpa: bigint, contents?: Uint8Array): Promise<void> {
    const record = new Uint8Array(SNP_PAGE_INFO.size);
    const view = new DataView(record.buffer);
    record.set(this.#value, info.digest_cur);
    if (contents !== undefined) record.set(contents, info.contents);
    view.setUint16(info.length, SNP_LAUNCH.PAGE_INFO_LENGTH, true);
    view.setUint8(info.page_type, type);
    view.setBigUint64(info.gpa, gpa, true);
    this.#value = await digest("SHA-384", record);
  }
}

/** The SEV-ES launch digest: SHA-256 over `parts` in order, such as firmware and then each VMSA page. */
export function sevEsDigest(parts: readonly Uint8Array[]): Promise<Uint8Array> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return digest("SHA-256", whole);
}

/** The virtual machine monitors whose initial VMSAs differ. */
export type MeasuredVmm = "qemu" | "ec2" | "gce";

/** What a VMSA at launch depends on. */
export interface LaunchVmsa {
  /** Physical address of the reset vector: its low 16 bits become RIP, the rest the base of CS. */
  readonly resetEip: number;
  /** RDX: the CPUID signature of the processor model. */
  readonly signature: number;
  /** SEV_FEATURES. */
  readonly features: bigint;
  /** Whether this is the boot processor. */
  readonly boot: boolean;
}

/** Reset vector of the boot processor. */
export const BOOT_RESET_EIP = 0xfffffff0;

/** Segment attributes after reset, as the reset state has them: descriptor form without the gap. */
const RESET = { CODE: 0x9b, DATA: 0x93, LDT: 0x82, TSS: 0x8b, LIMIT: 0xffff, SELECTOR: 0xf000 } as const;
/** What EC2's monitor has instead. */
const EC2 = { BOOT_CODE: 0x9a, STACK: 0x92, TSS: 0x83 } as const;
const CR4_MCE = 0x40n;
const CR0_ET = 0x10n;
const DR6_RESET = 0xffff0ff0n;
const DR7_RESET = 0x400n;
const PAT_RESET = 0x0007040600070406n;
const GCE_PAT = 0x70106n;
const GCE_EC2_SIGNATURE = 0x600n;
const MXCSR_RESET = 0x1f80;
const FCW_RESET = 0x37f;

/** The VMSA page with which `vmm` starts a virtual processor, as it is measured (virtee/sev-snp-measure `vmsa.py`). */
export function launchVmsa(vmm: MeasuredVmm, options: LaunchVmsa): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  const vmsa = new ProtectedVmsa(new DataView(page.buffer), 0, new Uint8Array(TWEAK_BITMAP_BYTES));
  const view = new DataView(page.buffer);
  const { resetEip, boot } = options;
  const ec2 = vmm === "ec2";
  const data = { selector: 0, attributes: RESET.DATA, limit: RESET.LIMIT, base: 0n };
  for (const name of ["es", "ds", "fs", "gs"] as const) vmsa.setSegment(name, data);
  vmsa.setSegment("ss", { ...data, attributes: ec2 ? EC2.STACK : RESET.DATA });
  vmsa.setSegment("cs", {
    selector: RESET.SELECTOR,
    attributes: ec2 && boot ? EC2.BOOT_CODE : RESET.CODE,
    limit: RESET.LIMIT,
    base: BigInt((resetEip & 0xffff0000) >>> 0),
  });
  for (const name of ["gdtr", "idtr"] as const) vmsa.setSegment(name, { ...data, attributes: 0 });
  vmsa.setSegment("ldtr", { ...data, attributes: RESET.LDT });
  vmsa.setSegment("tr", { ...data, attributes: ec2 ? EC2.TSS : RESET.TSS });
  vmsa.set64("efer", BigInt(EFER_SVME));
  vmsa.set64("cr4", CR4_MCE);
  vmsa.set64("cr0", CR0_ET);
  vmsa.set64("dr7", DR7_RESET);
  vmsa.set64("dr6", DR6_RESET);
  vmsa.set64("rflags", 2n);
  vmsa.set64("rip", BigInt(resetEip & 0xffff));
  vmsa.set64("g_pat", vmm === "gce" ? GCE_PAT : PAT_RESET);
  vmsa.set64("rdx", vmm === "qemu" ? BigInt(options.signature) : GCE_EC2_SIGNATURE);
  vmsa.set64("sev_features", options.features);
  vmsa.set64("xcr0", 1n);
  if (vmm === "qemu") {
    view.setUint32(VMSA.at.mxcsr, MXCSR_RESET, true);
    view.setUint16(VMSA.at.x87_fcw, FCW_RESET, true);
  }
  return page;
}

/** Lower-case hexadecimal digits of a digest. */
export function digestHex(value: Uint8Array): string {
  return Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

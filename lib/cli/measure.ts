/**
 * The command `measure`: the launch digest of an encrypted guest, page by page.
 *
 * @module
 */

import { loadImage, parseImage } from "../guest/image.ts";
import { loadSevKernel } from "../guest/programs/sev_kernel.ts";
import { findResetBlock } from "../guest/sev_reset_block.ts";
import { CPU_SIGNATURE } from "../hypervisor/cpuid.ts";
import { SNP_LAUNCH, SnpPageType } from "../layout/sev/constants/firmware.ts";
import { SEV_FEATURES } from "../layout/sev/vmsa.ts";
import { BadInput } from "../memory/bad_input.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import {
  BOOT_RESET_EIP,
  digestHex,
  LAUNCH_DIGEST_BYTES,
  launchVmsa,
  type MeasuredVmm,
  sevEsDigest,
  SnpLaunchDigest,
} from "../sev/measurement.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { optionalInteger, text, toggle, word } from "./flags.ts";
import { readInput } from "./input_file.ts";
import { memoryFlag, vpsFlag } from "./machine_flags.ts";

/** The form of `measure --json`. */
const MEASURE_SCHEMA = 1;
/** Largest image in bytes. */
const FILE_BYTES_MAX = 512 * 1024 ** 2;
/** Digits of an SNP launch digest. */
const DIGEST_TEXT = new RegExp(`^[0-9a-fA-F]{${2 * LAUNCH_DIGEST_BYTES}}$`);

/** One measured page. */
interface MeasuredPage {
  readonly type: string;
  readonly gpa: string;
  /** The digest behind it. */
  readonly digest: string;
}

/** The command `measure`. */
export const measureCommand: Command = command({
  name: "measure",
  summary: "the launch digest of an encrypted guest's pages and processors",
  examples: [
    ["exitbox measure", "the embedded encrypted guest on SNP, one processor"],
    ["exitbox measure kernel.elf --vps 4 --pages", "an image on four processors, with the digest behind each page"],
    ["exitbox measure firmware.bin --platform sev-es", "one SHA-256, as SEV-ES measures"],
  ],
  operands: { name: "IMAGE", min: 0, max: 1, meaning: "the guest; the embedded one unless given" },
  flags: {
    Machine: {
      platform: word(["snp", "sev-es"], "how it is measured"),
      vps: vpsFlag("1"),
      memory: memoryFlag,
      vmm: word(["qemu", "ec2", "gce"], "whose initial registers the processors have"),
      signature: optionalInteger("N", "RDX at reset: CPUID signature of the processor (the model's unless given)", {
        max: 0xffff_ffff,
      }),
      features: optionalInteger("N", "SEV_FEATURES of the processors (1 for snp, 0 for sev-es unless given)", {}),
    },
    Guest: {
      mode: word(["auto", "real", "protected", "long"], "mode at the first instruction"),
      start: text("DIGEST", "snp: digest to begin with, such as that behind firmware pages; zeros unless given"),
    },
    Results: { pages: toggle("the digest behind each page"), json: toggle("one JSON object on standard output") },
  },
  details: [
    "Pages that hold something are measured in ascending order as NORMAL, then one VMSA for each processor, at the address " +
    "under which KVM measures them. Processors start as the monitor named by --vmm starts them: the first at the reset " +
    "vector, the others where the image's SEV-ES reset block says.",
  ],
  async run({ values, operands, printer }) {
    const memory = new Uint8Array(values.memory);
    await load(memory, operands[0], values.mode, values.vps);
    const vmsas = processors(memory, values);
    const pages: MeasuredPage[] = [];
    const digest = values.platform === "snp"
      ? await measureSnp(memory, vmsas, startOf(values.start), pages)
      : await measureSevEs(memory, vmsas, values.start);
    if (values.json) {
      const { platform, vps, vmm } = values;
      printer.json({ schema: MEASURE_SCHEMA, platform, vmm, vps, digest, ...(values.pages ? { pages } : {}) });
      return EXIT.CLEAN;
    }
    for (const page of values.pages ? pages : []) {
      printer.line(`${page.digest}  ${page.gpa.padStart(14)}  ${page.type}`);
    }
    printer.line(digest);
    return EXIT.CLEAN;
  },
});

/** Loads the image, or the embedded guest. */
async function load(
  memory: Uint8Array,
  path: string | undefined,
  mode: "auto" | "real" | "protected" | "long",
  vps: number,
): Promise<void> {
  if (path === undefined) {
    loadSevKernel(memory, { vps });
    return;
  }
  loadImage(memory, parseImage(await readInput(path, FILE_BYTES_MAX), path, { mode }));
}

/** What decides the processors' VMSAs. */
interface ProcessorValues {
  readonly platform: "snp" | "sev-es";
  readonly vps: number;
  readonly vmm: MeasuredVmm;
  readonly signature: number | undefined;
  readonly features: number | undefined;
}

/** The VMSA page of each processor. */
function processors(memory: Uint8Array, values: ProcessorValues): Uint8Array[] {
  const features = BigInt(values.features ?? (values.platform === "snp" ? Number(SEV_FEATURES.mask.snp) : 0));
  const others = findResetBlock(memory) ?? BOOT_RESET_EIP;
  return Array.from({ length: values.vps }, (_, vp) =>
    launchVmsa(values.vmm, {
      resetEip: vp === 0 ? BOOT_RESET_EIP : others,
      signature: values.signature ?? CPU_SIGNATURE,
      features,
      boot: vp === 0,
    }));
}

/** The digest to begin with. */
function startOf(hex: string | undefined): Uint8Array | undefined {
  if (hex === undefined) return undefined;
  if (!DIGEST_TEXT.test(hex)) throw new BadInput(`--start "${hex}" is not a digest of ${LAUNCH_DIGEST_BYTES} bytes`);
  return Uint8Array.from(hex.match(/../g)!, (pair) => parseInt(pair, 16));
}

/** Pages of memory that hold something. */
function* usedPages(memory: Uint8Array): Generator<readonly [gpa: number, page: Uint8Array]> {
  for (let gpa = 0; gpa < memory.length; gpa += PAGE_SIZE) {
    const page = memory.subarray(gpa, gpa + PAGE_SIZE);
    if (page.some((byte) => byte !== 0)) yield [gpa, page];
  }
}

async function measureSnp(
  memory: Uint8Array,
  vmsas: readonly Uint8Array[],
  start: Uint8Array | undefined,
  pages: MeasuredPage[],
): Promise<string> {
  const digest = new SnpLaunchDigest(start);
  const add = async (type: number, gpa: bigint, page: Uint8Array) => {
    await digest.addPage(type, gpa, page);
    pages.push({ type: SnpPageType.name(type), gpa: `0x${gpa.toString(16)}`, digest: digestHex(digest.value) });
  };
  for (const [gpa, page] of usedPages(memory)) await add(SnpPageType.values.NORMAL, BigInt(gpa), page);
  for (const page of vmsas) await add(SnpPageType.values.VMSA, SNP_LAUNCH.VMSA_GPA, page);
  return digestHex(digest.value);
}

async function measureSevEs(
  memory: Uint8Array,
  vmsas: readonly Uint8Array[],
  start: string | undefined,
): Promise<string> {
  if (start !== undefined) throw new BadInput("--start needs --platform snp: SEV-ES has no chain of digests");
  const parts = [...usedPages(memory)].map(([, page]) => page);
  return digestHex(await sevEsDigest([...parts, ...vmsas]));
}

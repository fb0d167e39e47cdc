import { assertEquals } from "@std/assert";
import { SNP_LAUNCH, SnpPageType } from "../../lib/layout/sev/constants/firmware.ts";
import {
  BOOT_RESET_EIP,
  digestHex,
  launchVmsa,
  pageDigest,
  sevEsDigest,
  SnpLaunchDigest,
} from "../../lib/sev/measurement.ts";

/** The published vectors (virtee/sev-snp-measure `test_snp_ovmf_hash_gen_default`, virtee/sev `tests/measurement.rs`). */
interface Vectors {
  readonly launch_measurement: {
    readonly vector: {
      readonly start_ld: string;
      readonly steps: readonly (readonly [number, number, string, string])[];
      readonly bsp_vmsa_nonzero_qwords: readonly (readonly [number, string])[];
      readonly bsp_vmsa_sha384: string;
      readonly ld_after_bsp: string;
      readonly features_1: { readonly vmsa_sha384: string; readonly ld_after_bsp: string };
      readonly ap: { readonly vmsa_sha384: string; readonly ld_after_each_of_three_aps: readonly string[] };
    };
    readonly single_step: { readonly page_type: number; readonly gpa: number; readonly result: string };
    readonly zero_page_sha384: string;
  };
}

const file = new URL("../data/layouts/sev.constants.json", import.meta.url);
const { launch_measurement: published }: Vectors = JSON.parse(Deno.readTextFileSync(file));
const { vector } = published;

/** CPUID signature of the processor model of the vectors (EPYC-v4). */
const SIGNATURE = 0x800f12;
const FEATURES = 0x21n;
const AP_RESET_EIP = 0x80b004;

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g)!, (pair) => parseInt(pair, 16));
}

const boot = { resetEip: BOOT_RESET_EIP, signature: SIGNATURE, features: FEATURES, boot: true };

Deno.test("SNP: each published step of a launch turns the digest before into the digest after", async () => {
  const digest = new SnpLaunchDigest(bytesOf(vector.start_ld));
  for (const [type, gpa, contents, after] of vector.steps) {
    await digest.addPageDigest(type, BigInt(gpa), contents === "zeros" ? undefined : bytesOf(contents));
    assertEquals(digestHex(digest.value), after);
  }
});

Deno.test("SNP: a launch that begins with a zero page at address 0", async () => {
  const digest = new SnpLaunchDigest();
  await digest.addPage(published.single_step.page_type, BigInt(published.single_step.gpa));
  assertEquals(digestHex(digest.value), published.single_step.result);
});

Deno.test("SNP: SHA-384 of a page of zeros, also in a shared buffer", async () => {
  assertEquals(digestHex(await pageDigest(new Uint8Array(4096))), published.zero_page_sha384);
  const shared = new Uint8Array(new SharedArrayBuffer(8192), 4096, 4096);
  assertEquals(digestHex(await pageDigest(shared)), published.zero_page_sha384);
});

Deno.test("QEMU: the boot processor's VMSA has the published quadwords and no others", async () => {
  const page = launchVmsa("qemu", boot);
  const expected = new Uint8Array(4096);
  for (const [offset, bytes] of vector.bsp_vmsa_nonzero_qwords) expected.set(bytesOf(bytes), offset);
  assertEquals(digestHex(page), digestHex(expected));
  assertEquals(digestHex(await pageDigest(page)), vector.bsp_vmsa_sha384);
});

Deno.test("QEMU: SEV_FEATURES are part of the measurement", async () => {
  const page = launchVmsa("qemu", { ...boot, features: 1n });
  assertEquals(digestHex(await pageDigest(page)), vector.features_1.vmsa_sha384);
});

Deno.test("SNP: the digest of a machine with four processors", async () => {
  const digest = new SnpLaunchDigest(bytesOf(vector.steps.at(-1)![3]));
  await digest.addPage(SnpPageType.values.VMSA, SNP_LAUNCH.VMSA_GPA, launchVmsa("qemu", boot));
  assertEquals(digestHex(digest.value), vector.ld_after_bsp);
  const page = launchVmsa("qemu", { ...boot, resetEip: AP_RESET_EIP, boot: false });
  assertEquals(digestHex(await pageDigest(page)), vector.ap.vmsa_sha384);
  for (const after of vector.ap.ld_after_each_of_three_aps) {
    await digest.addPage(SnpPageType.values.VMSA, SNP_LAUNCH.VMSA_GPA, page);
    assertEquals(digestHex(digest.value), after);
  }
});

Deno.test("SEV-ES: the digest is one SHA-256 over the parts in order", async () => {
  // SHA-256 of "abc" (FIPS 180-4).
  const parts = ["a", "bc"].map((text) => new TextEncoder().encode(text));
  const expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  assertEquals(digestHex(await sevEsDigest(parts)), expected);
});

Deno.test("EC2 and GCE start a processor with other registers than QEMU", () => {
  const qemu = launchVmsa("qemu", boot);
  for (const vmm of ["ec2", "gce"] as const) {
    const page = launchVmsa(vmm, boot);
    const different = [...page.keys()].filter((offset) => page[offset] !== qemu[offset]);
    const rdx = [0x310, 0x311, 0x312];
    const fpu = [0x408, 0x409, 0x410, 0x411];
    // Segment attributes of CS, SS and TR; or the upper bytes of PAT.
    const more = vmm === "ec2" ? [0x12, 0x22, 0x92] : [0x269, 0x26a, 0x26c, 0x26d, 0x26e];
    const allowed = new Set([...rdx, ...fpu, ...more]);
    assertEquals(different.filter((offset) => !allowed.has(offset)), []);
    assertEquals(fpu.map((offset) => page[offset]), [0, 0, 0, 0]);
    assertEquals(rdx.map((offset) => page[offset]), [0x00, 0x06, 0x00]);
  }
});

import { assertEquals, assertNotEquals } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox } from "./fixture.ts";

/** Digest before the VMSA, and behind it, of the published vector (virtee/sev-snp-measure). */
const { launch_measurement: { vector } } = JSON.parse(
  Deno.readTextFileSync(new URL("../data/layouts/sev.constants.json", import.meta.url)),
);

Deno.test("measure: behind an empty image and the published digest, the published VMSA gives the published result", async () => {
  const image = await Deno.makeTempFile();
  await Deno.writeFile(image, new Uint8Array([0]));
  const start = vector.steps.at(-1)[3];
  const { code, out } = await exitbox(
    ...["measure", image, "--start", start, "--signature", "0x800f12", "--features", "0x21"],
  );
  await Deno.remove(image);
  assertEquals([code, out.trim()], [EXIT.CLEAN, vector.ld_after_bsp]);
});

Deno.test("measure: pages and processors count, and the last page's digest is the result", async () => {
  const one = JSON.parse((await exitbox("measure", "--pages", "--json")).out);
  const two = JSON.parse((await exitbox("measure", "--vps", "2", "--pages", "--json")).out);
  assertEquals(one.pages.at(-1).digest, one.digest);
  assertEquals(one.pages.at(-1).type, "VMSA");
  assertEquals(two.pages.filter(({ type }: { type: string }) => type === "VMSA").length, 2);
  assertNotEquals(one.digest, two.digest);
});

Deno.test("measure: SEV-ES has one digest of 32 bytes and no chain", async () => {
  const { code, out } = await exitbox("measure", "--platform", "sev-es");
  assertEquals([code, out.trim().length], [EXIT.CLEAN, 64]);
  const refused = await exitbox("measure", "--platform", "sev-es", "--start", "00".repeat(48));
  assertEquals(refused.code, EXIT.USAGE);
});

Deno.test("measure: a digest that is none is refused in one line", async () => {
  const { code, err } = await exitbox("measure", "--start", "12");
  assertEquals([code, err.trim().split("\n").length], [EXIT.USAGE, 1]);
});

import { assertEquals } from "@std/assert";
import { checkVersions, layOut, vendorFolder } from "../../.ci/std.ts";

Deno.test("std: deno.json asks for the versions that can be laid out", async () => {
  await checkVersions();
});

Deno.test("std: a host's vendor folder is its name and port, with the scheme unless it is https", () => {
  const name = (url: string) => vendorFolder(new URL(url)).pathname.split("/vendor/")[1];
  assertEquals(name("https://jsr.example/"), "jsr.example/@std/");
  assertEquals(name("https://jsr.example:8443/"), "jsr.example_8443/@std/");
  assertEquals(name("http://localhost:80/"), "http_localhost/@std/");
  assertEquals(name("http://127.0.0.1:1/"), "http_127.0.0.1_1/@std/");
});

Deno.test("std: a package is laid out with exports, linked imports, declarations and checksums", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const files = new Map([
      ["assert/mod.js", 'export * from "./equals.js";\n'],
      [
        "assert/equals.js",
        '/**\n * import { x } from "../text/mod.js";\n */\nimport { a } from "../internal/diff_str.js";\n',
      ],
      ["internal/diff_str.js", "export const a = 1;\n"],
    ]);
    await layOut("assert", files, new URL(`file://${folder}/`));
    const read = (path: string) => Deno.readTextFile(`${folder}/${path}`);
    assertEquals(JSON.parse(await read("meta.json")), {
      scope: "std",
      name: "assert",
      latest: "1.0.19",
      versions: { "1.0.19": {} },
    });
    const { exports, manifest } = JSON.parse(await read("1.0.19_meta.json"));
    assertEquals(exports, { ".": "./mod.js", "./equals": "./equals.js" });
    assertEquals(Object.keys(manifest).toSorted(), ["/assert.d.ts", "/equals.js", "/mod.js"]);
    for (const [path, { size, checksum }] of Object.entries<{ size: number; checksum: string }>(manifest)) {
      const bytes = await Deno.readFile(`${folder}/1.0.19${path}`);
      assertEquals(size, bytes.length);
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      const hexadecimal = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
      assertEquals(checksum, `sha256-${hexadecimal}`);
    }
    assertEquals(await read("1.0.19/mod.js"), '// @ts-self-types="./assert.d.ts"\nexport * from "./equals.js";\n');
    assertEquals((await read("1.0.19/equals.js")).split("\n").slice(1, 4), [
      ' * import { x } from "../text/mod.js";',
      " */",
      'import { a } from "jsr:@std/internal@1.0.14/diff-str";',
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

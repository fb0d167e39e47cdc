import { assertEquals, assertThrows } from "@std/assert";
import { OutputFile } from "../../lib/cli/output_file.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";

const nowhere = () => {
  throw new Error("Standard output is not expected to be used");
};

/** The names in a folder. */
function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name);
}

/** Runs `body` in a fresh folder. */
function inFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("output file: it appears under its name only when it is committed", () => {
  inFolder((folder) => {
    const path = `${folder}/exits.jsonl`;
    Deno.writeTextFileSync(path, "before\n");
    const file = OutputFile.open(path, "--exits", nowhere);
    file.line("one");
    file.flush();
    assertEquals(Deno.readTextFileSync(path), "before\n");
    file.line("two");
    file.commit();
    assertEquals(Deno.readTextFileSync(path), "one\ntwo\n");
    assertEquals(names(folder), ["exits.jsonl"]);
  });
});

Deno.test("output file: one that is given up leaves nothing behind", () => {
  inFolder((folder) => {
    const file = OutputFile.open(`${folder}/exits.jsonl`, "--exits", nowhere);
    file.line("one");
    file.discard();
    assertEquals(names(folder), []);
  });
});

Deno.test("output file: many short lines and one that is longer than the buffer keep their order", () => {
  inFolder((folder) => {
    const path = `${folder}/out`;
    const lines = Array.from({ length: 20_000 }, (_, index) => `line ${index}`);
    lines.splice(10_000, 0, "x".repeat(200_000));
    const file = OutputFile.open(path, "--exits", nowhere);
    for (const line of lines) file.line(line);
    file.commit();
    assertEquals(Deno.readTextFileSync(path) === `${lines.join("\n")}\n`, true);
  });
});

Deno.test("output file: - is standard output", () => {
  let text = "";
  const file = OutputFile.open("-", "--exits", (bytes) => text += new TextDecoder().decode(bytes));
  file.line("one");
  file.commit();
  assertEquals(text, "one\n");
});

Deno.test("output file: a link keeps pointing to the file, which gets the content", () => {
  inFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/real`, "");
    Deno.symlinkSync(`${folder}/real`, `${folder}/link`);
    const file = OutputFile.open(`${folder}/link`, "--exits", nowhere);
    file.line("one");
    file.commit();
    assertEquals(Deno.lstatSync(`${folder}/link`).isSymlink, true);
    assertEquals(Deno.readTextFileSync(`${folder}/real`), "one\n");
  });
});

Deno.test("output file: what cannot be written is refused with the flag and the name", () => {
  inFolder((folder) => {
    const missing = `${folder}/none/out`;
    const expected = `--exits: cannot write "${missing}": its folder does not exist`;
    assertThrows(() => OutputFile.open(missing, "--exits", nowhere), BadInput, expected);
    assertThrows(() => OutputFile.open(folder, "--exits", nowhere), BadInput, "it is a folder");
  });
});

Deno.test("output file: a device is written to, not replaced", { ignore: Deno.build.os === "windows" }, () => {
  const file = OutputFile.open("/dev/null", "--exits", nowhere);
  file.line("one");
  file.commit();
  assertEquals(Deno.statSync("/dev/null").isCharDevice, true);
});

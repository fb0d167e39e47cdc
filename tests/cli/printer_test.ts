import { assertEquals, assertThrows } from "@std/assert";
import { OutputClosed, OutputFailed, reportOf } from "../../lib/cli/errors.ts";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { Printer, type Sink, tableLines } from "../../lib/cli/printer.ts";

/** A stream that keeps what is written, a few bytes at a time. */
class Recorder implements Sink {
  text = "";

  constructor(readonly terminal = false) {}

  writeSync(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, 3);
    this.text += new TextDecoder().decode(taken);
    return taken.length;
  }

  isTerminal(): boolean {
    return this.terminal;
  }
}

/** A stream whose reader is gone. */
class Closed extends Recorder {
  override writeSync(): number {
    throw new Deno.errors.BrokenPipe("closed");
  }
}

Deno.test("printer: results go to standard output, notes to standard error, whole", () => {
  const output = new Recorder();
  const error = new Recorder();
  const printer = new Printer({ color: "auto", quiet: false, output, error });
  printer.line("a result");
  printer.json({ schema: 1 });
  printer.note("a note");
  assertEquals(output.text, 'a result\n{"schema":1}\n');
  assertEquals(error.text, "a note\n");
});

Deno.test("printer: quiet silences notes and progress, not errors", () => {
  const error = new Recorder();
  const printer = new Printer({ color: "auto", quiet: true, output: new Recorder(), error, now: () => 1e6 });
  printer.note("a note");
  printer.progress("half");
  printer.error("an error");
  assertEquals(error.text, "an error\n");
});

Deno.test("printer: colour is for terminals, unless it is always or never", () => {
  const styled = (color: "auto" | "always" | "never", terminal: boolean) =>
    new Printer({ color, quiet: false, output: new Recorder(terminal) }).style("red", "x");
  assertEquals(styled("auto", false), "x");
  assertEquals(styled("never", true), "x");
  assertEquals(styled("always", false), "\x1b[31mx\x1b[0m");
});

Deno.test("printer: progress shows after two seconds, then five times a second on a terminal", () => {
  let now = 0;
  const error = new Recorder(true);
  const printer = new Printer({ color: "never", quiet: false, output: new Recorder(), error, now: () => now });
  for (now = 0; now <= 2400; now += 50) printer.progress(`${now}`);
  assertEquals(error.text, "\r\x1b[K2000\r\x1b[K2200\r\x1b[K2400");
  printer.line("done");
  assertEquals(error.text.endsWith("2400\r\x1b[K"), true);
});

Deno.test("printer: progress in a log is a line every ten seconds", () => {
  let now = 0;
  const error = new Recorder(false);
  const printer = new Printer({ color: "never", quiet: false, output: new Recorder(), error, now: () => now });
  for (now = 0; now <= 25_000; now += 500) printer.progress(`${now}`);
  assertEquals(error.text, "2000\n12000\n22000\n");
});

Deno.test("printer: a closed standard output ends the command, a closed standard error does not", () => {
  const printer = new Printer({ color: "never", quiet: false, output: new Closed(), error: new Closed() });
  printer.note("nobody reads this");
  assertThrows(() => printer.line("nor this"), OutputClosed);
});

Deno.test("printer: a full disk is one line and exit code 1 for results, and nothing for notes", () => {
  class Full extends Recorder {
    override writeSync(): number {
      throw new Error("No space left on device (os error 28)");
    }
  }
  const printer = new Printer({ color: "never", quiet: false, output: new Full(), error: new Full() });
  printer.note("there is no room for this");
  const error = assertThrows(() => printer.line("nor this"), OutputFailed);
  assertEquals(reportOf(error), {
    code: EXIT.TOOL_FAILURE,
    text: "exitbox: cannot write standard output: No space left on device (os error 28)",
  });
});

Deno.test("printer: a note does not go on in a line that a guest has begun on the same stream", () => {
  const run = (terminal: boolean, write: (printer: Printer, bytes: Uint8Array) => void) => {
    const error = new Recorder(terminal);
    const printer = new Printer({ color: "never", quiet: false, output: new Recorder(terminal), error });
    write(printer, new TextEncoder().encode("ok>"));
    printer.note("a note");
    printer.note("another");
    return error.text;
  };
  assertEquals(run(false, (printer, bytes) => printer.writeError(bytes)), "ok>\na note\nanother\n");
  assertEquals(run(true, (printer, bytes) => printer.write(bytes)), "\na note\nanother\n");
  assertEquals(run(false, (printer, bytes) => printer.write(bytes)), "a note\nanother\n");
});

Deno.test("printer: table columns are as wide as their widest cell, numbers at the right", () => {
  const lines = tableLines(
    [{ title: "exit", align: "left" }, { title: "count", align: "right" }, { title: "note", align: "left" }],
    [["io", "7", ""], ["hypercall", "1234567", "x"]],
  );
  assertEquals(lines, ["exit         count  note", "io               7", "hypercall  1234567  x"]);
});

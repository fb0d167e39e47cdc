/**
 * What `run` and `demo` say about a run: the JSON object, the lines for people, the exit code.
 *
 * @module
 */

import { SevVp } from "../hypervisor/sev/sev_vp.ts";
import { EXIT_KINDS, type ExitKind } from "../hypervisor/vp_state.ts";
import { readRegisters } from "../inspect/exit_registers.ts";
import { type RegistersText, registersText } from "../inspect/exit_records.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import type { Machine } from "../machine/machine.ts";
import { memoryHash } from "../machine/memory_hash.ts";
import type { RunReport, SidecarCounts } from "../machine/run.ts";
import type { GuestCrash } from "../vtl2/handlers/msr.ts";
import { EXIT, exitPortCode } from "./exit_codes.ts";
import type { Column, Printer } from "./printer.ts";
import { commandLine, printable } from "./shell.ts";

/** Names of the general-purpose registers in encoding order. */
const GPR = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");
/** Registers on a line of a dump. */
const PER_LINE = 4;
/** Digits of a 64-bit register. */
const DIGITS = 16;

/** The exit code for how a run ended. */
export function exitCodeOf(report: RunReport): number {
  switch (report.end) {
    case "halt":
      return EXIT.CLEAN;
    case "exit-port":
      return exitPortCode(report.exitValue);
    case "triple-fault":
    case "vmm-crash":
    case "guest-terminated":
    case "host-stopped":
    case "entry-failed":
      return EXIT.GUEST_FAILURE;
    case "limit":
      return EXIT.LIMIT;
    case "interrupted":
      return EXIT.INTERRUPTED;
    case "stuck":
    case "worker-failed":
    case "running":
      return EXIT.TOOL_FAILURE;
  }
}

/** The registers of a VP as they are now. */
function registersOf(machine: Machine, vp: number): RegistersText {
  return registersText(readRegisters(machine, vp));
}

/** The event of the first #VC of an encrypted guest's VP that found no handler, by the name of its exit code. */
function unhandledVc(machine: Machine, vp: number): string | undefined {
  const processor = machine.processor(vp);
  const code = processor instanceof SevVp ? processor.unhandledVc : undefined;
  return code === undefined ? undefined : SevExitCode.name(code);
}

/** A number as messages show it. */
function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

/** The object of `run --json`, without its `schema`. */
export function runJson(machine: Machine, report: RunReport): Record<string, unknown> {
  const { vmmCrash } = report;
  return {
    platform: machine.config.platform,
    ...(machine.config.paravisor === undefined ? {} : { paravisor: machine.config.paravisor }),
    end: report.end,
    exit_value: report.end === "exit-port" ? report.exitValue : null,
    seconds: report.seconds,
    vps: report.vps.map(({ vp, instructions, exits, wakeups, sidecar, guestCrash }) => ({
      vp,
      instructions,
      exits,
      wakeups,
      ...(sidecar === undefined ? {} : { sidecar: sidecarJson(sidecar) }),
      registers: registersOf(machine, vp),
      ...(unhandledVc(machine, vp) === undefined ? {} : { unhandled_vc: unhandledVc(machine, vp) }),
      ...(guestCrash === undefined ? {} : { guest_crash: guestCrashJson(guestCrash) }),
    })),
    ...(vmmCrash === undefined ? {} : {
      vmm_crash: { ...vmmCrash, left: hex(vmmCrash.left), right: hex(vmmCrash.right) },
    }),
    unimplemented: Object.fromEntries(report.unimplemented),
    problems: report.problems,
    ...(machine.deterministic ? { memory_hash: memoryHash(machine) } : {}),
  };
}

function sidecarJson(counts: SidecarCounts): Record<string, number> {
  const { runs, commands, cancels, requestIpis, responseIpis, handOvers } = counts;
  return {
    runs,
    commands,
    cancels,
    request_ipis: requestIpis,
    response_ipis: responseIpis,
    hand_overs: handOvers,
  };
}

/** A line for each processor of the sidecar, beside its base processor's own. */
function sidecarLines(report: RunReport): string[] {
  return report.vps.flatMap(({ vp, wakeups, sidecar }) =>
    sidecar === undefined ? [] : [
      `exitbox: VP ${vp} in the sidecar: ${plural(sidecar.runs, "run")}, ${
        plural(sidecar.commands, "other command")
      }, ` +
      `${plural(sidecar.requestIpis + sidecar.responseIpis, "IPI")}, ${plural(wakeups, "wake-up")}, ` +
      `${plural(sidecar.handOvers, "hand-over")}`,
    ]
  );
}

function guestCrashJson({ vtl, control, parameters, text }: GuestCrash): Record<string, unknown> {
  return { vtl, control: hex(control), parameters: parameters.map(hex), text: text ?? null };
}

/**
 * Says on standard error how a run ended: what failed with the registers and the command that repeats it; otherwise one
 * note.
 *
 * @param machine The machine, for the registers.
 * @param report How it ended.
 * @param words The command line as it was typed.
 * @param printer Where the lines go.
 */
export function printEnd(machine: Machine, report: RunReport, words: readonly string[], printer: Printer): void {
  for (const { guestCrash } of report.vps) if (guestCrash !== undefined) printer.error(guestCrashLine(guestCrash));
  for (const [name, times] of report.unimplemented) {
    printer.error(`exitbox: unimplemented instruction: ${printable(name)}, ${plural(times, "time")}`);
  }
  for (const { vp } of report.vps) {
    const event = unhandledVc(machine, vp);
    if (event !== undefined) {
      printer.error(`exitbox: VP ${vp} took a #VC (${event}) for which the guest has no handler`);
    }
  }
  for (const problem of report.problems) printer.error(`exitbox: ${problem}`);
  const failure = failureLines(machine, report);
  for (const line of failure) printer.error(line);
  if (failure.length > 0 || report.problems.length > 0) {
    printer.error(`repeat with: ${commandLine(words)}`);
  } else {
    for (const line of sidecarLines(report)) printer.note(line);
    printer.note(endNote(report));
  }
}

/** What a guest or the VMM died of, with the registers of its VP; nothing for another end. */
function failureLines(machine: Machine, report: RunReport): string[] {
  const { vmmCrash: crash, end, endVp } = report;
  if (crash !== undefined) {
    return [
      `exitbox: VMM crash on VP ${crash.vp} in ${crash.step}: ${printable(crash.assertion)}`,
      `  left  ${hex(crash.left)}`,
      `  right ${hex(crash.right)}`,
      ...registerLines(machine, crash.vp),
    ];
  }
  if (end === "triple-fault") return [`exitbox: triple fault on VP ${endVp}`, ...registerLines(machine, endVp)];
  if (end === "stuck" && report.problems.length === 0) {
    return ["exitbox: no progress: every VP waits for an interrupt that nothing will send"];
  }
  return [];
}

/** A crash that a guest reported through the crash MSRs. */
function guestCrashLine({ vp, parameters, text, textUnreadable }: GuestCrash): string {
  const values = parameters.map((value, number) => `P${number}=${hex(value)}`).join(" ");
  const said = text !== undefined ? `: ${printable(text)}` : textUnreadable ? " (its text is not in its memory)" : "";
  return `exitbox: the guest reported a crash on VP ${vp}, ${values}${said}`;
}

/** A VP's registers, four to a line. */
function registerLines(machine: Machine, vp: number): string[] {
  const { gpr, rip, rflags, seg, sys } = registersOf(machine, vp);
  const { gdtr, idtr, ...control } = sys;
  const values = [
    ...gpr.map((value, number) => [GPR[number], value]),
    ["rip", rip],
    ["rfl", rflags],
    ...Object.entries(control),
  ];
  const lines: string[] = [];
  for (let first = 0; first < values.length; first += PER_LINE) {
    const shown = values.slice(first, first + PER_LINE).map(([name, value]) =>
      `${String(name).padEnd(4)} ${String(value).padStart(DIGITS, "0")}`
    );
    lines.push(`  ${shown.join("  ")}`);
  }
  for (const [name, [selector, attributes, limit, base]] of Object.entries(seg)) {
    lines.push(`  ${name.padEnd(4)} ${selector.padStart(4, "0")} base ${base} limit ${limit} attributes ${attributes}`);
  }
  for (const [name, [base, limit]] of Object.entries({ gdtr, idtr })) {
    lines.push(`  ${name.padEnd(4)} base ${base} limit ${limit}`);
  }
  return lines;
}

/** How an ordinary run ended, in one line. */
function endNote(report: RunReport): string {
  const why: Partial<Record<RunReport["end"], string>> = {
    "halt": "all VPs halted",
    "exit-port": `exit port ${report.exitValue}`,
    "limit": "a limit was reached",
    "interrupted": "interrupted",
    "guest-terminated": `the guest on VP ${report.endVp} terminated itself`,
    "host-stopped": `the host stopped the guest at VP ${report.endVp}`,
    "entry-failed": `the processor refused to enter the guest on VP ${report.endVp}`,
  };
  const instructions = report.vps.reduce((sum, vp) => sum + vp.instructions, 0);
  const exits = report.vps.reduce((sum, vp) => sum + exitTotal(vp.exits), 0);
  return `exitbox: ${why[report.end] ?? report.end} after ${report.seconds.toFixed(2)} s, ` +
    `${plural(instructions, "instruction")}, ${plural(exits, "exit")}`;
}

/** Prints the exit histogram: a row for each VP, a column for each kind of exit that occurred, and the totals. */
export function printHistogram(report: RunReport, printer: Printer): void {
  const kinds = EXIT_KINDS.filter((kind) => report.vps.some(({ exits }) => exits[kind] !== undefined));
  const right = (title: string): Column => ({ title, align: "right" });
  const columns: Column[] = [{ title: "vp", align: "left" }, ...["instructions", ...kinds, "exits"].map(right)];
  const rows = report.vps.map((
    { vp, instructions, exits },
  ) => [vp, instructions, ...kinds.map((k) => exits[k] ?? 0), exitTotal(exits)]);
  const totals = columns.slice(1).map((_, column) => rows.reduce((sum, row) => sum + row[column + 1], 0));
  printer.table(columns, [...rows, ["all", ...totals]].map((row) => row.map(String)));
}

/** Exits of all kinds. */
function exitTotal(exits: Readonly<Partial<Record<ExitKind, number>>>): number {
  return Object.values(exits).reduce((sum, count) => sum + count, 0);
}

/** A count with its noun. */
function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * Exitbox as a library: build a machine, load a guest, run it in either runtime, and read registers, exits and memory.
 *
 * ```ts
 * import { assemble, loadGuest, Machine, parseImage, runMachine } from "./mod.ts";
 *
 * const machine = Machine.create({
 *   platform: "kernel",
 *   vps: 1,
 *   ramBytes: 16 * 1024 ** 2,
 *   policies: {},
 *   devices: "pc",
 *   recordExits: false,
 * }, true);
 * const { bytes } = assemble("org 0x7c00\n cli\n mov al, 7\n out 0xf4, al\n hlt");
 * loadGuest(machine, parseImage(bytes, "seven"));
 * const report = await runMachine(machine, { seed: 1 });
 * if (report.end !== "exit-port" || report.exitValue !== 7) throw new Error("unexpected end");
 * ```
 *
 * Scenarios of one's own are explored in the same way as those that come with exitbox: a `Scenario` makes the system for
 * a choice of policies, `searchCombination` searches it for everything that its properties forbid. (`scenarioFile` reads
 * one from a JSON file.)
 *
 * ```ts
 * import { combinations, driverSystem, protocolProperties, type Scenario, searchCombination } from "./mod.ts";
 *
 * const properties = ["no-fabricated-completion", "no-deadlock"];
 * const scenario: Scenario = {
 *   name: "scan-order",
 *   summary: "which of its two words must the scan load first?",
 *   shows: [],
 *   source: "",
 *   policies: [{ policy: "driver.scan", values: ["state-then-status", "status-then-state"] }],
 *   options: [],
 *   properties: protocolProperties(properties),
 *   memoryModels: ["sc"],
 *   bounds: {},
 *   matrix: { parts: [{}], memoryModels: ["sc"], bounds: {} },
 *   build: (policies, _options, name) => driverSystem({ name, policies, properties, protocol: { vps: 1, rounds: 2 } }),
 * };
 * const verdicts = combinations(scenario).map((policies) => {
 *   return searchCombination(scenario, policies, "sc", () => performance.now()).properties[0].verdict;
 * });
 * if (verdicts.join() !== "holds,violated") throw new Error("unexpected verdicts");
 * ```
 *
 * @module
 */

export * from "./lib/guest/assembler/assemble.ts";
export type { Bits } from "./lib/guest/assembler/encode.ts";
export * from "./lib/guest/image.ts";
export { DEMO_VPS_MAX, demoGuest } from "./lib/guest/programs/demo.ts";
export { ExitLines, readExit, registersText } from "./lib/inspect/exit_records.ts";
export { EXIT_KINDS } from "./lib/hypervisor/vp_state.ts";
export type { ExitKind } from "./lib/hypervisor/vp_state.ts";
export { EXIT_SEGMENTS, EXIT_SYSTEM, EXIT_TABLES } from "./lib/inspect/exit_stream.ts";
export type { VectorSegment } from "./lib/inspect/vector_file.ts";
export type { ExitRegisters, ExitSegments, ExitSystem } from "./lib/inspect/exit_stream.ts";
export type { DeviceAccess, MachineExit, RegistersText } from "./lib/inspect/exit_records.ts";
export { readExitRegisters, readRegisters } from "./lib/inspect/exit_registers.ts";
export { verifyExits } from "./lib/inspect/exits.ts";
export type { ExitFailure, ExitReport, VerifyExitsOptions } from "./lib/inspect/exits.ts";
export { verifyVectors } from "./lib/inspect/vectors.ts";
export type { VectorFailure, VectorReport, VerifyVectorsOptions } from "./lib/inspect/vectors.ts";
export { listStructures, verifyLayouts } from "./lib/inspect/verify_layouts.ts";
export type {
  ClassCount,
  LayoutDifference,
  LayoutVerification,
  StructureListing,
} from "./lib/inspect/verify_layouts.ts";
export { PLATFORMS, RAM_MAX, RAM_MIN, VPS_MAX } from "./lib/machine/config.ts";
export type { DeviceModel, MachineConfig, Platform } from "./lib/machine/config.ts";
export { loadDemoGuest, loadGuest } from "./lib/machine/load.ts";
export { Machine } from "./lib/machine/machine.ts";
export { END_NAMES } from "./lib/machine/header.ts";
export type { EndName } from "./lib/machine/header.ts";
export type { MachineClock } from "./lib/machine/clock.ts";
export type { MachineMemory } from "./lib/memory/machine_memory.ts";
export type { GuestCrash } from "./lib/vtl2/handlers/msr.ts";
export { memoryHash } from "./lib/machine/memory_hash.ts";
export { runMachine } from "./lib/machine/run.ts";
export type { RunOptions, RunReport, RuntimeName, SidecarCounts, VmmCrashReport, VpReport } from "./lib/machine/run.ts";
export { VP_ACTIONS, VpControl } from "./lib/machine/vp_actions.ts";
export type { TimedVpAction, VpAction, VpActionCounts } from "./lib/machine/vp_actions.ts";
export type { Agent } from "./lib/memory/agent.ts";
export type { StepId } from "./lib/memory/steps.ts";
export type { AnyStructure, Columns, Field } from "./lib/layout/structure.ts";
export type { MemoryPort } from "./lib/memory/port.ts";
export type { Decoded, FieldType } from "./lib/layout/field_type.ts";
export { BadInput } from "./lib/memory/bad_input.ts";
export { policies, policyNamed } from "./lib/memory/policy.ts";
export type { Policy, PolicyValue } from "./lib/memory/policy.ts";
export { searchCombination } from "./lib/scenarios/combination.ts";
export type { CombinationResult, PropertyResult } from "./lib/scenarios/combination.ts";
export { driverSystem, protocolProperties } from "./lib/scenarios/driver_system.ts";
export type { DriverSystemParts } from "./lib/scenarios/driver_system.ts";
export { scenarioFile } from "./lib/scenarios/file.ts";
export { scenarioNamed, SCENARIOS } from "./lib/scenarios/index.ts";
export { matrixOf } from "./lib/scenarios/matrix.ts";
export type { Matrix, MatrixOptions, MatrixProgress, MatrixRow } from "./lib/scenarios/matrix.ts";
export { buildSystem, combinations } from "./lib/scenarios/scenario.ts";
export type {
  Choices,
  Matrix as ScenarioMatrix,
  NamedProperty,
  Scenario,
  ScenarioOption,
  VariedPolicy,
} from "./lib/scenarios/scenario.ts";
export type { ScenarioSource } from "./lib/scenarios/spec.ts";
export type { SearchBounds } from "./lib/explore/exhaustive.ts";
export type { SearchProgress } from "./lib/explore/search.ts";
export type { Verdict } from "./lib/explore/verdict.ts";
export type { ProtocolOptions } from "./lib/sidecar/protocol.ts";
export type {
  MemoryModel,
  NamedStructure,
  NoteAccess,
  Property,
  Range,
  System,
  SystemAgent,
  Watched,
} from "./lib/explore/system.ts";
export type { RecordedChoice, Schedule } from "./lib/explore/schedule.ts";

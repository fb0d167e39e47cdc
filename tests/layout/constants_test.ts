import { assert, assertEquals } from "@std/assert";
import hyperv from "../data/layouts/hyperv.constants.json" with { type: "json" };
import sev from "../data/layouts/sev.constants.json" with { type: "json" };
import sevLayouts from "../data/layouts/sev.layouts.json" with { type: "json" };
import * as hvCpuid from "../../lib/layout/hyperv/constants/cpuid.ts";
import * as hcl from "../../lib/layout/hyperv/constants/hcl.ts";
import * as hypercalls from "../../lib/layout/hyperv/constants/hypercalls.ts";
import * as messages from "../../lib/layout/hyperv/constants/messages.ts";
import * as msrs from "../../lib/layout/hyperv/constants/msrs.ts";
import * as registers from "../../lib/layout/hyperv/constants/registers.ts";
import * as sidecarNumbers from "../../lib/layout/hyperv/constants/sidecar.ts";
import { HvX64PendingEventType } from "../../lib/layout/hyperv/events.ts";
import { CpuStatus, SidecarCommand } from "../../lib/layout/hyperv/sidecar.ts";
import { AUTOMATIC_EXITS, isAutomaticExit, SevExitCode } from "../../lib/layout/sev/constants/exit_codes.ts";
import * as firmware from "../../lib/layout/sev/constants/firmware.ts";
import * as ghcb from "../../lib/layout/sev/constants/ghcb.ts";
import { SEV_EXCEPTION, SEV_INSTRUCTIONS } from "../../lib/layout/sev/constants/instructions.ts";
import * as sevMsrs from "../../lib/layout/sev/constants/msrs.ts";
import * as rmp from "../../lib/layout/sev/constants/rmp.ts";
import { NPF_EXITINFO1 } from "../../lib/layout/sev/exit_info.ts";
import { GHCB, GHCB_VALID_BIT } from "../../lib/layout/sev/ghcb.ts";
import * as msrProtocol from "../../lib/layout/sev/msr_protocol.ts";
import { RMPADJUST_ATTRS } from "../../lib/layout/sev/rmp.ts";
import { packSegmentAttributes, tweakBit, unpackSegmentAttributes, VMSA } from "../../lib/layout/sev/vmsa.ts";
import * as x64 from "../../lib/layout/x64/constants.ts";

type Numbers = Readonly<Record<string, number | bigint>>;

/** Where each group of the reference is declared. */
const HYPERV_GROUPS: Readonly<Record<string, Numbers>> = {
  register_names: registers.HvX64RegisterName.values,
  register_names_only_in_c_headers: registers.HvCHeaderRegisterName.values,
  hv_status: hypercalls.HvStatus.values,
  hypercall_codes: hypercalls.HypercallCode.values,
  hypercall_codes_only_in_c_headers: hypercalls.HypercallCodeOfCHeaders.values,
  message_types: messages.HvMessageType.values,
  vtl_entry_reason: messages.HvVtlEntryReason.values,
  intercept_types: messages.HvInterceptType.values,
  intercept_access_type: messages.HvInterceptAccessType.values,
  intercept_access_mask: messages.HV_INTERCEPT_ACCESS_MASK,
  pending_interruption_type: messages.HvX64PendingInterruptionType.values,
  pending_event_type: HvX64PendingEventType.values,
  interrupt_type: hypercalls.HvInterruptType.values,
  translate_gva_result: hypercalls.TranslateGvaResultCode.values,
  cache_type: messages.HvCacheType.values,
  sidecar_command: SidecarCommand.values,
  sidecar_cpu_status: CpuStatus.values,
  sidecar_constants: sidecarNumbers.SIDECAR,
  sidecar_pt_index: sidecarNumbers.SIDECAR_PT_INDEX,
  sidecar_per_vp_private_page_order: sidecarNumbers.SIDECAR_PRIVATE_PAGE,
  sidecar_va: sidecarNumbers.SIDECAR_VA,
  sidecar_ap_initial_context: sidecarNumbers.SIDECAR_AP_INITIAL_CONTEXT,
  sidecar_driver_vp_state: sidecarNumbers.SidecarDriverVpState.values,
  sidecar_ioctl: sidecarNumbers.SIDECAR_IOCTL,
  hcl_ioctl_numbers: hcl.HCL_IOCTL,
  hcl_capabilities: hcl.HCL_CAP,
  hcl_mmap_page_offsets: hcl.HCL_MMAP_PAGE,
  hcl_misc: hcl.HCL,
  gpr_index: registers.GPR_INDEX,
  segment_index: registers.SEGMENT_INDEX,
  synthetic_msrs: msrs.HV_X64_MSR,
  architectural_msrs: msrs.X86_MSR,
  sidecar_native_msr_registers: registers.SIDECAR_NATIVE_MSR_REGISTERS,
  crash_msr_values: msrs.CRASH_MSR,
  crash_ctl_bits: msrs.CRASH_CTL_BIT,
  get_host_notification: msrs.GET_HOST_NOTIFICATION,
  cpuid: hvCpuid.HV_CPUID,
  hypercall_abi: hypercalls.HYPERCALL_ABI,
  hypercall_page_code_offsets: hypercalls.HYPERCALL_PAGE_CODE_OFFSETS,
  x64_cr0: x64.CR0,
  x64_cr4: x64.CR4,
  x64_efer: x64.EFER,
  x64_misc: x64.X64,
  exceptions: x64.Exception.values,
  apic_registers: x64.ApicRegister.values,
  apic_delivery_mode: x64.ApicDeliveryMode.values,
  apic_destination_shorthand: x64.ApicDestinationShorthand.values,
  apic_misc: x64.APIC,
  ioapic: x64.IOAPIC,
  partition_isolation_type: hypercalls.HvPartitionIsolationType.values,
  partition_property_codes: hypercalls.HvPartitionPropertyCode.values,
};

/** Names of a group that are declared without being in the reference, each for a stated reason. */
const BEYOND_REFERENCE: Readonly<Record<string, readonly string[]>> = {
  // A state of a later version of the driver; the number is ours.
  sidecar_driver_vp_state: ["ASYNC_STARTING"],
};

/** A group's values by name. */
type Group = { readonly values: Readonly<Record<string, { readonly hex: string }>> };

for (const [group, { values }] of Object.entries(hyperv.groups as Record<string, Group>)) {
  Deno.test(`Hyper-V constants: ${group}`, () => {
    const declared = HYPERV_GROUPS[group];
    assert(declared, `Group ${group} is declared nowhere`);
    for (const [name, { hex }] of Object.entries(values)) {
      assert(Object.hasOwn(declared, name), `${group}.${name} is not declared`);
      assertEquals(BigInt(declared[name]!), BigInt(hex), `${group}.${name}`);
    }
    const beyond = Object.keys(declared).filter((name) => !Object.hasOwn(values, name));
    assertEquals(beyond, BEYOND_REFERENCE[group] ?? []);
  });
}

Deno.test("SEV constants: exit codes, negative ones included", () => {
  const { list, negative } = sev.exit_codes;
  const expected = Object.fromEntries([
    ...list.map(({ name, code }) => [name, code]),
    ...negative.map(({ name, signed }) => [name, signed]),
  ]);
  assertEquals({ ...SevExitCode.values }, expected);
  for (const { name, code_hex } of negative) assertEquals(SevExitCode.name(BigInt(code_hex)), name);
  for (const { name, code } of sev.ghcb_software_exits) assertEquals(SevExitCode.valueOf(name), code);
});

Deno.test("SEV constants: exits are automatic or become #VC as the reference says", () => {
  for (const entry of sev.exit_codes.list) {
    const automatic = "sev_es" in entry && entry.sev_es!.startsWith("AE");
    assertEquals(isAutomaticExit(entry.code), automatic, entry.name);
  }
  assert(isAutomaticExit(SevExitCode.values.INVALID));
  assert(AUTOMATIC_EXITS.every(([first, last]) => first <= last));
});

Deno.test("SEV constants: codes and fields of the GHCB MSR protocol", () => {
  const { codes } = sev.ghcb_msr_protocol;
  const expected = Object.fromEntries([["NORMAL", 0], ...codes.map(({ name, code }) => [name, code])]);
  assertEquals({ ...msrProtocol.GhcbMsrInfo.values }, expected);
  const tables = msrProtocol as unknown as Record<string, { fields: { name: string; bit: number; width: number }[] }>;
  for (const entry of codes) {
    const fields = (entry as { fields?: [string, number, number][] }).fields ?? [];
    if (fields.length === 0) continue;
    const declared = tables[`GHCB_MSR_${entry.name}`]!.fields.map(({ name, bit, width }) => [name, bit, width]);
    assertEquals(declared, [["info", 0, 12], ...fields], entry.name);
  }
});

Deno.test("the GHCB MSR protocol's tables build the published example values", () => {
  const info = msrProtocol.GhcbMsrInfo.values;
  const { PRIVATE, SHARED } = ghcb.PscOperation.values;
  const gfn = 0x12345;
  const built: Record<string, bigint> = {
    "CPUID request EDX of 0x8000001F": msrProtocol.GHCB_MSR_CPUID_REQ.make({
      info: info.CPUID_REQ,
      register: 3,
      function: 0x8000001f,
    }),
    "CPUID request EAX of 0": msrProtocol.GHCB_MSR_CPUID_REQ.make({ info: info.CPUID_REQ }),
    "CPUID reply value 0xDEADBEEF for EBX": msrProtocol.GHCB_MSR_CPUID_RESP.make({
      info: info.CPUID_RESP,
      register: 1,
      value: 0xdeadbeef,
    }),
    "SEV info, versions 1 to 2, C bit 51": msrProtocol.GHCB_MSR_SEV_INFO_RESP.make({
      info: info.SEV_INFO_RESP,
      cbit_position: 51,
      min_version: ghcb.GHCB_PROTOCOL.VERSION_MIN,
      max_version: ghcb.GHCB_PROTOCOL.VERSION_MAX,
    }),
    "PSC make gfn 0x12345 shared": msrProtocol.GHCB_MSR_PSC_REQ.make({ info: info.PSC_REQ, gfn, operation: SHARED }),
    "PSC make gfn 0x12345 private": msrProtocol.GHCB_MSR_PSC_REQ.make({ info: info.PSC_REQ, gfn, operation: PRIVATE }),
    "register GHCB gfn 0x1234": msrProtocol.GHCB_MSR_REGISTER_GPA_REQ.make({
      info: info.REGISTER_GPA_REQ,
      gfn: 0x1234,
    }),
    "preferred GPA, none": msrProtocol.GHCB_MSR_PREFERRED_GPA_RESP.make({
      info: info.PREFERRED_GPA_RESP,
      gfn: 0xfffffffffffffn,
    }),
    "terminate set 1 code 2": msrProtocol.GHCB_MSR_TERM_REQ.make({
      info: info.TERM_REQ,
      reason_set: 1,
      reason_code: ghcb.TerminationLinux.values.PVALIDATE,
    }),
    "HV features SNP + AP creation": msrProtocol.GHCB_MSR_HV_FEATURES_RESP.make({
      info: info.HV_FEATURES_RESP,
      features: ghcb.GHCB_HV_FEATURES.make({ snp: true, ap_creation: true }),
    }),
  };
  for (const { name, value_hex } of sev.ghcb_msr_protocol.vectors) assertEquals(built[name], BigInt(value_hex), name);
  assertEquals(Object.keys(built).length, sev.ghcb_msr_protocol.vectors.length);
});

Deno.test("SEV constants: results, errors and features of the GHCB", () => {
  const page = sev.ghcb_page;
  assertEquals(
    Object.values(ghcb.GhcbUsage.values).map(String),
    Object.keys(page.usage).map((key) => `${Number(key)}`),
  );
  assertEquals([ghcb.GHCB_PROTOCOL.VERSION_MIN, ghcb.GHCB_PROTOCOL.VERSION_MAX], page.protocol_versions);
  assertEquals(Object.values(ghcb.GhcbExitResult.values).map(String), Object.keys(page.errors.exitinfo1));
  assertEquals(Object.values(ghcb.GhcbMalformedInput.values).map(String), Object.keys(page.errors.malformed));
  assertEquals(ghcb.GHCB_PROTOCOL.KVM_GP, Number(page.errors.kvm_gp));
  assertEquals(ghcb.GHCB_PROTOCOL.KVM_UD, Number(page.errors.kvm_ud));
  assertEquals(ghcb.PSC_ERROR.GENERIC, BigInt(page.psc_errors.generic_hex));
  assertEquals(ghcb.PSC_ERROR.INVALID_HEADER, BigInt(page.psc_errors.invalid_header_hex));
  assertEquals(ghcb.PSC_ERROR.INVALID_ENTRY, BigInt(page.psc_errors.invalid_entry_hex));
  assertEquals(
    Object.values(ghcb.GuestRequestVmmError.values).map(String),
    Object.keys(page.guest_request_vmm_errors),
  );
  assertEquals(
    ghcb.GHCB_HV_FEATURES.fields.map((row) => row.bit),
    sev.ghcb_msr_protocol.hv_features.map(([bit]) => bit),
  );
  const { set0, set1_linux } = sev.ghcb_msr_protocol.termination;
  assertEquals(Object.values(ghcb.TerminationGeneral.values), set0.map(([code]) => code));
  assertEquals(Object.values(ghcb.TerminationLinux.values), set1_linux.map(([code]) => code));
  const psc = sevLayouts.bitfields.find(({ name }) => name === "PSC_ENTRY")!;
  assertEquals(Object.values(ghcb.PscOperation.values).map(String), Object.keys(psc.operations!));
});

Deno.test("SEV constants: GHCB valid bits are byte offset / 8", () => {
  assertEquals({ ...GHCB_VALID_BIT }, sev.ghcb_valid_bits);
  for (const field of sevLayouts.structures.find(({ name }) => name === "GHCB")!.fields) {
    const bit = (field as { valid_bit?: number }).valid_bit;
    assertEquals((GHCB_VALID_BIT as Record<string, number>)[field.name], bit, field.name);
  }
});

Deno.test("SEV constants: the fields that KVM wants marked valid", () => {
  const { always, also } = sev.kvm_required_valid_bits;
  assertEquals([...ghcb.GHCB_ALWAYS_REQUIRED], always);
  assertEquals(sev.openbsd_vmm_required_valid_bits.always, always);
  const essence = (rule: { exits: readonly string[]; needs: readonly string[]; conditional?: string }) => ({
    exits: [...rule.exits],
    needs: [...rule.needs],
    conditional: rule.conditional !== undefined,
  });
  assertEquals(ghcb.KVM_REQUIRED_FIELDS.map(essence), also.map(essence));
  for (const { exits, needs } of ghcb.KVM_REQUIRED_FIELDS) {
    for (const exit of exits) assert(SevExitCode.valueOf(exit) !== undefined, exit);
    for (const field of needs) assert(field in GHCB.at, field);
  }
});

Deno.test("SEV constants: reverse map results and geometry, VMPLs, page-fault bits", () => {
  const results = Object.fromEntries(Object.entries(sev.rmp_results.codes).map(([code, name]) => [name, Number(code)]));
  assertEquals({ ...rmp.RmpResult.values }, results);
  assertEquals(Object.keys(sev.rmp_results.software_codes).map(Number).sort(), [
    rmp.PVALIDATE_UNCHANGED.SVSM,
    rmp.PVALIDATE_UNCHANGED.LINUX,
  ]);
  assertEquals(rmp.RMP_GEOMETRY.ENTRY_SIZE, sev.rmp_geometry.entry_size);
  assertEquals(rmp.RMP_GEOMETRY.BOOKKEEPING_BYTES, sev.rmp_geometry.bookkeeping_bytes);
  assertEquals(
    [rmp.RMP_GEOMETRY.PAGE_SIZE_4K, rmp.RMP_GEOMETRY.PAGE_SIZE_2M].map(String),
    Object.keys(sev.rmp_geometry.page_sizes),
  );
  assertEquals(rmp.VMPL.COUNT, sev.vmpl.count);
  assertEquals(rmp.VMPL.MOST_PRIVILEGED, sev.vmpl.most_privileged);
  assertEquals({ VTL0: rmp.VMPL.VTL0, VTL1: rmp.VMPL.VTL1, VTL2: rmp.VMPL.VTL2 }, sev.vmpl.openhcl);
  assertEquals(rmp.VMPL.ATTRS_RWX, sev.vmpl.combinations.rwx);
  assertEquals(rmp.VMPL.ATTRS_VMSA_SVSM, sev.vmpl.combinations.vmsa_svsm);
  for (const [name, bit] of Object.entries(sev.vmpl.permission_bits)) {
    assertEquals((RMPADJUST_ATTRS.shift as Record<string, number>)[name], bit);
  }
  assertEquals(Object.entries(rmp.PAGE_FAULT_ERROR_BIT).map(([name, bit]) => [bit, name]), sev.page_fault_error_bits);
  assertEquals(Object.values(rmp.KVM_SYNTHETIC_PFERR_BIT), sev.kvm_synthetic_pferr_bits.map(([bit]) => bit));
  assertEquals(NPF_EXITINFO1.fields.map((row) => row.bit), sev.npf_exitinfo1_bits.map(([bit]) => bit));
});

Deno.test("SEV constants: instructions, exceptions, MSRs and CPUID leaf 8000001f", () => {
  const machineCode = (text: string) => text.split(" ").map((byte) => parseInt(byte, 16));
  const declared = SEV_INSTRUCTIONS as Readonly<Record<string, readonly number[]>>;
  for (const { name, bytes } of sev.instructions) assertEquals([...declared[name]!], machineCode(bytes[0]!), name);
  assertEquals([...SEV_INSTRUCTIONS.VMGEXIT_F2], machineCode(sev.instructions[0]!.bytes[1]!));
  assertEquals(SEV_EXCEPTION.VC, sev.vc_exception.vector);
  assertEquals(SEV_EXCEPTION.HV, sev.vc_exception.hv_vector);
  assertEquals({ ...sevMsrs.SEV_MSR }, Object.fromEntries(sev.msrs.map(({ name, number }) => [name, number])));
  assertEquals(sevMsrs.CPUID_8000001F_EAX.fields.map((row) => row.bit), sev.cpuid_8000001f.eax.map(([bit]) => bit));
  assertEquals(
    sevMsrs.CPUID_8000001F_EBX.fields.map(({ name, bit, width }) => [name, bit, width]),
    sev.cpuid_8000001f.ebx,
  );
  const failures = Object.entries(sev.avic_incomplete_ipi_failure);
  assertEquals(
    Object.entries(sevMsrs.AvicIpiFailure.values).map(([name, value]) => [`${value}`, name]),
    failures.map(([value, text]) => [value, text.replaceAll(" ", "_").toUpperCase()]),
  );
});

Deno.test("SEV constants: launch, firmware messages, SVSM and Hyper-V registers", () => {
  const named = (object: Readonly<Record<string, string>>) =>
    Object.fromEntries(
      Object.entries(object).map(([value, name]) => [name.replaceAll(" ", "_").toUpperCase(), Number(value)]),
    );
  assertEquals({ ...firmware.SnpPageType.values }, named(sev.snp_launch_page_types));
  assertEquals({ ...firmware.SnpMsgType.values }, named(sev.snp_guest_message.types));
  assertEquals(firmware.SNP_LAUNCH.VMSA_GPA, BigInt(sev.launch_measurement.vmsa_gpa_hex));
  const message = sev.snp_guest_message;
  assertEquals({ ...firmware.SNP_GUEST_MESSAGE }, {
    AES_256_GCM: 1,
    HEADER_VERSION: message.header_version,
    AAD_OFFSET: message.aad_offset,
    AAD_LENGTH: message.aad_length,
    TAG_LENGTH: message.tag_length,
    IV_LENGTH: message.iv_length,
    MAX_PAYLOAD: message.max_payload,
  });
  assertEquals(
    Object.values(firmware.SvsmResult.values).sort(),
    Object.keys(sev.svsm_protocol.result_codes).map(Number).sort(),
  );
  for (const [name, value] of Object.entries(sev.hyperv.register_names)) {
    assertEquals(registers.HvX64RegisterName.valueOf(name), value, name);
  }
  for (const [name, value] of Object.entries(sev.hyperv.message_types)) {
    assertEquals(messages.HvMessageType.valueOf(`HvMessageType${name}`), value, name);
  }
  assertEquals(msrs.CRASH_MSR.CTL_read_value, BigInt(sev.hyperv.crash_ctl_read_value_hex));
});

Deno.test("VMSA: columns say how register protection and a VTL switch treat each field", () => {
  const reference = sevLayouts.structures.find(({ name }) => name === "VMSA")!;
  type Openhcl = { access: string; copied_on_vtl_switch?: boolean; asserted_unprotected?: boolean };
  for (const { name, offset, ...row } of reference.fields) {
    const { openhcl, tweak } = row as { openhcl: Openhcl; tweak: { byte: number; bit: number } };
    const { access, ...rest } = openhcl;
    assertEquals(tweakBit(offset), { byte: tweak.byte, bit: tweak.bit }, name);
    const field = VMSA.fields.find((field) => field.offset === offset)!;
    assertEquals(field.columns, access === "none" ? {} : { access, ...rest }, name);
  }
});

Deno.test("VMSA: segment attributes are the descriptor's without the gap", () => {
  const { examples } = sevLayouts.bitfields.find(({ name }) => name === "SEV_SEGMENT_ATTRIB")!;
  for (const { descriptor, packed, meaning } of examples!) {
    assertEquals(packSegmentAttributes(descriptor), packed, meaning);
    assertEquals(unpackSegmentAttributes(packed), descriptor, meaning);
  }
});

/**
 * What hosts of encrypted guests answer from their own tables: CPUID leaves and MSRs that a guest asks for through its
 * GHCB or the MSR protocol. None of it looks at the guest.
 *
 * @module
 */
import { hasOwnMsr, readOwnMsr, writeOwnMsr } from "../cpu/exec/msr.ts";
import { C_BIT, PHYSICAL_ADDRESS_REDUCTION } from "../hypervisor/sev/machine.ts";
import { readMsr, writeMsr } from "../hypervisor/msrs.ts";
import { X86_MSR } from "../layout/hyperv/constants/msrs.ts";
import { CPUID_8000001F_EAX, CPUID_8000001F_EBX } from "../layout/sev/constants/msrs.ts";
import { VMPL } from "../layout/sev/constants/rmp.ts";
import type { HostVcpu } from "./host_vcpu.ts";

/** Leaf with the highest extended leaf. */
const EXTENDED_BASE = 0x8000_0000;
/** Leaf of memory encryption. */
const ENCRYPTION_LEAF = 0x8000_001f;
/** First and last leaf of the hypervisor's range. */
const HYPERVISOR_BASE = 0x4000_0000;
const HYPERVISOR_LAST = 0x4000_ffff;
/** Guests that can be encrypted at once, and the lowest ASID of one without SEV-ES. */
const ENCRYPTED_GUESTS = 509;
const MIN_ASID_WITHOUT_ES = 1;
/** First MSR of the hypervisor's range. */
const SYNTHETIC_MSR_BASE = 0x4000_0000;
const SYNTHETIC_MSR_LAST = 0x4000_ffff;

/** Puts EAX, EBX, ECX and EDX of a leaf into the host's `cpuidResult`; `signature` is the host's in leaf 40000000. */
export function answerCpuid(host: HostVcpu, leaf: number, subleaf: number, signature: string): Uint32Array {
  const result = host.cpuidResult;
  const { apic } = host.vp;
  if (leaf >= HYPERVISOR_BASE && leaf <= HYPERVISOR_LAST) {
    result.fill(0);
    if (leaf === HYPERVISOR_BASE) {
      result[0] = HYPERVISOR_BASE;
      for (let k = 0; k < signature.length; k++) result[1 + (k >> 2)] |= signature.charCodeAt(k) << (8 * (k & 3));
    }
    return result;
  }
  host.services.cpuid.lookup(leaf, subleaf, { apicId: apic.id, apicEnabled: apic.enabled }, result);
  host.services.overlayCpuid(leaf, result);
  if (leaf === EXTENDED_BASE) result[0] = ENCRYPTION_LEAF;
  if (leaf === ENCRYPTION_LEAF) answerEncryptionLeaf(host, result);
  return result;
}

function answerEncryptionLeaf(host: HostVcpu, result: Uint32Array): void {
  const snp = host.sev.rmp !== undefined;
  result[0] = CPUID_8000001F_EAX.make({ sev: 1, sev_es: 1, sev_snp: snp, vmpl: snp, rmpquery: snp });
  result[1] = CPUID_8000001F_EBX.make({
    c_bit_position: C_BIT,
    physical_address_reduction: PHYSICAL_ADDRESS_REDUCTION,
    number_of_vmpls: snp ? VMPL.COUNT : 0,
  });
  result[2] = ENCRYPTED_GUESTS;
  result[3] = MIN_ASID_WITHOUT_ES;
}

/** Whether an MSR is one that a host keeps in the processor's state although the guest's is encrypted. */
function isHostState(msr: number): boolean {
  return hasOwnMsr(msr) && msr !== X86_MSR.X86X_MSR_TSC && msr !== X86_MSR.X86X_MSR_APIC_BASE;
}

/** The value of an MSR, or undefined for #GP. */
export function answerReadMsr(host: HostVcpu, msr: number): bigint | undefined {
  const { cpu, facilities, index } = host.vp;
  if (isHostState(msr)) return readOwnMsr(cpu, msr) ? cpu.v64[0] : undefined;
  const known = !isSynthetic(msr) && readMsr(facilities, index, msr, cpu) === "handled";
  return known ? cpu.v64[0] : undefined;
}

/** Writes an MSR; false for #GP. */
export function answerWriteMsr(host: HostVcpu, msr: number, value: bigint): boolean {
  const { cpu, facilities, index } = host.vp;
  cpu.v64[0] = value;
  if (isHostState(msr)) return writeOwnMsr(cpu, msr, cpu.v32[0], cpu.v32[1]);
  return !isSynthetic(msr) && writeMsr(facilities, index, msr, cpu) === "handled";
}

/** MSRs of a hypervisor interface that these hosts do not offer. */
function isSynthetic(msr: number): boolean {
  return msr >= SYNTHETIC_MSR_BASE && msr <= SYNTHETIC_MSR_LAST;
}

/**
 * The CPUID page, filled in by the firmware at launch (SEV-SNP firmware ABI; Linux `asm/sev.h`).
 *
 * @module
 */

import { array, u32, u64 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** A leaf. */
export const SNP_CPUID_FN = structure("SNP_CPUID_FN", 0x30, [
  ["eax_in", 0x00, u32, "Leaf"],
  ["ecx_in", 0x04, u32, "Subleaf"],
  ["xcr0_in", 0x08, u64, "XCR0 for which it holds"],
  ["xss_in", 0x10, u64, "XSS for which it holds"],
  ["eax", 0x18, u32, "EAX"],
  ["ebx", 0x1c, u32, "EBX"],
  ["ecx", 0x20, u32, "ECX"],
  ["edx", 0x24, u32, "EDX"],
  reserved(0x28, 8),
], "torvalds/linux: arch/x86/include/asm/sev.h snp_cpuid_fn");

/** The page. */
export const SNP_CPUID_PAGE = structure("SNP_CPUID_PAGE", 0x1000, [
  ["count", 0x000, u32, "Leaves that are used; at most 64"],
  reserved(0x004, 4),
  reserved(0x008, 8),
  ["fn", 0x010, array(SNP_CPUID_FN, 64), "Leaves"],
  reserved(0xc10, 1008),
], "torvalds/linux: arch/x86/include/asm/sev.h snp_cpuid_table");

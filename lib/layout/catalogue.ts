/**
 * Every structure, union and bitfield that is declared, for listings and checks.
 *
 * The list is made from the modules' exports: a declaration is in it because it is exported.
 *
 * @module
 */

import type { AnyBits } from "./bits.ts";
import * as assistPage from "./hyperv/assist_page.ts";
import * as hypervCpuid from "./hyperv/cpuid.ts";
import * as events from "./hyperv/events.ts";
import * as hclRun from "./hyperv/hcl_run.ts";
import * as hypercalls from "./hyperv/hypercalls.ts";
import * as messages from "./hyperv/messages.ts";
import * as registerPage from "./hyperv/register_page.ts";
import * as registers from "./hyperv/registers.ts";
import * as hypervSegments from "./hyperv/segments.ts";
import * as sidecar from "./hyperv/sidecar.ts";
import * as synic from "./hyperv/synic.ts";
import * as ghcbNumbers from "./sev/constants/ghcb.ts";
import * as sevMsrs from "./sev/constants/msrs.ts";
import * as cpuidPage from "./sev/cpuid_page.ts";
import * as exitInfo from "./sev/exit_info.ts";
import * as ghcb from "./sev/ghcb.ts";
import * as guestMessage from "./sev/guest_message.ts";
import * as interrupts from "./sev/interrupts.ts";
import * as launch from "./sev/launch.ts";
import * as msrProtocol from "./sev/msr_protocol.ts";
import * as openhcl from "./sev/openhcl.ts";
import * as psc from "./sev/psc.ts";
import * as rmp from "./sev/rmp.ts";
import * as secretsPage from "./sev/secrets_page.ts";
import * as status from "./sev/status.ts";
import * as svsm from "./sev/svsm.ts";
import * as vmcb from "./sev/vmcb.ts";
import * as vmsa from "./sev/vmsa.ts";
import type { AnyStructure } from "./structure.ts";
import * as apic from "./x64/apic.ts";
import * as fxsave from "./x64/fxsave.ts";
import * as paging from "./x64/paging.ts";
import * as x64Registers from "./x64/registers.ts";
import * as x64Segments from "./x64/segments.ts";

/** A declaration and the subject under which it is listed. */
export interface CatalogueEntry {
  /** Subject, such as `hyperv/messages`; also the declaring module's path without extension. */
  readonly subject: string;
  /** The declaration. */
  readonly declaration: AnyStructure | AnyBits;
}

/** Modules by subject. */
const SUBJECTS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "hyperv/messages": messages,
  "hyperv/assist_page": assistPage,
  "hyperv/register_page": registerPage,
  "hyperv/registers": registers,
  "hyperv/segments": hypervSegments,
  "hyperv/events": events,
  "hyperv/hypercalls": hypercalls,
  "hyperv/synic": synic,
  "hyperv/cpuid": hypervCpuid,
  "hyperv/sidecar": sidecar,
  "hyperv/hcl_run": hclRun,
  "x64/segments": x64Segments,
  "x64/registers": x64Registers,
  "x64/paging": paging,
  "x64/apic": apic,
  "x64/fxsave": fxsave,
  "sev/vmsa": vmsa,
  "sev/vmcb": vmcb,
  "sev/ghcb": ghcb,
  "sev/msr_protocol": msrProtocol,
  "sev/psc": psc,
  "sev/rmp": rmp,
  "sev/exit_info": exitInfo,
  "sev/interrupts": interrupts,
  "sev/cpuid_page": cpuidPage,
  "sev/secrets_page": secretsPage,
  "sev/guest_message": guestMessage,
  "sev/launch": launch,
  "sev/svsm": svsm,
  "sev/status": status,
  "sev/openhcl": openhcl,
  "sev/constants/ghcb": ghcbNumbers,
  "sev/constants/msrs": sevMsrs,
};

/** Every declaration, by subject and in the modules' order of names. */
export const CATALOGUE: readonly CatalogueEntry[] = Object.entries(SUBJECTS).flatMap(([subject, module]) =>
  Object.values(module).filter(isDeclaration).map((declaration) => ({ subject, declaration }))
);

/** The declaration called `name`, or `undefined`. */
export function findDeclaration(name: string): AnyStructure | AnyBits | undefined {
  return CATALOGUE.find((entry) => entry.declaration.name === name)?.declaration;
}

/** Whether a module's export is a structure, union or bitfield. */
function isDeclaration(value: unknown): value is AnyStructure | AnyBits {
  if (typeof value !== "object" || value === null || !("kind" in value) || !("describe" in value)) return false;
  return value.kind === "structure" || value.kind === "union" || value.kind === "bits";
}

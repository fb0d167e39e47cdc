/**
 * The scenario `vmsa-crash-page`: a draft that copies a lower VTL's VMSA to a page which the host can read (openvmm pull
 * request 3386).
 *
 * @module
 */
import type { Property, System } from "../explore/system.ts";
import { VMSA_REGISTER_BYTES } from "../sev/register_protection.ts";
import { CrashAnnouncement, CrashCopyState, OPT_IN } from "../vtl2/snp/crash_copy.ts";
import { CrashPage, CrashPageState, LARGE_VMSA_BYTES } from "../vtl2/snp/crash_page.ts";
import type { NamedProperty, Scenario } from "./scenario.ts";

const P = {
  owner: {
    name: "guest-owns-crash-msrs",
    sentence: "P0 to P4 read back, and reach the host with the crash notification, as the guest wrote them.",
  },
  confidential: {
    name: "confidential",
    sentence:
      "No secret byte of a VMSA, no masked register and no nonce becomes readable for the host without an opt-in.",
  },
  cost: { name: "cost", sentence: "No page-sized copy is made that no crash has asked for." },
  size: {
    name: "size",
    sentence: "What is published is what was written, within the page; a VMSA that does not fit is refused, not cut.",
  },
  whole: {
    name: "whole",
    sentence: "A read that the sequence word accepts, or that is made after the announcement, is of one exit.",
  },
  identified: { name: "identified", sentence: "Who reads the page can tell VP, VTL and exit." },
  announced: {
    name: "announced-is-written",
    sentence: "The page is never announced before, or without, a good copy.",
  },
  raw: {
    name: "raw-access",
    sentence: "Raw bytes leave the VMSA through the one documented accessor.",
  },
} as const satisfies Record<string, NamedProperty>;

/** The scenario. */
export const vmsaCrashPage: Scenario = {
  name: "vmsa-crash-page",
  summary: "a VMSA in a page that the host can read: whose crash parameters, whose secrets, which exit",
  shows: [
    "The draft copies the VMSA after every run and at every VTL switch, and announces the page through crash parameters P3 " +
    "and P4, which belong to the guest: what the guest wrote is lost, before there is a copy. VMSA and nonce together are " +
    "plain text, so the host gets every register, in every build.",
    "The review asks for copies only when a message is pending, and for clearing P3 and P4 where the code is not built in: " +
    "both still take the guest's parameters, and the copies still come at every intercept.",
    "The draft makes the VMSA's bytes public. Whoever has a VMSA can then copy them, as diagnostics do with everything " +
    "else they show; one accessor that says what it hands out keeps them in.",
    "A copy that the guest's own crash asks for, announced by a notification of its own after it is whole, behind an opt-in " +
    "of the owner, with the size checked where it is used and a sequence word, gives the debugger what it wanted and the " +
    "guest what is its own.",
  ],
  source: "openvmm pull request 3386, openhcl/virt_mshv_vtl/src/processor/snp/mod.rs update_vmsa_crash_page",
  policies: [
    { policy: "vmsa.when", values: ["every-exit", "intercept", "crash-ctl", "off"] },
    { policy: "vmsa.publish", values: ["p3p4", "host-notification"] },
    { policy: "vmsa.build", values: ["debug", "release"] },
    { policy: "vmsa.opt-in", values: ["no", "yes"] },
    { policy: "vmsa.disabled", values: ["leave", "clear-p3p4"] },
    { policy: "vmsa.size-check", values: ["none", "assert-where-used"] },
    { policy: "vmsa.copy", values: ["plain", "sequence-word"] },
    { policy: "vmsa.raw", values: ["public", "accessor"] },
  ],
  options: [{
    name: "vmsa",
    meaning: "size of the VMSA structure in bytes: today's, or one that does not fit a page",
    values: [String(VMSA_REGISTER_BYTES), String(LARGE_VMSA_BYTES)],
    default: String(VMSA_REGISTER_BYTES),
  }, {
    name: "inspect",
    meaning: "whether the guest runs, or the host's diagnostics ask for its processor's state instead",
    values: ["no", "yes"],
    default: "no",
  }],
  properties: Object.values(P),
  memoryModels: ["sc", "tso"],
  bounds: {},
  matrix: {
    parts: [
      { vmsa: String(VMSA_REGISTER_BYTES), inspect: "no" },
      { vmsa: String(LARGE_VMSA_BYTES), inspect: "no" },
      { vmsa: String(VMSA_REGISTER_BYTES), inspect: "yes" },
    ],
    memoryModels: ["sc"],
    bounds: {},
  },
  build: (policies, options, system) =>
    build(new CrashPage(policies, Number(options.vmsa), options.inspect === "yes"), policies, system),
};

function build(model: CrashPage, policies: Readonly<Record<string, string>>, name: string): System {
  const always = (named: NamedProperty, kind: string, holds: () => boolean): Property => ({
    ...named,
    when: "always",
    kind,
    holds,
  });
  return {
    name,
    policies,
    memory: model.memory,
    agents: [{ agent: model.vp, processor: 0 }, { agent: model.reader, processor: 1, environment: true }],
    mutable: model.mutable,
    properties: [
      always(P.owner, "P3 or P4 is not what the guest wrote", () => {
        const seen = model.get("notified") === 0 ||
          (model.get64("notified_p3") === model.get64("written_p3") &&
            model.get64("notified_p4") === model.get64("written_p4"));
        return seen && model.get("wrong_readback") === 0;
      }),
      always(P.confidential, "registers and nonce are readable without an opt-in", () => {
        const shown = model.shows("crash") || model.shows("diagnostics");
        return !shown || model.is(OPT_IN, "yes");
      }),
      always(P.cost, "a copy is made that no crash has asked for", () => {
        return model.copied("copies") <= model.get("asked");
      }),
      always(P.size, "a VMSA that does not fit is copied beyond the page", () => model.copied("oversized") === 0),
      always(P.whole, "a read that was accepted mixes two exits", () => model.get("torn") === 0),
      always(P.identified, "the reader cannot tell which exit it has read", () => model.get("unidentified") === 0),
      always(P.announced, "the page is announced without a good copy in it", () => model.copied("early") === 0),
      always(P.raw, "bytes of the VMSA have left another way", () => {
        return !model.shows("diagnostics") && (!model.shows("crash") || model.copied("accessor_bytes") > 0);
      }),
    ],
    finished: () => model.vp.halted,
    structures: [
      { name: "VMM", at: model.state, layout: CrashPageState },
      { name: "copies", at: model.vp.state, layout: CrashCopyState },
      { name: "announcement", at: model.vp.announcement, layout: CrashAnnouncement },
    ],
  };
}

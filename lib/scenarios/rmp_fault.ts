/**
 * The scenario `rmp-fault`: what a host kernel should do about a write of its own that faults because the page belongs to a
 * guest (the mail to the Linux kernel list of 3 May 2021).
 *
 * @module
 */
import type { Property, System } from "../explore/system.ts";
import { type AccessCase, PAGE, RmpAccess, RmpAccessState } from "../host/rmp_access.ts";
import type { NamedProperty, Scenario } from "./scenario.ts";

const P = {
  privateWrite: {
    name: "no-private-write",
    sentence: "The host never writes memory that the guest keeps private, and never takes such memory away unasked.",
  },
  guestStop: {
    name: "no-guest-caused-stop",
    sentence: "The host never stops on anything that a guest can cause.",
  },
  ownStop: {
    name: "stops-on-own-error",
    sentence: "The host always stops on its own bookkeeping error: a page that was freed while it was assigned.",
  },
  underAccess: {
    name: "no-change-under-access",
    sentence: "No page changes its state while an access of the host or of a device is under way.",
  },
  checked: {
    name: "checked-is-used",
    sentence: "A page that is written is in the state that the host has seen: no window between check and use.",
  },
  leak: {
    name: "nothing-leaks",
    sentence: "When all is done, no access is under way, no lock is held, and every request has been answered.",
  },
  others: {
    name: "harms-itself-only",
    sentence: "Whatever this guest does, another guest's page stays what it was.",
  },
} as const satisfies Record<string, NamedProperty>;

/** The scenario. */
export const rmpFault: Scenario = {
  name: "rmp-fault",
  summary: "a write of the host faults on a page that a guest has made private: whose error is it, and who stops",
  shows: [
    "With SNP a write of the host to a page that is assigned to a guest raises a page fault. A patch series let the fault " +
    "handler recover from it; the answer was that the host knows which pages are private, that the place to ask is where a " +
    "guest address is turned into a host one, that -EFAULT is enough for races, and that a fault on a page which the host " +
    "itself had assigned is a bug on which it may stop.",
    "Without a lock there is a window between that check and the write: another processor of the guest can ask for the page " +
    "to be private in between. The hardware still refuses the write, so -EFAULT harms nobody but this guest; stopping on " +
    "any fault lets the guest stop the host, and recovering by sharing takes a page away that the guest has accepted.",
  ],
  source:
    "LKML, Re: [PATCH Part2 RFC v2 10/37] x86/fault: Add support to handle the RMP fault for kernel address, 2021-05-03",
  policies: [
    { policy: "host.backing", values: ["one-mapping", "guest-memfd"] },
    { policy: "host.check", values: ["none", "at-conversion", "under-lock"] },
    { policy: "host.on-fault", values: ["efault", "recover-by-sharing", "bug-any-fault", "bug-own-pages-only"] },
  ],
  options: [{
    name: "case",
    meaning: "who writes, and what the guest does",
    values: ["ghcb", "never-shared", "dma", "freed-page"],
    default: "ghcb",
  }],
  properties: Object.values(P),
  memoryModels: ["sc", "tso"],
  bounds: {},
  matrix: {
    parts: [{ case: "ghcb" }, { case: "never-shared" }, { case: "dma" }, { case: "freed-page" }],
    memoryModels: ["sc"],
    bounds: {},
  },
  build: (policies, options, system) => build(new RmpAccess(options.case as AccessCase, policies), policies, system),
};

function build(model: RmpAccess, policies: Readonly<Record<string, string>>, name: string): System {
  const other = model.rmp.entry(model.agents[0].port, PAGE.OTHER);
  const before = JSON.stringify(other);
  const property = (named: NamedProperty, when: "always" | "end", kind: string, holds: () => boolean): Property => ({
    ...named,
    when,
    kind,
    holds,
  });
  return {
    name,
    policies,
    memory: model.memory,
    agents: model.agents.map((agent, processor) => ({
      agent,
      processor,
      ...(agent.name === "guest" ? { environment: true } : {}),
    })),
    mutable: model.mutable,
    properties: [
      property(
        P.privateWrite,
        "always",
        "the host writes or takes away what the guest keeps private",
        () => model.get("private_writes") === 0 && !(model.get("taken_away") !== 0 && model.get("guest_failed") !== 0),
      ),
      property(
        P.guestStop,
        "always",
        "the host stops on a fault that the guest has caused",
        () => model.get("stopped") === 0 || model.get("stopped_at") === PAGE.OWN,
      ),
      property(
        P.ownStop,
        "always",
        "a write to a page that was freed while assigned goes unnoticed",
        () => model.get("own_unnoticed") === 0,
      ),
      property(
        P.underAccess,
        "always",
        "the page becomes private while it is being written",
        () => model.get("changed_under_access") === 0,
      ),
      property(
        P.checked,
        "always",
        "the page is private when it is written",
        () => model.get("stale_checks") === 0,
      ),
      property(
        P.leak,
        "end",
        "an access, a lock or a request is left over",
        () =>
          model.get("stopped") !== 0 ||
          (model.get("mapped") === 0 && model.get("lock") === 0 && model.get("request") !== 1),
      ),
      property(
        P.others,
        "always",
        "another guest's page has changed",
        () => JSON.stringify(model.rmp.entry(model.agents[0].port, PAGE.OTHER)) === before,
      ),
    ],
    finished: () => model.agents.every((agent) => agent.halted || agent.name !== "host.writer"),
    structures: [{ name: "state", at: model.state, layout: RmpAccessState }],
  };
}

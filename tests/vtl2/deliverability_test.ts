import { assertEquals } from "@std/assert";
import {
  handleInterruptionDeliverable,
  handleSintDeliverable,
  queueMessage,
  requestInterruptNotification,
} from "../../lib/vtl2/handlers/deliverability.ts";
import { CRASHED, HANDLED } from "../../lib/vtl2/vmm_vp.ts";
import { FixtureVp, RAM } from "./fixture.ts";

/** Queues a message of type `type` for `sint`. */
function queue(vp: FixtureVp, sint: number, type: number): boolean {
  const at = RAM + 0xf000;
  vp.memory.u32[at / 4] = type;
  return queueMessage(vp, sint, at);
}
const OBJECT_IN_USE = 0x19;

Deno.test("interruption deliverable: the notification is cleared and the PIC's vector becomes an ExtInt event", () => {
  const vp = new FixtureVp();
  requestInterruptNotification(vp);
  assertEquals(vp.saved.deliverability_next, 2n);
  vp.saved.deliverability_current = 2n;
  vp.extInt = 0x31;
  vp.setMessage(0x80010008, {});
  assertEquals(handleInterruptionDeliverable(vp), HANDLED);
  assertEquals([vp.saved.deliverability_current, vp.saved.deliverability_next], [0n, 0n]);
  // Pending, type 5 in bits 3:1, vector in bits 15:8.
  assertEquals(vp.asked, [["event", 0x310bn, 0n, 0n, 0n]]);
  vp.extInt = -1;
  assertEquals(handleInterruptionDeliverable(vp), HANDLED);
  assertEquals(vp.asked.length, 1, "nothing to inject");
});

Deno.test("interruption deliverable: another type than an interrupt is a failed assertion", () => {
  const vp = new FixtureVp();
  vp.setMessage(0x80010008, { bytes: { 40: 2 } });
  assertEquals(handleInterruptionDeliverable(vp), CRASHED);
  assertEquals(vp.crashes[0]?.left, 2n);
});

Deno.test("SINT deliverable: queued messages are posted in order, ObjectInUse keeps them and asks again", () => {
  const vp = new FixtureVp();
  for (const [sint, type] of [[2, 0x11], [4, 0x12], [2, 0x13], [2, 0x14]]) queue(vp, sint, type);
  assertEquals(vp.saved.deliverability_next, 0x14n << 48n);
  vp.saved.deliverability_current = 0x14n << 48n;
  vp.postStatus = [0, OBJECT_IN_USE];
  vp.setMessage(0x80000062, { bytes: { 40: 0x04 } });
  assertEquals(handleSintDeliverable(vp), HANDLED);
  assertEquals(vp.asked, [["post", 2, 0x11], ["post", 2, 0x13]], "not SINT 4, and 14 stays behind 13");
  assertEquals(vp.saved.deliverability_current, 0x10n << 48n);
  assertEquals(vp.saved.deliverability_next, 0x14n << 48n);
  vp.setMessage(0x80000062, { bytes: { 40: 0x14 } });
  handleSintDeliverable(vp);
  assertEquals(vp.asked.slice(2), [["post", 4, 0x12], ["post", 2, 0x13], ["post", 2, 0x14]]);
  assertEquals([vp.saved.queued, vp.saved.deliverability_next], [0, 0n]);
});

Deno.test("SINT deliverable: a message that is refused for another reason is dropped", () => {
  const vp = new FixtureVp();
  queue(vp, 2, 1);
  vp.postStatus = [0x05];
  vp.setMessage(0x80000062, { bytes: { 40: 0x04 } });
  handleSintDeliverable(vp);
  assertEquals(vp.saved.queued, 0);
});

Deno.test("the message queue is bounded", () => {
  const vp = new FixtureVp();
  for (let i = 0; i < 8; i++) assertEquals(queue(vp, 2, i), true);
  assertEquals(queue(vp, 2, 9), false);
});

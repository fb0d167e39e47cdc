import { compareRandomGuests, RANDOM_GUESTS } from "./random_guests.ts";

Deno.test("bare, kernel and sidecar: random guests leave the same behind, two VPs", async () => {
  await compareRandomGuests({ first: 0, count: RANDOM_GUESTS / 2, vps: 2 });
});

Deno.test("bare, kernel and sidecar: random guests leave the same behind on workers", async () => {
  await compareRandomGuests({ first: 1_000_000, count: 2, vps: 2, concurrent: true });
  await compareRandomGuests({ first: 1_000_002, count: 2, vps: 4, sidecarNodes: 2, concurrent: true });
});

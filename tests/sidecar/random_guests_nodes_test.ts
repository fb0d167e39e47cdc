import { compareRandomGuests, RANDOM_GUESTS } from "./random_guests.ts";

Deno.test("bare, kernel and sidecar: random guests leave the same behind, several nodes and mixed machines", async () => {
  const first = RANDOM_GUESTS / 2;
  await compareRandomGuests({ first, count: first - 60, vps: 2 });
  await compareRandomGuests({ first: RANDOM_GUESTS - 60, count: 20, vps: 3 });
  await compareRandomGuests({ first: RANDOM_GUESTS - 40, count: 20, vps: 4, sidecarNodes: 2 });
  await compareRandomGuests({ first: RANDOM_GUESTS - 20, count: 20, vps: 5, sidecarVps: [2, 4] });
});

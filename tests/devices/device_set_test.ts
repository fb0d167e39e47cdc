import { assert, assertEquals, assertThrows } from "@std/assert";
import { type DeviceBackend, DeviceMailbox, DirectLink, MailboxLink, serveMailbox } from "../../lib/devices/backend.ts";
import { DEVICES_SIZE, DeviceState, LockedDevices } from "../../lib/devices/device_set.ts";
import { mix, RecordedDevices } from "../../lib/devices/recorded.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";
import { DeviceFixture } from "./fixture.ts";

Deno.test("ports that nothing claims read as all ones and ignore writes", () => {
  const f = new DeviceFixture();
  assertEquals([f.set.portIn(0x1234, 1), f.set.portIn(0x1234, 2), f.set.portIn(0x1234, 4)], [0xff, 0xffff, -1]);
  assertEquals(f.set.portIn(0xffff, 4), -1);
  f.set.portOut(0x1234, 4, 0x12345678);
});

Deno.test("device memory that nothing claims reads as all ones", () => {
  const f = new DeviceFixture();
  const read = (size: number) => {
    f.set.mmioRead(0xd0000000 | 0, 1, size);
    return [...f.set.value];
  };
  assertEquals([1, 2, 4, 8].map(read), [[0xff, 0], [0xffff, 0], [-1, 0], [-1, -1]]);
});

Deno.test("a wide access to byte registers is made byte by byte, lowest port first", () => {
  const f = new DeviceFixture();
  f.set.portOut(0x3fe, 2, 0xab00);
  assertEquals(f.set.portIn(0x3fe, 2), 0xabb0, "MSR and scratch register");
});

Deno.test("the exit port records its first value and ends the machine once", () => {
  const f = new DeviceFixture();
  assertEquals(f.set.exitValue, undefined);
  f.set.portOut(0xf4, 4, 0xdeadbeef | 0);
  f.set.portOut(0xf4, 4, 1);
  assertEquals([f.exits, f.set.exitValue], [[0xdeadbeef], 0xdeadbeef]);
});

Deno.test("the debug port outputs bytes and answers e9", () => {
  const f = new DeviceFixture();
  f.out(0x402, 0x68, 0x69);
  assertEquals(f.in(0x402), 0xe9);
  assertEquals(new TextDecoder().decode(f.set.debugOutput.drain()), "hi");
});

Deno.test("ACPI PM timer: 3.579545 MHz, 32 bits or 24, readable by parts", () => {
  const f = new DeviceFixture();
  f.nowNs = 10e9;
  assertEquals(f.set.portIn(0x408, 4), 35_795_450);
  assertEquals(f.set.portIn(0x408, 2) | f.set.portIn(0x40a, 2) << 16, 35_795_450);
  f.set.reset({ ramBytes: 1 << 24, epochMs: 0, pmTimerWide: false });
  assertEquals(f.set.portIn(0x408, 4), 35_795_450 % 2 ** 24);
});

Deno.test("all state is in the shared memory: a second set of objects over the same bytes goes on where the first was", () => {
  const f = new DeviceFixture();
  f.out(0x43, 0x34);
  f.out(0x40, 0xe8, 0x03);
  f.out(0x70, 0x0f);
  f.out(0x71, 0x99);
  const other = new DeviceFixture();
  other.memory.u8.set(f.memory.u8.subarray(f.base, f.base + DEVICES_SIZE), other.base);
  assertEquals(other.set.nextDeadline(), f.set.nextDeadline());
  assertEquals(other.in(0x71), 0x99);
});

Deno.test("the device lock excludes: a holder makes tryLock fail, and waits are bounded by its release", () => {
  const f = new DeviceFixture();
  assert(f.set.lock.free(f.port));
  assert(f.set.lock.tryLock(f.port));
  assert(!f.set.lock.tryLock(f.port) && !f.set.lock.free(f.port));
  f.set.lock.unlock(f.port);
  f.set.lock.lock(f.port);
  // A waiter announced itself and gave up before the release: the lock must not stay handed over to nobody.
  f.memory.i32[(f.base + DeviceState.at.lock) >>> 2] = 2;
  f.set.lock.unlock(f.port);
  assert(f.set.lock.tryLock(f.port));
});

Deno.test("the device lock is taken in turn by two threads, and no increment under it is lost", async () => {
  const f = new DeviceFixture();
  const rounds = 3000;
  const counter = 0;
  const source = `
    import { MachineMemory } from "${new URL("../../lib/memory/machine_memory.ts", import.meta.url)}";
    import { DirectPort } from "${new URL("../../lib/memory/port.ts", import.meta.url)}";
    import { DeviceLock } from "${new URL("../../lib/devices/device_lock.ts", import.meta.url)}";
    self.onmessage = ({ data: { wasm, at, rounds } }) => {
      const memory = new MachineMemory(wasm);
      const port = new DirectPort(memory);
      const lock = new DeviceLock(memory, at);
      for (let i = 0; i < rounds; i++) {
        lock.lock(port);
        memory.u32[${counter}]++;
        lock.unlock(port);
      }
      self.postMessage("done");
      self.close();
    };`;
  const done: Promise<void>[] = [];
  for (let i = 0; i < 2; i++) {
    const worker = new Worker(`data:application/javascript,${encodeURIComponent(source)}`, { type: "module" });
    done.push(
      new Promise((resolve, reject) => {
        worker.onmessage = () => resolve();
        worker.onerror = (event) => reject(new Error(event.message));
      }),
    );
    worker.postMessage({ wasm: f.memory.wasm, at: f.base + DeviceState.at.lock, rounds });
  }
  await Promise.all(done);
  assertEquals(f.memory.u32[counter], 2 * rounds);
});

/** A backend with one register at ports 500 to 503 and one at d0000000. */
class OneRegister implements DeviceBackend {
  readonly claims = { ports: [{ first: 0x500, last: 0x503 }], mmio: [{ base: 0xd0000000, size: 8 }] };
  register = 0n;
  portIn = (_port: number, _size: number) => Number(BigInt.asUintN(32, this.register));
  portOut = (_port: number, _size: number, value: number) => {
    this.register = BigInt(value);
  };
  mmioRead = (_gpa: bigint, _size: number) => this.register;
  mmioWrite = (_gpa: bigint, _size: number, value: bigint) => {
    this.register = value;
  };
}

Deno.test("a backend in the same thread is asked for what it claims and for nothing else", () => {
  const f = new DeviceFixture();
  const backend = new OneRegister();
  const devices = new LockedDevices(f.set, f.port, new DirectLink(backend));
  devices.portOut(0x500, 4, 0xfedcba98 | 0);
  assertEquals(backend.register, 0xfedcba98n);
  assertEquals([devices.portIn(0x500, 1), devices.portIn(0x500, 2), devices.portIn(0x500, 4)], [
    0x98,
    0xba98,
    0xfedcba98 | 0,
  ]);
  devices.mmioWrite(0xd0000000 | 0, 0, 8, 0x11111111, 0x22222222);
  assertEquals(backend.register, 0x22222222_11111111n);
  devices.mmioRead(0xd0000000 | 0, 0, 8);
  assertEquals([...devices.value], [0x11111111, 0x22222222]);
  devices.mmioRead(0xd0000008 | 0, 0, 4);
  assertEquals([...devices.value], [-1, 0]);
  assertEquals(devices.portIn(0x504, 1), 0xff);
  assert(f.set.lock.free(f.port));
});

Deno.test("claims that make no sense are bad input", () => {
  const backend = (claims: DeviceBackend["claims"]) => new DirectLink({ ...new OneRegister(), claims });
  assertThrows(() => backend({ ports: [{ first: 5, last: 4 }], mmio: [] }), BadInput, "Port range 5-4");
  assertThrows(() => backend({ ports: [], mmio: [{ base: -1, size: 4 }] }), BadInput, "Device memory at -1");
});

Deno.test("a mailbox carries an access to another thread and gives up when the machine stops", () => {
  const memory = MachineMemory.allocate(DeviceMailbox.size);
  const port = new DirectPort(memory);
  const backend = new OneRegister();
  let stop = false;
  // The main thread's turn comes whenever the waiting side asks whether the machine still runs.
  const running = () => !stop && (serveMailbox(memory, port, 0, backend), true);
  const link = new MailboxLink(memory, port, 0, backend.claims, running);
  link.portOut(0x500, 4, 0x89abcdef | 0);
  assertEquals(backend.register, 0x89abcdefn);
  assertEquals(link.portIn(0x500, 4), 0x89abcdef | 0);
  link.mmioWrite(0xd0000000, 8, 1, 2);
  const out = new Int32Array(2);
  link.mmioRead(0xd0000000, 8, out);
  assertEquals([...out], [1, 2]);
  assertEquals(serveMailbox(memory, port, 0, backend), false);
  stop = true;
  assertEquals(link.portIn(0x500, 4), -1);
});

Deno.test("recorded devices answer by the rule, counting port reads, memory reads and MSR reads apart", () => {
  const memory = MachineMemory.allocate(64);
  const devices = new RecordedDevices(memory, 0);
  const rule = (a: number, k: number) => {
    const m = 2n ** 32n - 1n;
    let h = ((BigInt(a) ^ 0x5bd1e995n) * 0x9e3779b1n + BigInt(k) * 0x85ebca77n) & m;
    h ^= h >> 15n;
    h = h * 0x2c1b3c6dn & m;
    return Number(h ^ h >> 12n);
  };
  assertEquals(mix(0x3f8, 3) >>> 0, rule(0x3f8, 3));
  assertEquals(devices.portIn(0x60, 1), rule(0x60, 0) & 0xff);
  assertEquals(devices.portIn(0x60, 4) >>> 0, rule(0x60, 1));
  devices.mmioRead(0xfe000000 | 0, 1, 8);
  assertEquals([...devices.value].map((v) => v >>> 0), [rule(0xfe000001, 0), rule(0x7e000001, 0)]);
  devices.msrs.read(0x40000010);
  assertEquals([...devices.value].map((v) => v >>> 0), [rule(0x40000010, 0), rule(0xc0000010, 0)]);
});

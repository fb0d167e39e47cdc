/** Devices in a small memory with a clock that the test turns. */
import { DEVICES_SIZE, DeviceSet } from "../../lib/devices/device_set.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";

/** What a test sees of the machine around the devices. */
export class DeviceFixture {
  readonly memory = MachineMemory.allocate(DEVICES_SIZE + 4096);
  readonly port = new DirectPort(this.memory);
  readonly base = 4096;
  nowNs = 0;
  readonly messages: [address: number, data: number][] = [];
  readonly intLevels: boolean[] = [];
  readonly exits: number[] = [];
  readonly set = new DeviceSet(this.memory, this.port, this.base, {
    raiseInterrupt: (address, data) => this.messages.push([address, data]),
    setExtInt: (level) => this.intLevels.push(level),
    clock: () => this.nowNs,
    onExit: (value) => this.exits.push(value),
  });

  constructor(ramBytes = 16 << 20, epochMs = Date.UTC(2024, 1, 29, 23, 59, 58)) {
    this.set.reset({ ramBytes, epochMs, pmTimerWide: true });
  }
  out(port: number, ...values: number[]): void {
    for (const value of values) this.set.portOut(port, 1, value);
  }
  in(port: number): number {
    return this.set.portIn(port, 1);
  }
  /** Turns the clock to `ns` and lets the devices act. */
  at(ns: number): void {
    this.nowNs = ns;
    this.set.poll(ns);
  }
}

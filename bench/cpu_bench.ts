/**
 * The processor alone: guest compute, port exits with a trivial bus, decoding. Each benchmark runs a fixed number of guest
 * instructions (in the name), so that instructions per second are that number divided by the time shown.
 *
 * @module
 */
import { Decoder } from "../lib/cpu/decode.ts";
import { OPCODES } from "../lib/cpu/opcode_map.ts";
import { CpuState, EXIT_IO } from "../lib/cpu/state.ts";
import { newProcessor, place, PlainBus, start } from "../tests/cpu/processor.ts";

const RIP = CpuState.at.rip >> 2;
/** Turns of a loop in one measurement. */
const TURNS = 100_000;

/** A loop that ends in HLT, with RDI pointing to memory and RSI counting down. */
function loop(name: string, perTurn: number, code: readonly number[], baseline = false): void {
  const { cpu } = newProcessor("long");
  Deno.bench(`${name}: ${TURNS * perTurn} instructions`, { group: "compute", baseline }, () => {
    start(cpu, "long");
    place(cpu, "long", code);
    cpu.g64[0] = 1n;
    cpu.g64[3] = 6364136223846793005n;
    cpu.g64[1] = 1442695040888963407n;
    cpu.g64[7] = 0x20_0000n;
    cpu.g64[6] = BigInt(TURNS);
    cpu.run(TURNS * perTurn + 1);
  });
}

// imul rax, rbx; add rax, rcx; mov [rdi], rax; dec rsi; jnz
loop("LCG with a store and a branch", 5, [
  ...[0x48, 0x0f, 0xaf, 0xc3, 0x48, 0x01, 0xc8, 0x48, 0x89, 0x07],
  ...[0x48, 0xff, 0xce, 0x75, 0xf1, 0xf4],
], true);
// add rax, rbx; xor rcx, rax; dec esi; jnz
loop("ALU", 4, [0x48, 0x01, 0xd8, 0x48, 0x31, 0xc1, 0xff, 0xce, 0x75, 0xf6, 0xf4]);
// mov eax, [rdi]; add eax, ebx; mov [rdi + 4], eax; add ecx, 1; dec esi; jnz
loop("load, add, store", 6, [
  ...[0x8b, 0x07, 0x01, 0xd8, 0x89, 0x47, 0x04],
  ...[0x83, 0xc1, 0x01, 0xff, 0xce, 0x75, 0xf2, 0xf4],
]);
// call f; dec esi; jnz; hlt; f: push rbp; mov rbp, rsp; pop rbp; ret
loop("call and return", 7, [
  ...[0xe8, 0x06, 0, 0, 0, 0xff, 0xce, 0x75, 0xf7, 0xf4, 0x90],
  ...[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3],
]);

/** A bus that leaves at every port access. */
class LeavingBus extends PlainBus {
  override out(cpu: Parameters<PlainBus["hlt"]>[0]): void {
    cpu.exit(EXIT_IO);
  }
}

const exits = newProcessor("long", undefined, 0, new LeavingBus()).cpu;
place(exits, "long", [0xee, 0xeb, 0xfd]); // out dx, al; jmp back
Deno.bench("1000 port exits: leave run, advance RIP, enter run", { group: "exits" }, () => {
  for (let n = 0; n < 1000; n++) {
    exits.run(1000);
    exits.s32[RIP] += 1;
  }
});

const code = Uint8Array.of(0x48, 0x81, 0x84, 0x5e, 1, 2, 3, 4, 5, 6, 7, 8);
const decoder = new Decoder(OPCODES);
Deno.bench("1000 decodes of add [rsi+rbx*2+disp32], imm32", { group: "decode" }, () => {
  for (let n = 0; n < 1000; n++) decoder.decode(code, 0, code.length, 64);
});

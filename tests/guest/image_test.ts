import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type GuestImage,
  type InitialState,
  loadImage,
  type LoadImageOptions,
  parseImage,
  type ParseImageOptions,
} from "../../lib/guest/image.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import linked from "./gnu_ld_images.json" with { type: "json" };

const MEMORY_BYTES = 16 << 20;

function guestMemory(size = MEMORY_BYTES): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(size));
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The state in the recordings' notation: hexadecimal strings. */
function recorded(state: InitialState): unknown {
  const hex = (value: number | bigint): string => value.toString(16);
  const { cr0, cr2, cr3, cr4, cr8, efer, gdtr, idtr } = state;
  return {
    gpr: state.gpr.map(hex),
    rip: hex(state.rip),
    rflags: hex(state.rflags),
    seg: Object.fromEntries(
      Object.entries(state.seg).map(([name, { selector, attributes, limit, base }]) => [
        name,
        [selector, attributes, limit, base].map(hex),
      ]),
    ),
    sys: {
      ...Object.fromEntries(
        Object.entries({ cr0, cr2, cr3, cr4, cr8, efer }).map(([name, value]) => [name, hex(value)]),
      ),
      gdtr: [hex(gdtr.base), hex(gdtr.limit)],
      idtr: [hex(idtr.base), hex(idtr.limit)],
    },
  };
}

function expectedState(
  rsp: string,
  rip: string,
  code: string[],
  data: string[],
  sys: Record<string, string | string[]>,
): unknown {
  const gpr = Array.from({ length: 16 }, (_, i) => i === 4 ? rsp : "0");
  const ldtr = ["0", "0", "0", "0"];
  const tr = ["0", "8b", "ffff", "0"];
  const seg = { es: data, cs: code, ss: data, ds: data, fs: data, gs: data, ldtr, tr };
  return { gpr, rip, rflags: "2", seg, sys: { cr2: "0", cr8: "0", ...sys } };
}

const HALT = new Uint8Array([0xf4]);

function load(
  bytes: Uint8Array,
  options: ParseImageOptions = {},
  loadOptions: LoadImageOptions = {},
  memory = guestMemory(),
): { image: GuestImage; state: InitialState; memory: Uint8Array } {
  const image = parseImage(bytes, "image", options);
  return { image, state: loadImage(memory, image, loadOptions), memory };
}

function complaint(
  bytes: Uint8Array,
  options: ParseImageOptions = {},
  loadOptions: LoadImageOptions = {},
  memory = guestMemory(),
): string {
  return assertThrows(() => load(bytes, options, loadOptions, memory), BadInput).message;
}

Deno.test("flat image: without a mode it starts in real mode at 7c00 with the recordings' registers", () => {
  const { state, memory } = load(HALT);
  assertEquals(
    recorded(state),
    expectedState("7c00", "7c00", ["0", "9b", "ffff", "0"], ["0", "93", "ffff", "0"], {
      cr0: "10",
      cr3: "0",
      cr4: "0",
      efer: "0",
      gdtr: ["0", "ffff"],
      idtr: ["0", "ffff"],
    }),
  );
  assertEquals(memory[0x7c00], 0xf4);
  assertEquals(memory.reduce((sum, byte) => sum + byte, 0), 0xf4);
});

Deno.test("flat image: in long mode it starts at 100000 with the recordings' registers", () => {
  const { state } = load(HALT, { mode: "long" });
  assertEquals(
    recorded(state),
    expectedState("80000", "100000", ["8", "a9b", "ffffffff", "0"], ["10", "c93", "ffffffff", "0"], {
      cr0: "80050033",
      cr3: "1000",
      cr4: "620",
      efer: "d01",
      gdtr: ["8000", "17"],
      idtr: ["0", "0"],
    }),
  );
  assertEquals([state.dr6, state.dr7, state.fcw, state.mxcsr], [0xffff0ff0n, 0x400n, 0x37f, 0x1f80]);
});

Deno.test("flat image: in protected mode it starts at 100000 with flat 32-bit segments and no paging", () => {
  const { state, memory } = load(HALT, { mode: "protected" });
  assertEquals(
    recorded(state),
    expectedState("80000", "100000", ["8", "c9b", "ffffffff", "0"], ["10", "c93", "ffffffff", "0"], {
      cr0: "33",
      cr3: "0",
      cr4: "600",
      efer: "0",
      gdtr: ["8000", "17"],
      idtr: ["0", "0"],
    }),
  );
  const gdt = [0, 8, 16].map((at) => view(memory).getBigUint64(0x8000 + at, true).toString(16));
  assertEquals(gdt, ["0", "cf9b000000ffff", "cf93000000ffff"]);
});

Deno.test("long mode: PML4 at 1000, PDPT at 2000, four page directories map 4 GiB onto themselves", () => {
  const { memory } = load(HALT, { mode: "long" });
  const entries = view(memory);
  const gdt = [0, 8, 16].map((at) => entries.getBigUint64(0x8000 + at, true).toString(16));
  assertEquals(gdt, ["0", "af9b000000ffff", "cf93000000ffff"]);
  for (const address of [0n, 0x12345678n, 0x7fffffffn, 0xfee00010n, 0xffffffffn]) {
    const index = (shift: bigint): number => Number(address >> shift & 0x1ffn) * 8;
    const pml4e = entries.getBigUint64(0x1000 + index(39n), true);
    assertEquals(pml4e, 0x2007n);
    const pdpte = entries.getBigUint64(0x2000 + index(30n), true);
    assertEquals(pdpte & 0xfffn, 7n);
    const pde = entries.getBigUint64(Number(pdpte & ~0xfffn) + index(21n), true);
    assertEquals(pde & 0x1fffffn, 0x87n);
    assertEquals((pde & ~0x1fffffn) | (address & 0x1fffffn), address);
  }
  const used = memory.findLastIndex((byte, at) => byte !== 0 && at < 0x7fff);
  assert(used < 0x7000, `something lies at ${used.toString(16)}`);
});

Deno.test("flat image: load address and entry point can be given", () => {
  const { state, memory } = load(new Uint8Array([0x90, 0xf4]), { mode: "long", load: 0x200000, entry: 0x200001 });
  assertEquals([memory[0x200000], memory[0x200001], state.rip], [0x90, 0xf4, 0x200001n]);
});

async function linkedFile(name: string): Promise<Uint8Array> {
  const { file } = linked.find((entry) => entry.name === name)!;
  const packed = new Blob([Uint8Array.from(atob(file), (c) => c.charCodeAt(0))]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

Deno.test("ELF: executables of GNU ld load where readelf says", async () => {
  for (const { name, loads, entry } of linked) {
    const bytes = await linkedFile(name);
    const memory = guestMemory().fill(0xee, 0x102000, 0x104000);
    const { image, state } = load(bytes, {}, {}, memory);
    assertEquals(image.segments.length, loads.length);
    for (const { offset, paddr, filesz, memsz } of loads) {
      const [at, from, size, total] = [Number(paddr), Number(offset), Number(filesz), Number(memsz)];
      assertEquals(memory.slice(at, at + size), bytes.slice(from, from + size));
      assert(memory.slice(at + size, at + total).every((byte) => byte === 0), "the bss is zero");
    }
    assertEquals(state.rip, BigInt.asUintN(31, BigInt(entry)));
    assertEquals(image.mode, name.endsWith("64") ? "long" : "protected");
  }
});

Deno.test("ELF: the mode can be another than the machine field's, and the entry another than the header's", async () => {
  const { state } = load(await linkedFile("elf64"), { mode: "protected", entry: 0x100001 });
  assertEquals([state.mode, state.rip, state.efer], ["protected", 0x100001n, 0n]);
});

/** Overwrites bytes in a copy. */
function altered(bytes: Uint8Array, offset: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, offset);
  return copy;
}

Deno.test("ELF: what is not a complete static x86 executable is refused by field and offset", async () => {
  const good = await linkedFile("elf64");
  const cases: [Uint8Array, string][] = [
    [good.slice(0, 10), "image: truncated: ELF identification takes 0x10 bytes at offset 0x0, the file has 0xa"],
    [good.slice(0, 40), "image: truncated: ELF header takes 0x40 bytes at offset 0x0, the file has 0x28"],
    [good.slice(0, 100), "image: truncated: program header table takes 0xe0 bytes at offset 0x40, the file has 0x64"],
    [good.slice(0, 0x2002), "image: truncated: segment 2 takes 0x3 bytes at offset 0x2000, the file has 0x2002"],
    [altered(good, 4, 3), "image: ELF class 3 at offset 0x4, expected 1 (32-bit) or 2 (64-bit)"],
    [altered(good, 5, 2), "image: ELF data encoding 2 at offset 0x5, expected 1 (little-endian)"],
    [altered(good, 6, 0), "image: ELF version 0 at offset 0x6, expected 1"],
    [altered(good, 18, 0xb7), "image: ELF machine 183 at offset 0x12 in a 64-bit file, expected 62 (x86-64)"],
    [altered(good, 4, 1), "image: ELF machine 62 at offset 0x12 in a 32-bit file, expected 3 (386)"],
    [altered(good, 16, 3), "image: ELF type 3 at offset 0x10, expected 2 (executable, not relocatable or shared)"],
    [altered(good, 56, 0), "image: 0 program headers at offset 0x38, expected 1 to 128"],
    [altered(good, 56, 0xff, 0xff), "image: 65535 program headers at offset 0x38, expected 1 to 128"],
    [altered(good, 54, 32), "image: program header size 32 at offset 0x36, expected 56"],
    [
      altered(good, 39, 0xff),
      "image: e_phoff at offset 0x20 is 0xff00000000000040, expected less than 2^53",
    ],
    [altered(good, 24, 0, 0, 0, 0x7f), "image: entry point 0x7f000000 at offset 0x18 lies in no loadable segment"],
    [altered(good, 0x40, 3), "image: program header 0 asks for a dynamic linker, expected a static executable"],
    [
      altered(good, 0x40 + 56 + 24, 0, 0x20, 0x10),
      "image: segment 2 at 0x102000 overlaps segment 1, which ends at 0x102002",
    ],
    [
      altered(good, 0x40 + 56 + 40, 1),
      "image: program header 1: p_filesz 0x2 is larger than p_memsz 0x1",
    ],
    [
      altered(good, 0x40 + 56 + 24, 0, 0, 0, 0x10),
      "image: segment 1 takes 0x2 bytes at 0x10000000, memory ends at 0x1000000",
    ],
    [
      altered(good, 0x40 + 56 + 24, 0, 0x80, 0),
      "image: segment 1 at 0x8000 overlaps the GDT of long mode at 0x8000",
    ],
    [
      altered(good, 0x40 + 24, 0, 0x60, 0),
      "image: segment 0 at 0x6000 overlaps the page tables of long mode at 0x1000",
    ],
  ];
  for (const [bytes, expected] of cases) assertEquals(complaint(bytes), expected);
});

Deno.test("image: what cannot be loaded is refused in one line", () => {
  assertEquals(complaint(new Uint8Array(0)), "image: file is empty, expected a flat binary, ELF or multiboot image");
  assertEquals(
    complaint(new Uint8Array(MEMORY_BYTES)),
    "image: segment 0 takes 0x1000000 bytes at 0x7c00, memory ends at 0x1000000",
  );
  assertEquals(
    complaint(HALT, { load: 0x20000 }),
    "image: entry 0x20000 in real mode, expected less than 0x10000",
  );
  assertEquals(
    complaint(HALT, { entry: 5 }),
    "image: entry 0x5 lies outside the image, expected an address in one of its segments",
  );
  assertEquals(complaint(HALT, { load: -1 }), "image: load address -1, expected a whole number from 0 to 2^53 - 1");
  assertEquals(
    complaint(HALT, { mode: "long", load: 0x4000 }),
    "image: segment 0 at 0x4000 overlaps the page tables of long mode at 0x1000",
  );
  assertEquals(
    complaint(HALT, { mode: "protected", load: 0x1000 }, {}, guestMemory(0x4000)),
    "image: GDT of protected mode at 0x8000 lies beyond memory, which ends at 0x4000",
  );
  assertEquals(
    complaint(HALT, {}, { modules: [{ bytes: HALT, commandLine: "m" }] }),
    "image: modules need a multiboot kernel, this is a flat image",
  );
});

/** A kernel with a multiboot header at `offset`, address fields included, loaded at 100000. */
function kernel(offset: number, flags: number, fields: number[], length = offset + 64): Uint8Array {
  const bytes = new Uint8Array(length).fill(0x90);
  const header = [0x1badb002, flags, -(0x1badb002 + flags), ...fields];
  header.forEach((value, i) => view(bytes).setUint32(offset + 4 * i, value >>> 0, true));
  return bytes;
}

/** Address fields for a kernel whose file begins at 100000. */
function addressFields(offset: number, loadEnd = 0, bssEnd = 0, entry = 0x100000 + offset + 32): number[] {
  return [0x100000 + offset, 0x100000, loadEnd, bssEnd, entry];
}

function readString(memory: Uint8Array, at: number): string {
  return new TextDecoder().decode(memory.slice(at, memory.indexOf(0, at)));
}

Deno.test("multiboot: the kernel starts in flat protected mode, paging off, with the magic in EAX", () => {
  const { image, state } = load(kernel(0x100, 0x10003, addressFields(0x100)));
  assertEquals([image.format, state.mode], ["multiboot", "protected"]);
  assertEquals(state.gpr[0], 0x2badb002n);
  assertEquals(state.rip, 0x100120n);
  // Section 3.2: CS is a 32-bit read/execute segment, the others read/write, all with offset 0 and limit ffffffff.
  assertEquals(state.seg.cs, { selector: 8, attributes: 0xc9b, limit: 0xffffffff, base: 0n });
  for (const name of ["ds", "es", "fs", "gs", "ss"] as const) {
    assertEquals(state.seg[name], { selector: 16, attributes: 0xc93, limit: 0xffffffff, base: 0n });
  }
  assertEquals(state.cr0 & 0x80000001n, 1n);
  assertEquals(state.rflags & 0x20200n, 0n);
});

Deno.test("multiboot: load_end_addr cuts the image and bss_end_addr zeroes memory", () => {
  const bytes = kernel(0x10, 0x10000, addressFields(0x10, 0x100040, 0x100100), 0x1000);
  const memory = guestMemory().fill(0xee, 0x100000, 0x101000);
  load(bytes, {}, {}, memory);
  assertEquals(memory.slice(0x100000, 0x100040), bytes.slice(0, 0x40));
  assert(memory.slice(0x100040, 0x100100).every((byte) => byte === 0));
  assertEquals(memory[0x100100], 0xee);
});

Deno.test("multiboot: the information structure has memory sizes, map, command line, modules and loader name", () => {
  const modules = [
    { bytes: new Uint8Array(5000).fill(1), commandLine: "first arg" },
    { bytes: new Uint8Array(3).fill(2), commandLine: "second" },
  ];
  const { state, memory, image } = load(kernel(0, 0x10003, addressFields(0)), {}, { modules });
  const info = Number(state.gpr[3]);
  const u32 = (at: number): number => view(memory).getUint32(at, true);
  const field = (at: number): number => u32(info + at);
  assertEquals(field(0), 0b1001001101);
  assertEquals([field(4), field(8)], [640, 15 * 1024]);
  assertEquals(readString(memory, field(16)), "image");
  assertEquals(readString(memory, field(64)), "exitbox");
  assertEquals(field(20), 2);
  modules.forEach(({ bytes, commandLine }, i) => {
    const at = field(24) + 16 * i;
    const [start, end] = [u32(at), u32(at + 4)];
    assertEquals(start % 4096, 0);
    assertEquals(memory.slice(start, end), bytes);
    assertEquals(readString(memory, u32(at + 8)), commandLine);
    for (const segment of image.segments) assert(start >= segment.address + segment.memSize);
  });
  const map: unknown[] = [];
  for (let at = field(48); at < field(48) + field(44); at += u32(at) + 4) {
    map.push([
      view(memory).getBigUint64(at + 4, true),
      view(memory).getBigUint64(at + 12, true),
      u32(at + 20),
    ]);
  }
  assertEquals(map, [[0n, 0xa0000n, 1], [0xa0000n, 0x60000n, 2], [0x100000n, 0xf00000n, 1]]);
});

Deno.test("multiboot: the information structure keeps clear of a kernel in low memory", () => {
  const fields = [0x9000, 0x9000, 0, 0x9f800, 0x9020];
  const { state } = load(kernel(0, 0x10000, fields));
  assert(state.gpr[3] >= 0x100000n);
});

Deno.test("multiboot: the header is found on any 4-byte boundary of the first 8 KiB and nowhere else", () => {
  const last = 8192 - 32;
  assertEquals(load(kernel(last, 0x10000, addressFields(last))).image.format, "multiboot");
  assertEquals(parseImage(kernel(8192, 0x10000, addressFields(8192)), "image").format, "flat");
  const crooked = kernel(0, 0x10000, addressFields(0));
  assertEquals(parseImage(new Uint8Array([0x90, ...crooked]), "image").format, "flat");
  assertEquals(parseImage(altered(crooked, 8, 0), "image").format, "flat");
});

Deno.test("multiboot: real or long mode asked for takes the file as it is", () => {
  const bytes = kernel(0, 0x10000, addressFields(0));
  assertEquals(parseImage(bytes, "image", { mode: "real" }).format, "flat");
  assertEquals(parseImage(bytes, "image", { mode: "protected" }).format, "multiboot");
});

Deno.test("multiboot: demands that cannot be met and contradictory addresses are refused", () => {
  const cases: [Uint8Array, string][] = [
    [
      kernel(4, 0x10004, addressFields(4)),
      "image: multiboot header at offset 0x4: flags 0x10004 demand 0x4 (bit 2: a video mode, and there is no display), expected bits 0 and 1 only",
    ],
    [
      kernel(4, 0x10010, addressFields(4)),
      "image: multiboot header at offset 0x4: flags 0x10010 demand 0x10, expected bits 0 and 1 only",
    ],
    [
      kernel(0, 3, []),
      "image: multiboot header at offset 0x0 has no address fields (flag 16) and the file is no ELF executable",
    ],
    [
      kernel(4, 0x10000, addressFields(4)).slice(0, 20),
      "image: truncated: multiboot header with address fields takes 0x20 bytes at offset 0x4, the file has 0x14",
    ],
    [
      kernel(4, 0x10000, [0x100000, 0x100010, 0, 0, 0x100010]),
      "image: multiboot header at offset 0x4: header_addr 0x100000 is below load_addr 0x100010",
    ],
    [
      kernel(4, 0x10000, [0x100010, 0x100000, 0, 0, 0x100010]),
      "image: multiboot header at offset 0x4: load_addr 0x100000 would begin 0xc bytes before the file",
    ],
    [
      kernel(4, 0x10000, addressFields(4, 0xfffff)),
      "image: multiboot header at offset 0x4: load_end_addr 0xfffff is not above load_addr 0x100000",
    ],
    [
      kernel(4, 0x10000, addressFields(4, 0x200000)),
      "image: truncated: multiboot image up to load_end_addr takes 0x100000 bytes at offset 0x0, the file has 0x44",
    ],
    [
      kernel(4, 0x10000, addressFields(4, 0, 0x100010)),
      "image: multiboot header at offset 0x4: bss_end_addr 0x100010 is below the end of the image 0x100044",
    ],
    [
      kernel(4, 0x10000, addressFields(4, 0, 0, 0x200000)),
      "image: entry 0x200000 lies outside the image, expected an address in one of its segments",
    ],
  ];
  for (const [bytes, expected] of cases) assertEquals(complaint(bytes), expected);
  assertEquals(
    complaint(kernel(0, 0x10000, addressFields(0)), { load: 0x200000 }),
    "image: load address 0x200000 given, but the image's own headers say where it is loaded",
  );
  assertEquals(
    complaint(kernel(0, 0x10000, addressFields(0)), {}, {
      modules: [{ bytes: new Uint8Array(MEMORY_BYTES), commandLine: "big" }],
    }),
    `image: module "big" ends at 0x1101000, memory ends at 0x1000000`,
  );
});

Deno.test("image: random damage to an image ends in an image or in one line", async () => {
  const originals = [await linkedFile("higherhalf64"), kernel(0x40, 0x10003, addressFields(0x40))];
  const memory = guestMemory(0x200000);
  let seed = 99;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let run = 0; run < 4000; run++) {
    const bytes = originals[run % 2].slice(0, random(8) === 0 ? random(300) : undefined);
    for (let i = random(6); i >= 0; i--) bytes[random(Math.min(bytes.length, 0x120))] = random(256);
    const modes = ["auto", "real", "protected", "long"] as const;
    try {
      load(bytes, { mode: modes[random(4)] }, {}, memory);
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      assertEquals(error.message.includes("\n"), false);
    }
  }
});

/**
 * What the host of an encrypted guest can read at each of its exits: the VMCB, the memory that the guest shares, and of
 * private memory which blocks of ciphertext have changed (DESIGN rule 6; sev.md a3, h5).
 *
 * The processor that has left waits until its view is taken. A view is *empty* of a secret when no eight bytes in a row of
 * it are eight bytes in a row of the secret. Equal plain text at one address is equal ciphertext, so changed blocks are
 * found by comparing what is stored.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { SevVpState, VIEW } from "../hypervisor/sev/state.ts";
import type { SevMachine } from "../hypervisor/sev/machine.ts";
import { GHCB } from "../layout/sev/ghcb.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import { VMPL } from "../layout/sev/constants/rmp.ts";
import { VMCB_CONTROL } from "../layout/sev/vmcb.ts";
import { VMSA } from "../layout/sev/vmsa.ts";
import { hex } from "../layout/field_type.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { DirectPort } from "../memory/port.ts";
import { CIPHER_BLOCK_BYTES } from "../sev/encryption.ts";

/** Bytes in a row by which a secret is recognised. */
export const SECRET_WINDOW = 8;
/** Fewest different bytes of a register's value that make it recognisable. */
const DISTINCT_BYTES_MIN = 5;
const WORDS = PAGE_SIZE / 4;
const BLOCKS = PAGE_SIZE / CIPHER_BLOCK_BYTES;

/** What a run marks as secret. */
export interface SecretMarks {
  /** Ranges of guest-physical memory. */
  readonly ranges: readonly { readonly address: number; readonly bytes: number }[];
  /** The general-purpose registers at each exit. */
  readonly gpr: boolean;
  /** The XMM registers at each exit. */
  readonly xmm: boolean;
}

/** Bytes of shared memory that have changed since the last view. */
export interface SharedChange {
  /** Guest-physical address. */
  readonly address: number;
  /** The bytes, in hexadecimal digits. */
  readonly bytes: string;
  /** `GHCB.sw_exit_code` and the like where the page is a GHCB. */
  readonly field?: string;
  /** Agent and step that wrote them last, when every step is followed. */
  readonly writer?: string;
}

/** Changed ciphertext of a private page. */
export interface CipherChange {
  /** Guest-physical address of the page. */
  readonly page: number;
  /** How many of its blocks of 16 bytes have changed. */
  readonly blocks: number;
}

/** A secret that a view shows. */
export interface Leak {
  /** Where: `shared`, `vmcb`. */
  readonly where: string;
  readonly address: number;
  /** Which secret: `range 0x…`, `rbx`, `xmm3`. */
  readonly secret: string;
}

/** Everything that the host can read at one exit, as far as it has changed. */
export interface HostViewRecord {
  readonly exit: number;
  readonly vp: number;
  /** Name of the exit code. */
  readonly code: string;
  /** Fields of the VMCB that are not zero. */
  readonly vmcb: Readonly<Record<string, string>>;
  readonly shared: readonly SharedChange[];
  readonly ciphertext: readonly CipherChange[];
  readonly leaks: readonly Leak[];
}

/** Fields of the VMCB that an exit writes or that the guest can write. */
const VMCB_FIELDS = ["exit_code", "exit_info_1", "exit_info_2", "exit_int_info", "ghcb_gpa"] as const;
const GPR_NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const;
const XMM_REGISTERS = 16;
const GPR_REGISTERS = 16;
const FX_XMM = 160;
const XMM_BYTES = 16;

/** Changed 32-bit words of a page: first, and first behind. */
interface Run {
  readonly from: number;
  end: number;
}

/** Blocks of ciphertext in which the runs lie. */
function blocksOf(runs: readonly Run[]): number {
  const words = CIPHER_BLOCK_BYTES / 4;
  const blocks = new Set<number>();
  for (const { from, end } of runs) {
    for (let block = Math.floor(from / words); block <= Math.floor((end - 1) / words); block++) blocks.add(block);
  }
  return blocks.size;
}

/** Takes the views of a machine's exits. */
export class HostView {
  readonly #sev: SevMachine;
  readonly #port: DirectPort;
  readonly #marks: SecretMarks;
  readonly #cpuState: (vp: number) => number;
  readonly #onRecord: (record: HostViewRecord) => void;
  readonly #wake: (vp: number) => void;
  readonly #bytes: Uint8Array;
  /** The pages that are looked at: the guest's RAM, and behind it what the guest has beside it. */
  readonly #pages: readonly number[];
  readonly #shadow: Int32Array;
  readonly #wasPrivate: Uint8Array;
  readonly #writers = new Map<number, string>();
  #watched: number[] = [];
  readonly #watchedCopy = new Map<number, Int32Array>();
  #exits = 0;
  #leaks = 0;

  /**
   * Views of `sev`; `cpuState` gives the byte offset of a VP's registers. From now on every processor waits at its exits
   * until {@linkcode HostView.poll} has been called; `wake` wakes a host that sleeps because of that.
   */
  constructor(
    sev: SevMachine,
    cpuState: (vp: number) => number,
    marks: SecretMarks,
    onRecord: (record: HostViewRecord) => void,
    wake: (vp: number) => void = () => {},
  ) {
    this.#sev = sev;
    this.#port = new DirectPort(sev.memory);
    this.#cpuState = cpuState;
    this.#marks = marks;
    this.#onRecord = onRecord;
    this.#wake = wake;
    this.#bytes = new Uint8Array(PAGE_SIZE);
    this.#pages = [...range(0, sev.config.ramBytes / PAGE_SIZE), ...range(sev.vmsa(0) / PAGE_SIZE, sev.pages)];
    this.#shadow = new Int32Array(this.#pages.length * WORDS);
    this.#wasPrivate = new Uint8Array(this.#pages.length);
    this.#pages.forEach((page, index) => {
      this.#shadow.set(sev.memory.i32.subarray(page * WORDS, (page + 1) * WORDS), index * WORDS);
      this.#wasPrivate[index] = sev.guestMemory.isPrivate(this.#port, page) ? 1 : 0;
    });
    for (let vp = 0; vp < sev.config.vps; vp++) this.#word(vp, SevVpState.at.view, VIEW.WANTED);
  }

  /** Views taken so far. */
  get exits(): number {
    return this.#exits;
  }

  /** Secrets seen so far; 0 when the views are empty of them. */
  get leaks(): number {
    return this.#leaks;
  }

  /** Takes the views of all processors that wait, and lets them go on. */
  poll(): void {
    const { memory, config } = this.#sev;
    for (let vp = 0; vp < config.vps; vp++) {
      const word = (this.#sev.vpState(vp) + SevVpState.at.view) >>> 2;
      if (Atomics.load(memory.i32, word) !== VIEW.WAITS) continue;
      this.#onRecord(this.#take(vp));
      Atomics.store(memory.i32, word, VIEW.WANTED);
      this.#wake(vp);
    }
  }

  /** Notes who wrote shared memory; to be called after every step of the deterministic runtime. */
  followStep(agent: string, step: string): void {
    const { i32 } = this.#sev.memory;
    for (const page of this.#watched) {
      const copy = this.#watchedCopy.get(page)!;
      const first = page * WORDS;
      for (let word = 0; word < WORDS; word++) {
        if (i32[first + word] === copy[word]) continue;
        copy[word] = i32[first + word];
        this.#writers.set(first + word, `${agent} in ${step}`);
      }
    }
  }

  #word(vp: number, offset: number, value: number): void {
    this.#sev.memory.u32[(this.#sev.vpState(vp) + offset) >>> 2] = value;
  }

  #take(vp: number): HostViewRecord {
    const { memory } = this.#sev;
    const vmcb = this.#sev.vmcb(vp);
    const fields: Record<string, string> = {};
    const words: bigint[] = [];
    for (const name of VMCB_FIELDS) {
      const value = memory.u64[(vmcb + VMCB_CONTROL.at[name]) >>> 3];
      words.push(value);
      if (value !== 0n) fields[name] = hex(value);
    }
    for (const name of ["int_ctl", "int_state"] as const) {
      const value = memory.u32[(vmcb + VMCB_CONTROL.at[name]) >>> 2];
      if (value !== 0) fields[name] = hex(value);
    }
    const secrets = this.#secrets(vp);
    const shared: SharedChange[] = [];
    const ciphertext: CipherChange[] = [];
    const leaks: Leak[] = [];
    for (const word of words) {
      const secret = secrets.get(word);
      if (secret !== undefined) leaks.push({ where: "vmcb", address: vmcb, secret });
    }
    this.#comparePages(secrets, { shared, ciphertext, leaks });
    this.#leaks += leaks.length;
    const code = SevExitCode.name(words[0]);
    return { exit: this.#exits++, vp, code, vmcb: fields, shared, ciphertext, leaks };
  }

  #comparePages(
    secrets: ReadonlyMap<bigint, string>,
    into: { shared: SharedChange[]; ciphertext: CipherChange[]; leaks: Leak[] },
  ): void {
    const { memory, guestMemory } = this.#sev;
    const { i32 } = memory;
    for (let index = 0; index < this.#pages.length; index++) {
      const page = this.#pages[index];
      const isPrivate = guestMemory.isPrivate(this.#port, page);
      const turned = isPrivate !== (this.#wasPrivate[index] !== 0);
      const first = page * WORDS;
      const copy = index * WORDS;
      const runs: Run[] = [];
      for (let word = 0; word < WORDS; word++) {
        if (i32[first + word] === this.#shadow[copy + word]) continue;
        this.#shadow[copy + word] = i32[first + word];
        const run = runs.at(-1);
        if (run !== undefined && run.end >= (word & ~1)) run.end = word + 1;
        else runs.push({ from: word & ~1, end: word + 1 });
      }
      if (runs.length === 0 && !turned) continue;
      this.#wasPrivate[index] = isPrivate ? 1 : 0;
      if (isPrivate) {
        into.ciphertext.push({ page: page * PAGE_SIZE, blocks: turned ? BLOCKS : blocksOf(runs) });
        continue;
      }
      this.#watch(page);
      for (const run of runs) into.shared.push(this.#describe(page, run));
      this.#search(page, secrets, into.leaks);
    }
  }

  /** A run of changed words of a shared page. */
  #describe(page: number, { from, end }: Run): SharedChange {
    const at = page * PAGE_SIZE;
    const bytes = this.#sev.memory.u8.slice(at + 4 * from, at + 4 * ((end + 1) & ~1));
    const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const offset = 4 * from;
    // What lies behind the RAM and is shared is no GHCB.
    const field = at >= this.#sev.config.ramBytes
      ? undefined
      : GHCB.fields.find((each) => !each.reserved && each.offset <= offset && offset < each.offset + each.size);
    let writer: string | undefined;
    for (let word = from; word < end && writer === undefined; word++) writer = this.#writers.get(page * WORDS + word);
    return {
      address: at + offset,
      bytes: text,
      ...(field === undefined ? {} : { field: `GHCB.${field.name}` }),
      ...(writer === undefined ? {} : { writer }),
    };
  }

  /** Follows who writes a page that has turned out to be shared. */
  #watch(page: number): void {
    if (this.#watchedCopy.has(page)) return;
    this.#watchedCopy.set(page, this.#sev.memory.i32.slice(page * WORDS, (page + 1) * WORDS));
    this.#watched = [...this.#watchedCopy.keys()];
  }

  /** Looks for secrets in a shared page, at every byte. */
  #search(page: number, secrets: ReadonlyMap<bigint, string>, leaks: Leak[]): void {
    if (secrets.size === 0) return;
    this.#sev.guestMemory.hostBytes(this.#port, page * PAGE_SIZE, this.#bytes);
    let window = 0n;
    for (let at = 0; at < PAGE_SIZE; at++) {
      window = (window >> 8n) | (BigInt(this.#bytes[at]) << 56n);
      if (at < SECRET_WINDOW - 1) continue;
      const secret = secrets.get(window);
      if (secret !== undefined) {
        leaks.push({ where: "shared", address: page * PAGE_SIZE + at - SECRET_WINDOW + 1, secret });
      }
    }
  }

  /** The secret windows, by value. */
  #secrets(vp: number): ReadonlyMap<bigint, string> {
    const secrets = new Map<bigint, string>();
    const { memory } = this.#sev;
    for (const { address, bytes } of this.#marks.ranges) {
      for (let at = address; at + SECRET_WINDOW <= address + bytes; at++) {
        addSecret(secrets, memory.view.getBigUint64(at, true), `range ${hex(address)}`);
      }
    }
    const state = this.#cpuState(vp);
    for (let n = 0; this.#marks.gpr && n < GPR_REGISTERS; n++) {
      addSecret(secrets, memory.u64[((state + CpuState.at.gpr) >>> 3) + n], GPR_NAMES[n] ?? `r${n}`);
    }
    for (let n = 0; this.#marks.xmm && n < XMM_REGISTERS; n++) {
      const at = state + CpuState.at.fx + FX_XMM + XMM_BYTES * n;
      for (let k = 0; k + SECRET_WINDOW <= XMM_BYTES; k++) {
        addSecret(secrets, memory.view.getBigUint64(at + k, true), `xmm${n}`);
      }
    }
    // Below a paravisor, who has a VMSA's nonce has every register that it covers (f52).
    const lower = this.#sev.hasParavisor && (this.#marks.gpr || this.#marks.xmm) ? [VMPL.VTL0, VMPL.VTL1] : [];
    for (const vmpl of lower) {
      const nonce = memory.u64[(this.#sev.vmsa(vp, vmpl) + VMSA.at.reg_prot_nonce) >>> 3];
      addSecret(secrets, nonce, `nonce of VMPL${vmpl}`);
    }
    return secrets;
  }
}

/** The numbers from `from` up to `end`, which is not among them. */
function range(from: number, end: number): number[] {
  return Array.from({ length: end - from }, (_, k) => from + k);
}

/** Adds a window that could not be there by chance: small numbers and repeated bytes are in every page. */
function addSecret(secrets: Map<bigint, string>, window: bigint, name: string): void {
  const bytes = new Set<bigint>();
  for (let k = 0n; k < 64n; k += 8n) bytes.add((window >> k) & 0xffn);
  if (bytes.size >= DISTINCT_BYTES_MIN) secrets.set(window, name);
}

/** The first difference of two runs that should show the host the same, or undefined. */
export interface ViewDifference {
  readonly exit: number;
  readonly vp: number;
  /** Structure and field. */
  readonly what: string;
  readonly first: string;
  readonly second: string;
  /** Who wrote it, when known. */
  readonly writer?: string;
}

/**
 * Compares what two runs showed their hosts: exits, VMCB fields, shared bytes. Ciphertext counts apart: how many records
 * differ in which blocks changed.
 */
export function compareViews(
  first: readonly HostViewRecord[],
  second: readonly HostViewRecord[],
): { readonly difference?: ViewDifference; readonly ciphertextDiffers: number } {
  let ciphertextDiffers = 0;
  const count = Math.max(first.length, second.length);
  for (let k = 0; k < count; k++) {
    const [a, b] = [first[k], second[k]];
    const difference = a === undefined || b === undefined
      ? { what: "number of exits", first: String(first.length), second: String(second.length) }
      : compareRecords(a, b);
    if (difference !== undefined) {
      return { difference: { exit: k, vp: (a ?? b).vp, ...difference }, ciphertextDiffers };
    }
    if (JSON.stringify(a.ciphertext) !== JSON.stringify(b.ciphertext)) ciphertextDiffers++;
  }
  return { ciphertextDiffers };
}

type Difference = Omit<ViewDifference, "exit" | "vp">;

function compareRecords(a: HostViewRecord, b: HostViewRecord): Difference | undefined {
  if (a.vp !== b.vp) return { what: "virtual processor", first: String(a.vp), second: String(b.vp) };
  if (a.code !== b.code) return { what: "VMCB.exit_code", first: a.code, second: b.code };
  for (const name of new Set([...Object.keys(a.vmcb), ...Object.keys(b.vmcb)])) {
    const [x, y] = [a.vmcb[name] ?? "0x0", b.vmcb[name] ?? "0x0"];
    if (x !== y) return { what: `VMCB.${name}`, first: x, second: y };
  }
  for (let k = 0; k < Math.max(a.shared.length, b.shared.length); k++) {
    const [x, y] = [a.shared[k], b.shared[k]];
    if (x?.address === y?.address && x?.bytes === y?.bytes) continue;
    const where = x ?? y;
    return {
      what: `${where.field ?? "shared memory"} at ${hex(where.address)}`,
      first: x?.bytes ?? "unchanged",
      second: y?.bytes ?? "unchanged",
      ...(where.writer === undefined ? {} : { writer: where.writer }),
    };
  }
  return undefined;
}

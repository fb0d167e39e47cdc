/**
 * The instruction set as text, in the notation of the opcode tables of Intel SDM volume 2 and AMD APM volumes 3 and 4.
 *
 * One line is one form: mnemonics (several when they are synonyms), operands, encoding, attributes. Forms of equal length
 * are preferred in the order given here.
 *
 * Operands: `r8 r16 r32 r64` registers in ModRM.reg or in the opcode (`+r`); `rm…` register or memory in ModRM.rm; `rr…`
 * register alone in ModRM.rm; `m…` memory alone (`m` of any size); `i8 i16 i32 i64` immediates; `s8 s32` immediates that
 * are extended with their sign, `bv` a signed byte that stands for a sized operand; `rel8 rel16 rel32` jump targets;
 * `moffs…` an address in the instruction; `p16 p32` selector:offset; `f16 f32 f64` a far pointer in memory, named by its
 * offset's size; `x` an XMM register in ModRM.reg, `xr` in ModRM.rm, `xm32 xm64 xm128` XMM or memory; `al ax eax rax cl dx
 * 1 3 es … gs st0` fixed operands; `sti` an x87 register in the opcode (`+r`). A final `v` stands for the three sizes 16,
 * 32 and 64, `z` for 16 and 32, `y` for 32 and 64; `rrn` is the mode's widest register (32 or 64).
 *
 * Encoding: mandatory prefixes 66, f2, f3 first, then opcode bytes and `/r` or `/digit`. `o16 o32 o64` gives a form without
 * sized operands its operand size, `a16 a32 a64` its address size; `wait` is a 9b before all prefixes. What follows the
 * opcode is told by the operands and named for the reader only: immediates `ib iw id iq` (`iv` by size), `co` code offset,
 * `mo` memory offset, `cp` far pointer.
 *
 * Attributes: `d64` operand size is 64 in long mode without REX.W; `legacy` not in 64-bit mode; `long` only in 64-bit mode;
 * `natural` the size is the mode's own when no operand tells it; `unsized` the operands imply no operand-size prefix;
 * `no66` only REX.W tells the operand size (implied by XMM operands); `twice` the register stands in ModRM.rm too; `notnop`
 * not for EAX with itself in 64-bit mode, where 90 would be NOP.
 *
 * @module
 */

const ARITHMETIC_NAMES = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"];
const SHIFT_NAMES: readonly (readonly [string, number])[] = [
  ["rol", 0],
  ["ror", 1],
  ["rcl", 2],
  ["rcr", 3],
  ["shl sal", 4],
  ["shr", 5],
  ["sar", 7],
];

/** Condition codes by their number, with their synonyms (Intel SDM volume 1, appendix B). */
const CONDITIONS: readonly (readonly string[])[] = [
  ["o"],
  ["no"],
  ["b", "c", "nae"],
  ["ae", "nb", "nc"],
  ["e", "z"],
  ["ne", "nz"],
  ["be", "na"],
  ["a", "nbe"],
  ["s"],
  ["ns"],
  ["p", "pe"],
  ["np", "po"],
  ["l", "nge"],
  ["ge", "nl"],
  ["le", "ng"],
  ["g", "nle"],
];

function hex(value: number): string {
  return value.toString(16).padStart(2, "0");
}

const ARITHMETIC = ARITHMETIC_NAMES.map((name, n) => `
${name} | rm8,r8   | ${hex(n * 8)} /r
${name} | rmv,rv   | ${hex(n * 8 + 1)} /r
${name} | r8,rm8   | ${hex(n * 8 + 2)} /r
${name} | rv,rmv   | ${hex(n * 8 + 3)} /r
${name} | al,i8    | ${hex(n * 8 + 4)} ib
${name} | rmv,s8   | 83 /${n} ib
${name} | av,iv    | ${hex(n * 8 + 5)} iv
${name} | rm8,i8   | 80 /${n} ib
${name} | rmv,iv   | 81 /${n} iv
`).join("");

const SHIFTS = SHIFT_NAMES.map(([names, n]) => `
${names} | rm8,1   | d0 /${n}
${names} | rm8,cl  | d2 /${n}
${names} | rm8,i8  | c0 /${n} ib
${names} | rmv,1   | d1 /${n}
${names} | rmv,cl  | d3 /${n}
${names} | rmv,i8  | c1 /${n} ib
${names} | rm8     | d0 /${n}
${names} | rmv     | d1 /${n}
`).join("");

function conditional(prefix: string, n: number): string {
  return CONDITIONS[n].map((condition) => prefix + condition).join(" ");
}

const CONDITIONAL = CONDITIONS.map((_, n) => `
${conditional("j", n)}    | rel8    | ${hex(0x70 + n)} co
${conditional("j", n)}    | relz    | 0f ${hex(0x80 + n)} co | natural
${conditional("set", n)}  | rm8     | 0f ${hex(0x90 + n)} /0
${conditional("cmov", n)} | rv,rmv  | 0f ${hex(0x40 + n)} /r
`).join("");

const DATA_MOVEMENT = `
mov    | rm8,r8      | 88 /r
mov    | rmv,rv      | 89 /r
mov    | r8,rm8      | 8a /r
mov    | rv,rmv      | 8b /r
mov    | moffs8,al   | a2 mo
mov    | moffsv,av   | a3 mo
mov    | al,moffs8   | a0 mo
mov    | av,moffsv   | a1 mo
mov    | r8,i8       | b0 +r ib
mov    | rz,iz       | b8 +r iv
mov    | rm8,i8      | c6 /0 ib
mov    | rmv,iv      | c7 /0 iv
mov    | r64,i64     | b8 +r iq
mov    | rrz,sreg    | 8c /r
mov    | rr64,sreg   | 8c /r  | unsized long
mov    | m16,sreg    | 8c /r  | unsized
mov    | sreg,rm16   | 8e /r  | unsized
mov    | sreg,rr32   | 8e /r  | unsized
mov    | sreg,rr64   | 8e /r  | unsized
mov    | rrn,creg    | 0f 20 /r
mov    | creg,rrn    | 0f 22 /r
mov    | rrn,dreg    | 0f 21 /r
mov    | dreg,rrn    | 0f 23 /r
movabs | r64,i64     | b8 +r iq
movabs | al,moffs8   | a0 mo  | long
movabs | av,moffsv   | a1 mo  | long
movabs | moffs8,al   | a2 mo  | long
movabs | moffsv,av   | a3 mo  | long
movzx  | rv,rm8      | 0f b6 /r
movzx  | ry,rm16     | 0f b7 /r
movsx  | rv,rm8      | 0f be /r
movsx  | ry,rm16     | 0f bf /r
movsxd movsx | r64,rm32 | 63 /r
movbe  | rv,mv       | 0f 38 f0 /r
movbe  | mv,rv       | 0f 38 f1 /r
xchg   | rv,av       | 90 +r  | notnop
xchg   | av,rv       | 90 +r  | notnop
xchg   | rm8,r8      | 86 /r
xchg   | rmv,rv      | 87 /r
xchg   | r8,rm8      | 86 /r
xchg   | rv,rmv      | 87 /r
lea    | rv,m        | 8d /r
lds    | rz,m        | c5 /r  | legacy
les    | rz,m        | c4 /r  | legacy
lss    | rv,m        | 0f b2 /r
lfs    | rv,m        | 0f b4 /r
lgs    | rv,m        | 0f b5 /r
bswap  | ry          | 0f c8 +r
xadd   | rm8,r8      | 0f c0 /r
xadd   | rmv,rv      | 0f c1 /r
cmpxchg | rm8,r8     | 0f b0 /r
cmpxchg | rmv,rv     | 0f b1 /r
cmpxchg8b  | m64     | 0f c7 /1     | unsized
cmpxchg16b | m128    | 0f c7 /1 o64
xlatb xlat |         | d7
`;

const STACK = `
push   | rv          | 50 +r        | d64
push   | bv          | 6a ib        | d64 natural
push   | iv          | 68 iv        | d64 natural
push   | es          | 06           | legacy
push   | cs          | 0e           | legacy
push   | ss          | 16           | legacy
push   | ds          | 1e           | legacy
push   | fs          | 0f a0
push   | gs          | 0f a8
push   | mv          | ff /6        | d64 natural
pop    | rv          | 58 +r        | d64
pop    | es          | 07           | legacy
pop    | ss          | 17           | legacy
pop    | ds          | 1f           | legacy
pop    | fs          | 0f a1
pop    | gs          | 0f a9
pop    | mv          | 8f /0        | d64 natural
pusha  |             | 60           | legacy
pushaw |             | 60 o16       | legacy
pushad |             | 60 o32       | legacy
popa   |             | 61           | legacy
popaw  |             | 61 o16       | legacy
popad  |             | 61 o32       | legacy
pushf  |             | 9c
pushfw |             | 9c o16
pushfd |             | 9c o32       | legacy
pushfq |             | 9c o64       | d64 long
popf   |             | 9d
popfw  |             | 9d o16
popfd  |             | 9d o32       | legacy
popfq  |             | 9d o64       | d64 long
enter  | i16,i8      | c8 iw ib
leave  |             | c9
`;

const INTEGER = `
test   | rm8,r8      | 84 /r
test   | rmv,rv      | 85 /r
test   | r8,rm8      | 84 /r
test   | rv,rmv      | 85 /r
test   | al,i8       | a8 ib
test   | av,iv       | a9 iv
test   | rm8,i8      | f6 /0 ib
test   | rmv,iv      | f7 /0 iv
inc    | rz          | 40 +r        | legacy
inc    | rm8         | fe /0
inc    | rmv         | ff /0
dec    | rz          | 48 +r        | legacy
dec    | rm8         | fe /1
dec    | rmv         | ff /1
not    | rm8         | f6 /2
not    | rmv         | f7 /2
neg    | rm8         | f6 /3
neg    | rmv         | f7 /3
mul    | rm8         | f6 /4
mul    | rmv         | f7 /4
imul   | rm8         | f6 /5
imul   | rmv         | f7 /5
imul   | rv,rmv      | 0f af /r
imul   | rv,rmv,s8   | 6b /r ib
imul   | rv,rmv,iv   | 69 /r iv
imul   | rv,s8       | 6b /r ib     | twice
imul   | rv,iv       | 69 /r iv     | twice
div    | rm8         | f6 /6
div    | rmv         | f7 /6
idiv   | rm8         | f6 /7
idiv   | rmv         | f7 /7
shld   | rmv,rv,i8   | 0f a4 /r ib
shld   | rmv,rv,cl   | 0f a5 /r
shrd   | rmv,rv,i8   | 0f ac /r ib
shrd   | rmv,rv,cl   | 0f ad /r
bt     | rmv,rv      | 0f a3 /r
bt     | rmv,i8      | 0f ba /4 ib
bts    | rmv,rv      | 0f ab /r
bts    | rmv,i8      | 0f ba /5 ib
btr    | rmv,rv      | 0f b3 /r
btr    | rmv,i8      | 0f ba /6 ib
btc    | rmv,rv      | 0f bb /r
btc    | rmv,i8      | 0f ba /7 ib
bsf    | rv,rmv      | 0f bc /r
bsr    | rv,rmv      | 0f bd /r
tzcnt  | rv,rmv      | f3 0f bc /r
lzcnt  | rv,rmv      | f3 0f bd /r
popcnt | rv,rmv      | f3 0f b8 /r
cbw    |             | 98 o16
cwde   |             | 98 o32
cdqe   |             | 98 o64
cwd    |             | 99 o16
cdq    |             | 99 o32
cqo    |             | 99 o64
daa    |             | 27           | legacy
das    |             | 2f           | legacy
aaa    |             | 37           | legacy
aas    |             | 3f           | legacy
aam    |             | d4 0a        | legacy
aam    | i8          | d4 ib        | legacy
aad    |             | d5 0a        | legacy
aad    | i8          | d5 ib        | legacy
bound  | rz,m        | 62 /r        | legacy
arpl   | rm16,r16    | 63 /r        | legacy unsized
`;

const CONTROL_FLOW = `
jmp    | rel8        | eb co
jmp    | relz        | e9 co        | natural
jmp    | rmv         | ff /4        | d64 natural
jmp    | fz          | ff /5        | natural
jmp    | f64         | ff /5        | natural
jmp    | pz          | ea cp        | legacy natural
call   | relz        | e8 co        | natural
call   | rmv         | ff /2        | d64 natural
call   | fz          | ff /3        | natural
call   | f64         | ff /3        | natural
call   | pz          | 9a cp        | legacy natural
ret retn |           | c3
ret retn | i16       | c2 iw
retf   |             | cb
retf   | i16         | ca iw
retfw  |             | cb o16
retfd  |             | cb o32
retfq  |             | cb o64
iret   |             | cf
iretw  |             | cf o16
iretd  |             | cf o32
iretq  |             | cf o64
jcxz   | rel8        | e3 co a16
jecxz  | rel8        | e3 co a32
jrcxz  | rel8        | e3 co a64
loop   | rel8        | e2 co
loope loopz   | rel8 | e1 co
loopne loopnz | rel8 | e0 co
int    | 3           | cc
int    | i8          | cd ib
int3   |             | cc
int1 icebp |         | f1
into   |             | ce           | legacy
syscall |            | 0f 05
sysret |             | 0f 07
sysretq |            | 0f 07 o64
sysenter |           | 0f 34
sysexit |            | 0f 35
sysexitq |           | 0f 35 o64
ud2    |             | 0f 0b
ud1    | ry,rmy      | 0f b9 /r
nop    |             | 90
nop    | rmv         | 0f 1f /0     | natural
pause  |             | f3 90
hlt    |             | f4
endbr64 |            | f3 0f 1e fa
`;

const STRINGS = [["movs", 0xa4], ["cmps", 0xa6], ["stos", 0xaa], ["lods", 0xac], ["scas", 0xae]].map((
  [name, opcode],
) => `
${name}b | | ${hex(Number(opcode))}
${name}w | | ${hex(Number(opcode) + 1)} o16
${name}d | | ${hex(Number(opcode) + 1)} o32
${name}q | | ${hex(Number(opcode) + 1)} o64
`).join("");

const INPUT_OUTPUT = `
insb   |             | 6c
insw   |             | 6d o16
insd   |             | 6d o32
outsb  |             | 6e
outsw  |             | 6f o16
outsd  |             | 6f o32
in     | al,i8       | e4 ib
in     | ax,i8       | e5 ib
in     | eax,i8      | e5 ib
in     | al,dx       | ec           | unsized
in     | ax,dx       | ed o16
in     | eax,dx      | ed o32
out    | i8,al       | e6 ib
out    | i8,ax       | e7 ib
out    | i8,eax      | e7 ib
out    | dx,al       | ee           | unsized
out    | dx,ax       | ef o16
out    | dx,eax      | ef o32
`;

const FLAGS = `
clc    |             | f8
stc    |             | f9
cmc    |             | f5
cld    |             | fc
std    |             | fd
cli    |             | fa
sti    |             | fb
lahf   |             | 9f
sahf   |             | 9e
salc   |             | d6           | legacy
`;

const SYSTEM = `
lgdt   | m           | 0f 01 /2
lidt   | m           | 0f 01 /3
sgdt   | m           | 0f 01 /0
sidt   | m           | 0f 01 /1
lldt   | rm16        | 0f 00 /2     | unsized
ltr    | rm16        | 0f 00 /3     | unsized
sldt   | rrz         | 0f 00 /0
sldt   | rr64        | 0f 00 /0     | unsized long
sldt   | m16         | 0f 00 /0     | unsized
str    | rrz         | 0f 00 /1
str    | rr64        | 0f 00 /1     | unsized long
str    | m16         | 0f 00 /1     | unsized
smsw   | rrv         | 0f 01 /4
smsw   | m16         | 0f 01 /4     | unsized
lmsw   | rm16        | 0f 01 /6     | unsized
verr   | rm16        | 0f 00 /4     | unsized
verw   | rm16        | 0f 00 /5     | unsized
lar    | rv,rm16     | 0f 02 /r
lar    | r32,rr32    | 0f 02 /r
lar    | r64,rr64    | 0f 02 /r
lsl    | rv,rm16     | 0f 03 /r
lsl    | r32,rr32    | 0f 03 /r
lsl    | r64,rr64    | 0f 03 /r
clts   |             | 0f 06
invd   |             | 0f 08
wbinvd |             | 0f 09
invlpg | m           | 0f 01 /7
invlpga |            | 0f 01 df
invpcid | r32,m128   | 66 0f 38 82 /r | legacy unsized
invpcid | r64,m128   | 66 0f 38 82 /r | long unsized
cpuid  |             | 0f a2
rdmsr  |             | 0f 32
wrmsr  |             | 0f 30
rdpmc  |             | 0f 33
rdtsc  |             | 0f 31
rdtscp |             | 0f 01 f9
rdrand | rrv         | 0f c7 /6
rdseed | rrv         | 0f c7 /7
rdpid  | rrn         | f3 0f c7 /7
xgetbv |             | 0f 01 d0
xsetbv |             | 0f 01 d1
rdpkru |             | 0f 01 ee
wrpkru |             | 0f 01 ef
swapgs |             | 0f 01 f8     | long
rdfsbase | rry       | f3 0f ae /0  | long
rdgsbase | rry       | f3 0f ae /1  | long
wrfsbase | rry       | f3 0f ae /2  | long
wrgsbase | rry       | f3 0f ae /3  | long
monitor |            | 0f 01 c8
mwait  |             | 0f 01 c9
monitorx |           | 0f 01 fa
mwaitx |             | 0f 01 fb
clac   |             | 0f 01 ca
stac   |             | 0f 01 cb
lfence |             | 0f ae e8
mfence |             | 0f ae f0
sfence |             | 0f ae f8
clflush | m8         | 0f ae /7     | unsized
clflushopt | m8      | 66 0f ae /7  | unsized
prefetchnta | m8     | 0f 18 /0     | unsized
prefetcht0 | m8      | 0f 18 /1     | unsized
prefetcht1 | m8      | 0f 18 /2     | unsized
prefetcht2 | m8      | 0f 18 /3     | unsized
prefetchw | m8       | 0f 0d /1     | unsized
rsm    |             | 0f aa
`;

/** AMD APM volume 3; the SNP and SEV-ES instructions are told from their neighbours by a mandatory prefix. */
const VIRTUALIZATION = `
vmcall |             | 0f 01 c1
vmmcall |            | 0f 01 d9
vmgexit |            | f3 0f 01 d9
vmrun  |             | 0f 01 d8
vmload |             | 0f 01 da
vmsave |             | 0f 01 db
stgi   |             | 0f 01 dc
clgi   |             | 0f 01 dd
skinit |             | 0f 01 de
pvalidate |          | f2 0f 01 ff
rmpadjust |          | f3 0f 01 fe  | long
rmpupdate |          | f2 0f 01 fe  | long
rmpquery |           | f3 0f 01 fd  | long
psmash |             | f3 0f 01 ff  | long
invlpgb |            | 0f 01 fe
tlbsync |            | 0f 01 ff
`;

/** Packed and scalar arithmetic of one opcode in its four prefix variants: name stem and opcode. */
const FOUR_WAY: readonly (readonly [string, number])[] = [
  ["add", 0x58],
  ["mul", 0x59],
  ["sub", 0x5c],
  ["min", 0x5d],
  ["div", 0x5e],
  ["max", 0x5f],
  ["sqrt", 0x51],
];

const SSE_ARITHMETIC = FOUR_WAY.map(([name, opcode]) => `
${name}ps | x,xm128 | 0f ${hex(opcode)} /r
${name}pd | x,xm128 | 66 0f ${hex(opcode)} /r
${name}ss | x,xm32  | f3 0f ${hex(opcode)} /r
${name}sd | x,xm64  | f2 0f ${hex(opcode)} /r
`).join("");

/** Instructions with a `ps` and a `pd` form on whole registers. */
const SSE_PACKED = [["and", 0x54], ["andn", 0x55], ["or", 0x56], ["xor", 0x57], ["unpckl", 0x14], ["unpckh", 0x15]].map(
  (
    [name, opcode],
  ) => `
${name}ps | x,xm128 | 0f ${hex(Number(opcode))} /r
${name}pd | x,xm128 | 66 0f ${hex(Number(opcode))} /r
`,
).join("");

const SSE_COMPARES = ["eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord"].map((name, n) => `
cmp${name}ps | x,xm128 | 0f c2 /r ${hex(n)}
cmp${name}pd | x,xm128 | 66 0f c2 /r ${hex(n)}
cmp${name}ss | x,xm32  | f3 0f c2 /r ${hex(n)}
cmp${name}sd | x,xm64  | f2 0f c2 /r ${hex(n)}
`).join("");

/** SSE2 integer instructions `x,xm128` by opcode, all with prefix 66 and map 0F. */
const SSE_INTEGER_OPCODES: Readonly<Record<string, number>> = {
  punpcklbw: 0x60,
  punpcklwd: 0x61,
  punpckldq: 0x62,
  packsswb: 0x63,
  pcmpgtb: 0x64,
  pcmpgtw: 0x65,
  pcmpgtd: 0x66,
  packuswb: 0x67,
  punpckhbw: 0x68,
  punpckhwd: 0x69,
  punpckhdq: 0x6a,
  packssdw: 0x6b,
  punpcklqdq: 0x6c,
  punpckhqdq: 0x6d,
  pcmpeqb: 0x74,
  pcmpeqw: 0x75,
  pcmpeqd: 0x76,
  psrlw: 0xd1,
  psrld: 0xd2,
  psrlq: 0xd3,
  paddq: 0xd4,
  pmullw: 0xd5,
  psubusb: 0xd8,
  psubusw: 0xd9,
  pminub: 0xda,
  pand: 0xdb,
  paddusb: 0xdc,
  paddusw: 0xdd,
  pmaxub: 0xde,
  pandn: 0xdf,
  pavgb: 0xe0,
  psraw: 0xe1,
  psrad: 0xe2,
  pavgw: 0xe3,
  pmulhuw: 0xe4,
  pmulhw: 0xe5,
  psubsb: 0xe8,
  psubsw: 0xe9,
  pminsw: 0xea,
  por: 0xeb,
  paddsb: 0xec,
  paddsw: 0xed,
  pmaxsw: 0xee,
  pxor: 0xef,
  psllw: 0xf1,
  pslld: 0xf2,
  psllq: 0xf3,
  pmuludq: 0xf4,
  pmaddwd: 0xf5,
  psadbw: 0xf6,
  psubb: 0xf8,
  psubw: 0xf9,
  psubd: 0xfa,
  psubq: 0xfb,
  paddb: 0xfc,
  paddw: 0xfd,
  paddd: 0xfe,
};

const SSE_INTEGER = Object.entries(SSE_INTEGER_OPCODES)
  .map(([name, opcode]) => `${name} | x,xm128 | 66 0f ${hex(opcode)} /r`)
  .join("\n");

const SSE = `
movaps | x,xm128     | 0f 28 /r
movaps | xm128,x     | 0f 29 /r
movups | x,xm128     | 0f 10 /r
movups | xm128,x     | 0f 11 /r
movapd | x,xm128     | 66 0f 28 /r
movapd | xm128,x     | 66 0f 29 /r
movupd | x,xm128     | 66 0f 10 /r
movupd | xm128,x     | 66 0f 11 /r
movdqa | x,xm128     | 66 0f 6f /r
movdqa | xm128,x     | 66 0f 7f /r
movdqu | x,xm128     | f3 0f 6f /r
movdqu | xm128,x     | f3 0f 7f /r
movss  | x,xm32      | f3 0f 10 /r
movss  | xm32,x      | f3 0f 11 /r
movsd  | x,xm64      | f2 0f 10 /r
movsd  | xm64,x      | f2 0f 11 /r
movd   | x,rm32      | 66 0f 6e /r  | unsized
movd   | rm32,x      | 66 0f 7e /r  | unsized
movq   | x,xm64      | f3 0f 7e /r
movq   | xm64,x      | 66 0f d6 /r
movq   | x,rr64      | 66 0f 6e /r
movq   | rr64,x      | 66 0f 7e /r
movlps | x,m64       | 0f 12 /r     | unsized
movlps | m64,x       | 0f 13 /r     | unsized
movlpd | x,m64       | 66 0f 12 /r  | unsized
movlpd | m64,x       | 66 0f 13 /r  | unsized
movhps | x,m64       | 0f 16 /r     | unsized
movhps | m64,x       | 0f 17 /r     | unsized
movhpd | x,m64       | 66 0f 16 /r  | unsized
movhpd | m64,x       | 66 0f 17 /r  | unsized
movhlps | x,xr       | 0f 12 /r
movlhps | x,xr       | 0f 16 /r
movntps | m128,x     | 0f 2b /r     | unsized
movntpd | m128,x     | 66 0f 2b /r  | unsized
movntdq | m128,x     | 66 0f e7 /r  | unsized
movnti | my,ry       | 0f c3 /r     | no66
movmskps | r32,xr    | 0f 50 /r
movmskpd | r32,xr    | 66 0f 50 /r
pmovmskb | r32,xr    | 66 0f d7 /r
maskmovdqu | x,xr    | 66 0f f7 /r
rcpps  | x,xm128     | 0f 53 /r
rcpss  | x,xm32      | f3 0f 53 /r
rsqrtps | x,xm128    | 0f 52 /r
rsqrtss | x,xm32     | f3 0f 52 /r
comiss | x,xm32      | 0f 2f /r
comisd | x,xm64      | 66 0f 2f /r
ucomiss | x,xm32     | 0f 2e /r
ucomisd | x,xm64     | 66 0f 2e /r
cmpps  | x,xm128,i8  | 0f c2 /r ib
cmppd  | x,xm128,i8  | 66 0f c2 /r ib
cmpss  | x,xm32,i8   | f3 0f c2 /r ib
cmpsd  | x,xm64,i8   | f2 0f c2 /r ib
shufps | x,xm128,i8  | 0f c6 /r ib
shufpd | x,xm128,i8  | 66 0f c6 /r ib
pshufd | x,xm128,i8  | 66 0f 70 /r ib
pshufhw | x,xm128,i8 | f3 0f 70 /r ib
pshuflw | x,xm128,i8 | f2 0f 70 /r ib
pinsrw | x,rr32,i8   | 66 0f c4 /r ib | unsized
pinsrw | x,m16,i8    | 66 0f c4 /r ib | unsized
pextrw | r32,xr,i8   | 66 0f c5 /r ib
psrlw  | xr,i8       | 66 0f 71 /2 ib
psraw  | xr,i8       | 66 0f 71 /4 ib
psllw  | xr,i8       | 66 0f 71 /6 ib
psrld  | xr,i8       | 66 0f 72 /2 ib
psrad  | xr,i8       | 66 0f 72 /4 ib
pslld  | xr,i8       | 66 0f 72 /6 ib
psrlq  | xr,i8       | 66 0f 73 /2 ib
psrldq | xr,i8       | 66 0f 73 /3 ib
psllq  | xr,i8       | 66 0f 73 /6 ib
pslldq | xr,i8       | 66 0f 73 /7 ib
cvtps2pd | x,xm64    | 0f 5a /r
cvtpd2ps | x,xm128   | 66 0f 5a /r
cvtss2sd | x,xm32    | f3 0f 5a /r
cvtsd2ss | x,xm64    | f2 0f 5a /r
cvtdq2ps | x,xm128   | 0f 5b /r
cvtps2dq | x,xm128   | 66 0f 5b /r
cvttps2dq | x,xm128  | f3 0f 5b /r
cvtdq2pd | x,xm64    | f3 0f e6 /r
cvtpd2dq | x,xm128   | f2 0f e6 /r
cvttpd2dq | x,xm128  | 66 0f e6 /r
cvtsi2ss | x,rmy     | f3 0f 2a /r
cvtsi2sd | x,rmy     | f2 0f 2a /r
cvtss2si | ry,xm32   | f3 0f 2d /r
cvtsd2si | ry,xm64   | f2 0f 2d /r
cvttss2si | ry,xm32  | f3 0f 2c /r
cvttsd2si | ry,xm64  | f2 0f 2c /r
ldmxcsr | m32        | 0f ae /2     | unsized
stmxcsr | m32        | 0f ae /3     | unsized
fxsave | m           | 0f ae /0
fxrstor | m          | 0f ae /1
fxsave64 | m         | 0f ae /0 o64
fxrstor64 | m        | 0f ae /1 o64
xsave  | m           | 0f ae /4
xrstor | m           | 0f ae /5
xsave64 | m          | 0f ae /4 o64
xrstor64 | m         | 0f ae /5 o64
xsaveopt | m         | 0f ae /6
`;

const X87 = `
fninit |             | db e3
finit  |             | wait db e3
fnclex |             | db e2
fclex  |             | wait db e2
fnop   |             | d9 d0
fwait wait |         | 9b
emms   |             | 0f 77
fldcw  | m16         | d9 /5        | unsized
fnstcw | m16         | d9 /7        | unsized
fstcw  | m16         | wait d9 /7   | unsized
fnstsw | m16         | dd /7        | unsized
fnstsw | ax          | df e0        | unsized
fstsw  | m16         | wait dd /7   | unsized
fstsw  | ax          | wait df e0   | unsized
fnstenv | m          | d9 /6
fldenv | m           | d9 /4
fnsave | m           | dd /6
frstor | m           | dd /4
fld    | m32         | d9 /0        | unsized
fld    | m64         | dd /0        | unsized
fld    | m80         | db /5        | unsized
fld    | sti         | d9 c0 +r
fst    | m32         | d9 /2        | unsized
fst    | m64         | dd /2        | unsized
fst    | sti         | dd d0 +r
fstp   | m32         | d9 /3        | unsized
fstp   | m64         | dd /3        | unsized
fstp   | m80         | db /7        | unsized
fstp   | sti         | dd d8 +r
fild   | m16         | df /0        | unsized
fild   | m32         | db /0        | unsized
fild   | m64         | df /5        | unsized
fist   | m16         | df /2        | unsized
fist   | m32         | db /2        | unsized
fistp  | m16         | df /3        | unsized
fistp  | m32         | db /3        | unsized
fistp  | m64         | df /7        | unsized
fld1   |             | d9 e8
fldpi  |             | d9 eb
fldz   |             | d9 ee
fxch   |             | d9 c9
fxch   | sti         | d9 c8 +r
ffree  | sti         | dd c0 +r
fincstp |            | d9 f7
fdecstp |            | d9 f6
fchs   |             | d9 e0
fabs   |             | d9 e1
fsqrt  |             | d9 fa
frndint |            | d9 fc
fcompp |             | de d9
fucompp |            | da e9
fcomi  | st0,sti     | db f0 +r
fcomip | st0,sti     | df f0 +r
fucomi | st0,sti     | db e8 +r
fucomip | st0,sti    | df e8 +r
`;

/** x87 arithmetic by its digit; sub and div swap their reversed twins when the destination is ST(i). */
const X87_ARITHMETIC = ["fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"].map((name, n) => `
${name} | m32     | d8 /${n}                     | unsized
${name} | m64     | dc /${n}                     | unsized
${name} | ${n === 2 || n === 3 ? "sti" : "st0,sti"} | d8 ${hex(0xc0 + n * 8)} +r
${
  n === 2 || n === 3 ? "" : `${name} | sti,st0 | dc ${hex(0xc0 + (n < 4 ? n : n ^ 1) * 8)} +r
${name}p | sti,st0 | de ${hex(0xc0 + (n < 4 ? n : n ^ 1) * 8)} +r
${name}p | | de ${hex(0xc1 + (n < 4 ? n : n ^ 1) * 8)}`
}
`).join("");

/** All forms, one a line, in the notation described at the top of this file. */
export const INSTRUCTION_TABLE: string = [
  DATA_MOVEMENT,
  STACK,
  ARITHMETIC,
  SHIFTS,
  INTEGER,
  CONTROL_FLOW,
  CONDITIONAL,
  STRINGS,
  INPUT_OUTPUT,
  FLAGS,
  SYSTEM,
  VIRTUALIZATION,
  SSE,
  SSE_ARITHMETIC,
  SSE_PACKED,
  SSE_COMPARES,
  SSE_INTEGER,
  X87,
  X87_ARITHMETIC,
].join("\n");

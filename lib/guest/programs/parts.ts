/**
 * What the guests that come with exitbox have in common: printing to the 16550, the way to long mode, and the
 * entries of their IDTs.
 *
 * @module
 */

/**
 * Printing, a line at a time under a lock: `begin_line`, `end_line`, `print_string`, `print_decimal`, `print_hex`, and the
 * end of a guest by an `exception`. The program has `COM1`, `EXIT_PORT`, the word `console_lock`, and its VP's number in R15D.
 */
export const PRINTING = `
; vector, error code and RIP are on the stack; whoever holds the console's lock, this VP prints
exception:
        STRING(\\nVP )
        mov eax, r15d
        call print_decimal
        STRING(: exception )
        pop rax
        call print_decimal
        STRING(, error code )
        pop rax
        mov cl, 8
        call print_hex
        STRING(, at )
        pop rax
        mov cl, 16
        call print_hex
        STRING(\\n)
        mov eax, 2
        out EXIT_PORT, eax
.end:   cli
        hlt
        jmp .end

lock_console:
        lock bts dword [console_lock], 0
        jnc .taken
.spin:  pause
        test dword [console_lock], 1
        jnz .spin
        jmp lock_console
.taken: ret

unlock_console:
        mov dword [console_lock], 0
        ret

begin_line:
        call lock_console
        STRING(VP )
        mov eax, r15d
        call print_decimal
        STRING(: )
        ret

end_line:
        STRING(\\n)
        jmp unlock_console

; prints ECX bytes from RSI with one string instruction
print_string:
        mov edx, COM1
        rep outsb
        ret

; prints EAX; clobbers RAX, RBX, RCX, RDX
print_decimal:
        mov ebx, 10
        xor ecx, ecx
.divide:
        xor edx, edx
        div ebx
        push rdx
        inc ecx
        test eax, eax
        jnz .divide
        mov edx, COM1
.digit: pop rax
        add al, '0'
        out dx, al
        loop .digit
        ret

; prints the low CL hexadecimal digits of RAX; clobbers RAX, RBX, RCX, RDX
print_hex:
        movzx ebx, cl
        shl cl, 2
        ror rax, cl
        mov edx, COM1
.digit: rol rax, 4
        push rax
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a' - '9' - 1
.out:   out dx, al
        pop rax
        dec ebx
        jnz .digit
        ret
`;

/**
 * From protected mode, paging off, to 64-bit code at `long_mode` of segment CODE64 (Intel SDM volume 3, 9.8.5). The program
 * has `MSR_EFER`; clobbers RAX, RCX and RDX.
 *
 * @param tables Physical address of the PML4.
 * @param efer Bits that EFER gets: 100 LME, 800 NXE.
 */
export function enterLongMode(tables: string, efer: "0x100" | "0x900"): string {
  return `
        mov eax, cr4
        or eax, 0x620                   ; PAE, OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov eax, ${tables}
        mov cr3, eax
        mov ecx, MSR_EFER
        rdmsr
        or eax, ${efer}
        wrmsr
        mov eax, cr0
        and eax, ~0x60000000            ; an AP wakes with its caches off
        or eax, 0x80010022              ; PG, WP, NE, MP
        mov cr0, eax
        jmp CODE64:long_mode`;
}

/** Strings that the code prints, gathered while the source is put together. */
export class Strings {
  readonly #texts: string[] = [];

  /**
   * A source with every `STRING(text)` replaced by code that prints the text; clobbers RCX, RDX and RSI.
   *
   * @param macro What stands before the parenthesis.
   * @param print The routine that prints ECX bytes from RSI.
   */
  fill(source: string, macro = "STRING", print = "print_string"): string {
    const use = new RegExp(`^(.*?)${macro}\\((.*)\\)$`, "gm");
    return source.replace(use, (_, before: string, text: string) => {
      const name = `text_${this.#texts.length}`;
      this.#texts.push(`${name}: db \`${text}\`\n${name}_bytes equ $ - ${name}`);
      return `${before}lea rsi, [${name}]\n        mov ecx, ${name}_bytes\n        call ${print}`;
    });
  }

  /** The texts, for the source's data. */
  definitions(): string {
    return this.#texts.join("\n");
  }
}

/** Exceptions: the first entries of an IDT. */
export const EXCEPTIONS = 32;
/** Exceptions that push an error code. */
const WITH_ERROR_CODE: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);

/** An entry for each exception: error code, or 0, and vector are pushed, and all go to `exception`. */
export function exceptionStubs(): string {
  return Array.from({ length: EXCEPTIONS }, (_, vector) => `
        align 16
        ${WITH_ERROR_CODE.has(vector) ? "" : "push 0"}
        push ${vector}
        jmp exception`).join("");
}

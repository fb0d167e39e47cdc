/**
 * Reading fields of a JSON document: every error names the document and the field, and a field that nobody reads is one.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { parseJson } from "../memory/json_document.ts";
import { suggestion } from "../memory/nearest_name.ts";

/** An object of a JSON document, with the name of the place where it is. */
export class JsonFields {
  readonly #document: string;
  readonly #path: string;
  readonly #value: Record<string, unknown>;

  private constructor(document: string, path: string, value: Record<string, unknown>) {
    this.#document = document;
    this.#path = path;
    this.#value = value;
  }

  /** The object in `text`; `document` is what errors call it. Throws {@linkcode BadInput}. */
  static parse(text: string, document: string): JsonFields {
    const value = parseJson(text, document);
    if (!isObject(value)) throw new BadInput(`${document}: a JSON object is expected`);
    return new JsonFields(document, "", value);
  }

  /** The error for a field. */
  bad(field: string, expected: string): BadInput {
    return new BadInput(`${this.#document}: field "${this.#path}${field}": ${expected}`);
  }

  /** Throws unless every field is one of `known`. */
  only(known: readonly string[]): void {
    for (const field of this.names) {
      if (!known.includes(field)) throw this.bad(field, `unknown${suggestion(field, known)}`);
    }
  }

  /** The fields that are there. */
  get names(): readonly string[] {
    return Object.keys(this.#value);
  }

  /** Whether a field is there. */
  has(field: string): boolean {
    return Object.hasOwn(this.#value, field);
  }

  /** A text; `usual` when it is absent. */
  text(field: string, usual?: string): string {
    const value = this.has(field) ? this.#value[field] : usual;
    if (typeof value !== "string") throw this.bad(field, "text is expected");
    return value;
  }

  /** One of several words; `usual` when it is absent. */
  word<W extends string>(field: string, words: readonly W[], usual?: W): W {
    const value = this.text(field, usual);
    const found = words.find((word) => word === value);
    if (found === undefined) throw this.bad(field, `"${value}" is not one of ${words.join(", ")}`);
    return found;
  }

  /** A whole number, as a number or as text such as "0x5a"; `usual` when it is absent. */
  integer(field: string, min: number, max: number, usual?: number): number {
    return this.#integer(field, this.has(field) ? this.#value[field] : usual, min, max);
  }

  /** A list of whole numbers, or a single one. */
  integers(field: string, min: number, max: number): readonly number[] {
    const value = this.#value[field];
    const list = Array.isArray(value) ? value : [value];
    if (list.length === 0) throw this.bad(field, "at least one number is expected");
    return list.map((one, index) => this.#integer(list === value ? `${field}[${index}]` : field, one, min, max));
  }

  /** A list of texts, or a single one. */
  texts(field: string): readonly string[] {
    const value = this.#value[field];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (list.length === 0 || !list.every((one) => typeof one === "string")) throw this.bad(field, "texts are expected");
    return list as string[];
  }

  /** An object; an empty one when it is absent. */
  object(field: string): JsonFields {
    const value = this.has(field) ? this.#value[field] : {};
    if (!isObject(value)) throw this.bad(field, "an object is expected");
    return new JsonFields(this.#document, `${this.#path}${field}.`, value);
  }

  /** A list of objects or texts; an empty one when it is absent. */
  list(field: string): readonly (string | JsonFields)[] {
    const value = this.has(field) ? this.#value[field] : [];
    if (!Array.isArray(value)) throw this.bad(field, "a list is expected");
    return value.map((one: unknown, index) => {
      if (typeof one === "string") return one;
      if (!isObject(one)) throw this.bad(`${field}[${index}]`, "an object is expected");
      return new JsonFields(this.#document, `${this.#path}${field}[${index}].`, one);
    });
  }

  #integer(field: string, value: unknown, min: number, max: number): number {
    const number = typeof value === "string" && /^(0x[0-9a-fA-F]+|[0-9]+)$/.test(value) ? Number(value) : value;
    if (typeof number !== "number" || !Number.isInteger(number) || number < min || number > max) {
      throw this.bad(field, `a whole number from ${min} to ${max} is expected`);
    }
    return number;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

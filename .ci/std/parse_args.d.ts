/** Type declarations of `@std/cli/parse-args` for the JavaScript of the npm package, which carries none. */

/** The options that exitbox uses; names and meanings are those of `@std/cli`. */
export interface ParseOptions {
  "--"?: boolean;
  alias?: Record<string, string | readonly string[]>;
  boolean?: readonly string[];
  collect?: readonly string[];
  default?: Record<string, unknown>;
  negatable?: readonly string[];
  stopEarly?: boolean;
  string?: readonly string[];
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

export function parseArgs(args: readonly string[], options?: ParseOptions): Record<string, unknown> & {
  _: (string | number)[];
};

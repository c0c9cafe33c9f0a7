// Patterns of module names, as Python's `re` reads them.
import { InvalidArgumentError } from "../errors/index.ts";

/** What Python writes in another way than JavaScript. */
function translated(pattern: string): { source: string; flags: string } {
  const flags = /^\(\?([ims]+)\)/.exec(pattern);
  const source = (flags === null ? pattern : pattern.slice(flags[0].length))
    .replaceAll("(?P<", "(?<")
    .replaceAll(/\(\?P=(\w+)\)/g, "\\k<$1>")
    .replaceAll("\\A", "^")
    .replaceAll("\\Z", "$");
  return { source, flags: flags?.[1] ?? "" };
}

/** @throws InvalidArgumentError for what is no pattern. */
function made(pattern: string, wrap: (source: string) => string): RegExp {
  const { source, flags } = translated(pattern);
  try {
    return new RegExp(wrap(source), flags);
  } catch (cause) {
    throw new InvalidArgumentError(`'${pattern}' is not a regular expression.`, { cause });
  }
}

/** The whole of a name: Python's `re.fullmatch`. */
export const fullPattern = (pattern: string): RegExp => made(pattern, (source) => `^(?:${source})$`);

/** A name or the end of one after a dot, as keys of `rank_pattern` and `alpha_pattern` are read. */
export const suffixPattern = (pattern: string): RegExp =>
  made(pattern, (source) => `^(?:.*\\.)?(?:${source})$`);

/** A part of a dotted name, from one dot to another. */
export const partPattern = (pattern: string): RegExp =>
  made(pattern, (source) => `^(?:|.*\\.)(?:${source})(?:$|\\..*)`);

/** A list of layers, and the number of the layer in it. */
export const layerPattern = (pattern: string): RegExp =>
  made(pattern, (source) => `^(?:|.*?\\.)(?:${source})\\.(?<idx>\\d+)\\.`);

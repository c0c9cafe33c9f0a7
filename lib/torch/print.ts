// Tensors as torch prints them.
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { no_grad } from "./autograd.ts";
import { isComplexDtype, isFloatingDtype } from "./dtype.ts";
import { tensorOp } from "./native_op.ts";
import { exponential, fixed } from "./number_format.ts";
import { extendTensor, type Tensor } from "./tensor.ts";
import type { Dtype } from "./types.ts";

export interface PrintMethods {
  /** The tensor as torch prints it; `console.log(t)` shows the same. */
  toString(): string;
}

export interface PrintOptions {
  /** Digits after the point. Default 4. */
  precision: number;
  /** Tensors of more elements are shown by their edges. Default 1000. */
  threshold: number;
  /** Entries shown at either edge of a dimension. Default 3. */
  edgeitems: number;
  /** Characters per line. Default 80. */
  linewidth: number;
  /** Always or never use exponents; null: where the numbers ask for it. Default null. */
  sci_mode: boolean | null;
}

const PROFILES: Record<string, Partial<PrintOptions>> = {
  default: { precision: 4, threshold: 1000, edgeitems: 3, linewidth: 80 },
  short: { precision: 2, threshold: 1000, edgeitems: 2, linewidth: 80 },
  full: { precision: 4, threshold: Number.POSITIVE_INFINITY, edgeitems: 3, linewidth: 80 },
};

const options: PrintOptions = { precision: 4, threshold: 1000, edgeitems: 3, linewidth: 80, sci_mode: null };

/** Changes how tensors print; what is not given stays, except that `sci_mode` goes back to null. */
export function set_printoptions({
  profile,
  ...given
}: Partial<PrintOptions> & { profile?: "default" | "short" | "full" } = {}): void {
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(options, name)) {
      throw new InvalidArgumentError(`[set_printoptions] unknown option '${name}'.`, {
        suggestion: suggest(name, Object.keys(options)),
      });
    }
  }
  if (profile !== undefined) Object.assign(options, PROFILES[profile]);
  options.sci_mode = null;
  for (const [name, value] of Object.entries(given))
    if (value !== undefined) Object.assign(options, { [name]: value });
}

/** The settings of printing, as `set_printoptions` takes them. */
export const get_printoptions = (): PrintOptions => ({ ...options });

/** Formats all numbers of one tensor alike. */
type Format = (value: unknown) => string;

interface Formatter {
  readonly width: number;
  readonly format: Format;
}

const word = (value: unknown) => (typeof value === "boolean" ? (value ? "True" : "False") : String(value));

function plainFormatter(values: readonly unknown[]): Formatter {
  const width = values.reduce<number>((longest, value) => Math.max(longest, word(value).length), 1);
  return { width, format: (value) => word(value).padStart(width) };
}

/** One of three styles: integers with a point, decimals, or exponents. */
function floatFormatter(values: readonly number[]): Formatter {
  const { precision } = options;
  const ordinary = values.filter((value) => Number.isFinite(value) && value !== 0);
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  for (const value of ordinary) {
    least = Math.min(least, Math.abs(value));
    most = Math.max(most, Math.abs(value));
  }
  const whole = ordinary.every(Number.isInteger);
  const extreme = ordinary.length > 0 && (most / least > 1000 || most > 1e8 || least < 1e-4);
  const scientific = ordinary.length > 0 && (options.sci_mode ?? extreme);
  const text = (value: number) => {
    if (scientific) return exponential(value, precision);
    if (!whole) return fixed(value, precision);
    return fixed(value, 0) + (Number.isFinite(value) ? "." : "");
  };
  const width = ordinary.reduce((longest, value) => Math.max(longest, text(value).length), 1);
  return { width, format: (value) => text(value as number).padStart(width) };
}

function complexFormatter(values: readonly [number, number][]): Formatter {
  const real = floatFormatter(values.map(([re]) => re));
  const imaginary = floatFormatter(values.map(([, im]) => im));
  const format = (value: unknown) => {
    const [re, im] = value as [number, number];
    const tail = `${imaginary.format(im)}j`.trimStart();
    return real.format(re) + (/^[+-]/.test(tail) ? "" : "+") + tail;
  };
  // The sign between the parts is part of the imaginary one's width, the "j" is not.
  return { width: real.width + imaginary.width + 1, format };
}

/** Only the edges of dimensions that are too long; `cut` says which were. */
function edges(tensor: Tensor): { shown: Tensor; cut: boolean[] } {
  const { edgeitems } = options;
  let shown = tensor;
  const cut = tensor.shape.map((size, dim) => {
    if (size <= 2 * edgeitems) return false;
    const parts = [shown.narrow(dim, 0, edgeitems), shown.narrow(dim, size - edgeitems, edgeitems)];
    shown = tensorOp(
      "cat",
      "",
      parts.map(({ _handle }) => _handle),
      dim,
    );
    return true;
  });
  return { shown, cut };
}

function vector(
  values: readonly unknown[],
  indent: number,
  cut: boolean,
  { width, format }: Formatter,
): string {
  const perLine = Math.max(1, Math.floor((options.linewidth - indent) / (width + 2)));
  const items = values.map(format);
  if (cut) items.splice(options.edgeitems, 0, " ...");
  const lines: string[] = [];
  for (let i = 0; i < items.length; i += perLine) lines.push(items.slice(i, i + perLine).join(", "));
  return `[${lines.join(`,\n${" ".repeat(indent + 1)}`)}]`;
}

function nested(
  values: unknown,
  depth: number,
  indent: number,
  cut: readonly boolean[],
  formatter: Formatter,
): string {
  const left = cut.length - depth;
  if (left === 0) return formatter.format(values);
  if (left === 1) return vector(values as unknown[], indent, cut[depth] as boolean, formatter);
  const parts = (values as unknown[]).map((value) => nested(value, depth + 1, indent + 1, cut, formatter));
  if (cut[depth]) parts.splice(options.edgeitems, 0, "...");
  return `[${parts.join(`,${"\n".repeat(left - 1)}${" ".repeat(indent + 1)}`)}]`;
}

function contents(tensor: Tensor, indent: number): string {
  const { dtype } = tensor;
  const summarize = tensor.numel() > options.threshold;
  if (summarize && options.edgeitems === 0) return tensor.ndim === 0 ? "..." : "[...]";
  const { shown, cut } = summarize ? edges(tensor) : { shown: tensor, cut: tensor.shape.map(() => false) };
  const values = shown.tolist();
  const flat = (shown.ndim === 0 ? [values] : (values as unknown[]).flat(shown.ndim - 1)) as never[];
  const make = isComplexDtype(dtype)
    ? complexFormatter
    : isFloatingDtype(dtype)
      ? floatFormatter
      : plainFormatter;
  return nested(values, 0, indent, cut, make(flat));
}

const tuple = (sizes: readonly number[]) => `(${sizes.join(", ")}${sizes.length === 1 ? "," : ""})`;

function isDefaultDtype(dtype: Dtype, alsoIntegers: boolean): boolean {
  const float = addon().defaultDtype();
  if (dtype === float) return true;
  return (
    alsoIntegers &&
    (dtype === "int64" || dtype === "bool" || dtype === (float === "float64" ? "complex128" : "complex64"))
  );
}

const PREFIX = "tensor(";

function describe(tensor: Tensor): string {
  const { dtype, device, shape } = tensor;
  const empty = tensor.numel() === 0;
  const suffixes: string[] = [];
  if (device !== "cpu") suffixes.push(`device='${device}'`);
  if (tensor.is_meta || (empty && shape.length !== 1) || (!empty && options.edgeitems === 0))
    suffixes.push(`size=${tuple(shape)}`);
  if (!isDefaultDtype(dtype, !tensor.is_meta && !empty)) suffixes.push(`dtype=torch.${dtype}`);
  const { grad_fn } = tensor;
  if (grad_fn !== null) suffixes.push(`grad_fn=<${grad_fn}>`);
  else if (tensor.requires_grad) suffixes.push("requires_grad=True");

  let text =
    PREFIX +
    (tensor.is_meta ? "..." : empty ? "[]" : no_grad(() => contents(tensor.detach(), PREFIX.length)));
  let column = text.length - text.lastIndexOf("\n") + 1;
  for (const suffix of suffixes) {
    const wraps = column + suffix.length + 2 > options.linewidth;
    text += wraps ? `,\n${" ".repeat(PREFIX.length)}${suffix}` : `, ${suffix}`;
    column = wraps ? PREFIX.length + suffix.length : column + suffix.length + 2;
  }
  return `${text})`;
}

extendTensor({
  toString(this: Tensor): string {
    return this.is_disposed ? "tensor(<disposed>)" : describe(this);
  },
});

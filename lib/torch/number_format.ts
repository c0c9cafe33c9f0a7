// Python's number formats: "%.4f" and "%.4e", which round ties to even where JavaScript rounds them up.

/** Is the exact value of `x` halfway between two decimals of `digits` places? */
function isTie(x: number, digits: number): boolean {
  // Such a value is a multiple of 2^-(digits + 1), and then toFixed is exact.
  return Number.isInteger(x * 2 ** (digits + 1)) && x.toFixed(digits + 1).endsWith("5");
}

/** The decimal digits with one taken off the last, which rounding up a tie had added. */
function stepDown(text: string): string {
  const digits = text.split("");
  let i = digits.length - 1;
  // Only an odd last digit is stepped down, so nothing is borrowed.
  while (!/\d/.test(digits[i] as string)) i--;
  digits[i] = String(Number(digits[i]) - 1);
  return digits.join("");
}

const isOdd = (digit: string | undefined) => "13579".includes(digit ?? "");

function special(x: number): string | undefined {
  if (Number.isNaN(x)) return "nan";
  if (Number.isFinite(x)) return undefined;
  return x > 0 ? "inf" : "-inf";
}

/** Python's `f"{x:.{digits}f}"`. */
export function fixed(x: number, digits: number): string {
  const word = special(x);
  if (word !== undefined) return word;
  const sign = x < 0 || Object.is(x, -0) ? "-" : "";
  const abs = Math.abs(x);
  // From 1e21 on toFixed switches to exponents; such numbers are integers.
  if (abs >= 1e21) return sign + BigInt(abs) + (digits > 0 ? `.${"0".repeat(digits)}` : "");
  const text = abs.toFixed(digits);
  return sign + (isTie(abs, digits) && isOdd(text.at(-1)) ? stepDown(text) : text);
}

/** Python's `f"{x:.{digits}e}"`. */
export function exponential(x: number, digits: number): string {
  const word = special(x);
  if (word !== undefined) return word;
  const sign = x < 0 || Object.is(x, -0) ? "-" : "";
  const abs = Math.abs(x);
  let [mantissa = "", exponent = ""] = abs.toExponential(digits).split("e");
  const [long = ""] = abs.toExponential(Math.min(100, digits + 40)).split("e");
  const rest = long.slice(digits > 0 ? digits + 2 : 2);
  if (/^50*$/.test(rest) && isOdd(mantissa.at(-1)) && Number(mantissa) > Number(long))
    mantissa = stepDown(mantissa);
  const power = exponent.slice(1).padStart(2, "0");
  return `${sign}${mantissa}e${exponent[0]}${power}`;
}

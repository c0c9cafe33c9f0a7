// Values as Python prints them, for the texts of `extra_repr`.
//
// Python prints a number as it was written: Dropout(p=0) or Dropout(p=0.0). JavaScript has one kind of number, so a layer's
// attribute has one form: with a point where torch's signature says float, as configurations have them; without where
// programs mostly write whole numbers (Threshold, ConstantPad, LPPool).

/** `1` → "1.0", `1e-5` → "1e-05": how Python prints a float. */
export function pyFloat(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  if (value === 0) return "0.0";
  const magnitude = Math.abs(value);
  if (magnitude >= 1e-4 && magnitude < 1e16) {
    return Number.isInteger(value) ? `${value}.0` : String(value);
  }
  const [digits, exponent] = value.toExponential().split("e") as [string, string];
  return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

/** None, True, 'text', (1, 2) and numbers. A number prints as an integer when it is one; see {@link pyFloat}. */
export function py(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return `'${value}'`;
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : pyFloat(value);
  if (Array.isArray(value))
    return value.length === 1 ? `(${py(value[0])},)` : `(${value.map(py).join(", ")})`;
  return String(value);
}

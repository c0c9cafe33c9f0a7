/** A part of a dotted name: a number goes before words, and a word's digits at its end count as a number. */
function parts(name: string): (number | [text: string, digits: number])[] {
  return name.split(".").map((part) => {
    if (/^\d+$/.test(part)) return Number(part);
    const text = part.replace(/\d+$/, "");
    return [text, text === part ? -1 : Number(part.slice(text.length))];
  });
}

const compare = <T>(a: T, b: T) => (a < b ? -1 : a > b ? 1 : 0);

/** Orders dotted names with their numbers as numbers: "h.2.w" before "h.10.w", "shard_2" before "shard_11". */
export function naturalOrder(a: string, b: string): number {
  const [x, y] = [parts(a), parts(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const [p, q] = [x[i] as (typeof x)[0], y[i] as (typeof y)[0]];
    if (typeof p === "number" || typeof q === "number") {
      if (typeof p !== typeof q) return typeof p === "number" ? -1 : 1;
      if (p !== q) return (p as number) - (q as number);
    } else {
      const order = compare(p[0], q[0]) || compare(p[1], q[1]);
      if (order !== 0) return order;
    }
  }
  return x.length - y.length;
}

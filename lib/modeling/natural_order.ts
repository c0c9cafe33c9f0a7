/** Orders dotted names with their numeric parts as numbers, numbers before words: "h.2.w" before "h.10.w". */
export function naturalOrder(a: string, b: string): number {
  const [x, y] = [a.split("."), b.split(".")];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const [p, q] = [x[i] as string, y[i] as string];
    if (p === q) continue;
    const [isP, isQ] = [/^\d+$/.test(p), /^\d+$/.test(q)];
    if (isP && isQ && Number(p) !== Number(q)) return Number(p) - Number(q);
    if (isP !== isQ) return isP ? -1 : 1;
    return p < q ? -1 : 1;
  }
  return x.length - y.length;
}

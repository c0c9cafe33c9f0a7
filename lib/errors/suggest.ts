// "Did you mean …?": the known names nearest to an unknown one.

/** Edits that lead from one to the other (two letters exchanged are one), given up above `limit`. */
function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let above: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const exchanged = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const exchange = exchanged ? (above[j - 2] as number) + 1 : change;
      next.push(Math.min(change, exchange, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    above = row;
    row = next;
  }
  return row[b.length] as number;
}

/** Up to `count` of the `known` names that are near `name`, nearest first; case and underscores count little. */
export function nearest(name: string, known: Iterable<string>, count = 3): string[] {
  const plain = (s: string) => s.toLowerCase().replaceAll(/[_\-.]/g, "");
  const wanted = plain(name);
  const limit = Math.max(1, Math.floor(wanted.length / 3));
  return [...known]
    .map((candidate) => ({ candidate, far: distance(wanted, plain(candidate), limit) }))
    .filter(({ far }) => far <= limit)
    .sort((a, b) => a.far - b.far)
    .slice(0, count)
    .map(({ candidate }) => candidate);
}

/** The nearest known name, or undefined. */
export const suggest = (name: string, known: Iterable<string>): string | undefined =>
  nearest(name, known, 1)[0];

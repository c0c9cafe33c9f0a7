// Names of places: where weights rest, and in which order places are filled.
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";

/** A place for weights: "cpu", "disk", "meta", "cuda:0", "limited:0", or 0 for "cuda:0". */
export type Place = string | number;

/** Module name → place; "" is the whole model. */
export type DeviceMap = Readonly<Record<string, Place>>;

/** Place → bytes, or a size like "10GiB". */
export type MaxMemory = Readonly<Record<string, number | string>>;

const INDEXED = /^(cuda|limited)(?::(0|[1-9]\d*))?$/;

/** The one name of a place: 0, "0" and "cuda" are "cuda:0". */
export function placeName(place: Place, what = "A device"): string {
  const text = String(place);
  if (/^(0|[1-9]\d*)$/.test(text)) return `cuda:${text}`;
  if (text === "cpu" || text === "disk" || text === "meta") return text;
  const found = INDEXED.exec(text);
  if (found !== null) return `${found[1]}:${found[2] ?? 0}`;
  throw new InvalidArgumentError(
    `${what} is a number, "cuda:<n>", "limited:<n>", "cpu" or "disk", got '${text}'.`,
    { suggestion: suggest(text, ["cuda:0", "limited:0", "cpu", "disk"]) },
  );
}

/** Whether a place computes beside the CPU: what the reference numbers 0, 1, …. */
export const isAccelerator = (place: string): boolean => INDEXED.test(place);

/** Accelerators by kind and number, then the CPU, then the disk. */
export function byPriority(a: string, b: string): number {
  const rank = (place: string): [number, number] => {
    const found = INDEXED.exec(place);
    if (found !== null) return [found[1] === "cuda" ? 0 : 1, Number(found[2] ?? 0)];
    return [place === "cpu" ? 2 : 3, 0];
  };
  const [x, y] = [rank(a), rank(b)];
  return x[0] - y[0] || x[1] - y[1];
}

/** A device map with canonical names of places. */
export function placesOf(device_map: DeviceMap): Record<string, string> {
  return Object.fromEntries(
    Object.entries(device_map).map(([name, place]) => [
      name,
      placeName(place, `device_map${name === "" ? "" : `['${name}']`}`),
    ]),
  );
}

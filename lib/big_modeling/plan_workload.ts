// Our own plan: for a batch and a length, with caches and activations counted, places filled again, and what is streamed spread
// between what stays, so that copies hide behind compute. And what it predicts: peaks and tokens per second.
import { OutOfMemoryError } from "../errors/index.ts";
import { formatSize } from "./byte_sizes.ts";
import { isAccelerator } from "./devices.ts";
import type { Processor } from "./machine.ts";
import type { Unit } from "./units.ts";

/** A place and what it can do. */
export interface PlaceFacts extends Processor {
  /** "cuda:0", "limited:0", "cpu", "disk". */
  readonly place: string;
}

export interface WorkloadPlanInput {
  readonly units: readonly Unit[];
  /** Accelerators in their order, then the CPU. The disk is unlimited. */
  readonly places: readonly PlaceFacts[];
  /** Bytes per second from the disk. */
  readonly disk: number;
  /** Bytes of a forward beside weights and caches, on each place that computes. */
  readonly activations: number;
  readonly batch: number;
  /** Tokens of the prompt, for the time to the first token. */
  readonly length: number;
  /** "balanced": accelerators share; "sequential": one after the other. Default "balanced". */
  readonly kind?: "balanced" | "sequential" | undefined;
}

export interface PlacedUnit extends Unit {
  readonly place: string;
  /** Where it computes: its place, or the main one for what is streamed. */
  readonly computes: string;
}

export interface PlacePeak {
  readonly place: string;
  readonly name: string;
  readonly memory: number;
  readonly weights: number;
  readonly cache: number;
  readonly activations: number;
  /** Room in which streamed units take turns. */
  readonly slots: number;
  readonly peak: number;
}

export interface WorkloadPlan {
  readonly units: readonly PlacedUnit[];
  readonly peaks: readonly PlacePeak[];
  /** Module name → place. */
  readonly device_map: Readonly<Record<string, string>>;
  readonly main: string;
  readonly streamed: number;
  /** Of all sequences together, when one token follows the other. */
  readonly tokens_per_second: number;
  /** Seconds until the prompt is read. */
  readonly first_token_s: number;
}

/** Slots in which streamed blocks take turns: one is used while the next comes. */
const SLOTS = 2;

/**
 * Places units, and says what will happen.
 *
 * @throws OutOfMemoryError when not even one unit at a time fits beside caches and activations.
 */
export function planWorkload(input: WorkloadPlanInput): WorkloadPlan {
  const accelerators = input.places.filter(({ place, memory }) => isAccelerator(place) && memory > 0);
  const main = accelerators[0]?.place ?? "cpu";
  const where =
    accelerators.length === 0
      ? onHost(input)
      : (resident(input, accelerators) ?? streamed(input, accelerators));
  const units = input.units.map((unit, i): PlacedUnit => {
    const place = where[i] as string;
    const isStreamed = place === "disk" || (place === "cpu" && main !== "cpu");
    return { ...unit, place, computes: isStreamed ? main : place };
  });
  return { ...predict(input, units, main), units, main, device_map: mapOf(units) };
}

const mapOf = (units: readonly PlacedUnit[]): Record<string, string> => {
  const places = new Set(units.map(({ place }) => place));
  const only = [...places][0];
  if (places.size === 1 && only !== undefined) return { "": only };
  return Object.fromEntries(
    units.filter(({ bytes, tiedTo }) => bytes > 0 || tiedTo).map(({ name, place }) => [name, place]),
  );
};

/** Bytes of a unit where it stays: a tied one weighs nothing beside its table. */
const load = ({ bytes, cache }: Unit) => bytes + cache;

/** All units on accelerators, each as full as the others if need be; undefined when they do not fit. */
function resident(
  { units, activations, kind = "balanced" }: WorkloadPlanInput,
  places: readonly PlaceFacts[],
): string[] | undefined {
  const rooms = places.map(({ memory }) => memory - activations);
  const total = units.reduce((sum, unit) => sum + load(unit), 0);
  if (kind === "sequential") return fill(units, places, rooms);
  // The smallest share with which it works, to a thousandth.
  let [low, high] = [total / places.length / 1.001, Math.max(...rooms)];
  if (fill(units, places, rooms) === undefined) return undefined;
  for (let i = 0; i < 24 && high > low * 1.001; i++) {
    const middle = (low + high) / 2;
    if (
      fill(
        units,
        places,
        rooms.map((room) => Math.min(room, middle)),
      )
    )
      high = middle;
    else low = middle;
  }
  return (
    fill(
      units,
      places,
      rooms.map((room) => Math.min(room, high)),
    ) ?? fill(units, places, rooms)
  );
}

/** In order, each place until it is full; what does not fit goes wherever there is room still. */
function fill(
  units: readonly Unit[],
  places: readonly PlaceFacts[],
  rooms: readonly number[],
): string[] | undefined {
  const left = [...rooms];
  const where = new Map<string, number>();
  let current = 0;
  for (const unit of units) {
    const tied = unit.tiedTo === undefined ? undefined : where.get(unit.tiedTo);
    if (tied !== undefined) {
      where.set(unit.name, tied);
      continue;
    }
    while (current < left.length - 1 && (left[current] as number) < load(unit)) current++;
    const fits =
      (left[current] as number) >= load(unit) ? current : left.findIndex((room) => room >= load(unit));
    if (fits < 0) return undefined;
    left[fits] = (left[fits] as number) - load(unit);
    where.set(unit.name, fits);
  }
  return units.map(({ name }) => places[where.get(name) as number]?.place as string);
}

/** The CPU alone, then the disk: later units first, since the head is used as often as all others. */
function onHost({ units, places, activations }: WorkloadPlanInput): string[] {
  const cpu = places.find(({ place }) => place === "cpu");
  const caches = units.reduce((sum, { cache }) => sum + cache, 0);
  let room = (cpu?.memory ?? 0) - activations - caches;
  return units.map(({ bytes }) => {
    if (bytes > room) return "disk";
    room -= bytes;
    return "cpu";
  });
}

/**
 * What does not fit is streamed over the first accelerator: its units outside of blocks stay, other accelerators are filled with the
 * last blocks, and of its own blocks those that are streamed lie evenly between those that stay.
 */
function streamed(input: WorkloadPlanInput, accelerators: readonly PlaceFacts[]): string[] {
  const { units, activations } = input;
  const [first, ...others] = accelerators as [PlaceFacts, ...PlaceFacts[]];
  const where = new Array<string | undefined>(units.length);
  // Others from the end, in one run each, so that a forward changes places few times.
  let next = units.length - 1;
  for (const { place, memory } of [...others].reverse()) {
    let room = memory - activations;
    for (; next >= 0; next--) {
      const unit = units[next] as Unit;
      if (unit.tiedTo !== undefined || !unit.isBlock) continue;
      if (load(unit) > room) break;
      room -= load(unit);
      where[next] = place;
    }
  }
  const mine = units.flatMap((unit, i) => (where[i] === undefined ? [{ unit, i }] : []));
  const largest = Math.max(0, ...mine.filter(({ unit }) => unit.isBlock).map(({ unit }) => unit.bytes));
  // Caches stay where they are computed with, also those of blocks that are streamed.
  const caches = mine.reduce((sum, { unit }) => sum + unit.cache, 0);
  let room = first.memory - activations - caches - SLOTS * largest;
  if (room < 0)
    throw new OutOfMemoryError(
      `${first.place} has ${formatSize(first.memory)}, and the work needs ${formatSize(activations + caches + SLOTS * largest)} beside the weights that stay: ${formatSize(caches)} of caches, ${formatSize(activations)} of activations, ${formatSize(SLOTS * largest)} for two blocks.`,
      { hint: "Ask for a smaller batch or length." },
    );
  const stays = (at: { unit: Unit; i: number }) => {
    where[at.i] = first.place;
    room -= at.unit.bytes;
  };
  // The head and what is small first: the table of embeddings is only looked up.
  const outside = mine
    .filter(({ unit }) => !unit.isBlock)
    .sort((a, b) => b.unit.activeBytes - a.unit.activeBytes);
  for (const at of outside) if (at.unit.bytes <= room) stays(at);
  const blocks = mine.filter(({ unit }) => unit.isBlock);
  const count = countThatStay(
    blocks.map(({ unit }) => unit.bytes),
    room,
  );
  for (const at of spread(blocks, count)) if (at.unit.bytes <= room) stays(at);

  const cpu = input.places.find(({ place }) => place === "cpu");
  let host = cpu?.memory ?? 0;
  for (const [i, unit] of units.entries()) {
    if (where[i] !== undefined) continue;
    const table =
      unit.tiedTo === undefined ? undefined : where[units.findIndex(({ name }) => name === unit.tiedTo)];
    const place = table ?? (unit.bytes <= host ? "cpu" : "disk");
    if (place === "cpu") host -= unit.bytes;
    where[i] = place;
  }
  return where as string[];
}

function countThatStay(bytes: readonly number[], room: number): number {
  let [left, count] = [room, 0];
  for (const size of bytes) {
    if (size > left) continue;
    left -= size;
    count++;
  }
  return count;
}

/** So many of the items, evenly over all of them. */
function spread<T>(items: readonly T[], count: number): T[] {
  return items.filter(
    (_, i) => Math.floor(((i + 1) * count) / items.length) > Math.floor((i * count) / items.length),
  );
}

function predict(
  { places, disk, activations, batch, length }: WorkloadPlanInput,
  units: readonly PlacedUnit[],
  main: string,
): Omit<WorkloadPlan, "units" | "main" | "device_map"> {
  const facts = new Map(places.map((each) => [each.place, each]));
  const streamedUnits = units.filter(({ place, computes }) => place !== computes);
  const largest = Math.max(0, ...streamedUnits.map(({ bytes }) => bytes));
  const computing = new Set(units.map(({ computes }) => computes));
  const peaks = [...places, { place: "disk", name: "disk", memory: Number.POSITIVE_INFINITY }]
    .map(({ place, name, memory }): PlacePeak => {
      const own = units.filter((unit) => unit.place === place);
      const weights = own.reduce((sum, { bytes }) => sum + bytes, 0);
      const cache = units.reduce((sum, unit) => sum + (unit.computes === place ? unit.cache : 0), 0);
      const work = computing.has(place) ? activations : 0;
      // On the CPU what lies on the disk is used where it is mapped.
      const slots = place === main && main !== "cpu" ? SLOTS * largest : 0;
      return {
        place,
        name,
        memory,
        weights,
        cache,
        activations: work,
        slots,
        peak: weights + cache + work + slots,
      };
    })
    .filter(({ place, peak }) => peak > 0 || isAccelerator(place));

  const time = (tokens: number) => {
    let compute = 0;
    let copies = 0;
    for (const unit of units) {
      const on = facts.get(unit.computes);
      if (on === undefined) continue;
      compute += Math.max(
        (unit.activeBytes + unit.cache) / on.bandwidth,
        (2 * unit.active * tokens) / on.flops,
      );
      if (unit.place === "disk") copies += unit.bytes / Math.min(disk, on.link || disk);
      else if (unit.place !== unit.computes) copies += unit.bytes / on.link;
    }
    return Math.max(compute, copies);
  };
  return {
    peaks,
    streamed: streamedUnits.reduce((sum, { bytes }) => sum + bytes, 0),
    tokens_per_second: batch / time(batch),
    first_token_s: time(batch * length),
  };
}

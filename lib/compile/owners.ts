// Objects that hold tensors between calls: modules announce themselves here, so that a Program can watch them.
import { addon } from "../addon/loader.ts";
import { TraceError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";

const owners = new Set<WeakRef<object>>();
const gone = new FinalizationRegistry<WeakRef<object>>((reference) => owners.delete(reference));

/** Remembers, weakly, an object whose enumerable properties are tensors or other owners. */
export function announceOwner(owner: object): void {
  const reference = new WeakRef(owner);
  owners.add(reference);
  gone.register(owner, reference);
}

/** What must still be as it was: `object[key] === value`. */
export interface Guard {
  readonly object: Record<string, unknown>;
  readonly key: string;
  readonly value: unknown;
}

interface Link {
  readonly owner: Record<string, unknown>;
  readonly key: string;
}

/** Who holds what, of all owners that are alive. */
interface Holdings {
  readonly tensors: Map<number, { tensor: Tensor; links: Link[] }>;
  readonly parents: Map<object, Link[]>;
  readonly children: Map<object, Record<string, unknown>[]>;
}

function survey(): Holdings {
  const alive = new Set<object>();
  for (const reference of owners) {
    const owner = reference.deref();
    if (owner !== undefined) alive.add(owner);
  }
  const tensors: Holdings["tensors"] = new Map();
  const parents: Holdings["parents"] = new Map();
  const children: Holdings["children"] = new Map();
  for (const object of alive) {
    const owner = object as Record<string, unknown>;
    for (const key of Object.keys(owner)) {
      const value = owner[key];
      if (typeof value !== "object" || value === null) continue;
      const link = { owner, key };
      if (value instanceof Tensor) {
        const entry = tensors.get(value._handle);
        if (entry) entry.links.push(link);
        else tensors.set(value._handle, { tensor: value, links: [link] });
      } else if (alive.has(value)) {
        push(parents, value, link);
        push(children, owner, value as Record<string, unknown>);
      }
    }
  }
  return { tensors, parents, children };
}

function push<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}

/** Fields whose value is part of what a forward computes, of an owner and of its `config`. */
const isPlain = (value: unknown) =>
  value === null || !["object", "function", "symbol"].includes(typeof value);

/**
 * Guards for the tensors of these handles: that their owners still hold them, that those who hold the owners still do, and
 * that the settings of all of these, of their parts and of owners that stand alone are what they were.
 */
export function guardsFor(captured: readonly number[]): Guard[] {
  const { tensors, parents, children } = survey();
  refuseKept(tensors.values());
  const guards: Guard[] = [];
  const met = new Set<object>();
  const guard = ({ owner, key }: Link) => guards.push({ object: owner, key, value: owner[key] });

  const up = (owner: Record<string, unknown>) => {
    if (met.has(owner)) return;
    met.add(owner);
    for (const link of parents.get(owner) ?? []) {
      guard(link);
      up(link.owner);
    }
  };
  for (const handle of captured) {
    for (const link of tensors.get(handle)?.links ?? []) {
      guard(link);
      up(link.owner);
    }
  }
  // Parts without tensors (dropout, activations) change what is computed too.
  const down = (owner: Record<string, unknown>) => {
    for (const child of children.get(owner) ?? []) {
      if (met.has(child)) continue;
      met.add(child);
      down(child);
    }
  };
  for (const owner of [...met]) down(owner as Record<string, unknown>);
  for (const reference of owners) {
    const owner = reference.deref();
    if (owner !== undefined && !parents.has(owner) && !children.has(owner)) met.add(owner);
  }
  const configs = new Set<object>();
  for (const object of met) {
    const owner = object as Record<string, unknown>;
    guardFields(owner, guards);
    guardForward(owner, guards);
    const { config } = owner;
    if (typeof config === "object" && config !== null && !configs.has(config)) {
      configs.add(config);
      guardFields(config as Record<string, unknown>, guards, { lists: true });
    }
  }
  return guards;
}

/** Tensors of recordings that modules keep and that an error has told of: later recordings are not to blame. */
const told = new WeakSet<Tensor>();

/** A module that keeps a tensor of a recording would have it once, and not after each run. */
function refuseKept(held: Iterable<{ tensor: Tensor; links: readonly Link[] }>): void {
  const native = addon();
  const kept: Link[] = [];
  for (const { tensor, links } of held) {
    if (tensor.is_disposed || !native.isFake(tensor._handle) || told.has(tensor)) continue;
    told.add(tensor);
    kept.push(...links);
  }
  const [first] = kept;
  if (first === undefined) return;
  throw new TraceError(
    `[compile] ${first.owner.constructor.name}.${first.key} was assigned while a function was recorded.`,
    { hint: "Write to the tensor that is there, with copy_(), or return the new one." },
  );
}

/** Hooks stand around a module's forward as a property of its own: one that is added or removed outdates a recording. */
function guardForward(owner: Record<string, unknown>, guards: Guard[]): void {
  const { forward } = owner;
  // A property that is made anew each time it is read says nothing.
  if (typeof forward === "function" && owner.forward === forward)
    guards.push({ object: owner, key: "forward", value: forward });
}

/** With `lists`, a list must be the one that it was: configurations are given another one, modules may make one per call. */
function guardFields(object: Record<string, unknown>, guards: Guard[], { lists = false } = {}): void {
  for (const key of Object.keys(object)) {
    const value = object[key];
    if ((isPlain(value) && !Number.isNaN(value)) || (lists && Array.isArray(value)))
      guards.push({ object, key, value });
  }
  if ("_attn_implementation" in object)
    guards.push({ object, key: "_attn_implementation", value: object._attn_implementation });
}

/** The first guard that no longer holds. */
export function brokenGuard(guards: readonly Guard[]): Guard | undefined {
  for (const guard of guards) if (guard.object[guard.key] !== guard.value) return guard;
  return undefined;
}

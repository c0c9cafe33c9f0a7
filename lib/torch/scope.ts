// Scopes that free what was made in them.
import { addon } from "../addon/loader.ts";
import { scoped } from "./autograd.ts";
import { Tensor } from "./tensor.ts";

/** The handles of all tensors within a value: arrays, maps, sets and plain or result objects are walked. */
function handlesWithin(value: unknown, found: Set<number>, seen: Set<object>): void {
  if (value instanceof Tensor) {
    found.add(value._handle);
    return;
  }
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || seen.has(value)) return;
  seen.add(value);
  if (value instanceof Map) {
    for (const entry of value) handlesWithin(entry, found, seen);
    return;
  }
  for (const item of value instanceof Set ? value : Object.values(value)) handlesWithin(item, found, seen);
}

/**
 * Runs a callback and frees every tensor that it made, except those in its result and those given to `torch.keep`.
 *
 * @throws InvalidArgumentError when the callback returns a promise
 * @example
 * const loss = torch.tidy(() => model.forward(batch).loss.item());
 */
export function tidy<T>(body: () => T): T;
export function tidy<T>(name: string, body: () => T): T;
export function tidy<T>(name: string | (() => T), body?: () => T): T {
  const native = addon();
  const found = new Set<number>();
  const run = typeof name === "function" ? name : (body as () => T);
  return scoped(
    "tidy",
    () => native.openScope(typeof name === "string" ? name : "tidy"),
    () => native.closeScope([...found]),
    () => {
      const result = run();
      handlesWithin(result, found, new Set());
      return result;
    },
  );
}

/** Lets a tensor outlive the scopes around it, and returns it. */
export function keep<T extends Tensor>(tensor: T): T {
  addon().keep(tensor._handle);
  return tensor;
}

/** Whether a value is a Tensor. */
export const is_tensor = (value: unknown): value is Tensor => value instanceof Tensor;

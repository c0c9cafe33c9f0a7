// A copy of a module with parameters of its own: what Python's copy.deepcopy makes of one.
import { InvalidArgumentError } from "../errors/index.ts";
import { no_grad, Tensor } from "../torch/index.ts";
import { Module } from "./module.ts";
import { Buffer, Parameter } from "./parameter.ts";

/**
 * A module of the same class, with copies of all parameters, buffers and submodules; what is one tensor under two names
 * stays so. Values of other kinds are copied where they are plain data, and shared where they are objects of a class.
 *
 * The constructor does not run, so a class with `#private` fields of its own cannot be copied; hooks are not copied.
 *
 * @throws InvalidArgumentError for a module with forward hooks.
 * @example
 * const head = copyModule(model.score);
 */
export function copyModule<M extends Module>(module: M): M {
  const copies = new Map<object, unknown>();
  return no_grad(() => copied(module, copies)) as M;
}

function copied(value: unknown, copies: Map<object, unknown>): unknown {
  if (typeof value !== "object" || value === null) return value;
  const known = copies.get(value);
  if (known !== undefined) return known;
  const remember = <T>(copy: T): T => {
    copies.set(value, copy);
    return copy;
  };
  if (value instanceof Parameter) return remember(new Parameter(value.clone(), value.requires_grad));
  if (value instanceof Buffer) return remember(new Buffer(value.clone(), { persistent: value.persistent }));
  if (value instanceof Tensor) return remember(value.clone());
  if (value instanceof Module) return copyOne(value, copies);
  if (Array.isArray(value)) return remember(value.map((item) => copied(item, copies)));
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return remember(
    Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copied(item, copies)])),
  );
}

function copyOne(module: Module, copies: Map<object, unknown>): Module {
  if (module._has_forward_hooks())
    throw new InvalidArgumentError(`${module._get_name()} has forward hooks and cannot be copied.`, {
      hint: "Remove its hooks, and register them again on the copy.",
    });
  // Module's own constructor only, as an object of the subclass: nothing is initialized, drawn or registered.
  const copy = Reflect.construct(Module, [], module.constructor as never) as Module;
  copies.set(module, copy);
  const buffers = new Map(module._own_state().buffers);
  const own = module as unknown as Record<string, unknown>;
  for (const name of Object.keys(module)) {
    const value = own[name];
    const isRegistered = buffers.has(name) && !(value instanceof Buffer);
    if (isRegistered)
      copy.register_buffer(name, copied(value, copies) as Tensor, {
        persistent: module._is_persistent(name),
      });
    else (copy as unknown as Record<string, unknown>)[name] = copied(value, copies);
  }
  return copy;
}

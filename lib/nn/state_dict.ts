// Saving a module's state by name, and reading it back.

import { CheckpointError } from "../errors/index.ts";
import { no_grad, Tensor } from "../torch/index.ts";
import { HookList } from "./hooks.ts";
import type { Module } from "./module.ts";

/** Tensors by dotted name, in torch's order. */
export type StateDict = Record<string, Tensor>;

/** What `load_state_dict` found; names in the order in which they were met. */
export interface IncompatibleKeys {
  readonly missing_keys: string[];
  readonly unexpected_keys: string[];
}

/** Stored beside each module's state: the version of its class, and how the load goes about. */
export interface LocalMetadata {
  version?: number;
  assign_to_params_buffers?: boolean;
}

/** What the loading of one module is given, in torch's order. Messages and names are added to the lists. */
export type LoadContext = [
  state_dict: StateDict,
  prefix: string,
  local_metadata: LocalMetadata,
  strict: boolean,
  missing_keys: string[],
  unexpected_keys: string[],
  error_msgs: string[],
];

/** The hooks of one module around saving and loading. */
export class StateDictHooks {
  readonly preSave = new HookList<(prefix: string, keep_vars: boolean) => void>();
  readonly postSave = new HookList<
    (state_dict: StateDict, prefix: string, local_metadata: LocalMetadata) => StateDict | undefined
  >();
  readonly preLoad = new HookList<(...context: LoadContext) => void>();
  readonly postLoad = new HookList<(keys: IncompatibleKeys) => void>();
}

/** Versions by module path; rides on a state dict as a property that is not enumerable, so it is never taken for a tensor. */
type Metadata = Record<string, LocalMetadata>;

const metadataOf = (state_dict: object): Metadata | undefined =>
  (state_dict as { _metadata?: Metadata })._metadata;

function setMetadata<T extends object>(state_dict: T, metadata: Metadata): T {
  return Object.defineProperty(state_dict, "_metadata", {
    value: metadata,
    enumerable: false,
    writable: true,
    configurable: true,
  });
}

/** The state of `module` and its children, into `given` or a new object. */
export function saveState(
  module: Module,
  given: StateDict | undefined,
  prefix: string,
  keep_vars: boolean,
): StateDict {
  let destination = given ?? {};
  const metadata = metadataOf(destination) ?? {};
  setMetadata(destination, metadata);
  const local: LocalMetadata = { version: (module.constructor as typeof Module)._version };
  metadata[prefix.slice(0, -1)] = local;

  const hooks = module._state_dict_hooks();
  for (const hook of hooks.preSave) hook(prefix, keep_vars);
  module._save_to_state_dict(destination, prefix, keep_vars);
  for (const [name, child] of module._own_state().children) {
    child.state_dict({ destination, prefix: `${prefix}${name}.`, keep_vars });
  }
  for (const hook of hooks.postSave) destination = hook(destination, prefix, local) ?? destination;
  return destination;
}

/** Reads a state dict into the tree under `root`. */
export function loadStateDict(
  root: Module,
  given: Readonly<StateDict>,
  { strict, assign }: { strict: boolean; assign: boolean },
): IncompatibleKeys {
  const metadata = metadataOf(given) ?? {};
  const missing_keys: string[] = [];
  const unexpected_keys: string[] = [];
  const error_msgs: string[] = [];

  function load(module: Module, state_dict: StateDict, prefix: string): void {
    const local: LocalMetadata = { ...metadata[prefix.slice(0, -1)] };
    if (assign) local.assign_to_params_buffers = true;
    module._load_from_state_dict(state_dict, prefix, local, true, missing_keys, unexpected_keys, error_msgs);
    for (const [name, child] of module._own_state().children) {
      const childPrefix = `${prefix}${name}.`;
      load(child, entriesUnder(state_dict, childPrefix), childPrefix);
    }
    for (const hook of module._state_dict_hooks().postLoad) hook({ missing_keys, unexpected_keys });
  }
  // A copy: hooks may rename entries, and the caller's object stays as it is.
  load(root, setMetadata({ ...given }, metadata), "");

  if (strict) {
    const quoted = (names: readonly string[]) => names.map((name) => `"${name}"`).join(", ");
    if (missing_keys.length > 0) error_msgs.unshift(`Missing key(s) in state_dict: ${quoted(missing_keys)}.`);
    if (unexpected_keys.length > 0)
      error_msgs.unshift(`Unexpected key(s) in state_dict: ${quoted(unexpected_keys)}.`);
  }
  if (error_msgs.length > 0) {
    throw new CheckpointError(
      `Error(s) in loading state_dict for ${root._get_name()}:\n\t${error_msgs.join("\n\t")}`,
      {
        missing_keys,
        unexpected_keys,
        mismatched_keys: mismatches(root, given),
      },
    );
  }
  return { missing_keys, unexpected_keys };
}

function entriesUnder(state_dict: StateDict, prefix: string): StateDict {
  const part: StateDict = {};
  for (const key in state_dict) if (key.startsWith(prefix)) part[key] = state_dict[key] as Tensor;
  return part;
}

function mismatches(
  root: Module,
  given: Readonly<StateDict>,
): [string, readonly number[], readonly number[]][] {
  const found: [string, readonly number[], readonly number[]][] = [];
  for (const [name, tensor] of Object.entries(root.state_dict())) {
    const shape = given[name]?.shape;
    if (shape && !fits(shape, tensor.shape)) found.push([name, shape, tensor.shape]);
  }
  return found;
}

const sameShape = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((n, i) => n === b[i]);
/** Early checkpoints stored scalars as one-element vectors. */
const isOldScalar = (stored: readonly number[], own: readonly number[]) =>
  own.length === 0 && stored.length === 1 && stored[0] === 1;
const fits = (stored: readonly number[], own: readonly number[]) =>
  sameShape(stored, own) || isOldScalar(stored, own);
const printShape = (shape: readonly number[]) => `torch.Size([${shape.join(", ")}])`;

/** The default `_load_from_state_dict`: this module's own parameters and stored buffers. */
export function loadOwnState(module: Module, ...context: LoadContext): void {
  const [state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs] = context;
  for (const hook of module._state_dict_hooks().preLoad) hook(...context);

  const { parameters, buffers, children } = module._own_state();
  const own = new Map<string, Tensor>([
    ...parameters,
    ...buffers.filter(([name]) => module._is_persistent(name)),
  ]);
  const assign = local_metadata.assign_to_params_buffers ?? false;
  for (const [name, tensor] of own) {
    const key = prefix + name;
    if (!Object.hasOwn(state_dict, key)) {
      if (strict) missing_keys.push(key);
      continue;
    }
    const problem = loadTensor(key, tensor, state_dict[key], assign);
    if (problem) error_msgs.push(problem);
  }

  if (!strict) return;
  const childNames = new Set(children.map(([name]) => name));
  for (const key in state_dict) {
    if (!key.startsWith(prefix)) continue;
    const name = key.slice(prefix.length);
    const dot = name.indexOf(".");
    const expected = dot < 0 ? own.has(name) : childNames.has(name.slice(0, dot));
    if (!expected) unexpected_keys.push(key);
  }
}

/** Puts a stored tensor into one of the module's; returns what is wrong, if anything. */
function loadTensor(key: string, tensor: Tensor, stored: unknown, assign: boolean): string | undefined {
  if (!(stored instanceof Tensor)) {
    const got = typeof stored === "object" ? (stored?.constructor.name ?? "null") : typeof stored;
    return `While copying the parameter named "${key}", expected a Tensor from the checkpoint but received ${got}.`;
  }
  if (!fits(stored.shape, tensor.shape)) {
    return (
      `size mismatch for ${key}: copying a param with shape ${printShape(stored.shape)} from checkpoint, ` +
      `the shape in current model is ${printShape(tensor.shape)}.`
    );
  }
  if (tensor.is_meta && !stored.is_meta && !assign) {
    return `"${key}" is on the meta device, so nothing can be copied into it: pass { assign: true }.`;
  }
  const value = isOldScalar(stored.shape, tensor.shape) ? stored.reshape([]) : stored;
  no_grad(() => {
    if (assign) tensor.data = value.detach();
    else tensor.copy_(value);
  });
  return undefined;
}

// Registries whose built-in entries are imported when they are first asked for, and to which a program adds its own.

import { InvalidArgumentError } from "../errors/index.ts";

/** Imports the module that holds an entry and gives the entry. */
export type Loader<T> = () => Promise<T>;

export interface RegisterOptions {
  /** Replace an entry that exists instead of refusing. Default false. */
  readonly exist_ok?: boolean;
}

/**
 * Names to values, where built-in values are lazy imports.
 *
 * A registered value wins over a built-in one of the same name.
 *
 * ```ts
 * const configs = new LazyMapping("AutoConfig", { llama: async () => (await import("./llama.ts")).LlamaConfig });
 * await configs.get("llama");
 * ```
 */
export class LazyMapping<T> {
  readonly #owner: string;
  readonly #builtins: ReadonlyMap<string, Loader<T>>;
  readonly #registered = new Map<string, T>();

  constructor(owner: string, builtins: Readonly<Record<string, Loader<T>>>) {
    this.#owner = owner;
    this.#builtins = new Map(Object.entries(builtins));
  }

  has(name: string): boolean {
    return this.#registered.has(name) || this.#builtins.has(name);
  }

  /** True when `name` has an entry of its own in this package, registered ones aside. */
  isBuiltin(name: string): boolean {
    return this.#builtins.has(name);
  }

  /** Every name, built-in ones first. */
  keys(): string[] {
    return [...new Set([...this.#builtins.keys(), ...this.#registered.keys()])];
  }

  /** The value of `name`, imported now if need be; undefined when there is none. */
  async get(name: string): Promise<T | undefined> {
    return this.#registered.get(name) ?? (await this.#builtins.get(name)?.());
  }

  /** The built-in value of `name`, whatever was registered under that name. */
  async builtin(name: string): Promise<T | undefined> {
    return this.#builtins.get(name)?.();
  }

  /** What `register` was given for `name`; never imports. */
  registered(name: string): T | undefined {
    return this.#registered.get(name);
  }

  /** Adds `value` under `name`. A name that is taken is refused unless `exist_ok`. */
  register(name: string, value: T, { exist_ok = false }: RegisterOptions = {}): void {
    if (this.has(name) && !exist_ok) {
      const whose = this.isBuiltin(name) ? "a model type of this library" : "registered";
      throw new InvalidArgumentError(
        `[${this.#owner}.register] '${name}' is already known: it is ${whose}.`,
        { hint: replaceHint(this.#owner, JSON.stringify(name), value) },
      );
    }
    this.#registered.set(name, value);
  }
}

/** The line to write instead, for a registration that replaces something. */
function replaceHint(owner: string, key: string, value: unknown): string {
  const name = typeof value === "function" ? value.name : "MyClass";
  return `To let ${name} win in this process: ${owner}.register(${key}, ${name}, { exist_ok: true });`;
}

/** A configuration class, as far as a mapping looks at it. */
export interface KeyClass {
  readonly name: string;
  readonly model_type: string;
}

/** What a `LazyClassMapping` needs to know of the built-in configuration classes. */
export interface NativeConfigs {
  /** `model_type` → class. */
  readonly mapping: LazyMapping<KeyClass>;
  /** `model_type` → name of the class, known without importing it. */
  readonly names: Readonly<Record<string, string>>;
}

/**
 * Configuration classes to values: what an `AutoModelFor…` class is made of.
 *
 * A built-in configuration class is found by its `model_type`, so that only the modules asked for are imported; a
 * registered one by identity. A custom class that borrows a known `model_type` is not answered with a built-in value.
 *
 * ```ts
 * const models = new LazyClassMapping("AutoModel", MAPPINGS.AutoModel, { mapping: CONFIG_MAPPING, names: CONFIG_CLASS_NAMES });
 * const Model = await models.get(LlamaConfig);
 * ```
 */
export class LazyClassMapping<T> {
  readonly #owner: string;
  readonly #builtins: ReadonlyMap<string, Loader<T>>;
  readonly #configs: NativeConfigs;
  readonly #registered = new Map<KeyClass, T>();

  constructor(owner: string, builtins: Readonly<Record<string, Loader<T>>>, configs: NativeConfigs) {
    this.#owner = owner;
    this.#builtins = new Map(Object.entries(builtins));
    this.#configs = configs;
  }

  /** The `model_type`s that have a value, built-in ones first. */
  modelTypes(): string[] {
    return [
      ...new Set([
        ...this.#builtins.keys(),
        ...[...this.#registered.keys()].map((config) => config.model_type),
      ]),
    ];
  }

  async has(config: KeyClass): Promise<boolean> {
    return this.#registered.has(config) || (await this.#hasBuiltin(config));
  }

  /** Whether `register` was given a value for this class itself. */
  isRegistered(config: KeyClass): boolean {
    return this.#registered.has(config);
  }

  /** The value of a configuration class, imported now if need be; undefined when there is none. */
  async get(config: KeyClass): Promise<T | undefined> {
    const own = this.#registered.get(config);
    if (own !== undefined) return own;
    if (!(await this.#hasBuiltin(config))) return undefined;
    this.#refuseTwin(config);
    return this.#builtins.get(config.model_type)?.();
  }

  /**
   * Whether a class is what AutoConfig gives for its `model_type`. Built-in ones are known by name here, without being
   * imported; one that only has the same name is found when a checkpoint is loaded.
   */
  isKnown(config: KeyClass): boolean {
    const { mapping, names } = this.#configs;
    return (
      mapping.registered(config.model_type) === config ||
      (mapping.isBuiltin(config.model_type) && names[config.model_type] === config.name)
    );
  }

  /** Adds `value` for `config`; a configuration class that has a value is refused unless `exist_ok`. */
  register(config: KeyClass, value: T, { exist_ok = false }: RegisterOptions = {}): void {
    const isBuiltin =
      this.#builtins.has(config.model_type) && this.#configs.names[config.model_type] === config.name;
    if ((isBuiltin || this.#registered.has(config)) && !exist_ok) {
      throw new InvalidArgumentError(
        `[${this.#owner}.register] ${config.name} ('${config.model_type}') already has a class.`,
        { hint: replaceHint(this.#owner, config.name, value) },
      );
    }
    this.#registered.set(config, value);
  }

  /** A copy of a built-in class that AutoConfig was never told of would be passed over without a word. */
  #refuseTwin(config: KeyClass): void {
    const { model_type, name } = config;
    for (const key of this.#registered.keys()) {
      if (key === config || key.name !== name || key.model_type !== model_type || this.#isTold(key)) continue;
      throw new InvalidArgumentError(
        `${this.#owner} has a class for a ${name} of your own, but AutoConfig gives the library's ${name} for '${model_type}'.`,
        { hint: replaceHint("AutoConfig", JSON.stringify(model_type), key) },
      );
    }
  }

  #isTold(key: KeyClass): boolean {
    return this.#configs.mapping.registered(key.model_type) === key;
  }

  async #hasBuiltin(config: KeyClass): Promise<boolean> {
    return (
      this.#builtins.has(config.model_type) &&
      (await this.#configs.mapping.builtin(config.model_type)) === config
    );
  }
}

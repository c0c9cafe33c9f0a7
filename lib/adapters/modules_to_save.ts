// A module that is trained and saved as a whole beside an adapter: the original, and a copy of it per adapter.
import { InvalidArgumentError } from "../errors/index.ts";
import { copyModule } from "../nn/copy_module.ts";
import * as nn from "../nn/index.ts";
import { LoraLayer } from "./lora_layer.ts";

/** Containers are no modules that can be called; adapters are saved by themselves. */
export function assertSavable(module: nn.Module, key: string): void {
  const forbidden = [nn.ModuleDict, nn.ModuleList, nn.ParameterDict, nn.ParameterList, LoraLayer];
  if (forbidden.some((cls) => module instanceof cls))
    throw new InvalidArgumentError(
      `modules_to_save: ${key} (${module._get_name()}) cannot be saved as a whole.`,
    );
}

/**
 * Stands in the place of a module that `modules_to_save` names: passes calls to the active adapter's copy of it, or to the
 * original. Properties of the module can be read through it.
 */
export class ModulesToSaveWrapper extends nn.Module {
  readonly original_module: nn.Module;
  readonly modules_to_save: nn.ModuleDict;
  /** "" where none is. A plain field: a recording is made anew when it changes. */
  protected _active: string;
  protected _disabled: boolean;

  constructor(module: nn.Module, name: string) {
    super();
    this.original_module = module;
    this.modules_to_save = new nn.ModuleDict();
    this._active = name;
    this._disabled = false;
    this.training = module.training;
    this.#passOn(module);
    this.update(name);
  }

  /** What is read or called on the wrapper, and is not its own, is the active module's. */
  #passOn(module: nn.Module): void {
    for (let from: object = module; from !== nn.Module.prototype; from = Object.getPrototypeOf(from)) {
      for (const name of Object.getOwnPropertyNames(from)) {
        if (name in this) continue;
        const get = () => {
          const owner = this.active_module as unknown as Record<string, unknown>;
          const value = owner[name];
          return typeof value === "function" ? value.bind(owner) : value;
        };
        const set = (value: unknown) => {
          (this.active_module as unknown as Record<string, unknown>)[name] = value;
        };
        Object.defineProperty(this, name, { get, set, enumerable: false, configurable: true });
      }
    }
  }

  /** The module that calls go to. */
  get active_module(): nn.Module {
    const isActive = !this._disabled && this._active !== "" && this.modules_to_save.has(this._active);
    return isActive ? this.modules_to_save.get(this._active) : this.original_module;
  }

  get active_adapters(): string[] {
    return this._active === "" ? [] : [this._active];
  }

  adapter_names(): string[] {
    return [...this.modules_to_save.keys()];
  }

  /** Makes the copy for one more adapter. */
  update(name: string): void {
    if (!this.modules_to_save.has(name)) this.modules_to_save.set(name, copyModule(this.original_module));
    this.original_module.requires_grad_(false);
  }

  /** Chooses the adapter whose copy is used; none of them where it has no copy here. */
  set_adapter(names: string | readonly string[], inference_mode = false): void {
    const here = ([names].flat() as string[]).filter((name) => this.modules_to_save.has(name));
    if (here.length > 1)
      throw new InvalidArgumentError(
        `Only one adapter with modules_to_save can be active at a time, got ${here.join(", ")}.`,
      );
    if (this._active !== "" && this.modules_to_save.has(this._active))
      this.modules_to_save.get(this._active).requires_grad_(false);
    const [name = ""] = here;
    if (name !== "") this.modules_to_save.get(name).requires_grad_(!inference_mode);
    this._active = name;
  }

  enable_adapters(enabled: boolean): void {
    this._disabled = !enabled;
    for (const [name, module] of this.modules_to_save.items())
      if (!enabled) module.requires_grad_(false);
      else if (name === this._active) module.requires_grad_(true);
  }

  delete_adapter(name: string): void {
    if (!this.modules_to_save.has(name)) return;
    if (this._active === name) this._active = "";
    this.modules_to_save.pop(name);
  }

  override forward(...args: never[]): unknown {
    return this.active_module.forward(...args);
  }
}

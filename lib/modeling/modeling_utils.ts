// PreTrainedModel: what every model of the library can do beside its forward.
// Over 500 lines because it is one class; loading, saving, tying and resizing live in files of their own.
import { PeftAdapterMixin } from "../adapters/adapter_mixin.ts";
import { mainPlace } from "../big_modeling/dispatch.ts";
import { executionDevice } from "../big_modeling/placement.ts";
import { isOffloaded } from "../big_modeling/residence.ts";
import { type Compiled, compile, type RunOptions } from "../compile/compile.ts";
import type { GenerationConfig } from "../configuration/index.ts";
import { type ConfigClass, PretrainedConfig } from "../configuration/index.ts";
import { registerForAutoClass } from "../custom_code/auto_classes.ts";
import { InvalidArgumentError, TraceError, UninitializedWeightsError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import { warn, warnOnce } from "../errors/warnings.ts";
import type { CommitInfo } from "../hub/upload.ts";
import { bind } from "../nn/arguments.ts";
import * as nn from "../nn/index.ts";
import { isInitial, modulesMade } from "../nn/initial_values.ts";
import { home_device, type OffloadStats, offloadStats } from "../placement/index.ts";
import type { CheckpointOptions } from "../torch/checkpoint.ts";
import { isFloatingDtype } from "../torch/dtype.ts";
import type { Device, Dtype, RemovableHandle, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { ALL_ATTENTION_FUNCTIONS, attentionImplementation } from "./attention.ts";
import { get_model_conversion_mapping } from "./conversion_mapping.ts";
import {
  type FromPretrainedOptions,
  isLoading,
  type LoadingInfo,
  loadPretrained,
} from "./from_pretrained.ts";
import { disableCheckpointing, enableCheckpointing, isCheckpointing } from "./gradient_checkpointing.ts";
import * as init from "./initialization.ts";
import { foldKeys } from "./loading_report.ts";
import { RotaryEmbedding } from "./modeling_rope_utils.ts";
import { pushModel, savePretrained } from "./push_to_hub.ts";
import type { SavePretrainedOptions } from "./save_pretrained.ts";
import { allTiedKeys, ownTiedKeys, type TiedKeys, tieWeights } from "./tied_weights.ts";
import { type ResizeOptions, resizeTokenEmbeddings } from "./token_embeddings.ts";
import { Transforms, type WeightTransform } from "./weight_transforms.ts";

/** A class of models; `never` because each takes its own config. */
export interface ModelClass<M extends PreTrainedModel = PreTrainedModel>
  extends Pick<typeof PreTrainedModel, "config_class" | "base_model_prefix"> {
  new (config: never): M;
  readonly prototype: M;
  readonly name: string;
}

/** A module that has an embedding table under a name that is not known here. */
type Embedder = nn.Module & Record<string, unknown>;

/**
 * Base class of models: a module with a config, that loads from and saves to a checkpoint.
 *
 * A subclass says what kind of config it takes, builds its modules in the constructor and ends it with `post_init()`.
 *
 * @example
 * class Tagger extends PreTrainedModel {
 *   static override readonly config_class = TaggerConfig;
 *   readonly score: nn.Linear;
 *   constructor(config: TaggerConfig) {
 *     super(config);
 *     this.score = new nn.Linear(config.hidden_size, config.num_labels);
 *     this.post_init();
 *   }
 *   override forward(x: Tensor): Tensor {
 *     return this.score.forward(x);
 *   }
 * }
 * const tagger = await Tagger.from_pretrained("./tagger");
 */
export class PreTrainedModel extends PeftAdapterMixin {
  static readonly config_class: ConfigClass = PretrainedConfig as unknown as ConfigClass;
  /** The Auto class that finds this one where its code is shared; see {@link register_for_auto_class}. */
  static _auto_class: string | null = null;
  /** Name of the property that holds the model without its head; "" for a model that has no such part. */
  static base_model_prefix = "";
  static readonly main_input_name: string = "input_ids";
  /** Names that `forward` accepts in its one argument; undefined = not checked. */
  static readonly forward_inputs: readonly string[] | undefined = undefined;
  /** Classes of modules that must stay on one device. */
  static readonly _no_split_modules: readonly string[] = [];
  /** Target name → source name of parameters that are one when `config.tie_word_embeddings`. */
  static readonly _tied_weights_keys: Readonly<Record<string, string>> | undefined = undefined;
  /** Parts of names that stay float32 in a float16 model. */
  static readonly _keep_in_fp32_modules: readonly string[] = [];
  /** Parts of names that stay float32 in a float16 or bfloat16 model. */
  static readonly _keep_in_fp32_modules_strict: readonly string[] = [];
  /** Patterns of names that may be absent from a checkpoint without a word. */
  static readonly _keys_to_ignore_on_load_missing: readonly string[] = [];
  /** Patterns of names in a checkpoint that may go unused without a word. */
  static readonly _keys_to_ignore_on_load_unexpected: readonly string[] = [];
  /** Names that are not saved. */
  static readonly _keys_to_ignore_on_save: readonly string[] = [];
  static readonly _supports_sdpa: boolean = false;
  /** Whether its layers can compute their activations again in backward. */
  static readonly supports_gradient_checkpointing: boolean = false;
  /** Name of the embedding table in the base model. */
  static readonly _input_embed_layer: string = "embed_tokens";

  readonly config: PretrainedConfig;
  /** How `generate` works when it is not told otherwise; undefined for models that do not generate. */
  declare generation_config: GenerationConfig;
  /** Module name → device, when a `device_map` was given; "" is the whole model. */
  declare hf_device_map?: Readonly<Record<string, Device>>;

  #tied: TiedKeys = new Map();
  #uninitialized = new Map<string, number>();
  /** Of a loaded model: the tensors that it had then, and those that were looked at since. */
  #seen: WeakSet<Tensor> | undefined;
  #modulesSeen = 0;
  #inputGradients: RemovableHandle | undefined;
  /** `forward` as `run` records it. */
  #program: Compiled<unknown[], unknown> | undefined;
  #conversions: WeightTransform[] | undefined;

  constructor(config: PretrainedConfig) {
    super();
    if (!(config instanceof PretrainedConfig)) {
      throw new InvalidArgumentError(
        `${new.target.name} takes a PretrainedConfig, got ${describe(config)}.`,
        {
          hint: `To load a checkpoint, use await ${new.target.name}.from_pretrained(directory).`,
        },
      );
    }
    this.config = config;
    config._attn_implementation ??= new.target._supports_sdpa ? "sdpa" : "eager";
    attentionImplementation(config._attn_implementation);
    runInScope(new.target.prototype);
  }

  // construction ------------------------------------------------------------------------------------------

  /** Ends a constructor: initializes the weights that have no values yet, and ties those that are one. */
  post_init(): void {
    this.assertFieldsIntact();
    this.#tied = ownTiedKeys(this);
    for (const [name, child] of this.named_children()) {
      if (!(child instanceof PreTrainedModel)) continue;
      for (const [target, source] of child.#tied) this.#tied.set(`${name}.${target}`, `${name}.${source}`);
    }
    if (isLoading()) return;
    this.init_weights();
  }

  /** Initializes what has no values yet, then ties. On the meta device there is nothing to initialize. */
  init_weights(): void {
    if (torch.get_default_device() !== "meta") init.initialize_weights(this, isModel);
    tieWeights(this, this.#tied, { free: true });
  }

  /**
   * Gives the parameters of one module their first values. A subclass treats its own modules and leaves the others
   * to `super._init_weights(module)`.
   */
  _init_weights(module: nn.Module): void {
    const std = initializerStd(this.config);
    const { weight, bias } = module as { weight?: Tensor | null; bias?: Tensor | null };
    if (isAffine(module)) {
      if (weight) init.normal_(weight, 0, std);
      if (bias) init.zeros_(bias);
    } else if (module instanceof nn.Embedding) {
      init.normal_(module.weight, 0, std);
      if (module.padding_idx !== null && module.padding_idx !== undefined && !init.is_loaded(module.weight)) {
        nn.init.zeros_(module.weight.select(0, module.padding_idx));
      }
    } else if (isNorm(module)) {
      if (weight) init.ones_(weight);
      if (bias) init.zeros_(bias);
      const { running_mean, running_var, num_batches_tracked } = module as unknown as Partial<
        Record<string, Tensor | null>
      >;
      if (running_mean) init.zeros_(running_mean);
      if (running_var) init.ones_(running_var);
      if (num_batches_tracked) init.zeros_(num_batches_tracked);
    } else if (module instanceof RotaryEmbedding) {
      module.reset_buffers();
    }
  }

  /** The same model for another config: weights by chance, in `config.dtype` unless `dtype` says otherwise. */
  static _from_config<M extends PreTrainedModel>(
    this: ModelClass<M>,
    config: PretrainedConfig,
    {
      dtype,
      attn_implementation,
    }: { dtype?: Dtype | "auto" | null; attn_implementation?: string | null } = {},
  ): M {
    const own = config.clone();
    if (attn_implementation) own._attn_implementation = attn_implementation;
    const chosen =
      !dtype || dtype === "auto" ? ((own.dtype as Dtype | null) ?? torch.get_default_dtype()) : dtype;
    own.dtype = chosen;
    return torch.with_default_dtype(chosen, () => new this(own as never));
  }

  // loading and saving ------------------------------------------------------------------------------------

  /**
   * Loads a checkpoint from a directory, or from the local cache by its repository name.
   *
   * CPU weights of the file's own dtype are the mapped file itself: nothing is copied. What the checkpoint lacks is
   * initialized, reported on the standard error stream, and refused later by `generate`.
   *
   * @param options.dtype "auto" (the default: what the checkpoint says) or a floating point dtype.
   * @param options.strict throw unless checkpoint and model have the same tensors; default false.
   * @param options.output_loading_info resolve to `[model, info]`.
   * @throws CheckpointError when shapes differ, EntryNotFoundError when a file is missing, UnsupportedQuantizationError
   *   for a quantized checkpoint, InvalidArgumentError for an unknown option.
   *
   * @example
   * const model = await LlamaForCausalLM.from_pretrained("./llama", { dtype: "bfloat16" });
   */
  static from_pretrained<M extends PreTrainedModel>(
    this: ModelClass<M>,
    dirOrRepo: string,
    options: FromPretrainedOptions & { output_loading_info: true },
  ): Promise<[model: M, info: LoadingInfo]>;
  static from_pretrained<M extends PreTrainedModel>(
    this: ModelClass<M>,
    dirOrRepo: string,
    options?: FromPretrainedOptions,
  ): Promise<M>;
  static async from_pretrained<M extends PreTrainedModel>(
    this: ModelClass<M>,
    dirOrRepo: string,
    options: FromPretrainedOptions = {},
  ): Promise<M | [M, LoadingInfo]> {
    const [model, info] = await loadPretrained(
      // biome-ignore lint/complexity/noThisInStatic: the subclass is what is loaded.
      this as unknown as ModelClass<M> & typeof PreTrainedModel,
      dirOrRepo,
      options,
    );
    return options.output_loading_info ? [model as M, info] : (model as M);
  }

  /**
   * Says that the code of this class is to be saved beside its weights: the module that defines it, as it is and without
   * types, with what it imports by relative paths. `auto_class` loads it again, with `trust_remote_code: true`.
   *
   * @param auto_class name or class; default "AutoModel".
   * @throws InvalidArgumentError for what is no Auto class.
   * @example
   * ResnetModelForImageClassification.register_for_auto_class("AutoModelForImageClassification");
   */
  static register_for_auto_class(auto_class: string | { readonly name: string } = "AutoModel"): void {
    // biome-ignore lint/complexity/noThisInStatic: the subclass is what is registered.
    registerForAutoClass(this, auto_class);
  }

  /**
   * Writes config.json, the weights and, for models that generate, generation_config.json, in the format that Python
   * loads. Each file appears whole or not at all.
   *
   * @param options.max_shard_size bytes, or "5GB" (decimal); default "50GB".
   * @param options.push_to_hub also sends what was written, to `repo_id` (default: the name of the directory).
   */
  save_pretrained(directory: string, options: SavePretrainedOptions = {}): Promise<void> {
    return savePretrained(this, directory, options);
  }

  /**
   * Sends the model to the hub: makes the repository if need be, writes a model card if there is none, uploads as one commit.
   * Files that the hub has already are not sent again. Resolves to the commit.
   *
   * Throws `InvalidArgumentError` without a token, `HubError` for what the hub refuses.
   *
   * @example
   * await model.push_to_hub("user/my-model", { private: true, commit_message: "First try" });
   */
  push_to_hub(
    repo_id: string,
    options: Omit<SavePretrainedOptions, "push_to_hub" | "repo_id"> = {},
  ): Promise<CommitInfo> {
    return pushModel(this, repo_id, options);
  }

  /** Conversions that loading used, which saving undoes; undefined for a model that was not loaded. */
  get _weight_conversions(): WeightTransform[] | undefined {
    return this.#conversions;
  }

  /** Called by the loader: what it left without values, as it is now, and the conversions that it used. */
  _finish_loading(missing: Iterable<string>, conversions: WeightTransform[]): void {
    this.#conversions = conversions;
    this.#seen = new WeakSet<Tensor>([...this.parameters(), ...this.buffers()]);
    this.#modulesSeen = modulesMade();
    this.#uninitialized = new Map([...missing].map((name) => [name, (this.#find(name) as Tensor)._version]));
  }

  /** Ties after loading, where `missing` names lose those that a tie provides. */
  _tie_loaded_weights(missing: Set<string>): void {
    tieWeights(this, this.#tied, { missing, free: true });
  }

  /** An adapter's names are renamed as those of the checkpoint were. */
  override _rename_adapter_key(key: string): string {
    const transforms = get_model_conversion_mapping(this, isModel);
    return new Transforms(transforms).rename(key);
  }

  /** Target name → source name of the ties that are in force. */
  get all_tied_weights_keys(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#tied);
  }

  /**
   * Looks for layers that were put into a loaded model and never got weights: they are warned of once, by name, and count
   * as uninitialized until their values change.
   *
   * @param options.thorough false looks only if a module was made since the last time.
   */
  _report_replacements({ thorough = true }: { readonly thorough?: boolean } = {}): void {
    const seen = this.#seen;
    if (seen === undefined || (!thorough && this.#modulesSeen === modulesMade())) return;
    this.#modulesSeen = modulesMade();
    const fresh: string[] = [];
    for (const [name, parameter] of this.named_parameters()) {
      if (seen.has(parameter)) continue;
      seen.add(parameter);
      if (init.is_loaded(parameter) || !isInitial(parameter)) continue;
      this.#uninitialized.set(name, parameter._version);
      fresh.push(name);
    }
    if (fresh.length === 0) return;
    const names = foldKeys(fresh.map((name) => [name, ""] as const)).map(([name]) => name);
    warn(
      `${this.constructor.name}: layers came into the loaded model without weights, so these are by chance: ${names.join(", ")}. ` +
        "Keep the old ones with layer.load_state_dict(old.state_dict()), or train them.",
    );
  }

  /** Names of parameters and buffers that were neither in the checkpoint nor changed since. */
  uninitialized_weights(): string[] {
    this._report_replacements();
    return [...this.#uninitialized]
      .filter(([name, version]) => this.#find(name)?._version === version)
      .map(([name]) => name);
  }

  /** @throws UninitializedWeightsError when there are {@link uninitialized_weights}. */
  assert_initialized(): void {
    const names = this.uninitialized_weights();
    if (names.length === 0) return;
    const listed =
      names.length > 10 ? `${names.slice(0, 10).join(", ")} and ${names.length - 10} more` : names.join(", ");
    throw new UninitializedWeightsError(
      `${this.constructor.name} has weights that were neither loaded nor trained: ${listed}.`,
      { hint: "Load a checkpoint that has them, train the model, or pass { allow_uninitialized: true }." },
    );
  }

  #find(name: string): Tensor | undefined {
    let value: unknown = this;
    // A module on the way may have been replaced by one without such a part.
    for (const part of name.split(".")) value = (value as Record<string, unknown> | null | undefined)?.[part];
    return value instanceof torch.Tensor ? value : undefined;
  }

  // forward -----------------------------------------------------------------------------------------------

  /** Refuses names that `forward` does not know. */
  check_inputs(inputs: object): void {
    const known = (this.constructor as typeof PreTrainedModel).forward_inputs;
    if (known === undefined) return;
    for (const name of Object.keys(inputs)) {
      if (known.includes(name)) continue;
      throw new InvalidArgumentError(`${this.constructor.name}.forward has no input '${name}'.`, {
        suggestion: nearest(name, known, 1)[0],
        hint: `It takes ${known.join(", ")}.`,
      });
    }
  }

  /** Whether a call asks for attention weights. @throws InvalidArgumentError when the kernel does not have them. */
  wants_attentions({ output_attentions }: { output_attentions?: boolean | null | undefined }): boolean {
    const wanted = output_attentions ?? this.config.output_attentions ?? false;
    const name = this.config._attn_implementation;
    if (wanted && !attentionImplementation(name).givesWeights) {
      throw new InvalidArgumentError(`output_attentions: '${name}' attention does not give its weights.`, {
        hint: 'Load the model with attn_implementation: "eager", or call model.set_attn_implementation("eager").',
      });
    }
    return wanted;
  }

  /** Whether a call asks for the hidden states of all layers. */
  wants_hidden_states({
    output_hidden_states,
  }: {
    output_hidden_states?: boolean | null | undefined;
  }): boolean {
    return output_hidden_states ?? this.config.output_hidden_states ?? false;
  }

  /**
   * `forward` without gradients, as a Program (`torch.compile`): off the event loop, recorded once per signature. What
   * cannot be recorded, a model with forward hooks too, runs eagerly, with one warning.
   *
   * Takes what `forward` takes, however much that is, and the options last.
   *
   * @param options.signal ends the run between two operators; the promise rejects with its reason.
   * @example const { logits } = await model.run({ input_ids }, { signal });
   */
  run(inputs: Parameters<this["forward"]>[0], options?: RunOptions): Promise<ReturnType<this["forward"]>>;
  run(
    first: Parameters<this["forward"]>[0],
    second: Parameters<this["forward"]>[1],
    ...more: readonly unknown[]
  ): Promise<ReturnType<this["forward"]>>;
  async run(...given: readonly unknown[]): Promise<ReturnType<this["forward"]>> {
    const [inputs, { signal }] = splitRunOptions(given);
    signal?.throwIfAborted();
    const forward = (inputs: readonly unknown[]) =>
      torch.no_grad(() => (this.forward as (...inputs: readonly unknown[]) => unknown).call(this, ...inputs));
    this.#program ??= compile((...inputs: unknown[]): unknown => {
      for (const [name, module] of this.named_modules())
        if (module._has_forward_hooks()) throw new TraceError(`${name || "the model"} has forward hooks.`);
      return forward(inputs);
    });
    try {
      return (await this.#program.run(inputs, { signal })) as ReturnType<this["forward"]>;
    } catch (error) {
      if (!(error instanceof TraceError)) throw error;
      warnOnce(`${this.constructor.name}.run works eagerly, on the event loop: ${error.message}`);
      return forward(inputs) as ReturnType<this["forward"]>;
    }
  }

  /**
   * What bringing offloaded parameters has cost so far: bytes moved, and milliseconds in which that was hidden behind other
   * work, or exposed since something waited for it. Zeros for a model that is not offloaded.
   */
  offload_stats(): OffloadStats {
    return offloadStats(this);
  }

  /** Chooses the attention kernel, by name or by sub-config; takes effect at the next forward. */
  set_attn_implementation(name: string | Readonly<Record<string, string>>): void {
    for (const each of typeof name === "string" ? [name] : Object.values(name)) attentionImplementation(each);
    this.config._attn_implementation = name as string;
  }

  /** Names that `set_attn_implementation` accepts. */
  static attn_implementations(): string[] {
    return [...ALL_ATTENTION_FUNCTIONS.keys()];
  }

  // parts -------------------------------------------------------------------------------------------------

  /** The model without its head; the model itself when it has none. */
  get base_model(): nn.Module {
    const prefix = (this.constructor as typeof PreTrainedModel).base_model_prefix;
    const base = (this as unknown as Record<string, unknown>)[prefix];
    return prefix !== "" && base instanceof nn.Module ? base : this;
  }

  get_input_embeddings(): nn.Embedding {
    const [owner, name] = this.#embedder();
    return owner[name] as nn.Embedding;
  }

  set_input_embeddings(embeddings: nn.Embedding): void {
    const [owner, name] = this.#embedder();
    owner[name] = embeddings;
  }

  /** The module that holds the embedding table: this one, or one of the parts where models keep it. */
  #embedder(): [owner: Embedder, name: string] {
    const name = (this.constructor as typeof PreTrainedModel)._input_embed_layer;
    const self = this as unknown as Embedder;
    for (const owner of [self, self.embeddings, self.model, self.base_model] as (Embedder | undefined)[]) {
      if (owner?.[name] instanceof nn.Module) return [owner, name];
    }
    for (const part of [self.language_model, self.base_model]) {
      if (part instanceof PreTrainedModel && part !== (this as PreTrainedModel)) return part.#embedder();
    }
    throw new InvalidArgumentError(
      `${this.constructor.name} has no embedding table that is known; override get_input_embeddings.`,
    );
  }

  /** The layer that turns hidden states into scores over the vocabulary, or undefined. */
  get_output_embeddings(): nn.Linear | nn.Embedding | undefined {
    return (this as { lm_head?: nn.Linear }).lm_head;
  }

  set_output_embeddings(layer: nn.Linear | nn.Embedding): void {
    if (this.get_output_embeddings() !== undefined) (this as { lm_head?: nn.Module }).lm_head = layer;
  }

  /** Makes tied parameters one again: after a part of the model was replaced. */
  tie_weights(): void {
    this.#tied = allTiedKeys(this, isModel);
    tieWeights(this, this.#tied);
  }

  /**
   * Gives the embedding table another number of rows, and the output layer with it. New rows are drawn around the mean
   * of the old ones.
   *
   * @param new_num_tokens default: as many as there are.
   * @param options.pad_to_multiple_of round the number up. @param options.mean_resizing false draws as for a new model.
   */
  resize_token_embeddings(new_num_tokens?: number | null, options: ResizeOptions = {}): nn.Embedding {
    return resizeTokenEmbeddings(this, new_num_tokens ?? undefined, options);
  }

  // facts -------------------------------------------------------------------------------------------------

  /** Where the first parameter is; of one that is offloaded, where it is computed with. */
  get device(): Device {
    const main = this.hf_device_map && executionDevice(mainPlace(this.hf_device_map));
    for (const tensor of this.parameters())
      return main !== undefined && isOffloaded(tensor) ? main : home_device(tensor);
    for (const tensor of this.buffers()) return tensor.device;
    return "cpu";
  }

  /** The dtype of the first floating point parameter. */
  get dtype(): Dtype {
    for (const tensor of this.parameters()) if (isFloatingDtype(tensor.dtype)) return tensor.dtype;
    for (const tensor of this.buffers()) if (isFloatingDtype(tensor.dtype)) return tensor.dtype;
    return torch.get_default_dtype();
  }

  /** Whether this model generates text; the generation mixin says yes. */
  can_generate(): boolean {
    return false;
  }

  /** Number of values in the parameters; tied ones count once. */
  num_parameters({ only_trainable = false, exclude_embeddings = false } = {}): number {
    const embeddings = new Set<Tensor>();
    if (exclude_embeddings) {
      for (const module of this.modules()) if (module instanceof nn.Embedding) embeddings.add(module.weight);
    }
    let total = 0;
    for (const parameter of this.parameters()) {
      if (!embeddings.has(parameter) && (parameter.requires_grad || !only_trainable))
        total += parameter.numel();
    }
    return total;
  }

  /** Bytes of the parameters, and of the buffers unless `return_buffers` is false. */
  get_memory_footprint({ return_buffers = true } = {}): number {
    const tensors: Tensor[] = [...this.parameters(), ...(return_buffers ? this.buffers() : [])];
    return tensors.reduce((total, tensor) => total + tensor.nbytes, 0);
  }

  // training ----------------------------------------------------------------------------------------------

  /** Lets gradients flow to the output of the embeddings although these are frozen: adapters need it. */
  enable_input_require_grads(): void {
    this.#inputGradients ??= this.get_input_embeddings().register_forward_hook(
      (_module, _args, output: Tensor) => {
        output.requires_grad_(true);
      },
    );
  }

  disable_input_require_grads(): void {
    this.#inputGradients?.remove();
    this.#inputGradients = undefined;
  }

  /**
   * Keeps each layer's input only while training and computes the rest of the layer again in backward: less memory, more
   * time, the same gradients. Needs layers that extend `GradientCheckpointingLayer`, and `train()`.
   *
   * @param options.activation_checkpointing_kwargs for `torch.utils.checkpoint.checkpoint`.
   * @param options.every_n_layers treats each n-th layer so; default 1, all.
   */
  activation_checkpointing_enable(
    options: {
      activation_checkpointing_kwargs?: CheckpointOptions | null | undefined;
      every_n_layers?: number | undefined;
    } = {},
  ): void {
    const { activation_checkpointing_kwargs, every_n_layers } = bind(
      "activation_checkpointing_enable",
      [options],
      { activation_checkpointing_kwargs: null as CheckpointOptions | null, every_n_layers: 1 },
    );
    const cls = this.constructor as typeof PreTrainedModel;
    if (!cls.supports_gradient_checkpointing) {
      throw new InvalidArgumentError(`${cls.name} does not support activation checkpointing.`);
    }
    enableCheckpointing(this, activation_checkpointing_kwargs ?? {}, every_n_layers);
    // Adapters in frozen layers get gradients only if what flows through the layers has some.
    if (cls.main_input_name === "input_ids" || this._hf_peft_config_loaded) this.enable_input_require_grads();
  }

  activation_checkpointing_disable(): void {
    if ((this.constructor as typeof PreTrainedModel).supports_gradient_checkpointing)
      disableCheckpointing(this);
    if (this._hf_peft_config_loaded) this.disable_input_require_grads();
  }

  /** Whether some layer computes its activations again in backward. */
  get is_activation_checkpointing(): boolean {
    return isCheckpointing(this);
  }

  /**
   * The older name of {@link activation_checkpointing_enable}.
   *
   * @example
   * model.gradient_checkpointing_enable();
   * model.train().forward({ input_ids, labels: input_ids }).loss.backward();
   */
  gradient_checkpointing_enable(
    options: {
      gradient_checkpointing_kwargs?: CheckpointOptions | null | undefined;
      every_n_layers?: number | undefined;
    } = {},
  ): void {
    const { gradient_checkpointing_kwargs, every_n_layers } = bind(
      "gradient_checkpointing_enable",
      [options],
      { gradient_checkpointing_kwargs: null as CheckpointOptions | null, every_n_layers: 1 },
    );
    this.activation_checkpointing_enable({
      activation_checkpointing_kwargs: gradient_checkpointing_kwargs,
      every_n_layers,
    });
  }

  gradient_checkpointing_disable(): void {
    this.activation_checkpointing_disable();
  }

  get is_gradient_checkpointing(): boolean {
    return this.is_activation_checkpointing;
  }
}

const isModel = (module: unknown): module is PreTrainedModel => module instanceof PreTrainedModel;

/** What `run` was given, with its options apart: a last object of nothing but a signal. */
function splitRunOptions(given: readonly unknown[]): [inputs: unknown[], options: RunOptions] {
  const last = given.at(-1);
  const isPlain =
    typeof last === "object" && last !== null && Object.getPrototypeOf(last) === Object.prototype;
  const isOptions =
    given.length > 1 &&
    isPlain &&
    Object.entries(last).every(
      ([key, value]) => key === "signal" && (value === undefined || value instanceof AbortSignal),
    );
  return isOptions ? [given.slice(0, -1), last as RunOptions] : [[...given], {}];
}

const describe = (value: unknown) =>
  value === null ? "null" : typeof value === "object" ? value?.constructor?.name : typeof value;

/** The spread of initial weights, by whichever field the configuration has. */
function initializerStd(config: PretrainedConfig): number {
  const fields = config as unknown as Record<string, number | undefined>;
  if ("initializer_range" in config) return fields.initializer_range || 0.02;
  if ("init_std" in config) return fields.init_std as number;
  if ("initializer_factor" in config) return fields.initializer_factor as number;
  return (
    (config.get_text_config() as unknown as Record<string, number | undefined>).initializer_range ?? 0.02
  );
}

const AFFINE = ["Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"];

function isAffine(module: nn.Module): boolean {
  return AFFINE.some((name) => {
    const cls = (nn as unknown as Record<string, abstract new () => object>)[name];
    return cls !== undefined && module instanceof cls;
  });
}

/** Normalization layers of any make: users write their own, and name them so. */
function isNorm(module: nn.Module): boolean {
  for (let cls: object = module.constructor; cls && cls !== nn.Module; cls = Object.getPrototypeOf(cls)) {
    if (/LayerNorm|RMSNorm|^GroupNorm$|^BatchNorm/.test((cls as { name: string }).name)) return true;
  }
  return false;
}

/** Prototypes whose forward runs in a scope already. */
const scoped = new WeakSet<object>();
/** The forward that runs in a scope → the one that a class has. */
const written = new WeakMap<object, object>();
let depth = 0;

/** The source of a model's forward, as its class was written. */
export function sourceOfForward(model: PreTrainedModel): string {
  const { forward } = Object.getPrototypeOf(model) as PreTrainedModel;
  return Function.prototype.toString.call(written.get(forward) ?? forward);
}

/**
 * Makes the forward of a class run in a memory scope where no gradients are recorded: what a forward leaves behind is
 * freed at once. It is done on the prototype, under the hooks of instances, and only the outermost forward opens one.
 */
function runInScope(prototype: object): void {
  for (
    let p = prototype;
    p !== PreTrainedModel.prototype && p !== Object.prototype;
    p = Object.getPrototypeOf(p)
  ) {
    if (scoped.has(p)) break;
    scoped.add(p);
    const forward: unknown = Object.getOwnPropertyDescriptor(p, "forward")?.value;
    if (typeof forward !== "function") continue;
    const inScope = function (this: PreTrainedModel, ...args: unknown[]): unknown {
      if (depth === 0) this._report_replacements({ thorough: false });
      if (depth > 0 || torch.is_grad_enabled()) return forward.apply(this, args);
      depth++;
      try {
        return torch.tidy(() => forward.apply(this, args));
      } finally {
        depth--;
      }
    };
    Object.defineProperty(p, "forward", {
      value: inScope,
      writable: true,
      configurable: true,
      enumerable: false,
    });
    Object.defineProperty(inScope, "name", { value: "forward" });
    written.set(inScope, forward);
  }
}

// What makes a model generate: `generate` and `stream`, mixed into model classes.
import { GenerationConfig, type PretrainedConfig } from "../configuration/index.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import type { GenerateDecoderOnlyOutput } from "./generation_outputs.ts";
import type { GenerateInputs, GenerateOptions } from "./options.ts";
import type { Step } from "./step.ts";
import type { TextStreamOptions } from "./stream_text.ts";

// biome-ignore lint/suspicious/noExplicitAny: TypeScript wants exactly this of a class that is extended by a function.
type AnyModelClass = new (...args: any[]) => PreTrainedModel;

/** The methods of models that generate. */
export interface Generates {
  generation_config: GenerationConfig;
  can_generate(): boolean;

  /**
   * Continues the sequences: resolves to prompt and answer [batch, length], or to an output object with
   * `return_dict_in_generate`.
   *
   * Settings come from `options`, then the model's `generation_config`, then the defaults. The steps are recorded as
   * Programs and run off the event loop; see `mode` for what cannot be recorded.
   *
   * @throws UninitializedWeightsError when weights were neither loaded nor trained; the signal's reason on abort.
   *
   * @example
   * const ids = await model.generate({ input_ids, attention_mask }, { max_new_tokens: 20 });
   */
  generate(
    inputs: GenerateInputs | undefined,
    options: GenerateOptions & { readonly return_dict_in_generate: true },
  ): Promise<GenerateDecoderOnlyOutput>;
  generate(inputs?: GenerateInputs, options?: GenerateOptions): Promise<Tensor>;

  /**
   * Continues one sequence and gives the text of the answer as it comes, in whole words; or, without a tokenizer, the
   * ids of each step. Leaving the loop stops the work and frees the cache.
   *
   * @example
   * for await (const text of model.stream({ input_ids }, { tokenizer, max_new_tokens: 20 })) process.stdout.write(text);
   */
  stream(inputs: GenerateInputs | undefined, options: TextStreamOptions): AsyncGenerator<string, void, void>;
  stream(inputs?: GenerateInputs, options?: GenerateOptions): AsyncGenerator<Step, void, void>;
}

/** `Base` with the members of {@link Generates}; its static members stay. */
export type Generating<Base extends AnyModelClass> = Omit<Base, "prototype"> & {
  new (...args: ConstructorParameters<Base>): InstanceType<Base> & Generates;
  prototype: InstanceType<Base> & Generates;
};

/**
 * A model class that generates.
 *
 * @example
 * class MyForCausalLM extends GenerationMixin(MyPreTrainedModel) { … }
 */
export function GenerationMixin<Base extends AnyModelClass>(Base: Base): Generating<Base> {
  class Generator extends Base {
    // biome-ignore lint/suspicious/noExplicitAny: as above.
    constructor(...args: any[]) {
      super(...args);
      this.generation_config = GenerationConfig.from_model_config(this.config as PretrainedConfig);
    }

    override can_generate(): boolean {
      return true;
    }

    async generate(
      inputs?: GenerateInputs,
      options: GenerateOptions = {},
    ): Promise<Tensor | GenerateDecoderOnlyOutput> {
      const { generateSteps } = await import("./generate.ts");
      const steps = generateSteps(this, inputs, options, { quiet: !options.streamer });
      for (;;) {
        const { done, value } = await steps.next();
        if (done) return value;
        if (!options.streamer) value.ids.dispose();
      }
    }

    stream(
      inputs?: GenerateInputs,
      options: GenerateOptions = {},
    ): AsyncGenerator<string | Step, void, void> {
      return options.tokenizer
        ? streamTexts(this, inputs, options as TextStreamOptions)
        : streamIds(this, inputs, options);
    }
  }
  return Generator as unknown as Generating<Base>;
}

async function* streamIds(
  model: PreTrainedModel,
  inputs: GenerateInputs | undefined,
  options: GenerateOptions,
): AsyncGenerator<Step, void, void> {
  const { generateSteps } = await import("./generate.ts");
  yield* generateSteps(model, inputs, options);
}

async function* streamTexts(
  model: PreTrainedModel,
  inputs: GenerateInputs | undefined,
  options: TextStreamOptions,
): AsyncGenerator<string, void, void> {
  const { streamText } = await import("./stream_text.ts");
  yield* streamText(model, inputs, options);
}

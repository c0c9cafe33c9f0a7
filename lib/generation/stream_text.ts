// The text of a generation as it comes: whole words, out of a streamer that decodes.
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import { generateSteps } from "./generate.ts";
import type { GenerateInputs, GenerateOptions } from "./options.ts";
import { type StreamerTokenizer, TextStreamer } from "./streamers.ts";

/** Options of `stream` with a tokenizer. */
export interface TextStreamOptions extends GenerateOptions {
  readonly tokenizer: StreamerTokenizer;
  /** Leave the prompt out. Default true. */
  readonly skip_prompt?: boolean | undefined;
  /** Leave special tokens out. Default true. */
  readonly skip_special_tokens?: boolean | undefined;
}

/** Collects finished pieces of text instead of printing them. */
class Pieces extends TextStreamer {
  readonly #pieces: string[] = [];

  override on_finalized_text(text: string): void {
    if (text !== "") this.#pieces.push(text);
  }

  take(): string[] {
    return this.#pieces.splice(0);
  }
}

/** Pieces of text, each as soon as it is certain. */
export async function* streamText(
  model: PreTrainedModel,
  inputs: GenerateInputs | undefined,
  { skip_prompt = true, skip_special_tokens = true, ...options }: TextStreamOptions,
): AsyncGenerator<string, void, void> {
  const streamer = new Pieces(options.tokenizer, { skip_prompt, skip_special_tokens });
  const steps = generateSteps(model, inputs, { ...options, streamer });
  for await (const { ids } of steps) {
    ids.dispose();
    yield* streamer.take();
  }
  yield* streamer.take();
}

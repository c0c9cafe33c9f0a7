// One generation: makes it ready, picks how it runs, and sees to its end.
//
// It is a generator of steps. `generate` runs it to its end and `stream` hands the steps on, so that a `break`, an abort
// and an exception all end in the same place, which frees the cache.
import { warnOnce } from "../errors/warnings.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Generator } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { eagerSteps } from "./eager_steps.ts";
import {
  checkMode,
  type GenerateInputs,
  type GenerateOptions,
  type Request,
  readRequest,
} from "./options.ts";
import { prepare, type Run } from "./prepare.ts";
import { programSteps } from "./program_steps.ts";
import { Unrecordable } from "./recorded_steps.ts";
import type { Answer, Generation, Step } from "./step.ts";

export type { Step } from "./step.ts";

/** Runs `generate` step by step; the result is what `generate` resolves to. With `quiet`, it may be given no steps. */
export async function* generateSteps(
  model: PreTrainedModel,
  inputs: GenerateInputs | undefined,
  all: GenerateOptions,
  { quiet = false }: { quiet?: boolean } = {},
): AsyncGenerator<Step, Answer, void> {
  const { run, options, generator } = begin(model, inputs, all);
  const { streamer } = options;
  let answer: Answer | undefined;
  try {
    await streamer?.put(run.state.input_ids);
    answer = yield* steps(model, { run, options, generator, quiet });
    await streamer?.end();
    return answer;
  } catch (error) {
    await (streamer?.fail ? streamer.fail(error as Error) : streamer?.end());
    throw error;
  } finally {
    run.free(answer instanceof torch.Tensor ? [answer] : [answer?.sequences]);
  }
}

/** Checks the arguments and makes all ready that both ways of running need. */
function begin(
  model: PreTrainedModel,
  inputs: GenerateInputs | undefined,
  all: GenerateOptions,
): { run: Run; options: Request["options"]; generator: Generator | undefined } {
  let options: Request["options"] = {};
  const run = torch.no_grad(() =>
    torch.tidy(() => {
      const request = readRequest(model, inputs, all);
      options = request.options;
      checkMode(request.settings, options);
      if (!options.allow_uninitialized) model.assert_initialized();
      options.signal?.throwIfAborted();
      return prepare(model, request);
    }),
  );
  const generator = options.seed === undefined ? options.generator : seeded(model, options.seed);
  return { run, options, generator };
}

function seeded(model: PreTrainedModel, seed: number | bigint): Generator {
  const generator = new torch.Generator(model.device);
  generator.manual_seed(seed);
  return generator;
}

/** As Programs; from JavaScript what cannot be recorded, with a warning. */
async function* steps(model: PreTrainedModel, generation: Generation): AsyncGenerator<Step, Answer, void> {
  const { mode } = generation.options;
  if (mode !== "eager") {
    try {
      return yield* programSteps(model, generation);
    } catch (error) {
      // It is thrown before anything has run.
      if (!(error instanceof Unrecordable)) throw error;
      if (mode === "program") throw error.cause;
      warnOnce(
        `${model.constructor.name}.generate works eagerly, on the event loop: ${(error.cause as Error).message}`,
      );
    }
  }
  return yield* eagerSteps(model, generation);
}

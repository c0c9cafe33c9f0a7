// Sending a model to the hub: what is written by `save_pretrained`, and what its model card says.
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";
import { checkOptions, type SavePretrainedOptions, writePretrained } from "./save_pretrained.ts";

/** See `PreTrainedModel.save_pretrained`. */
export async function savePretrained(
  model: PreTrainedModel,
  directory: string,
  options: SavePretrainedOptions,
): Promise<void> {
  const { push_to_hub, ...others } = options;
  if (push_to_hub !== true) return writePretrained(model, directory, others);
  const { saveAndPush, splitPushOptions } = await import("../hub/push.ts");
  const { push, rest } = splitPushOptions(options);
  checkOptions(rest);
  await saveAndPush(pushable(model, rest), directory, push);
}

/** See `PreTrainedModel.push_to_hub`. */
export async function pushModel(
  model: PreTrainedModel,
  repo_id: string,
  options: SavePretrainedOptions,
): Promise<CommitInfo> {
  const { pushToHub, splitPushOptions } = await import("../hub/push.ts");
  const { push, rest } = splitPushOptions(options);
  checkOptions(rest);
  return pushToHub(pushable(model, rest), repo_id, push);
}

/** What the hub calls the task of a class, by the end of its name. */
const TASKS: readonly (readonly [ending: string, task: string, auto: string])[] = [
  ["ForCausalLM", "text-generation", "AutoModelForCausalLM"],
  ["ForSequenceClassification", "text-classification", "AutoModelForSequenceClassification"],
  ["ForTokenClassification", "token-classification", "AutoModelForTokenClassification"],
  ["ForQuestionAnswering", "question-answering", "AutoModelForQuestionAnswering"],
  ["ForMaskedLM", "fill-mask", "AutoModelForMaskedLM"],
];

function pushable(model: PreTrainedModel, options: SavePretrainedOptions): Pushable {
  const { name } = model.constructor;
  const [, pipeline_tag, auto = "AutoModel"] = TASKS.find(([ending]) => name.endsWith(ending)) ?? [];
  return {
    name,
    save: (folder) => writePretrained(model, folder, options),
    card: {
      ...loadingCard(
        `A ${name} model${model.config.model_type ? ` (\`${model.config.model_type}\`)` : ""}.`,
        auto,
        "model",
      ),
      pipeline_tag,
      base_model: model.config.name_or_path,
    },
  };
}

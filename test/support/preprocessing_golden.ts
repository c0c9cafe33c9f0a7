// The methods of golden.json that prepare inputs: decoding, processors. Know no processor.
import { join, resolve } from "node:path";
import * as torchformers from "torchformers";
import { fixture } from "./fixtures.js";

type Values = Record<string, unknown>;

/** What these methods need of a check; see golden.ts. */
interface Context {
  readonly check: {
    readonly class: string;
    readonly auto_class?: string;
    readonly checkpoint: string;
    readonly load?: Readonly<Values>;
  };
  readonly root: string;
  readonly inputs: Values;
  readonly options: Values;
}

const asset = (name: unknown): string => join(fixture("preprocessing/assets"), String(name));

// biome-ignore lint/suspicious/noExplicitAny: processors are found by name.
type AnyProcessor = any;

async function load({ check, root }: Context): Promise<AnyProcessor> {
  const classes = torchformers as unknown as Record<
    string,
    { from_pretrained(folder: string, options: object): Promise<AnyProcessor> }
  >;
  const name = check.auto_class ?? check.class;
  const cls = classes[name];
  if (cls === undefined) throw new Error(`torchformers has no ${name}`);
  const processor = await cls.from_pretrained(resolve(root, check.checkpoint), { ...check.load });
  if (processor.constructor.name !== check.class)
    throw new Error(`${name} gave ${processor.constructor.name}, not ${check.class}`);
  return processor;
}

export const PREPROCESSING: Record<string, (context: Context) => Promise<unknown>> = {
  async load_image({ inputs }) {
    return { pixels: (await torchformers.load_image(asset(inputs.image_file))).permute(1, 2, 0) };
  },

  async image_process(context) {
    const processor = await load(context);
    const { image_files, segmentation_files, ...others } = context.inputs as {
      image_files: string[];
      segmentation_files?: string[];
    };
    const maps = segmentation_files && { segmentation_maps: segmentation_files.map(asset) };
    return processor(image_files.map(asset), {
      return_tensors: "pt",
      ...others,
      ...maps,
      ...context.options,
    });
  },

  async processor_call(context) {
    const processor = await load(context);
    const { image_files, ...others } = context.inputs as { image_files?: string[] };
    const images = image_files && { images: image_files.map(asset) };
    return processor({ ...images, ...others, ...context.options });
  },

  async post_process_masks(context) {
    const processor = await load(context);
    const { masks, original_sizes, reshaped_input_sizes } = context.inputs;
    return {
      result: processor.post_process_masks(masks, original_sizes, reshaped_input_sizes, context.options),
    };
  },
};

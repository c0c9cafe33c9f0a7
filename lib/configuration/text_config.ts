// The text part of a configuration: the one inside it, or one side of an older encoder-decoder's.

import { ConfigError } from "../errors/index.ts";
import type { PretrainedConfig } from "./configuration_utils.ts";

type Fields = Record<string, unknown>;

/** The text configuration inside another, if there is one. */
export function textPart(
  config: PretrainedConfig,
  {
    decoder,
    encoder,
  }: {
    readonly decoder?: boolean | undefined;
    readonly encoder?: boolean | undefined;
  },
): PretrainedConfig | undefined {
  const fields = config as unknown as Fields;
  const isBoth = Boolean(decoder) === Boolean(encoder);
  const names = [
    ...(isBoth || encoder ? ["text_encoder"] : []),
    ...(isBoth || decoder ? ["decoder", "generator", "text_config"] : []),
  ];
  const found = names.filter((name) => fields[name] !== undefined && fields[name] !== null);
  if (found.length > 1) {
    throw new ConfigError(
      `${config.constructor.name} has several text configurations: ${found.join(", ")}.`,
      {
        hint: "Read the one that is meant by its name.",
      },
    );
  }
  const [name] = found;
  return name === undefined ? undefined : (fields[name] as PretrainedConfig);
}

/** A copy of an older encoder-decoder configuration, which has both sides flat, with one side's sizes. */
export function flatSide(config: PretrainedConfig, side: "decoder" | "encoder"): PretrainedConfig {
  const copy = config.clone() as unknown as Fields & PretrainedConfig;
  const short: Record<string, string> = {
    [`${side}_layers`]: "num_hidden_layers",
    [`${side}_attention_heads`]: "num_attention_heads",
  };
  for (const [key, value] of Object.entries(config.to_dict())) {
    if (!key.startsWith(side)) continue;
    (copy as Fields)[short[key] ?? key.slice(side.length + 1)] = value;
  }
  return copy;
}

// `id2label` and `label2id`: names of classes by their numbers.

import { ConfigError } from "../errors/index.ts";
import { isRecord, markIntegerKeys } from "../json/json.ts";
import { shown } from "./field_types.ts";

const MOST = 1_000_000;

/** `LABEL_0`, `LABEL_1`, … */
export function makeLabels(config: string, count: unknown) {
  if (!Number.isSafeInteger(count) || (count as number) < 0 || (count as number) > MOST)
    throw new ConfigError(`${config}: field 'num_labels' must be a count, got ${shown(count)}.`);
  const labels = Array.from({ length: count as number }, (_, i) => `LABEL_${i}`);
  return {
    id2label: markIntegerKeys(Object.fromEntries(labels.map((label, i) => [i, label]))),
    label2id: Object.fromEntries(labels.map((label, i) => [label, i])),
  };
}

/** JSON has strings for keys; Python keeps integers, and writes them in their order. */
export function readLabels(config: string, id2label: unknown): Record<number, string> | null {
  if (id2label === null) return null;
  if (!isRecord(id2label))
    throw new ConfigError(`${config}: field 'id2label' must be dict | None, got ${shown(id2label)}.`);
  const wrong = Object.keys(id2label).find((key) => !/^\s*[-+]?\d+\s*$/.test(key));
  if (wrong !== undefined)
    throw new ConfigError(`${config}: field 'id2label' has the key '${wrong}', which is no integer.`);
  return markIntegerKeys(
    Object.fromEntries(Object.entries(id2label).map(([key, label]) => [Number(key), label as string])),
  );
}

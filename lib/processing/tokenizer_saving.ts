// How a tokenizer's files are written.

import path from "node:path";
import { TokenizerError } from "../errors/index.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import type { ChatTemplates } from "./chat_template.ts";

/** Fields that say how a tokenizer was loaded, and nothing of it. */
export const UNSAVED = [
  "add_bos_token",
  "add_eos_token",
  "max_len",
  "name_or_path",
  "files_loaded",
  "special_tokens_map_file",
  "tokenizer_file",
  "device_map",
  "slow_tokenizer_class",
];

/** Writes the chat templates; resolves to their paths. */
export async function saveTemplates(folder: string, templates: ChatTemplates | null): Promise<string[]> {
  if (templates === null) return [];
  const named = typeof templates === "string" ? { default: templates } : templates;
  const files: string[] = [];
  for (const [name, template] of Object.entries(named)) {
    if (!/^[^\\/\0]+$/.test(name) || name === "." || name === "..") {
      throw new TokenizerError(`'${name}' cannot be the name of a chat template: it would be a file name.`);
    }
    const file =
      name === "default" ? "chat_template.jinja" : path.join("additional_chat_templates", `${name}.jinja`);
    files.push(path.join(folder, file));
    await writeFileAtomic(files.at(-1) as string, template);
  }
  return files;
}

/** Beyond ASCII the reference writes tokenizer_config.json as it is, not as escapes. */
export const readable = (json: string): string =>
  json.replaceAll(/\\\\|\\u([0-9a-f]{4})/g, (whole, code: string | undefined) =>
    code === undefined || Number.parseInt(code, 16) < 0x80
      ? whole
      : String.fromCharCode(Number.parseInt(code, 16)),
  );

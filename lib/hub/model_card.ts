// The README.md of a repository: front matter that the hub reads, and how to use what is in it.

import { isRepoId } from "./names.ts";

/** What a card says. A kind of thing that can be pushed gives one of these. */
export interface CardContent {
  /** What it is, in a sentence: "A LlamaForCausalLM model." */
  readonly summary: string;
  /** Lines of TypeScript and of Python that use it; REPO stands for the repository's name. */
  readonly typescript: readonly string[];
  readonly python: readonly string[];
  readonly pipeline_tag?: string | undefined;
  /** The repository that it was made from, if that is known. */
  readonly base_model?: string | undefined;
  readonly tags?: readonly string[] | undefined;
}

/** The card of what an Auto class, or a class of its own, loads by the repository's name. */
export function loadingCard(summary: string, loader: string, variable: string): CardContent {
  return {
    summary,
    typescript: [
      `import { ${loader} } from "torchformers";`,
      "",
      `const ${variable} = await ${loader}.from_pretrained("REPO");`,
    ],
    python: [`from transformers import ${loader}`, "", `${variable} = ${loader}.from_pretrained("REPO")`],
  };
}

/** A string as YAML: plain where nothing in it means anything, quoted where something might. */
const scalar = (text: string): string =>
  /^[A-Za-z][\w ./-]*$/.test(text) && !/^(true|false|null|yes|no|on|off|y|n|~)$/i.test(text)
    ? text
    : JSON.stringify(text);

/**
 * The text of a model card.
 *
 * ```ts
 * await writeFile("README.md", modelCard("user/my-model", content));
 * ```
 */
export function modelCard(repo: string, content: CardContent): string {
  const { summary, typescript, python, pipeline_tag, base_model, tags = [] } = content;
  const filled = (lines: readonly string[]) => lines.join("\n").replaceAll("REPO", repo);
  const isKnownBase = base_model?.includes("/") === true && isRepoId(base_model) && base_model !== repo;
  const front = [
    "library_name: transformers",
    ...(pipeline_tag === undefined ? [] : [`pipeline_tag: ${scalar(pipeline_tag)}`]),
    ...(isKnownBase ? [`base_model: ${scalar(base_model)}`] : []),
    "tags:",
    ...[...new Set(["torchformers", ...tags])].map((tag) => `- ${scalar(tag)}`),
  ];
  return `---
${front.join("\n")}
---

# ${repo.split("/").at(-1)}

${summary}

## Use

In Node.js, with torchformers:

\`\`\`ts
${filled(typescript)}
\`\`\`

In Python, with [transformers](https://huggingface.co/docs/transformers):

\`\`\`python
${filled(python)}
\`\`\`
`;
}

// Entry of the thread that renders chat templates.

import { parentPort } from "node:worker_threads";
import type { RenderAnswer, RenderJob } from "./chat_template.ts";
import { Template } from "./jinja/template.ts";
import { fromPlain, JinjaError, type Value } from "./jinja/values.ts";

/** Parsed templates; a program uses one or two. */
const parsed = new Map<string, Template>();
const MAX_PARSED = 16;

function parse(source: string): Template {
  let template = parsed.get(source);
  if (template === undefined) {
    try {
      template = new Template(source);
    } catch (error) {
      throw new JinjaError(`The chat template does not parse: ${(error as Error).message}`);
    }
    if (parsed.size >= MAX_PARSED) parsed.clear();
    parsed.set(source, template);
  }
  return template;
}

function describe(error: unknown): string {
  if (error instanceof JinjaError) return error.message;
  return `The chat template fails: ${error instanceof Error ? error.message : String(error)}`;
}

function render({ template, inputs }: RenderJob): RenderAnswer {
  try {
    const program = parse(template);
    const variables = inputs.map((input) => fromPlain(input) as Map<string, Value>);
    return { rendered: variables.map((each) => program.render(each)) };
  } catch (error) {
    return { error: describe(error) };
  }
}

parentPort?.on("message", (job: RenderJob) => parentPort?.postMessage(render(job)));

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { endless, withoutTensor } from "../support/checkpoints.js";
import { canUseTerminal, onTerminal, torchformers } from "../support/command_line.js";
import { fixture } from "../support/fixtures.js";

const demo = fixture("demo-llama");
const PROMPT = "\x1b[0J> ";
const [CTRL_C, CTRL_D, ENTER] = ["\x03", "\x04", "\r"];

interface Message {
  readonly role: string;
  readonly content: string;
}

const conversation = (file: string): Message[] => JSON.parse(readFileSync(file, "utf8"));
const roles = (file: string) => conversation(file).map(({ role }) => role);

t.test("a checkpoint that lacks weights is refused before a word is read", async (t) => {
  const folder = await withoutTensor(t.testdir(), "model.norm.weight");
  const { code, stdout, stderr } = await torchformers(["chat", folder], { input: "hello\n" });
  t.match({ code, stdout, stderr }, { code: 1, stdout: "", stderr: /model\.norm\.weight/ });
});

t.test("a pipe: one answer a line, commands, no prompts", async (t) => {
  const folder = t.testdir();
  const [all, rest, none] = ["all", "rest", "none"].map((name) => join(folder, `${name}.json`)) as [
    string,
    string,
    string,
  ];
  const lines = [
    "The file must be",
    "",
    "The array must be",
    `/save ${all}`,
    "/clear",
    "The file must be",
    `/save ${rest}`,
    "/save",
    `/save ${join(folder, "no/such/folder.json")}`,
    "/unknown",
    "/exit",
    `/save ${none}`,
  ];
  const { code, stdout } = await torchformers(["chat", demo, "-n", "10", "--system", "Be brief."], {
    input: lines.join("\n"),
  });
  t.equal(code, 0);
  t.same(roles(all), ["system", "user", "assistant", "user", "assistant"]);
  t.same(conversation(all)[0], { role: "system", content: "Be brief." });
  t.same(roles(rest), ["system", "user", "assistant"], "/clear keeps the system message only");
  t.same(
    conversation(rest),
    conversation(all).slice(0, 3),
    "the same question in the same conversation: the same answer",
  );
  t.ok(stdout.startsWith(`${conversation(all)[2]?.content}\n`), "answers and nothing else");
  t.match(stdout, /Wrote 5 messages[\s\S]*Name a file[\s\S]*\/clear {2}begin a new/);
  t.throws(() => readFileSync(none), "/exit leaves");
});

t.test("the conversation is what the template makes of it", async (t) => {
  // The demo model as a chat model: what was said last, word by word.
  const folder = await withoutTensor(t.testdir(), "");
  writeFileSync(join(folder, "chat_template.jinja"), "{{ messages[-1].content }}");
  const alone = await torchformers(["chat", folder, "-n", "10"], { input: "The file must be\n" });
  const later = await torchformers(["chat", folder, "-n", "10"], { input: "The array\nThe file must be\n" });
  t.equal(alone.stdout, " used.\n");
  t.equal(
    later.stdout.split("\n").slice(-2).join("\n"),
    alone.stdout,
    "this template knows the last message only",
  );
});

t.test("a pipe ends with 1 when an answer fails, and 130 when interrupted", async (t) => {
  const folder = await endless(t.testdir(), {
    chat_template: "{{ raise_exception('No, ' + messages[0].content) }}",
  });
  const { code, stderr } = await torchformers(["chat", folder], { input: "please\n" });
  t.match({ code, stderr }, { code: 1, stderr: /^error: .*No, please/ });
});

t.test(
  "a terminal",
  { skip: canUseTerminal ? false : "there is no pseudo-terminal without python3" },
  async (t) => {
    const folder = await endless(t.testdir());
    const saved = join(folder, "saved.json");
    const { code, screen } = await onTerminal(
      ["chat", folder, "-n", "90000"],
      [
        [PROMPT, `hello${ENTER}`],
        ["\r\n", ""],
        [" ", CTRL_C], // in the middle of an answer without an end
        [PROMPT, `again${ENTER}`],
        ["\r\n", ""],
        [" ", CTRL_C],
        [PROMPT, `/save ${saved}${ENTER}`],
        ["Wrote 4 messages", ""],
        [PROMPT, CTRL_C], // nothing to stop
        ["(Ctrl-D or /exit leaves.)", `/clear${ENTER}`],
        [PROMPT, CTRL_D],
      ],
    );
    t.equal(code, 0);
    t.match(screen, /^LlamaForCausalLM\. \/help lists the commands\.\r\nThis tokenizer has no chat template/);
    t.same(roles(saved), ["user", "assistant", "user", "assistant"], "the conversation goes on after Ctrl-C");
    t.match(conversation(saved)[1]?.content, /\S/, "what was answered until then is kept");
  },
);

t.test(
  "a terminal outlives an answer that fails",
  { skip: canUseTerminal ? false : "no python3" },
  async (t) => {
    const chat_template =
      "{% if messages|length > 1 %}{{ raise_exception('once only') }}{% endif %}{{ messages[0].content }}";
    const folder = await endless(t.testdir(), { chat_template });
    const saved = join(folder, "saved.json");
    const { code, screen } = await onTerminal(
      ["chat", folder, "-n", "3"],
      [
        [PROMPT, `hello${ENTER}`],
        [PROMPT, `again${ENTER}`],
        ["once only", ""],
        [PROMPT, `/save ${saved}${ENTER}`],
        ["Wrote 2 messages", `/exit${ENTER}`],
      ],
    );
    t.equal(code, 0);
    t.notMatch(screen, /\n {4}at /);
  },
);

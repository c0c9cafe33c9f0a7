import t from "tap";
import { endless, withoutTensor } from "../support/checkpoints.js";
import { torchformers } from "../support/command_line.js";
import { fixture } from "../support/fixtures.js";

const demo = fixture("demo-llama");

t.test("wrong flags end with 2 and a line that says what is wrong", async (t) => {
  const wrong: [string[], RegExp][] = [
    [[], /missing required argument 'model'/],
    [
      [demo, "x", "--max-new-token", "3"],
      /unknown option '--max-new-token'[\s\S]*Did you mean --max-new-tokens/,
    ],
    [[demo, "x", "-n", "0"], /must be above 0/],
    [[demo, "x", "-n", "1.5"], /not a whole number/],
    [[demo, "x", "-t", "warm"], /not a number/],
    [[demo, "x", "-t", "0"], /must be above 0/],
    [[demo, "x", "--top-p", "1.5"], /must be at most 1/],
    [[demo, "x", "--top-k", "-3"], /argument/],
    [[demo, "x", "--dtype", "float17"], /Allowed choices are auto, float32/],
  ];
  for (const [args, message] of wrong) {
    const { code, stdout, stderr } = await torchformers(["generate", ...args]);
    t.match({ code, stdout, stderr }, { code: 2, stdout: "", stderr: message }, args.join(" "));
  }
});

t.test("what goes wrong later ends with 1, without a stack", async (t) => {
  const folder = t.testdir({ empty: {}, broken: { "config.json": "{" } });
  const wrong: [string, string[], RegExp][] = [
    [`${folder}/nowhere`, [], /nowhere' does not exist/],
    [`${folder}/empty`, [], /config\.json/],
    [`${folder}/broken`, [], /config\.json/],
    [demo, ["--device", "cuda:7"], /CUDA|NVIDIA|cuda/],
    [demo, ["--device", "gpu"], /gpu/],
  ];
  for (const [model, flags, message] of wrong) {
    const { code, stdout, stderr } = await torchformers(["generate", model, "x", ...flags]);
    t.match({ code, stdout, stderr }, { code: 1, stdout: "", stderr: message }, `${model} ${flags}`);
    t.match(stderr, /^error: /);
    t.notMatch(stderr, /\n {4}at /);
  }
});

t.test("a checkpoint that lacks weights is refused, and the weights are named", async (t) => {
  const folder = await withoutTensor(t.testdir(), "model.layers.2.mlp.up_proj.weight");
  const { code, stdout, stderr } = await torchformers(["generate", folder, "x", "-n", "2"]);
  t.match({ code, stdout }, { code: 1, stdout: "" });
  t.match(stderr, /^error: .*model\.layers\.2\.mlp\.up_proj\.weight/m);
  t.notMatch(stderr, /\n {4}at /);
});

t.test("streams the prompt and its continuation", async (t) => {
  const words = ["This", "class", "is", "used", "to"];
  const { code, stdout, stderr } = await torchformers(["generate", demo, ...words, "-n", "20"]);
  t.match({ code, stderr }, { code: 0, stderr: "" });
  t.equal(stdout, "This class is used to create a `torch.nn.Module` object.\n");
});

t.test("reads the prompt from standard input, and prints one document with --json", async (t) => {
  const args = ["generate", demo, "--json", "-n", "20"];
  const { code, stdout } = await torchformers(args, { input: "This class is used to\n" });
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    model: demo,
    prompt: "This class is used to",
    text: " create a `torch.nn.Module` object.",
    seconds: Number,
  });
});

t.test("sampling: the same text for a seed, another for another", async (t) => {
  const sample = async (...flags: string[]) => {
    const { code, stdout } = await torchformers(["generate", demo, "The file", "-n", "12", ...flags]);
    t.equal(code, 0, flags.join(" "));
    return stdout;
  };
  const hot = ["-t", "1.5", "--top-k", "200", "--top-p", "0.99", "--repetition-penalty", "1.2"];
  const first = await sample(...hot, "--seed", "1");
  t.equal(await sample(...hot, "--seed", "1"), first);
  t.not(await sample(...hot, "--seed", "2"), first);
  t.equal(
    await sample("--top-k", "1", "--seed", "3"),
    await sample(),
    "one token to choose from is greedy search",
  );
});

t.test("Ctrl-C stops the text and ends with 130", async (t) => {
  const folder = await endless(t.testdir());
  const args = ["generate", folder, "hello", "-n", "90000"];
  const { code, stdout, stderr } = await torchformers(args, { stopAfter: /^hello\s*\S/ });
  t.match({ code, stdout, stderr }, { code: 130, stdout: /^hello/, stderr: "Interrupted.\n" });
});

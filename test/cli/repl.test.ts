import t from "tap";
import { findLibtorch } from "#lib/addon/libtorch.js";
import { canUseTerminal, onTerminal, torchformers } from "../support/command_line.js";
import { fixture } from "../support/fixtures.js";

const demo = fixture("demo-llama");
const repl = (lines: readonly string[], ...args: string[]) =>
  torchformers(["repl", ...args], { input: lines.map((line) => `${line}\n`).join("") });

t.test("a model that is not there", async (t) => {
  const { code, stdout, stderr } = await repl(["1"], "/nowhere");
  t.match({ code, stdout, stderr }, { code: 1, stdout: "", stderr: /^error: .*\/nowhere/ });
  t.match(await repl([], demo, "--dtype", "int3"), { code: 2, stderr: /Allowed choices/ });
});

t.test("tensors are shown as torch shows them", async (t) => {
  const { code, stdout, stderr } = await repl([
    "torch.arange(6).view(2, 3)",
    "[torch.ones([2]), torch.tensor(new Float32Array([1.5, 2]))]",
    "new nn.Linear(2, 1, { bias: false })",
    "torch.ones([2], { requires_grad: true }).mul(3)",
  ]);
  t.match({ code, stderr }, { code: 0, stderr: "" });
  t.equal(
    stdout,
    `tensor([[0, 1, 2],
        [3, 4, 5]])
[ tensor([1., 1.]), tensor([1.5000, 2.0000]) ]
${stdout.match(/Linear[\s\S]*?(?=tensor\(\[3)/)?.[0]}tensor([3., 3.], grad_fn=<MulBackward0>)
`,
  );
});

t.test("a pipe: line by line, also where a line awaits", async (t) => {
  const { code, stdout } = await repl([
    "const slow = await new Promise((resolve) => setTimeout(resolve, 200, 'slept'))",
    "slow",
    "function twice(x) {",
    "  return x.mul(2);",
    "}",
    "twice(torch.tensor([1, 2])).tolist()",
    "torch.add(torch.ones([2]), torch.ones([3]))",
    "await Promise.reject(new Error('late'))",
    "'still here'",
  ]);
  t.equal(code, 0);
  const lines = stdout.split("\n");
  t.same(lines.slice(0, 4), ["undefined", "'slept'", "undefined", "[ 2, 4 ]"]);
  t.match(stdout, /ShapeError: \[aten::add/);
  t.match(stdout, /Uncaught Error: late/);
  t.match(stdout, /'still here'\n$/);
});

t.test("a pipe may leave early, or be empty", async (t) => {
  t.match(await repl(["1 + 1", ".exit", "'not reached'"]), { code: 0, stdout: "2\n" });
  t.match(await repl(["process.exit(3)"]), { code: 3, stdout: "" });
  t.match(await repl([]), { code: 0, stdout: "" });
});

t.test("a model and its tokenizer", async (t) => {
  const { code, stdout } = await repl(
    [
      "const inputs = await tokenizer('This class is used to', { return_tensors: 'pt' })",
      "const ids = await model.generate(inputs, { max_new_tokens: 20 })",
      "await tokenizer.decode(ids.index(0), { skip_special_tokens: true })",
      "model.num_parameters()",
    ],
    demo,
  );
  t.equal(code, 0);
  t.equal(
    stdout,
    "undefined\nundefined\n'This class is used to create a `torch.nn.Module` object.'\n4000000\n",
  );
});

t.test(
  "a terminal",
  { skip: canUseTerminal ? false : "there is no pseudo-terminal without python3" },
  async (t) => {
    const { code, screen } = await onTerminal(
      ["repl"],
      [
        ["> ", "await Promise.resolve(torch.ones([2]))\r"],
        ["tensor([1., 1.])", ""],
        ["> ", ".exit\r"],
      ],
      // The history goes to another home; libtorch is where it was found from this one.
      { HOME: t.testdir(), TORCHFORMERS_LIBTORCH: findLibtorch().libtorch?.root ?? "" },
    );
    t.equal(code, 0);
    t.match(screen, /^torchformers on Node v\d+.*: torch, nn, optim, and all else/);
  },
);

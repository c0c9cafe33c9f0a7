import t from "tap";
import { AutoTokenizer, type BatchEncoding, type torch } from "torchformers";
import { fixture } from "../support/fixtures.js";

const chat = [
  { role: "system", content: "Be nice.\nAlways." },
  {
    role: "user",
    content: "Hi 😀 'q' \"d\"",
    n: 3,
    f: 0.5,
    l: [1, 2.5, null, true, "x"],
    d: { b: 1, a: [] },
  },
  { role: "assistant", content: "  Hello there.  " },
];
const tokenizer = await AutoTokenizer.from_pretrained(fixture("tokenizers/chat-chatml"));

const render = (chat_template: string, options = {}) =>
  tokenizer.apply_chat_template(chat, { chat_template, tokenize: false, ...options });

t.test("templates that fail", async (t) => {
  const failing: [template: string, message: RegExp][] = [
    ["{% if %}", /does not parse/],
    ["{{ missing.name }}", /'missing' is undefined/],
    ["{{ messages[0].none.deeper }}", /'dict object' has no attribute 'none'/],
    ["{{ 'a' + 1 }}", /unsupported operand/],
    ["{{ [].append(1) }}", /unsafe/],
    ["{{ ''.__class__ }}", /unsafe/],
    ["{{ messages.constructor.constructor('return process')() }}", /no attribute 'constructor'/],
    ["{{ raise_exception('no ' ~ 1) }}", /^no 1$/],
    ["{{ 1 | nothing }}", /No filter named 'nothing'/],
    ["{{ missing | tojson }}", /not JSON serializable/],
    ["{% for i in range(100001) %}{% endfor %}", /Range too big/],
    ["{{ 'x' * 9999999999 }}", /limit/],
    ["{{ [1] * 9999999999 }}", /limit/],
    [
      "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      /limit/,
    ],
    [
      "{% set ns = namespace(x='a') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      /limit/,
    ],
    ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /stack/],
  ];
  for (const [template, message] of failing) {
    await t.rejects(render(template), { code: "ERR_TEMPLATE", message }, template);
  }
  for (const name of ["attack", "endless"]) {
    const bad = await AutoTokenizer.from_pretrained(fixture(`bad/tokenizer-template_${name}`));
    await t.rejects(bad.apply_chat_template(chat), { code: "ERR_TEMPLATE" }, name);
  }
});

t.test("a template without end is stopped, and the event loop goes on", async (t) => {
  let turns = 0;
  const clock = setInterval(() => turns++, 20);
  const endless = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
  await t.rejects(render(endless), { code: "ERR_TEMPLATE", message: /did not end/ });
  clearInterval(clock);
  t.ok(turns > 20, "timers ran meanwhile");
  t.equal(await render("{{ messages[0].role }}"), "system", "and the next template renders");
});

t.test("templates print as in Python", async (t) => {
  const cases: [template: string, text: string][] = [
    [
      "{{ messages[1].l }} {{ messages[1].d }} {{ none }} {{ true }}",
      "[1, 2.5, None, True, 'x'] {'b': 1, 'a': []} None True",
    ],
    ["{{ 4/2 }} {{ -7//2 }} {{ -7 % 3 }} {{ 0.1+0.2 }} {{ 1.0 }}", "2.0 -4 2 0.30000000000000004 1.0"],
    [
      "{{ messages[1].d | tojson }} {{ messages[1].l | tojson(indent=2) }}",
      '{"b": 1, "a": []} [\n  1,\n  2.5,\n  null,\n  true,\n  "x"\n]',
    ],
    ["{{ 'a😀b' | length }} {{ 'a😀b'[1] }} {{ 'a😀b'[::-1] }}", "3 😀 b😀a"],
    ["{{ 1 == 1.0 }} {{ '1' == 1 }} {{ [1] == [1] }} {{ none == missing }}", "True False True False"],
    ["{% for m in messages %}{% if loop.first %}{% set x = 1 %}{% endif %}[{{ x }}]{% endfor %}", "[1][][]"],
    [
      "{% for m in messages %}{% if m.role == 'user' %}u{% break %}{% endif %}{{ m.role }} {% endfor %}",
      "system u",
    ],
    ["{% for k, v in messages[1].d.items() %}{{ k }}{{ v }}{% endfor %}", "b1a[]"],
    ["{% for x in missing %}x{% else %}none{% endfor %}", "none"],
    ["{{ messages | map(attribute='role') | join(',') }}", "system,user,assistant"],
    ["{% macro g() %}({{ caller('q') }}){% endmacro %}{% call(u) g() %}[{{ u }}]{% endcall %}", "([q])"],
    ["{{ messages[2].content | trim }}|{{ messages[0].content.split('\\n')[-1] }}", "Hello there.|Always."],
    ["{{ 'a' if false }}|{{ [] or 'x' }}|{{ 'x' ~ none ~ 1.5 }}", "|x|xNone1.5"],
    ["{{ eos_token }}{{ mood }}", "<|endoftext|>good"],
  ];
  for (const [template, text] of cases) t.equal(await render(template, { mood: "good" }), text, template);
});

t.test("arguments", async (t) => {
  const wrong = { code: "ERR_INVALID_ARGUMENT" };
  await t.rejects(tokenizer.apply_chat_template([]), wrong);
  await t.rejects(tokenizer.apply_chat_template(["x"] as never), wrong);
  await t.rejects(render("{{ 1 }}", { tools: [() => 1] }), wrong);
  await t.rejects(render("{{ 1 }}", { continue_final_message: true, add_generation_prompt: true }), wrong);
  await t.rejects(render("{{ 1 }}", { continue_final_message: "contnt" }), {
    ...wrong,
    suggestion: "content",
  });
  const plain = await AutoTokenizer.from_pretrained(fixture("tokenizers/gpt2"));
  await t.rejects(plain.apply_chat_template(chat), { code: "ERR_TEMPLATE", message: /no chat template/ });
  tokenizer.chat_template = { default: "d{{ messages|length }}", tool_use: "t" };
  t.equal(await tokenizer.apply_chat_template(chat, { tokenize: false }), "d3");
  t.equal(await tokenizer.apply_chat_template(chat, { tokenize: false, tools: [{ name: "f" }] }), "t");
  t.equal(await tokenizer.apply_chat_template(chat, { tokenize: false, chat_template: "tool_use" }), "t");
});

t.test("tensors, batches and masks", async (t) => {
  const template =
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}" +
    "{% else %}{{ m.content }} {% endif %}{% endfor %}";
  const one: BatchEncoding = await tokenizer.apply_chat_template(chat, {
    chat_template: template,
    return_tensors: "pt",
  });
  t.equal((one.input_ids as torch.Tensor).shape[0], 1);
  const masked = await tokenizer.apply_chat_template([chat, chat.slice(1)], {
    chat_template: template,
    return_assistant_tokens_mask: true,
  });
  t.equal((masked.input_ids as number[][]).length, 2);
  const marked = (masked.input_ids as number[][]).map((ids, row) =>
    ids.filter((_, i) => (masked.assistant_masks as number[][])[row]?.[i] === 1),
  );
  t.same(await tokenizer.batch_decode(marked), ["  Hello there.  ", "  Hello there.  "]);
  const ids = await tokenizer.apply_chat_template(chat, { chat_template: template, return_dict: false });
  t.same(ids, (await tokenizer.apply_chat_template(chat, { chat_template: template })).input_ids);
});

"""Writes test/fixtures/pipelines/text_generation.json: what Python's pipeline("text-generation") gives for the demo model.

    python scripts/goldens/pipelines.py

Each case is a call: inputs, options, whether the chat template is set, and the result or the kind of error. The generator is
seeded with 0 before each call.
"""

import json
import warnings
from pathlib import Path

import torch
from transformers import pipeline

warnings.filterwarnings("ignore")
FIXTURES = Path(__file__).parents[2] / "test/fixtures"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
GREEDY = {"do_sample": False, "max_new_tokens": 8}
PROMPT = "This class is used to"
CHAT = [{"role": "user", "content": "What is a class?"}]
BRIEF = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
PREFILL = [*CHAT, {"role": "assistant", "content": "A class is"}]

CASES = [
    ("one", PROMPT, GREEDY),
    ("list", ["This class", "The file must be"], GREEDY),
    ("batch", ["This class", "The file must be closed before"], {**GREEDY, "batch_size": 2}),
    ("last batch is smaller", ["This class", "The", "A file"], {**GREEDY, "batch_size": 2}),
    ("new text", PROMPT, {**GREEDY, "return_full_text": False}),
    ("ids", "This class", {**GREEDY, "return_tensors": True}),
    ("sampled", PROMPT, {"max_new_tokens": 8}),
    ("defaults", "The", {}),
    ("two sequences", PROMPT, {"num_return_sequences": 2, "max_new_tokens": 6}),
    ("two sequences in a batch", ["This", "The file"], {"num_return_sequences": 2, "max_new_tokens": 4, "batch_size": 2}),
    ("sampled list", ["This", "The file"], {"max_new_tokens": 4}),
    ("prefix", "is used to", {**GREEDY, "prefix": "This class "}),
    ("prefix and max_length", "is used to", {"do_sample": False, "prefix": "This class ", "max_length": 12}),
    ("stop", PROMPT, {**GREEDY, "stop_sequence": " a"}),
    ("stops", PROMPT, {**GREEDY, "stop_sequence": ["nn", "torch"]}),
    ("hole", "word " * 600, {**GREEDY, "handle_long_generation": "hole", "return_full_text": False}),
    ("max_length", PROMPT, {"max_length": 10, "do_sample": False}),
    ("special tokens", "This class", {**GREEDY, "skip_special_tokens": False}),
    ("empty", "", GREEDY),
    ("truncation", "This class is used to hold", {**GREEDY, "truncation": True, "tokenizer_encode_kwargs": {"max_length": 3}}),
    ("chat", CHAT, GREEDY),
    ("chat, new text", CHAT, {**GREEDY, "return_full_text": False}),
    ("chats", [CHAT, BRIEF], GREEDY),
    ("chats in a batch", [CHAT, BRIEF], {**GREEDY, "batch_size": 2}),
    ("prefill", PREFILL, GREEDY),
    ("no prefill", PREFILL, {**GREEDY, "continue_final_message": False}),
    ("both kinds of text", "x", {"return_full_text": True, "return_text": True}),
    ("text and ids", "x", {"return_full_text": True, "return_tensors": True}),
    ("unknown strategy", "x", {"handle_long_generation": "x"}),
    ("a number", 5, GREEDY),
]

generate = pipeline("text-generation", str(FIXTURES / "demo-llama"), device="cpu", dtype=torch.float32)
generate.tokenizer.chat_template = TEMPLATE
lines = []
for name, inputs, options in CASES:
    torch.manual_seed(0)
    case = {"name": name, "inputs": inputs, "options": options}
    try:
        case["output"] = generate(inputs, **options)
    except (TypeError, ValueError) as error:
        case["error"] = type(error).__name__
    lines.append(json.dumps(case))
out = FIXTURES / "pipelines/text_generation.json"
out.parent.mkdir(exist_ok=True)
out.write_text('{"chat_template": ' + json.dumps(TEMPLATE) + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")

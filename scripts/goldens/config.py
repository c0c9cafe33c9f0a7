"""Writes test/fixtures/configuration/golden.json: what Python transformers makes of configurations, and the bytes it saves.

    python scripts/goldens/config.py

Each case has the text of a config.json (`file`), the class, and what the reference saves after reading it (`saved`), or
the class of its error (`error`). `kwargs` cases go through the constructor instead; floats in them are written 1.0, so
that the reader of this file knows them. `plain` holds pairs of text and what json.dumps(indent=2, sort_keys=True) gives.
"""

import json
import pathlib
import tempfile
import warnings

from transformers import AutoConfig, GenerationConfig, LlamaConfig
from transformers.utils import logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
OUT = pathlib.Path(__file__).parents[2] / "test" / "fixtures" / "configuration"

SMALL = '"hidden_size": 64, "num_attention_heads": 4, "model_type": "llama"'
LLAMA3 = '"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024'

LLAMA_FILES = {
    "default": '{"model_type": "llama"}',
    "older names": f'{{{SMALL}, "torch_dtype": "float16", "rope_theta": 500000.0, "rope_scaling": null}}',
    "whole theta": f'{{{SMALL}, "rope_theta": 500000}}',
    "theta beside type": f'{{{SMALL}, "rope_theta": 1000000, "rope_scaling": {{"type": "linear", "factor": 4}}}}',
    "linear": f'{{{SMALL}, "rope_scaling": {{"rope_type": "linear", "factor": 2.0}}}}',
    "dynamic": f'{{{SMALL}, "rope_parameters": {{"rope_type": "dynamic", "factor": 3.5, "rope_theta": 10000.0}}}}',
    "yarn": f'{{{SMALL}, "rope_scaling": {{"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "truncate": false}}}}',
    "llama3": f'{{{SMALL}, "rope_theta": 500000.0, "rope_scaling": {{"rope_type": "llama3", {LLAMA3}}}}}',
    "longrope": f'{{{SMALL}, "rope_scaling": {{"rope_type": "longrope", "short_factor": [1.0, 1, 1.5, 2.0, 2, 3, 3.5, 4.0], "long_factor": [1.0, 2.0, 3, 4, 5, 6, 7, 8.25], "factor": 2.0, "original_max_position_embeddings": 512}}}}',
    "proportional": f'{{{SMALL}, "rope_parameters": {{"rope_type": "proportional", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}}}',
    "partial": f'{{{SMALL}, "partial_rotary_factor": 0.5, "rope_theta": 10000.0}}',
    "unknown rope type": f'{{{SMALL}, "rope_parameters": {{"rope_type": "spiral", "rope_theta": 10000.0}}}}',
    "llama3 lacks": f'{{{SMALL}, "rope_scaling": {{"rope_type": "llama3", "factor": 8.0}}}}',
    "linear lacks": f'{{{SMALL}, "rope_scaling": {{"type": "linear"}}}}',
    "odd width": f'{{{SMALL}, "head_dim": 15}}',
    "labels": f'{{{SMALL}, "id2label": {{{", ".join(f"{chr(34)}{i}{chr(34)}: {chr(34)}L{i}{chr(34)}" for i in range(12))}}}, "label2id": {{{", ".join(f"{chr(34)}L{i}{chr(34)}: {i}" for i in range(12))}}}}}',
    "num_labels": f'{{{SMALL}, "num_labels": 3}}',
    "two labels": f'{{{SMALL}, "id2label": {{"0": "LABEL_0", "1": "LABEL_1"}}, "label2id": {{"LABEL_0": 0, "LABEL_1": 1}}}}',
    "one label": f'{{{SMALL}, "num_labels": 1, "problem_type": "regression"}}',
    "one class": f'{{{SMALL}, "num_labels": 1, "problem_type": "single_label_classification"}}',
    "dropout int": f'{{{SMALL}, "attention_dropout": 0, "initializer_range": 1.0}}',
    "float for int": f'{{{SMALL}, "num_hidden_layers": 2.0}}',
    "bool for int": f'{{{SMALL}, "num_hidden_layers": true}}',
    "string for bool": f'{{{SMALL}, "use_cache": "yes"}}',
    "range": f'{{{SMALL}, "initializer_range": 1.5}}',
    "unknown dtype": f'{{{SMALL}, "dtype": "float33"}}',
    "eos list": f'{{{SMALL}, "eos_token_id": [1, 2], "pad_token_id": 0, "bos_token_id": null}}',
    "unknown fields": f'{{{SMALL}, "a_float": 30.0, "an_int": 30, "tiny": 1e-5, "big": 12345678901234567890123, "e": 1E5, "minus": -0.0, "nested": {{"x": [1.0, 2, {{"y": 3.0}}]}}, "text": "caf\\u00e9 \\ud83d\\ude00 \\u007f", "empty": {{}}, "none": []}}',
    "not finite": f'{{{SMALL}, "a": NaN, "b": [Infinity, -Infinity], "c": {{"__float__": "Infinity"}}, "d": {{"__float__": "other"}}}}',
    "duplicate": f'{{{SMALL}, "vocab_size": 5, "vocab_size": 7}}',
    "generation parameters": f'{{{SMALL}, "max_length": 50, "temperature": 0.5, "use_cache": false}}',
    "private": f'{{{SMALL}, "_attn_implementation_internal": "evil/kernel", "_commit_hash": "abc", "_name_or_path": "there"}}',
    "layer types": f'{{{SMALL}, "num_hidden_layers": 2, "layer_types": ["attention", "sliding_attention"]}}',
    "layer types wrong": f'{{{SMALL}, "num_hidden_layers": 2, "layer_types": ["full_attention"]}}',
    "outputs": f'{{{SMALL}, "output_attentions": true, "output_hidden_states": true, "return_dict": false, "is_encoder_decoder": true}}',
    "quantized": f'{{{SMALL}, "quantization_config": {{"bits": 4, "scale": 2.0}}}}',
    "auto map": f'{{{SMALL}, "auto_map": {{"AutoConfig": "evil.Evil"}}, "architectures": ["LlamaForCausalLM"]}}',
}

LLAMA_KWARGS = {
    "defaults": {},
    "small": {"hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2, "rms_norm_eps": 1.0, "vocab_size": 99},
    "theta": {"rope_theta": 500000.0},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 1.0}},
    "dtype": {"dtype": "bfloat16", "head_dim": 32, "tie_word_embeddings": True},
    "labels": {"num_labels": 11, "problem_type": "multi_label_classification"},
    "indivisible": {"hidden_size": 8, "num_attention_heads": 3},
    "wrong type": {"hidden_size": "eight"},
}

GENERATION_FILES = {
    "empty": "{}",
    "sampling": '{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "eos_token_id": [1, 2], "pad_token_id": 0}',
    "whole numbers": '{"do_sample": true, "temperature": 1, "top_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 2, "num_beams": 4}',
    "from model": '{"_from_model_config": true, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.31.0"}',
    "unknown": '{"custom": {"b": 1.0, "a": 2}, "max_length": 4096}',
    "lists": '{"suppress_tokens": [1, 2], "bad_words_ids": [[3], [4, 5]], "forced_eos_token_id": [7], "stop_strings": ["a", "\\u00e9"]}',
    "digit keys": '{"table": {"10": 1, "9": 2}, "x": NaN}',
    "watermark": '{"watermarking_config": {"bias": 2.5, "seeding_scheme": "selfhash"}}',
    "bad cache": '{"cache_implementation": "magic"}',
    "no tokens": '{"max_new_tokens": 0}',
    "too many": '{"num_beams": 2, "num_return_sequences": 3}',
    "greedy many": '{"num_return_sequences": 3}',
    "early": '{"early_stopping": "always"}',
    "suppressed": '{"suppress_tokens": [1, 2], "forced_eos_token_id": 2}',
}

FROM_MODEL = {
    "llama": '{"model_type": "llama", "max_length": 50, "temperature": 0.5, "bos_token_id": 1, "eos_token_id": [2, 3], "output_hidden_states": true}',
    "decoder": '{"bos_token_id": 5, "text_config": {"eos_token_id": 9, "bos_token_id": 6, "length_penalty": 2.0}}',
}

PLAIN = [
    "[1, 1.0, -0, -0.0, 1e5, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5, 0.1, 1.5e300, 5e-324, 12345678901234567890]",
    '{"b": 1, "a": {}, "\\u00e9": [], "\\ud83d\\ude00": "\\ud800", "\\uffff": "\\"\\\\\\n\\t\\r\\b\\f\\u0001/"}',
    '{"10": 1, "9": 2, "": null, "x": [true, false, NaN, Infinity, -Infinity]}',
    "[3.0]",
    ' [ [ ] , { } ] ',
    '{"a": 1, "a": 2.0}',
    "[0.30000000000000004, 100, 1E400, 2e22, 1e22, 9007199254740993, 9007199254740993.0]",
]


def saved_by(make, name):
    with tempfile.TemporaryDirectory() as folder:
        try:
            make().save_pretrained(folder)
        except Exception as error:
            return {"error": type(error).__name__}
        return {"saved": (pathlib.Path(folder) / name).read_text()}


def from_file(cls, name, text, **options):
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / name).write_text(text)
        return saved_by(lambda: cls.from_pretrained(folder, **options), name)


golden = {
    "llama_files": [{"name": k, "file": v, **from_file(AutoConfig, "config.json", v)} for k, v in LLAMA_FILES.items()],
    "llama_kwargs": [
        {"name": k, "kwargs": v, **saved_by(lambda: LlamaConfig(**v), "config.json")} for k, v in LLAMA_KWARGS.items()
    ],
    "generation_files": [
        {"name": k, "file": v, **from_file(GenerationConfig, "generation_config.json", v)} for k, v in GENERATION_FILES.items()
    ],
    "from_model": [
        {"name": k, "file": v, **saved_by(lambda: GenerationConfig.from_model_config(json.loads(v)), "generation_config.json")}
        for k, v in FROM_MODEL.items()
    ],
    "full": {
        "llama": LlamaConfig().to_json_string(use_diff=False),
        "generation": GenerationConfig().to_json_string(use_diff=False),
    },
    "plain": [[text, json.dumps(json.loads(text), indent=2, sort_keys=True)] for text in PLAIN],
}

OUT.mkdir(parents=True, exist_ok=True)
lines = ["{"]
for section, cases in golden.items():
    rows = cases if isinstance(cases, list) else [cases]
    body = ",\n".join("  " + json.dumps(row) for row in rows)
    lines.append(f' {json.dumps(section)}: ' + (f"[\n{body}\n ]" if isinstance(cases, list) else body.strip()) + ("," if section != "plain" else ""))
lines.append("}")
(OUT / "golden.json").write_text("\n".join(lines) + "\n")

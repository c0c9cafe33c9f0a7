"""Numbers of the Python reference that the tests of lib/modeling compare with.

    python scripts/goldens/modeling.py test/fixtures/modeling

Needs transformers 5.23.0 and torch 2.11.0. Writes cases.json (what was done) and golden.safetensors (what came out),
and checkpoints as the reference saves them.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.activations import ACT2CLS, ACT2FN
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_chunked_causal_mask,
    create_sliding_window_causal_mask,
)
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaForTokenClassification

out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)
tensors, cases = {}, {}

TINY = dict(
    vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, pad_token_id=1, bos_token_id=0, eos_token_id=2,
)


def store(prefix, values):
    for name, value in values.items():
        tensors[f"{prefix}/{name}"] = value.detach().clone().contiguous()


# Weights of a fresh model for a seed, tied and with biases too.
cases["seeded"] = []
for name, cls, more, seed in [
    ("causal", LlamaForCausalLM, {}, 0),
    ("tied", LlamaForCausalLM, dict(tie_word_embeddings=True), 7),
    ("biased", LlamaForCausalLM, dict(attention_bias=True, mlp_bias=True, initializer_range=0.3), 11),
    ("sequence", LlamaForSequenceClassification, dict(num_labels=3), 5),
    ("tokens", LlamaForTokenClassification, dict(num_labels=4), 6),
]:
    torch.manual_seed(seed)
    model = cls(LlamaConfig(**TINY, **more))
    store(f"seeded.{name}", model.state_dict())
    cases["seeded"].append(dict(name=name, **{"class": cls.__name__}, config={**TINY, **more}, seed=seed, after=torch.rand(1).item()))

# Rotary kinds: logits of a seeded model with large weights, below and beyond the original length.
cases["rope"] = []
dim = 4
for name, rope in {
    "linear": dict(rope_type="linear", factor=3.0, rope_theta=10000.0),
    "dynamic": dict(rope_type="dynamic", factor=2.5, rope_theta=10000.0),
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8, rope_theta=10000.0),
    "yarn_all": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8, rope_theta=500.0, beta_fast=16.0,
                     beta_slow=2.0, mscale=0.8, mscale_all_dim=0.6, truncate=False),
    "longrope": dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=8, rope_theta=10000.0,
                     short_factor=[1.0, 1.5], long_factor=[2.0, 5.0]),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=16, rope_theta=50.0),
    "proportional": dict(rope_type="proportional", partial_rotary_factor=0.5, rope_theta=10000.0),
}.items():
    config = LlamaConfig(**TINY, initializer_range=0.5, rope_parameters=rope)
    torch.manual_seed(3)
    model = LlamaForCausalLM(config).eval()
    torch.manual_seed(4)
    ids = torch.randint(3, 48, (2, 40))
    with torch.no_grad():
        store(f"rope.{name}", {"short": model(ids[:, :6]).logits, "long": model(ids).logits,
                               "inv_freq": model.model.rotary_emb.original_inv_freq})
    cases["rope"].append(dict(name=name, config={**TINY, "initializer_range": 0.5, "rope_parameters": rope}, attention_scaling=model.model.rotary_emb.attention_scaling))
store("rope", {"ids": ids})

# Packed sequences: positions that start over, without cache.
torch.manual_seed(3)
model = LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.5)).eval()
positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
with torch.no_grad():
    store("packed", {"ids": ids[:, :10], "positions": positions,
                     "logits": model(ids[:, :10], position_ids=positions, use_cache=False).logits})

# Resizing the vocabulary, with and without drawing around the mean.
cases["resize"] = []
for name, more, arguments in [
    ("grow", dict(initializer_range=0.5), dict(new_num_tokens=53)),
    ("grow_tied", dict(initializer_range=0.5, tie_word_embeddings=True), dict(new_num_tokens=50, pad_to_multiple_of=16)),
    ("grow_plain", {}, dict(new_num_tokens=50, mean_resizing=False)),
    ("shrink", {}, dict(new_num_tokens=40)),
]:
    torch.manual_seed(9)
    model = LlamaForCausalLM(LlamaConfig(**TINY, **more))
    model.resize_token_embeddings(**arguments)
    store(f"resize.{name}", {k: v for k, v in model.state_dict().items() if "embed" in k or "lm_head" in k})
    cases["resize"].append(dict(name=name, config={**TINY, **more}, arguments=arguments, vocab_size=model.config.vocab_size, after=torch.rand(1).item()))

# Sampling with a seed.
cases["sample"] = []
torch.manual_seed(3)
model = LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.3)).eval()
prompt = torch.tensor([[5, 6, 7, 8], [1, 1, 9, 10]])
mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
store("sample", {"ids": prompt, "mask": mask})
for i, options in enumerate([
    dict(do_sample=True, max_new_tokens=12),
    dict(do_sample=True, max_new_tokens=12, temperature=0.7, top_k=8),
    dict(do_sample=True, max_new_tokens=12, top_k=0, top_p=0.8),
    dict(do_sample=True, max_new_tokens=12, top_k=0, min_p=0.1, repetition_penalty=1.3),
    dict(do_sample=True, max_new_tokens=12, typical_p=0.7, no_repeat_ngram_size=2),
    dict(do_sample=True, max_new_tokens=12, epsilon_cutoff=0.01, eta_cutoff=0.02, temperature=1.5),
    dict(do_sample=True, max_new_tokens=8, num_return_sequences=3),
    dict(do_sample=True, max_new_tokens=12, cache_implementation="static"),
    dict(do_sample=True, max_new_tokens=12, use_cache=False),
]):
    torch.manual_seed(21 + i)
    sequences = model.generate(prompt, attention_mask=mask, **options)
    cases["sample"].append(dict(options=options, seed=21 + i, sequences=sequences.tolist(), after=torch.rand(1).item()))

# Guidance, with and without a negative prompt.
cases["guidance"] = []
for options, negative in [(dict(guidance_scale=1.8), None), (dict(guidance_scale=2.5), [[9, 8, 7], [6, 5, 4]]), (dict(guidance_scale=1.8, use_cache=False), [[9], [8]])]:
    kwargs = {} if negative is None else dict(negative_prompt_ids=torch.tensor(negative))
    sequences = model.generate(prompt, attention_mask=mask, max_new_tokens=10, **options, **kwargs)
    cases["guidance"].append(dict(options=options, negative=negative, sequences=sequences.tolist()))

# Activations by name.
x = torch.linspace(-12, 12, 97)
store("activation", {"x": x, **{name: ACT2FN[name](x) for name in ACT2CLS if name not in ("prelu", "xielu")}})

# Masks: queries, keys in the cache, padding, window or chunk. 1 = may be seen.
cases["mask"] = []
padding = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1]])
store("mask", {"padding": padding})
for kind, create in dict(
    causal=create_causal_mask, bidirectional=create_bidirectional_mask, sliding=create_sliding_window_causal_mask,
    bidirectional_sliding=create_bidirectional_sliding_window_mask, chunked=create_chunked_causal_mask,
).items():
    for past, queries in [(0, 9), (5, 4), (8, 1)]:
        if past and "bidirectional" in kind:
            continue
        for padded in [True, False]:
            config = LlamaConfig(**TINY)
            config._attn_implementation = "eager"
            config.sliding_window = 3 if "sliding" in kind else None
            config.attention_chunk_size = 4 if kind == "chunked" else None
            cache = DynamicCache(config=config) if past else None
            if past:
                for layer in range(2):
                    cache.update(torch.zeros(2, 2, past, 4), torch.zeros(2, 2, past, 4), layer)
            mask = create(config=config, inputs_embeds=torch.zeros(2, queries, 16), attention_mask=padding if padded else None, past_key_values=cache)
            name = f"{kind}.{past}.{queries}.{padded}"
            cases["mask"].append(dict(name=name, kind=kind, past=past, queries=queries, padded=padded, none=mask is None))
            if mask is not None:
                store("mask", {name: (mask == 0).expand(2, -1, -1, -1)})

# Losses of a sequence classifier that the fixtures do not have.
torch.manual_seed(12)
pooled, numbers = torch.randn(3, 2), torch.randn(3, 2)
config = LlamaConfig(**TINY, num_labels=2, problem_type="regression")
store("regression", {"logits": pooled, "labels": numbers, "loss": ForSequenceClassificationLoss(numbers, pooled, config)})
config = LlamaConfig(**TINY, num_labels=1)
store("regression", {"loss1": ForSequenceClassificationLoss(numbers[:, :1], pooled[:, :1], config)})

# Files as the reference writes them.
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(**TINY))
model.save_pretrained(out / "saved")
model.save_pretrained(out / "saved-sharded", max_shard_size="5KB")
LlamaForCausalLM.from_pretrained(out / "saved").save_pretrained(out / "saved-again", max_shard_size="5KB")
torch.manual_seed(7)
LlamaForCausalLM(LlamaConfig(**TINY, tie_word_embeddings=True)).bfloat16().save_pretrained(out / "saved-tied")

save_file(tensors, out / "golden.safetensors")
(out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")

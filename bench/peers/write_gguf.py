# Writes a folder's Llama as BF16 GGUF: `write_gguf.py FOLDER OUT`. llama.cpp turns neighbouring elements, not halves, so the rows
# of queries and keys are permuted.
import sys, json, gguf, torch, numpy as np
from safetensors import safe_open
folder, out = sys.argv[1:]
c = json.load(open(folder + "/config.json"))
w = gguf.GGUFWriter(out, "llama")
w.add_context_length(c["max_position_embeddings"])
w.add_embedding_length(c["hidden_size"])
w.add_block_count(c["num_hidden_layers"])
w.add_feed_forward_length(c["intermediate_size"])
w.add_head_count(c["num_attention_heads"])
w.add_head_count_kv(c["num_key_value_heads"])
w.add_rope_freq_base(10000.0)
w.add_layer_norm_rms_eps(c["rms_norm_eps"])
w.add_vocab_size(c["vocab_size"])
w.add_rope_dimension_count(c["hidden_size"] // c["num_attention_heads"])
n = c["vocab_size"] - 259
w.add_tokenizer_model("llama")
w.add_token_list([b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)] + [b"t%d" % i for i in range(n)])
w.add_token_scores([0.0] * 259 + [-float(i) for i in range(n)])
w.add_token_types([2, 3, 3] + [6] * 256 + [1] * n)
w.add_bos_token_id(1)
w.add_eos_token_id(2)
tops = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
turn = lambda t, h: t.reshape(h, 2, t.shape[0] // h // 2, t.shape[1]).swapaxes(1, 2).reshape(t.shape)
with safe_open(folder + "/model.safetensors", "pt") as f:
    for k in f.keys():
        t, p = f.get_tensor(k), k.split(".")
        name = tops.get(k) or f"blk.{p[2]}.{parts['.'.join(p[3:-1])]}.weight"
        if "q_proj" in k: t = turn(t, c["num_attention_heads"])
        if "k_proj" in k: t = turn(t, c["num_key_value_heads"])
        if t.ndim == 1: w.add_tensor(name, t.float().numpy())
        else: w.add_tensor(name, t.contiguous().view(torch.uint16).numpy().view(np.uint8).reshape(t.shape[0], -1), raw_dtype=gguf.GGMLQuantizationType.BF16)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

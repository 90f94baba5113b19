#!/usr/bin/env python3
"""Writes a tiny Llama as GGUF, with what a reader must make of it.

Input: a Hugging Face folder with a small Llama in f32 (see make_tiny_models.py). Output: model.gguf (Q8_0, Q4_1, F16,
BF16 and F32 tensors, q and k rows in llama.cpp's order, a byte-level BPE vocabulary), config.json, tokenizer.json and
tensors.json (SHA-256 of each tensor as little-endian f32 in Hugging Face order, dequantized by gguf-py).

Requirements: pip install gguf==0.19.0 numpy
Usage:        python make_gguf.py TINY_LLAMA ../../tests/fixtures/models/gguf-llama
"""
import hashlib, json, pathlib, struct, sys

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter
from gguf.quants import dequantize, quantize

from fetch_model import unpermute

BLOCK = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TYPES = {"attn_q": T.Q4_1, "attn_k": T.Q8_0, "attn_v": T.F16, "attn_output": T.BF16, "ffn_gate": T.Q4_1,
         "ffn_up": T.Q8_0, "ffn_down": T.Q4_1, "token_embd": T.Q8_0, "output": T.F16}


def load(path):
    blob = path.read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    header.pop("__metadata__", None)
    return {name: np.frombuffer(blob[8 + size:], "<f4", int(np.prod(info["shape"])), info["data_offsets"][0])
            .reshape(info["shape"]) for name, info in header.items()}


def permute(weights, heads):
    """Hugging Face row order (halves) -> llama.cpp's (interleaved rope pairs)."""
    rows = weights.shape[0]
    return weights.reshape(heads, 2, rows // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return TOP[stem]
    _, _, layer, module = stem.split(".", 3)
    return f"blk.{layer}.{BLOCK[module]}"


def vocabulary(size):
    """Control tokens, one user-defined, the printable bytes in GPT-2's alphabet, and tokens made by merges."""
    alphabet = [chr(b) for b in range(33, 127)] + ["\u0120", "\u010a"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u0120", "w"), ("\u0120w", "o"), ("o", "r")]
    tokens = ["<|endoftext|>", "<|start|>", "<|end|>", "<tool>"] + alphabet + ["".join(pair) for pair in merges]
    types = [3, 3, 3, 4] + [1] * (len(tokens) - 4)
    for i in range(len(tokens), size):
        tokens.append(f"[PAD{i}]")
        types.append(5)
    return tokens, types, merges


def dump(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config_v4.json").read_text())
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    tokens, types, merges = vocabulary(config["vocab_size"])
    writer = GGUFWriter(out / "model.gguf", "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    for key, token in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{key}_token_id")(token)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")

    digests = {}
    for name, weights in load(source / "model.safetensors").items():
        stem = gguf_name(name)
        part = stem.split(".")[-1]
        turned = {"attn_q": heads, "attn_k": kv}.get(part)
        stored = permute(weights, turned) if turned else weights
        ty = TYPES.get(part, T.F32)
        data = np.ascontiguousarray(quantize(np.ascontiguousarray(stored), ty))
        writer.add_tensor(f"{stem}.weight", data, raw_dtype=ty)
        back = dequantize(data, ty).reshape(weights.shape).astype("<f4")
        back = unpermute(back, turned) if turned else back
        assert np.abs(back - weights).max() < 0.2 * max(1.0, np.abs(weights).max()), name
        digests[name] = {"shape": list(weights.shape), "type": ty.name,
                         "sha256": hashlib.sha256(np.ascontiguousarray(back).tobytes()).hexdigest()}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    dump(out / "tensors.json", digests)
    dump(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
        "attention_dropout": 0.0, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "head_dim": config["hidden_size"] // heads, "hidden_act": "silu", "hidden_size": config["hidden_size"],
        "initializer_range": 0.02, "intermediate_size": config["intermediate_size"],
        "max_position_embeddings": config["max_position_embeddings"], "num_attention_heads": heads,
        "num_hidden_layers": config["num_hidden_layers"], "num_key_value_heads": kv, "pretraining_tp": 1,
        "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000, "tie_word_embeddings": False,
        "torch_dtype": "float32", "use_cache": True, "vocab_size": config["vocab_size"]})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": types[i] == 3} for i in range(4)]
    dump(out / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None, "decoder": dict(level, add_prefix_space=True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [list(pair) for pair in merges]}})
    print({path.name: path.stat().st_size for path in out.iterdir()})


if __name__ == "__main__":
    main()

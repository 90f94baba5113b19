"""Makes a model of TinyLlama's shape (1.1 B parameters) with random weights, as a Hugging Face folder in bf16.

There is no tokenizer: training takes token ids, and speed does not depend on what the weights are.
"""
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
    vocab_size=32000, max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=False)
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])

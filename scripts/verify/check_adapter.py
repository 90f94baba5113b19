#!/usr/bin/env python3
"""Loads an adapter with peft and compares its logits with ours.

  seedcorn eval BASE --adapter ADAPTER --data tokens.jsonl --format tokens --logits logits.safetensors
  python check_adapter.py BASE ADAPTER --tokens tokens.jsonl --logits logits.safetensors

BASE is a folder in Hugging Face layout. Exit status: 0 equal within the tolerance, 1 not, 2 wrong usage.
"""

import os
import sys

from compare import arguments, compare

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def load(base, adapter):
    """Base with adapter, after making sure that peft took every tensor of the file."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, adapter)
    stored = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    loaded = get_peft_model_state_dict(model)
    # peft leaves its initial values in place of a tensor it does not find, and only warns.
    odd = sorted(set(stored) ^ set(loaded))
    odd += sorted(name for name in set(stored) & set(loaded) if not torch.equal(stored[name].float(), loaded[name].float()))
    if odd:
        print(f"error: peft did not load {len(odd)} tensors as stored, first `{odd[0]}`", file=sys.stderr)
        sys.exit(1)
    print(f"peft loaded {len(stored)} tensors")
    return model


if __name__ == "__main__":
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("base", help="base model folder")
    parser.add_argument("adapter", help="adapter folder")
    args = parser.parse_args()
    compare(load(args.base, args.adapter), args)

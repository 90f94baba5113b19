#!/usr/bin/env python3
"""Loads a merged model with transformers and compares its logits with ours.

  seedcorn eval MERGED --data tokens.jsonl --format tokens --logits logits.safetensors
  python check_merged.py MERGED --tokens tokens.jsonl --logits logits.safetensors

Logits of base and adapter (`eval BASE --adapter ADAPTER`) serve as well when the merge is in f32.
Exit status: 0 equal within the tolerance, 1 not, 2 wrong usage.
"""

import sys

from compare import arguments, compare

import torch
from transformers import AutoModelForCausalLM


def load(folder):
    """The model, after making sure that every weight came from the files."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    odd = {what: sorted(map(str, names)) for what, names in report.items() if names}
    if odd:
        print(f"error: transformers did not load `{folder}` cleanly: {odd}", file=sys.stderr)
        sys.exit(1)
    print(f"transformers loaded {sum(1 for _ in model.state_dict())} tensors")
    return model


if __name__ == "__main__":
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("merged", help="merged model folder")
    args = parser.parse_args()
    compare(load(args.merged), args)

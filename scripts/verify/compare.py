"""Compares logits written by `seedcorn eval --logits` with those of a transformers model."""

import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors import safe_open


def arguments(description):
    """The arguments both checks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tokens", required=True, help="jsonl with `input_ids`, as given to `seedcorn eval --data`")
    parser.add_argument("--logits", required=True, help="safetensors written by `seedcorn eval --logits`")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest |difference| allowed (default 1e-3)")
    return parser


def read_samples(path):
    """The token ids of each line, in file order."""
    with open(path, encoding="utf-8") as file:
        samples = [json.loads(line)["input_ids"] for line in file if line.strip()]
    if not samples:
        sys.exit(f"error: `{path}` has no sample")
    return samples


@torch.no_grad()
def compare(model, args):
    """Prints the difference of each sample; ends the process with 1 above the tolerance."""
    samples = read_samples(args.tokens)
    model = model.to(torch.float32).eval()
    worst = 0.0
    with safe_open(args.logits, framework="pt") as ours:
        expected = {f"logits.{index}" for index in range(len(samples))}
        if set(ours.keys()) != expected:
            odd = sorted(set(ours.keys()) ^ expected)
            sys.exit(f"error: `{args.logits}` and `{args.tokens}` differ in {len(odd)} samples, first `{odd[0]}`")
        for index, ids in enumerate(samples):
            mine = ours.get_tensor(f"logits.{index}")
            theirs = model(input_ids=torch.tensor([ids])).logits[0]
            if mine.shape != theirs.shape:
                sys.exit(f"error: `logits.{index}` is {list(mine.shape)}, expected {list(theirs.shape)}")
            difference = (mine.to(torch.float64) - theirs.to(torch.float64)).abs()
            # A NaN on either side must not pass as a small difference.
            largest = difference.max().item() if torch.isfinite(difference).all() else float("inf")
            same = (mine.argmax(-1) == theirs.argmax(-1)).float().mean().item()
            print(f"sample {index}: {len(ids)} tokens, max |difference| {largest:.3e}, same best token {same:.1%}")
            worst = max(worst, largest)
    print(f"max |difference| {worst:.3e}, tolerance {args.tolerance:.1e}, {len(samples)} samples")
    if not worst <= args.tolerance:
        print("error: the logits differ by more than the tolerance", file=sys.stderr)
        sys.exit(1)

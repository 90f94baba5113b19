#!/usr/bin/env python3
"""Train the same recipe on the CPU and on a device, and compare losses and adapters.

    check_device.py SEEDCORN [RECIPE] [--device wgpu] [--cpu SEEDCORN] [--set key=value ...] [--base FOLDER]
                    [--work DIR] [--loss 1e-2] [--logits 1e-2]

SEEDCORN is built with the device's feature; `--cpu` names another build for the CPU's run. Without `--set`, ten steps of
up to 128 tokens in f32 are trained: of the quickstart's model, SmolLM2-135M in NF4, unless RECIPE says otherwise. Prints
each step's losses and exits 1 where one is further off than `--loss`, relative to the CPU's.

With `--base`, the model in Hugging Face layout, both adapters are loaded with peft on top of it, and the logits of two
samples must agree within `--logits` of the largest. That needs torch, transformers, peft and safetensors
(`scripts/verify/setup.sh`); without `--base` the standard library does.
"""
import argparse, os, pathlib, random, sys, tempfile

from training import train

# Mesa's choice among a screen's devices, which writes to stderr where there is no screen.
os.environ.setdefault("NODEVICE_SELECT", "1")

TEN_STEPS = [
    "model.compute=f32", "data.max_length=128", "data.eval_count=2", "log.sample=false", "train.steps=10",
    "train.batch_size=1", "train.micro_batch=1", "schedule.warmup_steps=2", "checkpoint.every_steps=0",
]
QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "recipes" / "quickstart" / "recipe.toml"

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn")
parser.add_argument("recipe", nargs="?", default=str(QUICKSTART))
parser.add_argument("--device", default="wgpu")
parser.add_argument("--cpu", default=None)
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--base", default=None)
parser.add_argument("--work", default=None)
parser.add_argument("--loss", type=float, default=1e-2)
parser.add_argument("--logits", type=float, default=1e-2)


def compare_losses(here, there):
    """Prints the losses of both runs; returns how far the worst is off."""
    worst = 0.0
    for mine, other in zip(here, there, strict=True):
        assert mine["step"] == other["step"]
        for key in ("loss", "eval_loss", "grad_norm"):
            if key in mine:
                off = abs(other[key] / mine[key] - 1)
                print(f"step {mine['step']:3}  {key:9}  {mine[key]:.6f}  {other[key]:.6f}  off by {off:.1e}")
                # A gradient's norm is shown; what is bounded are losses. NaN is above every bound.
                worst = worst if key == "grad_norm" else max(worst, off if off == off else float("inf"))
    return worst


def compare_logits(base, adapters):
    """Loads both adapters with peft; returns how far logits are off beside the largest."""
    import torch
    from check_adapter import load

    draw = random.Random(7)
    samples, found = None, []

    def logits():
        with torch.no_grad():
            return torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids in samples]).double()

    for adapter in adapters:
        model = load(base, adapter).eval()
        samples = samples or [[draw.randrange(model.config.vocab_size) for _ in range(64)] for _ in range(2)]
        found.append(logits())
    with model.disable_adapter():
        bare = logits()
    here, there = found
    largest = here.abs().max().item()
    off = (here - there).abs().max().item() / largest
    moved = (here - bare).abs().max().item() / largest
    same = (here.argmax(-1) == there.argmax(-1)).float().mean().item()
    print(f"logits in peft: off by {off:.1e} of the largest, {largest:.1f}; the adapter itself moves them by {moved:.1e}; "
          f"same best token {same:.1%}")
    return off if off == off else float("inf")


def main():
    """Trains twice and compares."""
    args = parser.parse_args()
    settings = args.set or TEN_STEPS
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        runs = {}
        for device in ("cpu", args.device):
            output = pathlib.Path(work) / device.replace(":", "-")
            seedcorn = args.cpu if args.cpu and device == "cpu" else args.seedcorn
            rows, file, _, memory = train(seedcorn, args.recipe, [*settings, f"device={device}"], output)
            seconds = sum(row.get("seconds", 0) for row in rows)
            print(f"{device}: {seconds:.0f} s in steps, largest memory of the process {memory:.0f} MB", flush=True)
            runs[device] = rows, file.parent
        (here, cpu), (there, device) = runs["cpu"], runs[args.device]
        loss = compare_losses(here, there)
        logits = compare_logits(args.base, [cpu, device]) if args.base else 0.0
    print(f"losses within {loss:.1e}, bound {args.loss:.0e}"
          + (f"; logits within {logits:.1e}, bound {args.logits:.0e}" if args.base else ""))
    if not (loss <= args.loss and logits <= args.logits):
        sys.exit("error: the device is further off than the bound")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Kill a training run at random moments, resume it, and compare the adapter with an undisturbed run.

    kill_resume.py SEEDCORN RECIPE [--set key=value ...] [--kills 20] [--seed 0] [--work DIR]

Runs `SEEDCORN train RECIPE` once undisturbed, then `--kills` times: start, SIGKILL after a random part of the
undisturbed run's time, resume until done. Prints the sha256 of each adapter; exits 1 if one differs.
The recipe must save checkpoints; `checkpoint.every_steps` 1 makes most moments count.
"""
import argparse, hashlib, pathlib, random, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn")
parser.add_argument("recipe")
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--work", default=None)
args = parser.parse_args()


def command(output, resume=False):
    overrides = args.set + [f"output={output}"]
    flags = [part for override in overrides for part in ("--set", override)]
    return [args.seedcorn, "--quiet", "train", args.recipe, *flags] + (["--resume"] if resume else [])


def digest(output):
    return hashlib.sha256((output / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


with tempfile.TemporaryDirectory(dir=args.work) as work:
    work, draw = pathlib.Path(work), random.Random(args.seed)
    started = time.monotonic()
    subprocess.run(command(work / "whole"), check=True)
    seconds = time.monotonic() - started
    expected = digest(work / "whole")
    print(f"undisturbed: {expected} in {seconds:.1f} s")
    differ = 0
    for kill in range(args.kills):
        output, moment = work / f"kill-{kill}", draw.uniform(0.0, seconds)
        process = subprocess.Popen(command(output))
        time.sleep(moment)
        process.kill()
        died = process.wait() != 0
        saved = sorted(path.name for path in (output / "checkpoints").glob("step-*"))
        subprocess.run(command(output, resume=True), check=True)
        same = digest(output) == expected
        differ += not same
        last = saved[-1] if saved else "nothing"
        print(f"kill {kill + 1} after {moment:.2f} s ({'died' if died else 'was done'}, had {last}): "
              f"{'same' if same else 'DIFFERENT'}")
    print(f"{args.kills - differ} passed, {differ} failed")
    sys.exit(1 if differ else 0)

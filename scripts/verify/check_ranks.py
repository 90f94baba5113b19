#!/usr/bin/env python3
"""Train the same recipe on several numbers of ranks and compare the adapters, bit for bit.

    check_ranks.py SEEDCORN RECIPE [--set key=value ...] [--threads 1 2 4] [--mpi 2 4]
                   [--mpirun "mpirun --oversubscribe"] [--work DIR]

`--threads` are ranks as threads of one process, `--mpi` ranks as processes under `mpirun`, for which SEEDCORN must be
built with `--features mpi`. Prints the sha256 of each adapter and the median speed of its steps; exits 1 if one
differs from the first.
"""
import argparse, hashlib, json, pathlib, shlex, statistics, subprocess, sys, tempfile

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn")
parser.add_argument("recipe")
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--threads", type=int, nargs="*", default=[1, 2, 4])
parser.add_argument("--mpi", type=int, nargs="*", default=[2, 4])
parser.add_argument("--mpirun", default="mpirun --oversubscribe")
parser.add_argument("--work", default=None)
args = parser.parse_args()


def train(output, launch, overrides):
    flags = [part for override in args.set + overrides for part in ("--set", override)]
    subprocess.run([*launch, args.seedcorn, "--quiet", "train", args.recipe, *flags], check=True)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    losses = [(row.get("loss"), row.get("grad_norm"), row.get("eval_loss")) for row in rows]
    adapter = hashlib.sha256((output / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    return adapter, losses, statistics.median(speeds)


with tempfile.TemporaryDirectory(dir=args.work) as work:
    runs = [("threads", ranks, [], [f"parallel.data={ranks}"]) for ranks in args.threads]
    runs += [("mpi", ranks, shlex.split(args.mpirun) + ["-np", str(ranks)], []) for ranks in args.mpi]
    first, differ = None, 0
    for engine, ranks, launch, overrides in runs:
        output = pathlib.Path(work) / f"{engine}-{ranks}"
        adapter, losses, speed = train(output, launch, [*overrides, f"output={output}"])
        first = first or (adapter, losses)
        same = (adapter, losses) == first
        differ += not same
        print(f"{engine:8} {ranks:3} ranks  {adapter}  {speed:.0f} tokens/s  {'same' if same else 'DIFFERENT'}", flush=True)
    sys.exit(1 if differ else 0)

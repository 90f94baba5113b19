#!/usr/bin/env python3
"""Train the same recipe on several numbers of ranks and compare the adapters, bit for bit.

    check_ranks.py SEEDCORN RECIPE [--set key=value ...] [--threads 1 2 4] [--mpi 2 4]
                   [--shard-base] [--mpirun "mpirun --oversubscribe"] [--work DIR]

`--threads` are ranks as threads of one process, `--mpi` ranks as processes under `mpirun`, for which SEEDCORN must be
built with `--features mpi`. `--shard-base` runs several ranks once more with `parallel.shard_base`. Prints the sha256 of
each adapter, the median speed of its steps and the largest resident memory of a process; exits 1 if one differs from
the first.
"""
import argparse, pathlib, shlex, statistics, sys, tempfile

from training import train

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn")
parser.add_argument("recipe")
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--threads", type=int, nargs="*", default=[1, 2, 4])
parser.add_argument("--mpi", type=int, nargs="*", default=[2, 4])
parser.add_argument("--shard-base", action="store_true")
parser.add_argument("--mpirun", default="mpirun --oversubscribe")
parser.add_argument("--work", default=None)
args = parser.parse_args()


with tempfile.TemporaryDirectory(dir=args.work) as work:
    meshes = [("threads", ranks, [], [f"parallel.data={ranks}"]) for ranks in args.threads]
    meshes += [("mpi", ranks, shlex.split(args.mpirun) + ["-np", str(ranks)], []) for ranks in args.mpi]
    runs = [(mesh, False) for mesh in meshes]
    runs += [(mesh, True) for mesh in meshes if args.shard_base and mesh[1] > 1]
    first, differ = None, 0
    for (engine, ranks, launch, overrides), shared in runs:
        output = pathlib.Path(work) / f"{engine}-{ranks}-{shared}"
        settings = [*args.set, *overrides, *(["parallel.shard_base=true"] if shared else [])]
        rows, _, adapter, memory = train(args.seedcorn, args.recipe, settings, output, launch)
        speed = statistics.median(row["tokens_per_second"] for row in rows if "tokens_per_second" in row)
        losses = [(row.get("loss"), row.get("grad_norm"), row.get("eval_loss")) for row in rows]
        first = first or (adapter, losses)
        same = (adapter, losses) == first
        differ += not same
        name = f"{engine:8} {ranks:3} ranks{' shard_base' if shared else '':11}"
        print(f"{name}  {adapter}  {speed:.0f} tokens/s  {memory:.0f} MB  {'same' if same else 'DIFFERENT'}", flush=True)
    sys.exit(1 if differ else 0)

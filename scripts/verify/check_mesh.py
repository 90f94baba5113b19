#!/usr/bin/env python3
"""Train the same recipe with the model cut among ranks, and compare losses and adapters with those of one rank.

    check_mesh.py SEEDCORN RECIPE [--set key=value ...] [--mesh 1x3 2x3] [--mpi 2x3]
                  [--mpirun "mpirun --oversubscribe"] [--work DIR] [--loss 1e-5] [--values 1e-4]

A mesh is `data`x`tensor`. `--mesh` runs ranks as threads of one process, `--mpi` as processes under `mpirun`, for which
SEEDCORN must be built with `--features mpi`. Prints, for each mesh, how far losses are off, relative to one rank, and how
far trained values are; exits 1 beyond the bounds, or where two runs of one `tensor` give other bits. Needs safetensors
and numpy.
"""
import argparse, pathlib, shlex, statistics, sys, tempfile

from safetensors.numpy import load_file

from training import train

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn")
parser.add_argument("recipe")
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--mesh", nargs="*", default=["1x3", "2x3"])
parser.add_argument("--mpi", nargs="*", default=[])
parser.add_argument("--mpirun", default="mpirun --oversubscribe")
parser.add_argument("--work", default=None)
parser.add_argument("--loss", type=float, default=1e-5)
parser.add_argument("--values", type=float, default=1e-4)
args = parser.parse_args()


with tempfile.TemporaryDirectory(dir=args.work) as work:
    runs = [("threads", "1x1")] + [("threads", mesh) for mesh in args.mesh] + [("mpi", mesh) for mesh in args.mpi]
    one, digests, bad = None, {}, 0
    for engine, mesh in runs:
        data, tensor = map(int, mesh.split("x"))
        output = pathlib.Path(work) / f"{engine}-{mesh}"
        settings = [*args.set, f"parallel.data={data}", f"parallel.tensor={tensor}"]
        launch = shlex.split(args.mpirun) + ["-np", str(data * tensor)] if engine == "mpi" else []
        rows, file, digest, memory = train(args.seedcorn, args.recipe, settings, output, launch)
        losses = [row[key] for row in rows for key in ("loss", "eval_loss") if key in row]
        seconds = statistics.median(row["seconds"] for row in rows if "seconds" in row)
        adapter = load_file(file)
        one = one or (losses, adapter)
        loss = max(abs(got / want - 1) for got, want in zip(losses, one[0], strict=True))
        assert adapter.keys() == one[1].keys()
        values = max(float(abs(adapter[name] - one[1][name]).max()) for name in adapter)
        same = digests.setdefault(tensor, digest) == digest
        good = loss <= args.loss and values <= args.values and same
        bad += not good
        verdict = "ok" if good else "TOO FAR" if same else "OTHER BITS"
        print(f"{engine:8} {mesh:>5}  losses within {loss:.1e}, trained values within {values:.1e}  {digest[:12]}  "
              f"{seconds:.1f} s a step, {memory:.0f} MB  {verdict}", flush=True)
    sys.exit(1 if bad else 0)

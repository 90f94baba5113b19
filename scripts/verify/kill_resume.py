#!/usr/bin/env python3
"""Kill a training run at random moments, resume it, and compare the adapter with an undisturbed run.

    kill_resume.py SEEDCORN RECIPE [--set key=value ...] [--kills 20] [--seed 0] [--work DIR]
                   [--ranks 1 ...] [--mpirun "mpirun --oversubscribe"] [--signal KILL]

Runs `SEEDCORN train RECIPE` once undisturbed, then `--kills` times: start, SIGKILL after a random part of the
undisturbed run's time, resume until done. Prints the sha256 of each adapter; exits 1 if one differs.
The recipe must save checkpoints; `checkpoint.every_steps` 1 makes most moments count.

`--ranks 2 4 1` starts and resumes with those numbers of ranks in turn, under `mpirun` where there are several (SEEDCORN
must be built with `--features mpi`), and kills one rank at random. The others must then end by themselves: within 10
seconds, or with `--signal STOP`, which makes the rank hang, within 45 seconds and with exit code 3.
"""
import argparse, hashlib, itertools, pathlib, random, shlex, shutil, signal, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn")
parser.add_argument("recipe")
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--work", default=None)
parser.add_argument("--ranks", type=int, nargs="+", default=[1])
parser.add_argument("--mpirun", default="mpirun --oversubscribe")
parser.add_argument("--signal", choices=["KILL", "STOP"], default="KILL")
args = parser.parse_args()
patience = 10 if args.signal == "KILL" else 45


def command(output, ranks, resume=False):
    overrides = args.set + [f"output={output}"]
    flags = [part for override in overrides for part in ("--set", override)]
    launch = shlex.split(args.mpirun) + ["-np", str(ranks)] if ranks > 1 else []
    train = [args.seedcorn, "--quiet", "train", args.recipe, *flags] + (["--resume"] if resume else [])
    return launch + train


def digest(output):
    return hashlib.sha256((output / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "train"], capture_output=True, text=True).stdout
    return [int(child) for child in found.split()]


def disturb(process, ranks):
    """Sends the signal to one rank. Returns how long the others took to end, or nothing if there was none to hit."""
    ours = [process.pid] if ranks == 1 else []
    while not ours and process.poll() is None:
        ours = children(process.pid)  # `mpirun` may not have started them yet
    if process.poll() is not None:
        return None
    number = signal.SIGKILL if args.signal == "KILL" or ranks == 1 else signal.SIGSTOP
    try:
        signalled = draw.choice(ours)
        subprocess.run(["kill", f"-{number}", str(signalled)], check=True)
    except subprocess.CalledProcessError:
        return None
    started = time.monotonic()
    process.wait(timeout=2 * patience)
    return time.monotonic() - started


with tempfile.TemporaryDirectory(dir=args.work) as work:
    work, draw, turns = pathlib.Path(work), random.Random(args.seed), itertools.cycle(args.ranks)
    started = time.monotonic()
    subprocess.run(command(work / "whole", 1), check=True)
    seconds = time.monotonic() - started
    expected = digest(work / "whole")
    print(f"undisturbed: {expected} in {seconds:.1f} s", flush=True)
    failed = 0
    for kill in range(args.kills):
        ranks, took = next(turns), None
        while took is None:
            # More ranks, or a machine that is less busy, may be done before the signal: try an earlier one.
            output, moment = work / f"kill-{kill}", draw.uniform(0.0, seconds)
            shutil.rmtree(output, ignore_errors=True)
            process = subprocess.Popen(command(output, ranks), stderr=subprocess.PIPE, text=True)
            time.sleep(moment)
            took = disturb(process, ranks)
            said = process.communicate()[1]
            seconds = moment if took is None else seconds
        code = process.returncode
        saved = sorted(path.name for path in (output / "checkpoints").glob("step-*"))
        then = next(turns) if len(args.ranks) > 1 else ranks
        subprocess.run(command(output, then, resume=True), check=True)
        # A rank that was stopped must be named by the others, which end with 3.
        named = args.signal == "KILL" or ranks == 1 or (code == 3 and " was lost at " in said)
        good = digest(output) == expected and took < patience and named
        failed += not good
        last = saved[-1] if saved else "nothing"
        print(f"kill {kill + 1} after {moment:.2f} s on {ranks} ranks (ended after {took:.1f} s with {code}, had {last}), resumed on {then}: "
              f"{'same' if good else 'DIFFERENT'}", flush=True)
        if not good:
            print(said)
    print(f"{args.kills - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)

#!/usr/bin/env python3
"""Change single bytes of all inputs and outputs of a run, and look whether `seedcorn verify` finds and names each.

    check_bytes.py SEEDCORN MODEL_FOLDER DATA --format FORMAT [--changes 200] [--seed 0] [--work DIR]

Copies the model and the data, trains two steps with a checkpoint, a merged model and held-out samples, and then, one
at a time: picks a file at random, changes a random byte of it to a random other value, runs
`verify RUN --steps 0`, and puts the byte back. Prints how many changes were found in which file; exits 1 if one was
not found, or not named.
"""
import argparse, collections, json, pathlib, random, shutil, subprocess, sys, tempfile

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("seedcorn", type=pathlib.Path)
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("--format", required=True)
parser.add_argument("--changes", type=int, default=200)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--work", default=None)
args = parser.parse_args()
SEEDCORN = str(args.seedcorn.resolve())

RECIPE = """version = 1
output = "run"
[model]
source = "model"
[adapter]
rank = 2
[data]
max_length = 128
eval_count = 2
[[data.train]]
source = "{data}"
format = "{format}"
[train]
batch_size = 2
micro_batch = 1
steps = 2
[export]
merged = "bf16"
"""


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def verify(run):
    done = subprocess.run([SEEDCORN, "verify", run, "--steps", "0", "--json"], capture_output=True, text=True)
    checks = json.loads(done.stdout)["checks"] if done.stdout else []
    return done.returncode, [check["message"] for check in checks if check["status"] == "failed"]


with tempfile.TemporaryDirectory(dir=args.work) as work:
    work, draw = pathlib.Path(work), random.Random(args.seed)
    shutil.copytree(args.model, work / "model")
    shutil.copy(args.data, work / args.data.name)
    (work / "recipe.toml").write_text(RECIPE.format(data=args.data.name, format=args.format))
    subprocess.run([SEEDCORN, "train", "recipe.toml", "--quiet"], cwd=work, check=True)
    run = work / "run"
    code, faults = verify(run)
    if code != 0:
        sys.exit(f"the untouched run is not verified: {faults}")
    lock = (run / "run.lock").read_text()
    # A model's folder may hold files that are not read; the lock says which are.
    inputs = [path for path in files(work / "model") if f'name = "{path.name}"' in lock]
    candidates = [work / "recipe.toml", work / args.data.name, *inputs, *files(run)]
    found, missed = collections.Counter(), []
    for change in range(args.changes):
        path = draw.choice(candidates)
        with open(path, "r+b") as file:
            at = draw.randrange(path.stat().st_size)
            file.seek(at)
            was = file.read(1)[0]
            now = draw.choice([byte for byte in range(256) if byte != was])
            file.seek(at)
            file.write(bytes([now]))
        code, faults = verify(run)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([was]))
        name = str(path.relative_to(work))
        if code == 1 and any(path.name in fault for fault in faults):
            found[name] += 1
        else:
            missed.append(f"{name} byte {at}: {was:#04x} -> {now:#04x}, exit {code}, {faults}")
    for name, count in sorted(found.items()):
        print(f"{count:4}  {name}")
    print(f"{sum(found.values())} of {args.changes} changes found and named, in {len(found)} of {len(candidates)} files")
    print(*missed, sep="\n", end="" if missed else "")
    code, faults = verify(run)
    sys.exit(1 if missed or code != 0 else 0)

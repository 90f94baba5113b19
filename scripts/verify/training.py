"""Trains a recipe and reads what came of it: for the checks that compare runs."""
import hashlib, json, os, shlex, subprocess, sys


def train(seedcorn, recipe, settings, output, launch=()):
    """Returns the rows of the metrics, the adapter's file and its sha256, and the largest resident memory of a process in MB."""
    flags = [part for setting in [*settings, f"output={output}"] for part in ("--set", setting)]
    process = subprocess.Popen([*launch, seedcorn, "--quiet", "train", recipe, *flags])
    # The largest of the process and all that it has waited for: under `mpirun` that of any rank.
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{shlex.join(process.args)} ended with {os.waitstatus_to_exitcode(status)}")
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    adapter = output / "adapter" / "adapter_model.safetensors"
    return rows, adapter, hashlib.sha256(adapter.read_bytes()).hexdigest(), usage.ru_maxrss * 1024 / 1e6

#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard and compares every scalar with `metrics.jsonl`.

  pip install tensorboard==2.21.0
  python check_tensorboard.py RUN

Values are compared in float32, which is what event files hold; steps must be there once each, in order, both as
TensorBoard shows them and as they lie in the files. Exit status: 0 equal, 1 not, 2 wrong usage.
"""

import argparse
import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

STEP = {
    "train/loss": "loss",
    "train/grad_norm": "grad_norm",
    "train/lr": "lr",
    "train/tokens_per_second": "tokens_per_second",
    "memory/peak_bytes": "peak_memory_bytes",
}
EVAL = {"eval/loss": "eval_loss", "eval/perplexity": "eval_perplexity"}


def expected(run):
    """(step, value) of every tag, as `metrics.jsonl` has them."""
    rows = [json.loads(line) for line in pathlib.Path(run, "metrics.jsonl").read_text().splitlines()]
    single = lambda value: struct.unpack("<f", struct.pack("<f", value))[0]
    tags = {}
    for tag, key in [*STEP.items(), *EVAL.items()]:
        tags[tag] = [(row["step"], single(row[key])) for row in rows if row.get(key) is not None]
    return {tag: points for tag, points in tags.items() if points}


def read(folder, **options):
    """(step, value) of every tag, as TensorBoard reads them."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}, **options)
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def compare(what, found, wanted):
    """Number of tags that differ."""
    faults = 0
    for tag in sorted(set(found) | set(wanted)):
        if found.get(tag) != wanted.get(tag):
            faults += 1
            there, here = found.get(tag, []), wanted.get(tag, [])
            odd = next((pair for pair in zip(there, here) if pair[0] != pair[1]), None)
            print(f"{what}: `{tag}` has {len(there)} values, expected {len(here)}; first difference {odd}", file=sys.stderr)
    print(f"{what}: {len(wanted) - faults} of {len(wanted)} tags equal, {sum(map(len, found.values()))} values")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder of a run")
    run = pathlib.Path(parser.parse_args().run)
    if not (run / "metrics.jsonl").exists():
        parser.error(f"`{run}` is not the folder of a run: it has no metrics.jsonl")
    wanted = expected(run)
    faults = compare("as shown", read(run / "tensorboard"), wanted)
    faults += compare("as stored", read(run / "tensorboard", purge_orphaned_data=False), wanted)
    # What `tensorboard --logdir RUN` finds by itself.
    runs = list(EventMultiplexer().AddRunsFromDirectory(str(run)).Runs())
    print(f"runs below `{run}`: {runs}")
    sys.exit(1 if faults or runs != ["tensorboard"] or not wanted else 0)

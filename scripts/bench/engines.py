"""Runs one configuration once and returns its figures as a dictionary."""
import json
import pathlib
import re
import subprocess
import tempfile

import measure

HERE = pathlib.Path(__file__).resolve().parent
PROMPT = "Counting: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"
NEW_TOKENS = 128

RECIPE = """\
version = 1
output = "{folder}/run"
[model]
source = "{model}"
[adapter]
rank = 16
alpha = 32
[data]
max_length = {length}
packing = false
shuffle = false
[[data.train]]
source = "{tokens}"
format = "tokens"
[train]
batch_size = {sequences}
micro_batch = {sequences}
steps = {steps}
[optimizer]
lr = 2e-4
[schedule]
kind = "constant"
[checkpoint]
every_steps = 0
[log]
sample = false
"""


def run(tools, group, config, threads, steps):
    """`tools` says where things are: `seedcorn`, `python`, and by model and shape `model` and `tokens`."""
    work = {("train", "seedcorn"): train_seedcorn, ("train", "peer"): train_peer,
            ("generate", "seedcorn"): generate_seedcorn, ("generate", "peer"): generate_peer}
    return work[group.task, config.engine](tools, group, config, threads, steps + config.warm_up)


def train_seedcorn(tools, group, config, threads, steps):
    with tempfile.TemporaryDirectory() as folder:
        recipe = pathlib.Path(folder, "recipe.toml")
        recipe.write_text(RECIPE.format(
            folder=folder, model=tools.model(group), tokens=tools.tokens(group),
            length=group.length, sequences=group.sequences, steps=steps))
        command = [tools.seedcorn, "train", recipe, "--offline", "--threads", str(threads)]
        for key, value in config.options.items():
            command += ["--set", f"{key}={value}"]
        environment = {"RAYON_NUM_THREADS": str(threads), **config.environment}
        done = measure.run(command, environment, stream="stderr")
        metrics = pathlib.Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in metrics]
    tokens = group.length * group.sequences
    for row in rows:
        row["seconds"] = tokens / row["tokens_per_second"]
    first = next(time for time, _, text in done.lines if re.match(r"step 1/", text))
    return figures(rows, tokens, config.warm_up, first, done)


def train_peer(tools, group, config, threads, steps):
    command = [tools.python, HERE / "peft_step.py", tools.model(group), tools.tokens(group),
               "--steps", str(steps), "--micro-batch", str(group.sequences), "--threads", str(threads)]
    for key, value in config.options.items():
        flag = "--" + key.replace("_", "-")
        command += [flag] if value is True else [flag, str(value)]
    with tempfile.TemporaryDirectory() as cache:
        # An empty cache, so that the time to the first step holds what a user waits for.
        environment = {"TORCHINDUCTOR_CACHE_DIR": cache, **threads_of(threads), **config.environment}
        done = measure.run(command, environment)
    steps_done = [(time, json.loads(text)) for time, _, text in done.lines if text.startswith("{")]
    rows = [row for _, row in steps_done]
    return figures(rows, group.length * group.sequences, config.warm_up, steps_done[0][0], done)


def threads_of(threads):
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | {"TOKENIZERS_PARALLELISM": "false"}


def figures(rows, tokens, warm_up, first, done):
    counted = rows[warm_up:]
    cpu = counted[-1]["cpu_seconds"] - rows[warm_up - 1]["cpu_seconds"]
    return {
        "tokens_per_cpu_second": tokens * len(counted) / cpu,
        "tokens_per_second": tokens * len(counted) / sum(row["seconds"] for row in counted),
        "first_seconds": first,
        "first_loss": rows[0]["loss"],
        **disturbance(done),
    }


def disturbance(done):
    return {"peak_memory_bytes": done.peak_memory_bytes, "steal": done.steal, "others": done.others}


def generate_seedcorn(tools, group, config, threads, _steps):
    command = [tools.seedcorn, "generate", tools.model(group), "--raw", "--prompt", PROMPT, "--threads", str(threads),
               "--max-new-tokens", str(NEW_TOKENS + 1), "--quantize", config.options["quantize"],
               "--compute", "bf16", "--offline"]
    done = measure.run(command, {"RAYON_NUM_THREADS": str(threads), **config.environment}, by_line=False)
    text = "".join(text for _, _, text in done.lines).removesuffix("\n")
    count = subprocess.run([tools.python, HERE / "count_tokens.py", tools.model(group)], input=text, text=True,
                           capture_output=True, check=True)
    generated = int(count.stdout)
    # Pieces of text and tokens do not always meet, so a few less are no sign of an early end.
    if generated < 0.9 * NEW_TOKENS:
        raise measure.CommandFailed(f"generation ended after {generated} tokens of {NEW_TOKENS + 1}: {text!r}")
    # The first piece of text comes with the first token: the prompt is done then.
    (first, cpu, _), last = done.lines[0], done.lines[-1][0]
    return {
        "tokens_per_cpu_second": NEW_TOKENS / (done.cpu_seconds - cpu),
        "tokens_per_second": NEW_TOKENS / (last - first),
        "first_seconds": first,
        **disturbance(done),
    }


def generate_peer(tools, group, config, threads, _steps):
    command = [tools.python, HERE / "transformers_generate.py", tools.model(group), "--prompt", PROMPT,
               "--new-tokens", str(NEW_TOKENS), "--threads", str(threads), "--dtype", config.options["dtype"]]
    done = measure.run(command, threads_of(threads))
    (first, _), (_, row) = [(time, json.loads(text)) for time, _, text in done.lines if text.startswith("{")]
    return {
        "tokens_per_cpu_second": NEW_TOKENS / row["cpu_seconds"],
        "tokens_per_second": NEW_TOKENS / row["seconds"],
        "first_seconds": first,
        **disturbance(done),
    }

#!/usr/bin/env python3
"""Measures Seedcorn beside transformers, PEFT and bitsandbytes on this machine and prints a Markdown table.

    python3 scripts/bench/run.py [--quick] [--rows NAME,..] [--threads 1,2] [--rounds N] [--out FILE]

Only the standard library is needed: the peer's environment, the models and Seedcorn are made when missing.
"""
import argparse
import json
import pathlib
import time

import engines
import machine
import measure
import prepare
import report
import rows


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser.add_argument("--quick", action="store_true", help="one round of few steps, without torch.compile")
    parser.add_argument("--rows", type=lambda text: text.split(","), default=[], help="groups of rows.py, by comma")
    parser.add_argument("--threads", type=numbers, default=[1], help="numbers of threads, by comma (default 1)")
    parser.add_argument("--rounds", type=int, help="how often everything is run (default 3, quick 1)")
    parser.add_argument("--steps", type=int, help="steps that count (default 4, quick 2)")
    parser.add_argument("--out", help="write the figures of every run as JSON here, too")
    parser.add_argument("--python", help="interpreter with torch, transformers, peft and bitsandbytes")
    parser.add_argument("--model", help="SmolLM2-135M as a Hugging Face folder in f32")
    parser.add_argument("--seedcorn", help="the program (default: build it)")
    parser.add_argument("--peaks", help="JSON of an earlier run, whose figures of the machine are taken")
    return parser.parse_args()


def measure_round(tools, groups, args, peaks, runs, failures):
    """Runs every configuration once, adding to `runs` and `failures`; the sides of a group take turns."""
    for threads in args.threads:
        for group in groups:
            for config in group.configs:
                prepare.note(f"{group.name}, threads {threads}: {config.label}")
                try:
                    run = engines.run(tools, group, config, threads, args.steps)
                except measure.CommandFailed as error:
                    prepare.note(f"failed: {error}")
                    failures.append({"group": group.name, "config": config.name, "error": str(error)})
                    run = None
                else:
                    add_share(run, tools, group, config, peaks)
                    prepare.note(f"    {run['tokens_per_cpu_second']:.0f} tokens/CPU-s, "
                                 f"{run['peak_memory_bytes'] / 1e6:.0f} MB")
                runs.setdefault((group.name, threads), {}).setdefault(config.name, []).append(run)


def add_share(run, tools, group, config, peaks):
    """Adds the share of what one core can do at most, in its own time."""
    if group.task == "train" and config.peak in peaks:
        flops = machine.flops_per_token(tools.config(group), config.recomputes)
        run["share"] = run["tokens_per_cpu_second"] * flops / (peaks[config.peak]["one_thread"] * 1e9)


def main():
    args = parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.steps = args.steps or (2 if args.quick else 4)
    groups = rows.pick(args.rows, args.quick)
    tools = prepare.Tools(args.python, args.model, args.seedcorn)
    described = machine.describe(tools.python)
    if args.peaks:
        with open(args.peaks, encoding="utf-8") as file:
            peaks = json.load(file)["peaks"]
    else:
        peaks = tools.peaks()
    for group in groups:
        tools.tokens(group)  # makes the models, too, before anything is timed

    runs, failures = {}, []
    for done in range(1, args.rounds + 1):
        prepare.note(f"round {done} of {args.rounds}")
        measure_round(tools, groups, args, peaks, runs, failures)
        summary = [row for group in groups for threads in args.threads
                   for row in report.summarise(group, threads, runs[group.name, threads])]
        if args.out:
            # After each round: a run of an hour that is stopped leaves what it has measured.
            result = {"date": time.strftime("%Y-%m-%d"), "machine": described, "peaks": peaks, "rounds": done,
                      "steps": args.steps, "summary": summary, "failures": failures,
                      "runs": [{"group": name, "threads": threads, "configs": configs}
                               for (name, threads), configs in runs.items()]}
            pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if summary:
        print(report.heading(described, peaks, summary, args.rounds, args.steps))
        print(report.table(groups, summary))
    if failures:
        raise SystemExit(f"error: {len(failures)} runs failed; what they said is above")


if __name__ == "__main__":
    main()

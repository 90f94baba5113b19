"""Turns runs into medians, ratios and a Markdown table."""
from statistics import median

RATES = ("tokens_per_cpu_second", "tokens_per_second")


def summarise(group, threads, runs):
    """Returns a row for each configuration of `group`. `runs` holds a list a configuration, one entry a round.

    Ratios are taken within a round, against the round's best peer, and then the median over rounds: what
    disturbs the machine for minutes disturbs both sides of a ratio.
    """
    rows = []
    for config in group.configs:
        done = [run for run in runs.get(config.name, []) if run]
        if not done:
            continue
        keys = done[0].keys() & {*RATES, "first_seconds", "peak_memory_bytes", "first_loss", "share", "steal", "others"}
        row = {"group": group.name, "config": config.name, "label": config.label, "threads": threads,
               "rounds": len(done), **{key: median(run[key] for run in done) for key in sorted(keys)}}
        if config.engine == "seedcorn":
            row["ratios"] = {key: ratio(group, config, runs, key) for key in (*RATES, "peak_memory_bytes")}
        rows.append(row)
    return rows


def ratio(group, config, runs, key):
    best = max if key in RATES else min
    peers = [runs.get(peer.name, []) for peer in group.configs if peer.engine == "peer"]
    found = []
    for index, run in enumerate(runs[config.name]):
        figures = [peer[index][key] for peer in peers if index < len(peer) and peer[index]]
        if run and figures:
            found.append(run[key] / best(figures))
    return median(found) if found else None


def table(groups, rows):
    lines = []
    for group in groups:
        own = [row for row in rows if row["group"] == group.name]
        if own:
            lines += ["", f"**{group.title}** (`{group.name}`)", "", *markdown(group, own)]
    return "\n".join(lines[1:] + scaling(rows))


def markdown(group, rows):
    """Lays out the rows of a group, without the columns that none of them fills."""
    cells = [columns(row) for row in rows]
    used = [name for name in cells[0] if any(row[name] for row in cells)]
    header = ["first token s" if (name, group.task) == ("first step s", "generate") else name for name in used]
    return [join(header), join(["---"] * len(used)), *(join(row[name] for name in used) for row in cells)]


def columns(row):
    ratios = row.get("ratios", {})
    times = lambda key: f"{ratios[key]:.2f}" if ratios.get(key) else ""
    return {
        "configuration": row["label"],
        "threads": row["threads"],
        "tokens/CPU-s": f"{row['tokens_per_cpu_second']:.0f}",
        "tokens/s": f"{row['tokens_per_second']:.0f}",
        "peak MB": f"{row['peak_memory_bytes'] / 1e6:.0f}",
        "first step s": f"{row['first_seconds']:.1f}",
        "first loss": f"{row['first_loss']:.4f}" if "first_loss" in row else "",
        "share of peak": f"{100 * row['share']:.1f} %" if "share" in row else "",
        "CPU speed ratio": times("tokens_per_cpu_second"),
        "wall speed ratio": times("tokens_per_second"),
        "memory ratio": times("peak_memory_bytes"),
    }


def join(parts):
    return "| " + " | ".join(map(str, parts)) + " |"


def scaling(rows):
    """Wall speed of more threads over one, where both were measured."""
    one = {(row["group"], row["config"]): row for row in rows if row["threads"] == 1}
    lines = []
    for row in rows:
        alone = one.get((row["group"], row["config"]))
        if row["threads"] > 1 and alone:
            gain = row["tokens_per_second"] / alone["tokens_per_second"]
            lines.append(join([row["group"], row["label"], row["threads"], f"{gain:.2f}"]))
    if lines:
        lines = ["", "**More threads over one** (tokens/s)", "", join(["row", "configuration", "threads", "gain"]),
                 join(["---"] * 4), *lines]
    return lines


def heading(machine, peaks, rows, rounds, steps):
    steal, others = (100 * max(row[key] for row in rows) for key in ("steal", "others"))
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores{' of a virtual machine' if machine['hypervisor'] else ''}, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB; {', '.join(machine['isa'])}; Linux {machine['kernel']}.",
        f"{versions}. Medians over rounds: {rounds}; steps a round after warm-up: {steps}.",
        f"While it ran, the host took up to {steal:.0f} % of the processors and other processes up to {others:.0f} % "
        "(medians of the worst row).",
    ]
    lines += ["", join(["the machine's peak", "1 thread", "all threads"]), join(["---"] * 3)]
    for name, peak in peaks.items():
        lines.append(join([name, f"{peak['one_thread']:.0f} {peak['unit']}", f"{peak['all_threads']:.0f} {peak['unit']}"]))
    return "\n".join(lines) + "\n"

"""Names the machine and what is installed on it."""
import os
import pathlib
import subprocess

FLAGS = ["avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"]


def describe(python):
    fields, flags = {}, set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        fields.setdefault(key, value)
        if key == "flags":
            flags.update(value.split())
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": f"{fields.get('model name', 'unknown')} (family {fields.get('cpu family')}, model {fields.get('model')})",
        "cores": len(os.sched_getaffinity(0)),
        "hypervisor": "hypervisor" in flags,
        "isa": [flag for flag in FLAGS if flag in flags],
        "memory_bytes": int(memory) * 1024,
        "kernel": os.uname().release,
        "versions": versions(python),
    }


def versions(python):
    names = ["torch", "transformers", "peft", "bitsandbytes"]
    code = f"from importlib.metadata import version\nfor name in {names}: print(version(name))"
    lines = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(names, lines))


def flops_per_token(config, recomputes):
    """FLOPs of the frozen products of one trained token: 2 a weight forward, 2 for the gradient of the input,
    and 2 more where the blocks are computed again. No weight of the model gets a gradient. Attention, the
    adapter and everything elementwise are left out, so a share of the peak is a little too low."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    queries, keys = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    block = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * config["intermediate_size"]
    return (6 if recomputes else 4) * layers * block + 4 * hidden * config["vocab_size"]

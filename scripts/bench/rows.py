"""What is compared: groups of configurations that do the same work on the same tokens.

A group's Seedcorn configurations are compared with the best of the group's peers, whichever that is.
"""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Config:
    """One thing that is run. `options` are recipe settings of Seedcorn or flags of the peer's script."""

    name: str
    label: str
    engine: str  # "seedcorn" or "peer"
    options: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    peak: str = ""  # the figure of `cargo bench --bench peak` that its speed is a share of
    warm_up: int = 1  # steps that do not count

    @property
    def recomputes(self):
        return self.options.get("train.activation") == "recompute" or self.options.get("checkpointing", False)


@dataclass(frozen=True)
class Group:
    """Configurations on one model and one batch shape: `sequences` of `length` tokens a step."""

    name: str
    title: str
    configs: tuple
    model: str = "smollm2"  # or "tinyllama"
    task: str = "train"  # or "generate"
    length: int = 512
    sequences: int = 4
    slow: bool = False  # left out of `--quick` unless asked for by name


AMX, AVX512, AVX2 = "amx bf16 tiles", "avx512 f32 FMA", "avx2 f32 FMA"


def seedcorn(name, label, quantize="none", compute="bf16", activation="keep", isa=None, peak=AMX):
    options = {"model.quantize": quantize, "model.compute": compute, "train.activation": activation}
    environment = {"SEEDCORN_ISA": isa} if isa else {}
    return Config(f"seedcorn-{name}", f"Seedcorn {label}", "seedcorn", options, environment, peak)


def peft(name, label, dtype="bfloat16", peak=AMX, warm_up=1, **options):
    options = {"dtype": dtype, **options}
    return Config(f"peft-{name}", f"PEFT {label}", "peer", options, {}, peak, warm_up)


GROUPS = (
    Group("bf16", "bf16 LoRA, 4 x 512", (
        seedcorn("bf16", "bf16"),
        peft("bf16", "bf16, LoRA in f32 (default)"),
        peft("bf16-lora", "bf16, LoRA in bf16", lora_dtype="base"),
    )),
    Group("bf16-compile", "bf16 LoRA, 4 x 512, against torch.compile", (
        seedcorn("bf16", "bf16"),
        peft("compile", "bf16, torch.compile", compile=True, warm_up=2),
        peft("compile-lora", "bf16, LoRA in bf16, torch.compile", compile=True, lora_dtype="base", warm_up=2),
    ), slow=True),
    Group("bf16-recompute", "bf16 LoRA, 4 x 512, blocks recomputed", (
        seedcorn("bf16-recompute", "bf16, recompute", activation="recompute"),
        peft("bf16-checkpointing", "bf16, gradient checkpointing", checkpointing=True),
    )),
    Group("nf4", "NF4 QLoRA, 4 x 512", (
        seedcorn("nf4", "NF4", quantize="nf4"),
        peft("nf4", "NF4 (bitsandbytes)", quantize="nf4"),
    )),
    Group("nf4-recompute", "NF4 QLoRA, 4 x 512, blocks recomputed", (
        seedcorn("nf4-recompute", "NF4, recompute", quantize="nf4", activation="recompute"),
        peft("nf4-checkpointing", "NF4 (bitsandbytes), gradient checkpointing", quantize="nf4", checkpointing=True),
    )),
    Group("f32", "f32 LoRA, 4 x 512", (
        seedcorn("f32-avx512", "f32, `SEEDCORN_ISA=avx512`", compute="f32", isa="avx512", peak=AVX512),
        seedcorn("f32-avx2", "f32, `SEEDCORN_ISA=avx2`", compute="f32", isa="avx2", peak=AVX2),
        peft("f32", "f32", dtype="float32", peak=AVX512),
    )),
    Group("long", "1 x 2048", (
        seedcorn("nf4-long", "NF4", quantize="nf4"),
        peft("bf16-long", "bf16, LoRA in f32 (default)"),
    ), length=2048, sequences=1),
    Group("tinyllama", "TinyLlama's shape (1.1 B, random weights), 1 x 512", (
        seedcorn("nf4-tinyllama", "NF4", quantize="nf4"),
        peft("nf4-tinyllama", "NF4 (bitsandbytes)", quantize="nf4"),
        peft("bf16-tinyllama", "bf16, LoRA in f32 (default)"),
    ), model="tinyllama", sequences=1),
    Group("generate", "generation, 128 tokens, one sequence", (
        Config("seedcorn-generate", "Seedcorn NF4, bf16", "seedcorn", {"quantize": "nf4"}),
        Config("transformers-generate", "transformers bf16", "peer", {"dtype": "bfloat16"}),
    ), task="generate"),
)


def pick(names, quick):
    """Returns the groups named, or all (the quick ones where `quick`), in the order of the table."""
    if names:
        known = {group.name for group in GROUPS}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise SystemExit(f"error: no row is called `{unknown[0]}`\n\nhint: rows: {', '.join(sorted(known))}")
        return [group for group in GROUPS if group.name in names]
    return [group for group in GROUPS if not (quick and group.slow)]

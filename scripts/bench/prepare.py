"""Makes what the bench needs and does not find: the peer's environment, models, tokens, Seedcorn itself.

Everything lands in `$XDG_CACHE_HOME/seedcorn/bench` (default `~/.cache`), nothing in the repository.
"""
import json
import os
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# The versions behind scripts/reference/ and scripts/verify/.
PACKAGES = ["torch==2.15.0", "transformers==5.23.0", "peft==0.21.2", "bitsandbytes==0.50.2",
            "gguf==0.19.0", "numpy", "safetensors"]
BATCHES = 8


def note(text):
    print(text, file=sys.stderr, flush=True)


def call(*command, **options):
    note("$ " + " ".join(map(str, command)))
    return subprocess.run([str(part) for part in command], check=True, **options)


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(base, "seedcorn", "bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def once(path, make):
    """Makes `path` under another name and renames it, so that what exists is whole."""
    if not path.exists():
        unfinished = path.with_name(path.name + ".unfinished")
        make(unfinished)
        unfinished.rename(path)
    return path


class Tools:
    """Where things are; what is missing is made when it is first asked for."""

    def __init__(self, python=None, model=None, seedcorn=None):
        for path in (python, model and pathlib.Path(model, "config.json"), seedcorn):
            if path and not pathlib.Path(path).exists():
                raise SystemExit(f"error: there is no `{path}`\n\nhint: leave the flag out to have it made")
        self.cache = cache_folder()
        self._given_model = model
        self.python = pathlib.Path(python) if python else self._environment()
        self.seedcorn = pathlib.Path(seedcorn) if seedcorn else self.build()["seedcorn"]

    def _environment(self):
        """Makes the virtual environment. It cannot be renamed, so a file tells that it is whole."""
        folder = self.cache / "venv"
        python, whole = folder / "bin" / "python", folder / "packages.json"
        if not whole.exists() or json.loads(whole.read_text()) != PACKAGES:
            call(sys.executable, "-m", "venv", "--clear", folder)
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            index = os.environ.get("TORCH_INDEX")
            if index:
                call(*pip, "--index-url", index, PACKAGES[0])
            call(*pip, *PACKAGES)
            whole.write_text(json.dumps(PACKAGES))
        return python

    def build(self):
        """Builds the program and the machine's bench with one choice of features; returns both paths."""
        done = call("cargo", "build", "--release", "--workspace", "--bin", "seedcorn", "--bench", "peak",
                    "--message-format", "json-render-diagnostics", cwd=REPOSITORY, stdout=subprocess.PIPE)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        return {message["target"]["name"]: pathlib.Path(message["executable"])
                for message in messages if message.get("executable")}

    def peaks(self):
        """Measures the machine; returns GFLOP/s and GB/s by name."""
        peaks = json.loads(call(self.build()["peak"], "--json", stdout=subprocess.PIPE).stdout)
        return {row["what"]: row for row in peaks["peaks"]}

    def model(self, group):
        if group.model == "tinyllama":
            return once(self.cache / "tinyllama-random", self._random_llama)
        return self._given_model or once(self.cache / "smollm2-f32", self._smollm2)

    def _random_llama(self, out):
        call(self.python, HERE / "make_random_llama.py", out)

    def _smollm2(self, out):
        call(self.python, REPOSITORY / "scripts" / "reference" / "fetch_model.py", out, "--dtype", "f32")

    def config(self, group):
        return json.loads(pathlib.Path(self.model(group), "config.json").read_text())

    def tokens(self, group):
        """Writes the batches that both sides train on: random ids, the same in every run."""
        vocabulary, shape = self.config(group)["vocab_size"], (group.sequences, group.length)
        path = self.cache / f"tokens-{vocabulary}-{shape[0]}x{shape[1]}.jsonl"
        return once(path, lambda out: write_tokens(out, vocabulary, *shape))


def write_tokens(path, vocabulary, sequences, length):
    source = random.Random(0)
    with open(path, "w", encoding="ascii") as file:
        for _ in range(BATCHES * sequences):
            ids = [source.randrange(vocabulary) for _ in range(length)]
            file.write(json.dumps({"input_ids": ids}) + "\n")

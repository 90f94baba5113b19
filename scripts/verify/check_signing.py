#!/usr/bin/env python3
"""Signs and verifies folders with us and with the Python package model-signing, each with the other's signatures.

  cargo build --release
  python3 scripts/verify/check_signing.py [--seedcorn target/release/seedcorn]

For each curve and each signer a folder is signed, then changed in one way after another; both tools must accept what
was signed and refuse what was changed. Runs with model-signing of this interpreter, or installs it into a virtual
environment of its own. Needs openssl. Exit status: 0 all as expected, 1 not, 2 wrong usage.
"""

import argparse
import base64
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv

PACKAGES = ["model-signing==1.1.1", "pyOpenSSL"]  # the package uses the second without asking for it
CURVES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
SHARDS = """
import sys, model_signing as m
hashing = m.hashing.Config().use_shard_serialization(shard_size=1000)
m.signing.Config().use_elliptic_key_signer(private_key=sys.argv[1]).set_hashing_config(hashing).sign(*sys.argv[2:])
"""


def interpreter(folder):
    """An interpreter that has model-signing."""
    if importlib.util.find_spec("model_signing"):
        return sys.executable
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(PACKAGES)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return str(python)


def make_folder(folder):
    files = {
        "adapter_config.json": b'{"r": 8}\n',
        "adapter_model.safetensors": bytes(range(256)) * 20,
        "empty": b"",
        "a-b/c": b"one order as texts",
        "a/b": b"and another as paths",
        "gr\u00fc\u00dfe \U0001f331.txt": "na\u00efve".encode(),
        ".gitignore": b"*.tmp\n",
        ".git/config": b"[core]\n",
        "sub/.gitignore": b"!*\n",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def change_byte(folder):
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[2500] ^= 1
    path.write_bytes(content)


def swap(folder):
    one, other = folder / "a/b", folder / "a-b/c"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def link(folder):
    """The same content, but behind a link out of the folder."""
    path = folder / "adapter_config.json"
    outside = folder.parent / "outside.json"
    shutil.move(path, outside)
    path.symlink_to(pathlib.Path("..") / outside.name)


def change_statement(folder):
    """A file renamed in the folder and in the statement, so that only the signature can tell."""
    path = folder / "model.sig"
    bundle = json.loads(path.read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    assert payload.count(b'"empty') == 1
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(b'"empty', b'"empti')).decode()
    path.write_text(json.dumps(bundle))
    (folder / "empty").rename(folder / "empti")


def change_target(folder):
    (folder.parent / "outside.json").write_bytes(b"changed")


# What is done to a signed folder, and whether it may still be accepted.
CHANGES = {
    "nothing": (lambda folder: None, True),
    "git's files changed": (lambda folder: (folder / ".gitignore").write_text("x"), True),
    "folder renamed": (lambda folder: None, True),
    "byte changed": (change_byte, False),
    "byte appended": (lambda folder: (folder / "empty").write_bytes(b"\0"), False),
    "file added": (lambda folder: (folder / "sub/new").write_bytes(b""), False),
    "file removed": (lambda folder: (folder / "empty").unlink(), False),
    "file renamed": (lambda folder: (folder / "a/b").rename(folder / "a/c"), False),
    "files swapped": (swap, False),
    "file made a link": (link, False),
    "statement changed": (change_statement, False),
    "other key": (lambda folder: None, False),
}


# Who signs, and which changes are tried; shards cannot list empty files, links are there only if allowed.
SIGNERS = {
    "seedcorn": list(CHANGES),
    "model-signing": list(CHANGES),
    "shards": [change for change in CHANGES if change not in ("file added", "byte appended")],
    "seedcorn, links": ["nothing", "byte changed", "link's target changed"],
    "model-signing, links": ["nothing", "byte changed", "link's target changed"],
}
CHANGES["link's target changed"] = (change_target, False)


class Check:
    def __init__(self, seedcorn, python, here):
        self.seedcorn, self.python, self.here = seedcorn, python, here
        self.keys = {name: self.make_key(name, curve) for name, curve in CURVES.items()}
        self.other_key = self.make_key("other", CURVES["P-256"])

    def make_key(self, name, curve):
        private, public = self.here / f"{name}.pem", self.here / f"{name}.pub.pem"
        command = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", private]
        subprocess.run(command, check=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        return private, public

    def run(self, *command):
        return subprocess.run(command, capture_output=True, text=True, cwd=self.here)

    def sign(self, signer, folder, key):
        signature = folder / "model.sig"
        signer, _, links = signer.partition(", ")
        if links:
            link(folder)
        if signer == "seedcorn":
            options = ["--allow-symlinks"] if links else []
            done = self.run(self.seedcorn, "sign", folder, "--key", key, *options)
        elif signer == "model-signing":
            options = ["--private_key", key, "--signature", signature, *(["--allow_symlinks"] if links else [])]
            done = self.run(self.python, "-m", "model_signing", "sign", "key", folder, *options)
        else:
            done = self.run(self.python, "-c", SHARDS, key, folder, signature)
        if done.returncode:
            sys.exit(f"error: {signer} does not sign: {done.stdout}{done.stderr}")

    def theirs(self, folder, key, links):
        options = ["--public_key", key, "--signature", folder / "model.sig"]
        options += ["--allow_symlinks"] if links else []
        return self.run(self.python, "-m", "model_signing", "verify", "key", folder, *options)

    def ours(self, folder, key, _links):
        return self.run(self.seedcorn, "verify", folder, "--key", key, "--files-only")

    def case(self, curve, signer, signed, change):
        """Changes a copy of a signed folder; what both say of it."""
        work = pathlib.Path(tempfile.mkdtemp(dir=self.here))
        folder = work / ("renamed" if change == "folder renamed" else "model")
        links = signer.endswith(", links")
        shutil.copytree(signed, folder, symlinks=True)
        if links:
            shutil.copy(signed.parent / "outside.json", work)
        act, accepted = CHANGES[change]
        act(folder)
        key = (self.other_key if change == "other key" else self.keys[curve])[1]
        row = {"curve": curve, "signer": signer, "change": change, "expected": 0 if accepted else 1}
        for name, tool in (("model-signing", self.theirs), ("seedcorn", self.ours)):
            if name == "model-signing" and signer == "shards":
                continue  # its command line hashes whole files only
            done = tool(folder, key, links)
            row[name] = done.returncode
            row["said"] = (done.stderr.strip() or done.stdout.strip()).replace(str(work), "")
        return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--seedcorn", type=pathlib.Path, default=target / "release" / "seedcorn")
    cache = pathlib.Path.home() / ".cache" / "seedcorn" / "venv-signing"
    parser.add_argument("--venv", type=pathlib.Path, default=cache, help="where to install model-signing")
    args = parser.parse_args()
    if not args.seedcorn.exists():
        parser.error(f"`{args.seedcorn}` does not exist: build it with `cargo build --release`")

    with tempfile.TemporaryDirectory() as here, concurrent.futures.ThreadPoolExecutor() as pool:
        check = Check(args.seedcorn.resolve(), interpreter(args.venv), pathlib.Path(here))
        cases = []
        for curve in CURVES:
            for signer, changes in SIGNERS.items():
                folder = check.here / f"{curve}-{signer}" / "model"
                make_folder(folder)
                if signer == "shards":
                    (folder / "empty").write_bytes(b"no shard lists an empty file")
                check.sign(signer, folder, check.keys[curve][0])
                cases += [pool.submit(check.case, curve, signer, folder, change) for change in changes]
        rows = [case.result() for case in cases]

    words = {0: "accepts", 1: "refuses"}
    bad = 0
    print(f"{'curve':6} {'signed by':20} {'change':21} {'model-signing':14} {'seedcorn':9}")
    for row in rows:
        said = [row.get(tool) for tool in ("model-signing", "seedcorn")]
        wrong = [code for code in said if code is not None and code != row["expected"]]
        shown = ["-" if code is None else words.get(code, f"exit {code}") for code in said]
        print(f"{row['curve']:6} {row['signer']:20} {row['change']:21} {shown[0]:14} {shown[1]:9}", end="")
        print(f" WRONG: {row['said']}" if wrong else "")
        bad += bool(wrong)
    print(f"{len(rows) - bad} of {len(rows)} as expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

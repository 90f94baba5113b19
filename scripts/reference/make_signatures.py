#!/usr/bin/env python3
"""Signs a small folder with the Python package model-signing, as fixtures for our verification.

  pip install model-signing==1.1.1 pyOpenSSL
  python make_signatures.py tests/fixtures/signing

Writes `folder/` (what is signed, without its signatures), for each curve `P-256.pem`, `P-256.pub.pem`, and the
signatures `P-256-files.sig` and `P-256-shards.sig`; `blake2.sig`, with a hash that we do not support. Keys that are
there already are used again. With the package's versions 0.3.1 and 1.0.1 (`--old NAME`, which need `sigstore<4` and
`sigstore-protobuf-specs<0.5` too) only `NAME.sig` is made, which has the public key where later ones have its hash.
"""

import argparse
import pathlib
import subprocess

CURVES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
SHARD_BYTES = 16


def make_folder(folder):
    """Names whose order differs as texts and as paths, files of several shards."""
    files = {
        "adapter_config.json": b'{"r": 8}\n',
        "adapter_model.safetensors": bytes(range(50)),
        "a-b/c.txt": b"c\n",
        "a/b.txt": b"b\n",
        "sub/deep/exactly-two-shards.bin": bytes(2 * SHARD_BYTES),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def make_keys(out, name, curve):
    private, public = out / f"{name}.pem", out / f"{name}.pub.pem"
    if not private.exists():
        if name == "P-384":  # PKCS#8; the others are SEC1, after a block of parameters
            options = ["genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{name}"]
        else:
            options = ["ecparam", "-name", curve, "-genkey"]
        subprocess.run(["openssl", *options, "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private


def sign(out, key, signature, **serialization):
    import model_signing

    hashing = model_signing.hashing.Config()
    if "shard_size" in serialization:
        hashing.use_shard_serialization(**serialization)
    else:
        hashing.use_file_serialization(**serialization)
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(hashing).sign(out / "folder", out / signature)


def sign_old(out, key, signature):
    """The public interface of old versions asks the network first."""
    from model_signing import hashing
    from model_signing._signing import sign_ec_key, signing

    payload = signing.Payload(hashing.Config().hash(out / "folder"))
    sign_ec_key.Signer(key).sign(payload).write(out / signature)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--old", metavar="NAME", help="write NAME.sig with an old version")
    args = parser.parse_args()
    make_folder(args.out / "folder")
    for name, curve in CURVES.items():
        key = make_keys(args.out, name, curve)
        if args.old:
            continue
        sign(args.out, key, f"{name}-files.sig")
        sign(args.out, key, f"{name}-shards.sig", shard_size=SHARD_BYTES)
    if args.old:
        sign_old(args.out, args.out / "P-256.pem", f"{args.old}.sig")
    else:
        sign(args.out, args.out / "P-256.pem", "blake2.sig", hashing_algorithm="blake2")


if __name__ == "__main__":
    main()

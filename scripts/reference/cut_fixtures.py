#!/usr/bin/env python3
"""Cuts the bitsandbytes reference numbers down to what the tests read.

The input of this script is the output of the reference script's `quant` section: inputs A, B and C quantized by
bitsandbytes 0.50.2 on the CPU (torch 2.15.0). NF4 cases only; dequantized values only for the single scale
cases whose inputs are small, and as a SHA-256 of the little-endian f32 bytes for the others.

Requirements: numpy
Usage:        python cut_fixtures.py bnb_quant.safetensors bnb_quant.json ../../tests/fixtures/bnb
"""
import hashlib, json, pathlib, struct, sys

import numpy as np

NUMPY = {"F32": "<f4", "U8": "u1"}


def load(path):
    blob = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    header.pop("__metadata__", None)
    out = {}
    for name, info in header.items():
        if info["dtype"] in NUMPY:
            start, end = info["data_offsets"]
            data = np.frombuffer(blob[8 + size + start:8 + size + end], NUMPY[info["dtype"]])
            out[name] = data.reshape(info["shape"])
    return out


def save(path, tensors):
    header, offset = {}, 0
    for name in sorted(tensors):
        array = tensors[name]
        header[name] = {"dtype": "F32" if array.dtype == np.float32 else "U8", "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            out.write(np.ascontiguousarray(tensors[name]).tobytes())


def main():
    source, meta_path, out = sys.argv[1:4]
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    all_tensors, meta = load(source), json.load(open(meta_path))
    keep = {name: all_tensors[name] for name in all_tensors if name.endswith(".input")}
    keep |= {name: all_tensors[name] for name in ("code.nf4", "code.dynamic_u8")}
    cases = {}
    for key, info in meta["meta"].items():
        if ".nf4." not in key:
            continue
        double = key.endswith(".double")
        for part in ("absmax", "nested_absmax", "offset"):
            if f"{key}.{part}" in all_tensors:
                keep[f"{key}.{part}"] = all_tensors[f"{key}.{part}"]
        packed = all_tensors[f"{key}.packed"]
        single = key.replace(".double", ".single")
        if double:
            # Double quantization changes scales only; the codes are those of the single case.
            assert np.array_equal(packed, all_tensors[f"{single}.packed"]), key
        else:
            keep[f"{key}.packed"] = packed
        values = np.ascontiguousarray(all_tensors[f"{key}.dequant"], "<f4")
        cases[key] = {"shape": info["shape"], "block_size": info["blocksize"], "dtype": info["dtype"],
                      "double": double, "dequant_sha256": hashlib.sha256(values.tobytes()).hexdigest()}
        if not key.startswith("A."):
            keep[f"{key}.dequant"] = values
    save(out / "nf4.safetensors", keep)
    text = json.dumps({"versions": meta["versions"], "cases": cases}, indent=1)
    (out / "nf4.json").write_text(text + "\n", encoding="utf-8")
    print({p.name: p.stat().st_size for p in out.iterdir()})


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes what bitsandbytes dequantizes the tensors of a pre-quantized checkpoint to.

Output: a JSON object of tensor name -> shape and SHA-256 of the values as little-endian f32. The checkpoint is the
one that make_reference.py saves from make_tiny_models.py's Llama.

bitsandbytes' portable kernel is used, which is the definition and what its CUDA kernels compute. Its AVX-512 kernel
picks the wrong scales where the row length is not a multiple of the block size (0.50.2; here `down_proj`, 96).

Requirements: pip install torch==2.15.0 bitsandbytes==0.50.2
Usage:        python make_bnb_expected.py ../../tests/fixtures/models/llama-bnb-nf4
"""
import hashlib, json, pathlib, struct, sys

import torch
import bitsandbytes.functional as F
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

TYPES = {"F32": torch.float32, "U8": torch.uint8}
STATE = ".quant_state.bitsandbytes__nf4"


def load(path):
    blob = bytearray(path.read_bytes())
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        data = torch.frombuffer(blob[8 + size + start:8 + size + end], dtype=TYPES[info["dtype"]])
        tensors[name] = data.reshape(info["shape"])
    return tensors


def main():
    folder = pathlib.Path(sys.argv[1])
    tensors = load(folder / "model.safetensors")
    expected = {}
    for name in sorted(tensors):
        if not name.endswith(STATE):
            continue
        weight = name.removesuffix(STATE)
        parts = {key[len(weight) + 1:]: value for key, value in tensors.items() if key.startswith(f"{weight}.")}
        state = F.QuantState.from_dict(parts, device=torch.device("cpu"))
        absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
        values = _dequantize_4bit_compute(tensors[weight].reshape(-1), absmax, state.code, state.blocksize, state.shape,
                                          torch.float32).contiguous()
        expected[weight] = {"shape": list(values.shape), "sha256": hashlib.sha256(values.numpy().tobytes()).hexdigest()}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(len(expected))


if __name__ == "__main__":
    main()

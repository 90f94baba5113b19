#!/usr/bin/env python3
"""Writes random blocks of every ggml type that is read, with the values gguf-py decodes them to.

Layout of blocks.bin, little-endian, once for each type: u32 type id, u32 number of blocks, the blocks, the values
as f32. Scales are finite: NaN payloads differ between conversions and mean nothing.

Requirements: pip install gguf==0.19.0 numpy
Usage:        python make_ggml.py ../../tests/fixtures/ggml
"""
import pathlib, struct, sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Byte offsets of the f16 scales in a block.
SCALES = {T.F32: [], T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    blob = b""
    for ty, offsets in SCALES.items():
        length, size = GGML_QUANT_SIZES[ty]
        count = 2048 if length == 1 else 24
        blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for offset in offsets:
            scale = (rng.standard_normal(count) * 10.0 ** rng.uniform(-7, 3, count)).astype(np.float16)
            scale[:3] = [0.0, -0.0, 6e-8]
            blocks[:, offset:offset + 2] = scale.reshape(-1, 1).view(np.uint8)
        if ty in (T.F32, T.BF16):
            values = (rng.standard_normal(count) * 10.0 ** rng.uniform(-38, 38, count)).astype(np.float32)
            blocks = values.view(np.uint8).reshape(count, 4)[:, 4 - size:]
        blocks = np.ascontiguousarray(blocks)
        expected = np.ascontiguousarray(dequantize(blocks.reshape(1, -1), ty), "<f4").ravel()
        assert expected.size == count * length and np.isfinite(expected).all(), ty
        blob += struct.pack("<II", ty.value, count) + blocks.tobytes() + expected.tobytes()
    (out / "blocks.bin").write_bytes(blob)
    print(len(blob))


if __name__ == "__main__":
    main()

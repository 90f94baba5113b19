#!/usr/bin/env python3
"""Writes two matrices quantized to row-wise int8 by bitsandbytes on the CPU.

Layout of int8.bin, little-endian, once for each matrix: u32 rows, u32 columns, the f32 values, the i8 codes, the
f32 row scales, the f32 dequantized values.

Requirements: pip install torch==2.15.0 bitsandbytes==0.50.2
Usage:        python make_int8.py ../../tests/fixtures/bnb/int8.bin
"""
import pathlib, struct, sys

import torch
import bitsandbytes.functional as F


def main():
    generator = torch.Generator().manual_seed(5)
    odd = torch.randn(5, 123, generator=generator)
    odd[1] *= 1e-20
    odd[2] *= 1e20
    odd[3] = torch.linspace(-127, 127, 123).round() + 0.5      # ties
    odd[3, 0] = 127.0
    blob = b""
    for matrix in (odd, torch.randn(48, 64, generator=generator) * 0.02):
        codes, scales, _ = F.int8_vectorwise_quant(matrix.clone())
        values = F.int8_vectorwise_dequant(codes, scales)
        blob += struct.pack("<II", *matrix.shape)
        for part in (matrix, codes, scales, values):
            blob += part.contiguous().numpy().tobytes()
    pathlib.Path(sys.argv[1]).write_bytes(blob)
    print(len(blob))


if __name__ == "__main__":
    main()

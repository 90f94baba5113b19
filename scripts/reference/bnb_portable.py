"""bitsandbytes' 4-bit layers by their definition, for scripts that import this module.

The AVX-512 kernel of bitsandbytes 0.50.2 picks the wrong scales where the row length is not a multiple of the block
size (`down_proj` of the tiny models: 96 columns, blocks of 64). The portable kernel is the definition and what the
CUDA kernels compute; `use()` makes every Linear4bit multiply by what it dequantizes to, in training and without
gradients.
"""
import torch
import bitsandbytes
import bitsandbytes.functional as F
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute


def dequantize(packed, state):
    absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    return _dequantize_4bit_compute(packed.reshape(-1), absmax, state.code, state.blocksize, state.shape, torch.float32)


def matmul_4bit(x, packed, quant_state, out=None, bias=None):
    return torch.nn.functional.linear(x, dequantize(packed.data, quant_state).to(x.dtype), bias)


def use():
    bitsandbytes.matmul_4bit = matmul_4bit

#!/usr/bin/env python3
"""Rotary frequencies in numpy f32 by the formulas of transformers' modeling_rope_utils.py.

Needs numpy only. Writes tests/fixtures/config/rope_frequencies.json: a list of cases, each with the
rope_parameters of a config.json, head_dim and the expected inv_freq (f32 values printed exactly).
The llama3 cases are the settings of Llama 3.2 1B (head_dim 64) and Llama 3.1 8B (head_dim 128).
"""
import json, math, pathlib
import numpy as np

f32 = np.float32

def default(theta, dim):
    return f32(1) / np.power(f32(theta), np.arange(0, dim, 2, dtype=f32) / f32(dim))

def linear(theta, dim, factor):
    return default(theta, dim) / f32(factor)

def llama3(theta, dim, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings):
    inv, old = default(theta, dim), original_max_position_embeddings
    low_wavelen, high_wavelen = f32(old / low_freq_factor), f32(old / high_freq_factor)
    wavelen = f32(2 * math.pi) / inv
    scaled = np.where(wavelen > low_wavelen, inv / f32(factor), inv)
    smooth = (f32(old) / wavelen - f32(low_freq_factor)) / f32(high_freq_factor - low_freq_factor)
    smoothed = (f32(1) - smooth) * scaled / f32(factor) + smooth * scaled
    medium = ~(wavelen < high_wavelen) & ~(wavelen > low_wavelen)
    return np.where(medium, smoothed, scaled)

L3 = dict(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
CASES = [
    (64, dict(rope_type='default', rope_theta=10000.0), default(1e4, 64)),
    (64, dict(rope_type='linear', rope_theta=10000.0, factor=2.5), linear(1e4, 64, 2.5)),
    (64, dict(rope_type='llama3', rope_theta=500000.0, **L3), llama3(5e5, 64, **L3)),
    (128, dict(rope_type='llama3', rope_theta=500000.0, **{**L3, 'factor': 8.0}), llama3(5e5, 128, **{**L3, 'factor': 8.0})),
]
out = [dict(head_dim=d, rope_parameters=r, inv_freq=[float(x) for x in v]) for d, r, v in CASES]
path = pathlib.Path(__file__).resolve().parents[2] / 'tests/fixtures/config/rope_frequencies.json'
path.write_text(json.dumps(out, indent=1) + '\n')

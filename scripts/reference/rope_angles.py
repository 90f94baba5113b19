"""Prints the table in kernels/src/rope/tests.rs: cosine and sine as Hugging Face computes them on torch (CPU).

Run: python scripts/reference/rope_angles.py   (torch 2.x)
"""
import torch

inv_freq = 1.0 / (10000.0 ** (torch.arange(0, 64, 2, dtype=torch.int64).float() / 64))
for position in (0, 1, 7, 1000, 4095, 8191, 65537, 131071):
    for pair in (0, 1, 5):
        angle = torch.tensor([position]).float() * inv_freq[pair]
        cos, sin = angle.cos().numpy()[0], angle.sin().numpy()[0]
        # str of a numpy f32 has the fewest digits that read back as the same f32.
        print(f"({position}, {inv_freq[pair].numpy()!s}, {cos!s}, {sin!s}),")

"""Prints bytes and FLOPs of the kernels of `lora_linear` as they are coded, beside the least possible, and what would
follow for two GPUs from their published peaks. Nothing here is measured.

usage: traffic.py
"""

TILE = 128          # rows and columns of a cube's tile, kernels/src/lora_linear/tensor_core/mod.rs
F32 = 4
# NF4 with double quantization: 4 bits, 8 bits for 64 elements, 32 bits for 64 * 256.
BITS = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8, "bf16": 16}
# NVIDIA's data sheets: bytes/s of memory, dense bf16 FLOP/s with f32 sums.
DEVICES = {"H100 SXM": (3.35e12, 989.4e12), "RTX 4090": (1.008e12, 165.2e12)}
# Of Llama 3.1 8B: name, out, in.
SHAPES = [("q_proj", 4096, 4096), ("k_proj", 1024, 4096), ("gate_proj", 14336, 4096), ("down_proj", 4096, 14336)]
RANK = 16


def up(a, b):
    return -(-a // b)


def product(rows, columns, inner, weight_bits, rank):
    """Bytes as coded, least bytes, FLOPs of one product with its low-rank term."""
    across, down = up(columns, TILE), up(rows, TILE)
    left, right = rows * inner * F32, columns * inner * weight_bits / 8
    left2, right2, out = rows * rank * F32, columns * rank * F32, rows * columns * F32
    coded = (left + left2) * across + (right + right2) * down + out
    return coded, left + left2 + right + right2 + out, 2 * rows * columns * (inner + rank)


def main():
    print("| kernel | tokens | as coded, MB | least, MB | packed weight, reads x MB | GFLOP | FLOP per least byte | "
          + " | ".join(f"{name}, ms" for name in DEVICES) + " |")
    print("| --- " + "| ---: " * (6 + len(DEVICES)) + "|")
    for kind in BITS:
        for name, out, width in SHAPES if kind == "nf4" else SHAPES[2:3]:
            for tokens in (512, 4096) if name == "gate_proj" and kind == "nf4" else (4096,):
                for label, rows, columns, inner in (("y", tokens, out, width), ("dx", tokens, width, out)):
                    coded, least, flops = product(rows, columns, inner, BITS[kind], RANK)
                    packed = out * width * BITS[kind] / 8
                    times = []
                    for bandwidth, peak in DEVICES.values():
                        memory, unit = least / bandwidth, flops / peak
                        times.append(f"{1e3 * max(memory, unit):.2f} ({'unit' if unit > memory else 'memory'})")
                    cells = [f"{label} of {name}, {kind}", tokens, f"{coded / 1e6:.0f}", f"{least / 1e6:.0f}",
                             f"{up(rows, TILE)} x {packed / 1e6:.1f}", f"{flops / 1e9:.0f}", f"{flops / least:.0f}"]
                    print("| " + " | ".join(map(str, cells + times)) + " |")


if __name__ == "__main__":
    main()

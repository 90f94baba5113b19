"""Prints bytes and FLOPs of the kernels of matrix units as they are coded, beside the least possible, and what would
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


# Of Llama 3.1 8B: query heads, key heads, elements of a head; rows of the head of the model and its width.
HEADS, KEY_HEADS, HEAD_DIM = 32, 8, 128
VOCAB, HIDDEN = 128256, 4096
ROWS, BLOCK = 64, 32    # Tile::of in kernels/src/attention/tensor_core/mod.rs
VOCAB_BLOCK = 4096      # kernels/src/linear_cross_entropy/tensor_core/mod.rs


def predicted(least, flops):
    """The larger of the two bounds on each device."""
    cells = []
    for bandwidth, peak in DEVICES.values():
        memory, unit = least / bandwidth, flops / peak
        cells.append(f"{1e3 * max(memory, unit):.2f} ({'unit' if unit > memory else 'memory'})")
    return cells


def attention(tokens):
    """Rows of a table: causal attention over one sample."""
    row = HEAD_DIM * F32
    qkv, out = tokens * (HEADS + 2 * KEY_HEADS) * row, tokens * HEADS * row
    of_rows = tokens * HEADS * F32      # log-sum-exp, or delta
    tiles = range(0, tokens, ROWS)
    # Rows of the other side that the tiles of a head fetch, and scores that they make: whole blocks.
    fetched = sum(up(min(first + ROWS, tokens), BLOCK) * BLOCK for first in tiles)
    scores, seen = ROWS * fetched, tokens * (tokens + 1) // 2
    own = tokens * HEADS * row
    forward = own + HEADS * fetched * 2 * row + out + of_rows, qkv + out + of_rows
    dq = 2 * own + HEADS * fetched * 2 * row + 2 * of_rows + own, qkv + 2 * out + of_rows * 2
    by_key = HEADS * fetched * 2 * (row + F32) + 2 * KEY_HEADS * tokens * row * 2
    dkv = by_key, qkv + out + 2 * of_rows + 2 * KEY_HEADS * tokens * row
    for name, (coded, least), each in (("forward", forward, 4), ("dq", dq, 6), ("dk and dv", dkv, 8)):
        flops, useful = each * HEAD_DIM * HEADS * scores, each * HEAD_DIM * HEADS * seen
        yield name, coded, least, flops, useful


def loss(tokens, weight_bits):
    """Rows of a table: the products of all blocks of the vocabulary."""
    blocks, weight = VOCAB / VOCAB_BLOCK, VOCAB * HIDDEN * weight_bits / 8
    x, logits = tokens * HIDDEN * F32, tokens * VOCAB * F32
    down = up(tokens, TILE)
    flops = 2 * tokens * HIDDEN * VOCAB
    # Hidden states are read for each tile column, the head for each tile row.
    yield "logits", x * up(VOCAB, TILE) + weight * down + logits, x + weight, flops, flops
    yield "softmax", 3 * logits, 0, 0, 0
    sums = logits * up(HIDDEN, TILE) + weight * down + 2 * x * blocks
    yield "sums for dx", sums, weight + x, flops, flops


def print_others():
    print("\n| kernel | tokens | as coded, MB | least, MB | GFLOP as coded | least | "
          + " | ".join(f"{name}, ms" for name in DEVICES) + " |")
    print("| --- " + "| ---: " * (5 + len(DEVICES)) + "|")
    rows = [(f"attention {row[0]}", tokens, *row[1:]) for tokens in (4096, 32768) for row in attention(tokens)]
    rows += [(f"loss: {row[0]}, {kind}", 4096, *row[1:]) for kind in ("bf16", "nf4") for row in loss(4096, BITS[kind])]
    for name, tokens, coded, least, flops, useful in rows:
        cells = [name, tokens, f"{coded / 1e6:.0f}", f"{least / 1e6:.0f}", f"{flops / 1e9:.0f}", f"{useful / 1e9:.0f}"]
        # The softmax of the loss is bound by what it is coded to move: its logits are nobody's result.
        cells += predicted(least or coded, flops)
        print("| " + " | ".join(map(str, cells)) + " |")


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
                    times = predicted(least, flops)
                    cells = [f"{label} of {name}, {kind}", tokens, f"{coded / 1e6:.0f}", f"{least / 1e6:.0f}",
                             f"{up(rows, TILE)} x {packed / 1e6:.1f}", f"{flops / 1e9:.0f}", f"{flops / least:.0f}"]
                    print("| " + " | ".join(map(str, cells + times)) + " |")
    print_others()


if __name__ == "__main__":
    main()

"""Compiles every CUDA source of a folder for each architecture and prints what came out, as Markdown.

usage: table.py TOOLKIT SOURCES [ARCH..]      SOURCES holds index.json and the .cu files that `cuda-source` wrote

Fails when a kernel spills registers, or when one that multiplies matrices has no tensor-core instruction. Spills that are
known, and said in docs/gpu-cuda.md, are listed here with their bytes.
"""
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys

from nvrtc import compile_to_ptx

# Per multiprocessor: registers, threads, shared memory in KiB (what blocks may take in all), blocks.
# CUDA C++ programming guide, table of compute capabilities.
LIMITS = {"80": (65536, 2048, 163, 32), "89": (65536, 1536, 99, 24), "90a": (65536, 2048, 227, 32), "100": (65536, 2048, 227, 32)}
RESERVED_SHARED = 1024  # a block, from sm_80 on
KNOWN_SPILLS = {("attention forward, 64", "100"): 8, ("attention forward, 128", "90a"): 8,
                ("attention dk and dv, 30, window, cap", "90a"): 56}


def occupancy(arch, registers, units, shared):
    """Warps that run at once on a multiprocessor over those that could, in per cent, and blocks."""
    all_registers, threads, shared_kib, most_blocks = LIMITS[arch]
    warps = -(-units // 32)
    # Registers are given to warps in pieces of 256.
    by_registers = all_registers // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = shared_kib * 1024 // (shared + RESERVED_SHARED)
    blocks = min(by_registers, threads // (32 * warps), by_shared, most_blocks)
    return 100 * blocks * warps * 32 / threads, blocks


def examine(toolkit, folder, kernel, arch):
    """Compiles one kernel for one architecture."""
    bin_folder = pathlib.Path(toolkit) / "bin"
    source = (folder / kernel["file"]).read_text()
    ptx_file = folder / f"{kernel['file']}.{arch}.ptx"
    ptx_file.write_text(compile_to_ptx(toolkit, arch, source))
    cubin = ptx_file.with_suffix(".cubin")
    command = [bin_folder / "ptxas", "-v", f"-arch=sm_{arch}", ptx_file, "-o", cubin]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers = int(re.search(r"Used (\d+) registers", told)[1])
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", told))
    static = re.search(r"(\d+) bytes smem", told)
    shared = kernel["shared_bytes"] + (int(static[1]) if static else 0)
    sass = subprocess.run([bin_folder / "cuobjdump", "-sass", cubin], check=True, capture_output=True, text=True).stdout
    unit = {name: len(re.findall(rf"\b{name}\b", sass)) for name in ("HMMA", "HGMMA", "UTCHMMA")}
    percent, blocks = occupancy(arch, registers, kernel["units"], shared)
    cubin.unlink()
    return {"name": kernel["name"], "arch": arch, "registers": registers, "spills": spills, "shared": shared,
            "unit": sum(unit.values()), "percent": percent, "blocks": blocks, "multiplies": kernel["multiplies"]}


def main():
    toolkit, folder, archs = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:] or list(LIMITS)
    kernels = json.loads((folder / "index.json").read_text())
    jobs = [(kernel, arch) for kernel in kernels for arch in archs]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        rows = list(pool.map(examine, *zip(*[(toolkit, folder, kernel, arch) for kernel, arch in jobs])))
    print("| kernel | threads | shared, KiB | " + " | ".join(f"sm_{arch}" for arch in archs) + " |")
    print("| --- | ---: | ---: |" + " --- |" * len(archs))
    failures = []
    for kernel in kernels:
        own = [row for row in rows if row["name"] == kernel["name"]]
        cells = []
        for row in own:
            spilled = f", {row['spills']} B spilled" if row["spills"] else ""
            cells.append(f"{row['registers']} regs, {row['percent']:.0f} %, {row['unit']} MMA{spilled}")
            if row["spills"] > KNOWN_SPILLS.get((row["name"], row["arch"]), 0):
                failures.append(f"`{row['name']}` spills {row['spills']} bytes on sm_{row['arch']}")
            if row["multiplies"] and not row["unit"]:
                failures.append(f"`{row['name']}` has no tensor-core instruction on sm_{row['arch']}")
            if not row["blocks"]:
                failures.append(f"`{row['name']}` does not fit on a multiprocessor of sm_{row['arch']}")
        print(f"| {kernel['name']} | {kernel['units']} | {own[0]['shared'] / 1024:.1f} | " + " | ".join(cells) + " |")
    print(f"\n{len(rows)} compilations, {sum(row['spills'] for row in rows)} bytes of spills")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

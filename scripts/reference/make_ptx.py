"""Compiles ptx/fixtures/fixtures.cu to PTX, with NVRTC 13.5 from the wheels (see scripts/gpu/cuda_source.sh).

usage: make_ptx.py TOOLKIT      writes ptx/fixtures/fixtures.ptx
"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/gpu"))
from nvrtc import compile_to_ptx  # noqa: E402

fixtures = ROOT / "ptx/fixtures"
ptx = compile_to_ptx(sys.argv[1], "80", (fixtures / "fixtures.cu").read_text())
(fixtures / "fixtures.ptx").write_text(ptx)
print(f"{len(ptx)} bytes, {ptx.count('.entry')} kernels")

"""Compiles CUDA C++ to PTX with NVRTC from the wheels, without a GPU or a driver.

usage: nvrtc.py TOOLKIT ARCH SOURCE.cu OUT.ptx      TOOLKIT is site-packages/nvidia/cu13, ARCH such as 80 or 90a
"""
import ctypes
import pathlib
import sys


def compile_to_ptx(toolkit, arch, source):
    """Returns the PTX of a text; raises RuntimeError with the compiler's first lines."""
    library = sorted(pathlib.Path(toolkit).glob("lib/libnvrtc.so.*"))
    if not library:
        raise RuntimeError(f"no libnvrtc.so in {toolkit}/lib")
    nvrtc = ctypes.CDLL(str(library[0]))
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None):
        raise RuntimeError("nvrtcCreateProgram failed")
    # What CubeCL passes: https://github.com/tracel-ai/cubecl, crates/cubecl-cuda (fast math off).
    options = [f"--gpu-architecture=compute_{arch}", "--std=c++17", f"-I{toolkit}/include"]
    array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    if failed:
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError("\n".join(log.value.decode().splitlines()[:12]))
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.value.decode()


if __name__ == "__main__":
    toolkit, arch, source, out = sys.argv[1:]
    try:
        ptx = compile_to_ptx(toolkit, arch, pathlib.Path(source).read_text())
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    pathlib.Path(out).write_text(ptx)

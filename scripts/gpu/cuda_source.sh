#!/usr/bin/env bash
# Checks the CUDA kernels without a GPU: compiles the CUDA source of each for several architectures, and runs what
# comes out in the interpreter of `ptx/` against the definitions. See docs/gpu-cuda.md.
#
# NVIDIA's compilers come from PyPI (190 MB, once) into the user's cache; SEEDCORN_CUDA_TOOLKIT names a folder with lib,
# include and bin instead. The build shares what the ordinary one has made, and makes what its features add.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/seedcorn-gpu"
version=13.5.37
if [[ -z "${SEEDCORN_CUDA_TOOLKIT:-}" ]]; then
    wheels="$cache/cuda-$version"
    if [[ ! -e $wheels/.complete ]]; then
        python3 -m pip install --quiet --no-deps --upgrade --target "$wheels" \
            nvidia-cuda-{nvrtc,nvcc,crt,runtime,cuobjdump,nvdisasm}=="$version" nvidia-nvvm=="$version" nvidia-cuda-cccl==13.3.5.0.6
        touch "$wheels/.complete"
    fi
    SEEDCORN_CUDA_TOOLKIT="$wheels/nvidia/cu13"
fi
export SEEDCORN_CUDA_TOOLKIT
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/seedcorn-ci/target}" CARGO_INCREMENTAL=0

sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
features=(--workspace --features seedcorn-tests/cuda-source)
# Of tests, since the ordinary tests' dependencies are then used as they are; it makes the program, too.
cargo test "${features[@]}" --test cuda_source --no-run
"$CARGO_TARGET_DIR/debug/cuda-source" "$sources"
python3 scripts/gpu/table.py "$SEEDCORN_CUDA_TOOLKIT" "$sources"
cargo test "${features[@]}" --test cuda_source -- "$@"

#!/usr/bin/env bash
# Runs a command of cargo with what the feature `cuda` needs to build: `scripts/gpu/cuda.sh build --release`.
#
# CubeCL's CUDA backend is linked with LLVM 23 whichever way its kernels are compiled, and its build script fetches
# that from GitHub. Where there is no GitHub, or with SEEDCORN_LLVM=pypi, it comes from the Python package index (two
# wheels, 397 MB unpacked, kept in the user's cache). SEEDCORN_LLVM=none checks without LLVM; that cannot link.
#
# At run time: NVIDIA's driver, NVRTC and the CUDA headers (docs/gpu.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[[ $# -gt 0 ]] || { echo "usage: scripts/gpu/cuda.sh check|clippy|build|run|test [options of cargo]" >&2; exit 2; }
command=$1
shift

llvm=23.1.0-4 # what tracel-llvm-bundler asks for
cache="${XDG_CACHE_HOME:-$HOME/.cache}/seedcorn-gpu"
way="${SEEDCORN_LLVM:-}"
if [[ -z $way ]]; then
    way=pypi
    if curl --silent --fail --head --max-time 10 --output /dev/null https://github.com/tracel-ai; then way=github; fi
fi
case $way in
github) ;;
none) export DOCS_RS=1 ;;
pypi)
    wheels="$cache/llvm-$llvm"
    if [[ ! -e $wheels/.complete ]]; then
        python3 -m pip install --quiet --no-deps --upgrade --target "$wheels" \
            mlc-llvm-static==23.1.1.post0 mlc-llvm-static-extra-targets==23.1.1.post0
        # The mark by which the build script knows that nothing is to be fetched.
        touch "$wheels/mlc_llvm_static/static/.tracel-llvm-installed" "$wheels/.complete"
    fi
    export XDG_DATA_HOME="$cache/data" TRACEL_LLVM_BUNDLER_SKIP_CHECKSUM_DOWNLOAD=1
    mkdir -p "$XDG_DATA_HOME/tracel"
    ln -sfn "$wheels/mlc_llvm_static/static" "$XDG_DATA_HOME/tracel/tracel-llvm-$llvm"
    ;;
*)
    echo "error: SEEDCORN_LLVM is \`$way\`, expected \`github\`, \`pypi\` or \`none\`" >&2
    exit 2
    ;;
esac

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/seedcorn-ci/cuda}"
export CARGO_INCREMENTAL=0
exec cargo "$command" --features cuda "$@"

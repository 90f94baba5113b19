#!/usr/bin/env bash
# Takes ranks with NCCL as far as they come without a GPU: the library is found, rank 0 makes the token of a world and hands
# it out, and every rank says that there is no CUDA driver.
#
#   scripts/verify/check_nccl.sh SEEDCORN RECIPE [TORCHRUN]
#
# SEEDCORN is built with `--features nccl`. NCCL comes from the Python package nvidia-nccl-cu12 (300 MB), fetched into a
# temporary folder, or from where SEEDCORN_NCCL points. With TORCHRUN (of PyTorch) scripts/launch/torchrun.sh is checked too:
# on one machine, static on two, and elastic with a restart.
#
# What NCCL itself says without a GPU is a test of the library:
#   SEEDCORN_NCCL=.../libnccl.so.2 cargo test --features nccl --lib nccl -- --ignored
set -euo pipefail
seedcorn=$(realpath "${1:?usage: check_nccl.sh SEEDCORN RECIPE [TORCHRUN]}")
recipe=$(realpath "${2:?usage: check_nccl.sh SEEDCORN RECIPE [TORCHRUN]}")
torchrun=${3:-}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ -z ${SEEDCORN_NCCL:-} ]]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/python" nvidia-nccl-cu12==2.32.3
    export SEEDCORN_NCCL=$work/python/nvidia/nccl/lib/libnccl.so.2
fi

failed=0
# expect NAME COUNT TEXT: so many lines of what was said have the text.
expect() {
    local found
    found=$(grep -c -- "$3" "$work/said" || true)
    if [[ $found -eq $2 ]]; then
        echo "ok    $1: $found x \"$3\""
    else
        echo "WRONG $1: $found x \"$3\", expected $2"
        cat "$work/said"
        failed=1
    fi
}

"$seedcorn" doctor >"$work/said" 2>&1
expect doctor 1 'NCCL: 2\.[0-9.]*, but this machine has no CUDA driver'

SEEDCORN_NCCL=/nowhere/libnccl.so "$seedcorn" launch --ranks 2 --with nccl -- train "$recipe" >"$work/said" 2>&1 || true
expect "no library" 2 'Caused by: NCCL cannot be loaded: /nowhere/libnccl.so'

# A rank comes to the driver only after the meeting: rank 1 needs the token of rank 0, and rank 0 waits for rank 1.
launched=0
"$seedcorn" launch --ranks 2 --with nccl -- train "$recipe" >"$work/said" 2>&1 || launched=$?
expect launch 1 'error: rank 0 cannot reach the others at `start` of step 0'
expect launch 1 'error: rank 1 cannot reach the others at `start` of step 0'
expect launch 2 'Caused by: this machine has no CUDA driver'
echo "launch ended with exit code $launched"

if [[ -n $torchrun ]]; then
    export SEEDCORN=$seedcorn TORCHRUN=$torchrun NPROC_PER_NODE=2 MAX_RESTARTS=0
    "$here/../launch/torchrun.sh" "$recipe" >"$work/said" 2>&1 || true
    expect "torchrun, one machine" 2 'Caused by: this machine has no CUDA driver'

    port=29611
    export NNODES=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port NPROC_PER_NODE=1
    NODE_RANK=1 "$here/../launch/torchrun.sh" "$recipe" >"$work/other" 2>&1 &
    NODE_RANK=0 "$here/../launch/torchrun.sh" "$recipe" >"$work/said" 2>&1 || true
    wait || true
    cat "$work/other" >>"$work/said"
    expect "torchrun, static on two" 2 'Caused by: this machine has no CUDA driver'

    unset MASTER_ADDR MASTER_PORT
    # Two groups of ranks, which end twice: the second time after a restart, with a meeting of its own.
    export NNODES=1:2 MAX_RESTARTS=1 RDZV_ENDPOINT=127.0.0.1:29621 RDZV_ID=check NPROC_PER_NODE=2
    "$here/../launch/torchrun.sh" "$recipe" >"$work/said" 2>&1 || true
    expect "torchrun, elastic" 4 'Caused by: this machine has no CUDA driver'
fi
exit "$failed"

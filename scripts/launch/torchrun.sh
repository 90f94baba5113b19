#!/usr/bin/env bash
# Ranks on GPUs, one a GPU, that reach each other by NCCL. torchrun starts them and starts them again; nothing of PyTorch is
# used. Not yet run on a GPU.
#
#   scripts/launch/torchrun.sh RECIPE [--set key=value ...]                                  # all GPUs of this machine
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=node1 scripts/launch/torchrun.sh RECIPE ...            # on each of two machines
#   NNODES=1:4 RDZV_ENDPOINT=node1:29400 RDZV_ID=run7 scripts/launch/torchrun.sh RECIPE ... # elastic, the same everywhere
#
# SEEDCORN is the program, built with `--features nccl` (default: `seedcorn` on the PATH). NPROC_PER_NODE are the ranks of a
# machine (default: its GPUs), MAX_RESTARTS how often all ranks are started again when one is lost (default: 3). Their number
# may change then; it must divide the micro-batches of a step.
#
# Where torchrun's agent holds MASTER_PORT itself, rank 0 listens at the next port; SEEDCORN_MASTER_PORT chooses another.
set -euo pipefail
recipe=${1:?usage: torchrun.sh RECIPE [FLAG ...]}
shift
flags=(--no-python --nproc-per-node "${NPROC_PER_NODE:-gpu}" --nnodes "${NNODES:-1}" --max-restarts "${MAX_RESTARTS:-3}")
if [[ -n ${RDZV_ENDPOINT:-} ]]; then
    flags+=(--rdzv-backend c10d --rdzv-endpoint "$RDZV_ENDPOINT" --rdzv-id "${RDZV_ID:?}")
elif [[ ${NNODES:-1} != 1 ]]; then
    flags+=(--node-rank "${NODE_RANK:?}" --master-addr "${MASTER_ADDR:?}" --master-port "${MASTER_PORT:-29500}")
else
    flags+=(--standalone)
fi
# Without a checkpoint `--resume` starts from the beginning.
exec "${TORCHRUN:-torchrun}" "${flags[@]}" "${SEEDCORN:-seedcorn}" train "$recipe" --resume "$@"

#!/usr/bin/env bash
# A run on one or several machines that reach each other by ssh, one rank a slot.
#
#   scripts/launch/mpirun.sh HOSTS RECIPE [--set key=value ...]
#   scripts/launch/mpirun.sh node1:2,node2:2 recipe.toml --resume
#
# HOSTS are machines with their numbers of ranks. SEEDCORN is the program, built with `--features mpi` (default: `seedcorn` on
# the PATH); it, the recipe, the model and the data must be at the same paths everywhere. MPIRUN_FLAGS are added, for instance
# `--mca btl_tcp_if_include eth0` where machines have networks that do not reach each other.
set -euo pipefail
hosts=${1:?usage: mpirun.sh HOSTS RECIPE [FLAG ...]} recipe=${2:?usage: mpirun.sh HOSTS RECIPE [FLAG ...]}
shift 2
ranks=0
for host in ${hosts//,/ }; do
    slots=${host##*:}
    [[ $slots = "$host" ]] && slots=1
    ranks=$((ranks + slots))
done
flags=()
if [[ $(id -u) -eq 0 ]]; then flags+=(--allow-run-as-root); fi
read -ra more <<<"${MPIRUN_FLAGS:-}"
# Without `--bind-to none` two ranks are tied to one core each, whatever the machine has.
exec mpirun "${flags[@]}" --host "$hosts" -np "$ranks" --bind-to none "${more[@]}" \
    "${SEEDCORN:-seedcorn}" train "$recipe" "$@"

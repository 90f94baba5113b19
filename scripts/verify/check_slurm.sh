#!/usr/bin/env bash
# Runs scripts/launch/slurm.sbatch on a Slurm cluster of this one machine, and compares the adapters with that of one rank.
#
#   scripts/verify/check_slurm.sh SEEDCORN RECIPE [--set key=value ...]
#
# SEEDCORN is built with `--features mpi`. Needs root and Debian's packages `slurm-wlm slurm-wlm-basic-plugins`; the
# cluster lives in a temporary folder and on ports of its own, and is gone at the end. The run should take half a minute or
# more, and save checkpoints every few seconds. Each job is disturbed once, queued again and must end by itself:
#   notice   the signal that Slurm sends ahead of the time limit
#   kill     SIGKILL of one rank
#   drain    the node is taken away and the job queued again by hand, as by the failure of a node
set -euo pipefail
seedcorn=$(realpath "${1:?usage: check_slurm.sh SEEDCORN RECIPE [--set key=value ...]}")
recipe=$(realpath "${2:?usage: check_slurm.sh SEEDCORN RECIPE [--set key=value ...]}")
shift 2
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf

daemons=()
finish() {
    scancel --user=root 2>/dev/null || true
    for ((at = ${#daemons[@]} - 1; at >= 0; at--)); do kill "${daemons[at]}" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

host=$(hostname -s)
mkdir "$work/state" "$work/spool"
cat >"$SLURM_CONF" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=26817
SlurmdPort=26818
AuthType=auth/none
CredType=cred/none
# A job that is queued again waits for its old credential to expire.
AuthInfo=cred_expire=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
KillWait=5
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D -f "$SLURM_CONF" -N "$host" >"$work/slurmd.log" 2>&1 &
daemons+=($!)
until sinfo --noheader --format=%T 2>/dev/null | grep -q idle; do
    for daemon in "${daemons[@]}"; do
        kill -0 "$daemon" || { cat "$work"/slurm*.log >&2; exit 1; }
    done
    sleep 1
done
slurmctld -V

digest() { sha256sum "$work/$1/adapter/adapter_model.safetensors" | cut -d' ' -f1; }

"$seedcorn" --quiet train "$recipe" "$@" --set "output=$work/one"
echo "one rank    $(digest one)"

# Returns once the job has saved a checkpoint.
wait_for_checkpoint() {
    until compgen -G "$work/$1/checkpoints/step-*" >/dev/null; do sleep 0.2; done
}

failed=0
cd "$work"
for way in notice kill drain; do
    job=$(SEEDCORN=$seedcorn sbatch --parsable --ntasks=2 --cpus-per-task=1 --output="$work/$way.log" \
        "$here/../launch/slurm.sbatch" "$recipe" "$@" --set "output=$work/$way")
    wait_for_checkpoint "$way"
    case $way in
    notice) scancel --batch --signal=USR1 "$job" ;;
    kill) kill -KILL "$(pgrep -f "^$seedcorn .*output=$work/$way" | tail -1)" ;;
    drain) scontrol requeue "$job" ;;
    esac
    until [[ -e $work/$way/adapter/run.lock ]] || squeue --noheader --job="$job" --format=%T 2>/dev/null | grep -q FAILED; do
        sleep 1
        [[ -n $(squeue --noheader --job="$job" 2>/dev/null) ]] || break
    done
    restarts=$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')
    if [[ -e $work/$way/adapter/run.lock && $(digest "$way") = "$(digest one)" && $restarts = Restarts=1 ]] &&
        grep -q "continuing after step" "$way.log"; then
        verdict=same
    else
        verdict=DIFFERENT failed=1
        cat "$way.log"
    fi
    echo "$(printf %-11s "$way") $(digest "$way") $restarts  $verdict: $(grep -h 'continuing after step' "$way.log" || true)"
done
exit "$failed"

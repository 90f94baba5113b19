#!/usr/bin/env bash
# Trains with one rank on each of two "hosts" that share nothing but a network, and counts the bytes on the wire.
#
#   scripts/verify/check_hosts.sh SEEDCORN RECIPE [--set key=value ...]
#
# The hosts are two network namespaces joined by a pair of virtual devices; scripts/launch/mpirun.sh starts the ranks over
# them, as it does over ssh. SEEDCORN is built with `--features mpi`. Needs root, and the tools `ip`, `mpirun`, `python3`.
#
# Prints the sha256 of the adapter beside that of one rank, and the bytes a step that left each host (the counters of the
# devices) beside those that `seedcorn plan` says: payload, and on the wire with the headers of TCP, IP and Ethernet. To
# take out start and end, runs of two lengths are compared. Ends with 1 if the adapters differ, or if the payload that is
# left without headers is off by more than 5 %.
set -euo pipefail
seedcorn=$(realpath "${1:?usage: check_hosts.sh SEEDCORN RECIPE [--set key=value ...]}")
recipe=$(realpath "${2:?usage: check_hosts.sh SEEDCORN RECIPE [--set key=value ...]}")
shift 2
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
first=seedcorn-$$-a second=seedcorn-$$-b
few=${FEW_STEPS:-2} many=${MANY_STEPS:-6}

finish() {
    ip netns delete "$first" 2>/dev/null || true
    ip netns delete "$second" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

ip netns add "$first"
ip netns add "$second"
ip link add "wire$$a" type veth peer name "wire$$b"
ip link set "wire$$a" netns "$first"
ip link set "wire$$b" netns "$second"
ip -n "$first" addr add 10.99.0.1/24 dev "wire$$a"
ip -n "$second" addr add 10.99.0.2/24 dev "wire$$b"
for space in "$first" "$second"; do ip -n "$space" link set lo up; done
ip -n "$first" link set "wire$$a" up
ip -n "$second" link set "wire$$b" up

# In the place of ssh: a command on a host is a command in its namespace.
cat >"$work/rsh" <<RSH
#!/usr/bin/env bash
case \$1 in 10.99.0.1) space=$first ;; 10.99.0.2) space=$second ;; *) echo "unknown host \$1" >&2; exit 1 ;; esac
shift
exec ip netns exec \$space sh -c "\$*"
RSH
chmod +x "$work/rsh"

train() { # NAME STEPS FLAG ...: on two hosts
    local name=$1 steps=$2
    shift 2
    SEEDCORN=$seedcorn MPIRUN_FLAGS="--mca plm_rsh_agent $work/rsh --mca btl tcp,self --mca btl_tcp_if_include 10.99.0.0/24 --mca oob_tcp_if_include 10.99.0.0/24" \
        ip netns exec "$first" "$here/../launch/mpirun.sh" 10.99.0.1:1,10.99.0.2:1 "$recipe" --quiet "$@" \
        --set "train.steps=$steps" --set schedule.warmup_steps=0 --set "output=$work/$name"
}

sent() { # HOST DEVICE: bytes and packets that left it
    ip netns exec "$1" cat "/sys/class/net/$2/statistics/tx_bytes" "/sys/class/net/$2/statistics/tx_packets" | tr '\n' ' '
}
wire() { echo "$(sent "$first" "wire$$a") $(sent "$second" "wire$$b")"; }

"$seedcorn" --quiet train "$recipe" "$@" --set "train.steps=$many" --set schedule.warmup_steps=0 --set "output=$work/one"
counted=$(wire)
train few "$few" "$@"
counted="$counted $(wire)"
train many "$many" "$@"
counted="$counted $(wire)"
"$seedcorn" plan "$recipe" "$@" --mesh data=2 --set "train.steps=$many" --set schedule.warmup_steps=0 --json >"$work/plan.json"

python3 - "$work" "$few" "$many" $counted <<'PYTHON'
import hashlib, json, pathlib, sys

work, few, many = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
before, between, after = (list(map(int, sys.argv[4 + 4 * at : 8 + 4 * at])) for at in range(3))
one, two = (hashlib.sha256((work / name / "adapter/adapter_model.safetensors").read_bytes()).hexdigest() for name in ("one", "many"))
print(f"one rank   {one}\ntwo hosts  {two}  {'same' if one == two else 'DIFFERENT'}")

plan = json.loads((work / "plan.json").read_text())
planned = sum(sent["bytes"] for sent in plan["traffic"]["step"])
failed = one != two
# Ethernet (14), IP (20), TCP with time stamps (32); what acknowledges carry nothing else.
HEADERS = 66
for at, host in enumerate(("first", "second")):
    short, long = ([end - start for start, end in zip(a[2 * at : 2 * at + 2], b[2 * at : 2 * at + 2])] for a, b in ((before, between), (between, after)))
    wire, packets = ((more - less) / (many - few) for less, more in zip(short, long))
    payload = wire - HEADERS * packets
    off = payload / planned - 1
    failed |= abs(off) > 0.05
    print(f"{host} host: {planned} bytes a step planned, {payload:.0f} sent ({off:+.2%}), {wire:.0f} on the wire in {packets:.0f} packets ({wire / planned - 1:+.2%})")
sys.exit(failed)
PYTHON

#!/usr/bin/env bash
# Installs what `cargo build --features mpi` needs on Debian and Ubuntu, as root: Open MPI, its headers, and libclang,
# which reads them.
set -euo pipefail
apt-get update
apt-get install -y --no-install-recommends openmpi-bin libopenmpi-dev libclang-dev
mpirun --version | head -1

#!/usr/bin/env bash
# Builds with the feature `wgpu` and runs the tests that need a device: every kernel against its reference, then whole
# runs against the CPU's. Without a device all show as ignored, with the reason.
#
# Needs a Vulkan driver where it runs; Debian's `mesa-vulkan-drivers` has one that needs no GPU. The build takes some 20
# minutes on two cores at first and is kept in the user's cache; set CARGO_TARGET_DIR to choose another place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/seedcorn-ci/gpu}"
export CARGO_INCREMENTAL=0
# Mesa's choice among a screen's devices, which writes to stderr where there is no screen.
export NODEVICE_SELECT="${NODEVICE_SELECT:-1}"
features=seedcorn-kernels/wgpu,seedcorn/wgpu,seedcorn-tests/wgpu
exec cargo test --profile gpu --workspace --features "$features" --test wgpu --test wgpu-runs "$@"

# Recipes for people; `.ci/run` runs the same commands.

# List the recipes.
default:
    @just --list --unsorted

# Everything cheap: format, lints, licences and sources of dependencies.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: skipped"; fi

# All tests, without network. `just test loss` runs those with `loss` in their name.
test *filter:
    cargo test --workspace {{ filter }}

# The tests on a wgpu device, in a build of their own (some 20 minutes at first, kept outside the clone).
gpu-wgpu:
    scripts/gpu/wgpu.sh

# Benches of one op, or of all.
bench op="":
    cargo bench --workspace {{ if op == "" { "" } else { "--bench " + op } }}

# The CUDA kernels without a GPU: compiled by NVIDIA's compilers (fetched from PyPI once), run in the interpreter.
gpu-cuda-source *filter:
    scripts/gpu/cuda_source.sh {{ filter }}

# Accept changed snapshots. Say in the commit why they changed.
bless:
    if command -v cargo-insta >/dev/null; then cargo insta test --accept --workspace; else INSTA_UPDATE=always INSTA_FORCE_PASS=1 cargo test --workspace; echo "snapshots inside test files need cargo-insta (cargo install cargo-insta)"; fi
    git status --short

# The API documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# What the server runs.
ci:
    .ci/run

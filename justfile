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

# Benches of one op, or of all.
bench op="":
    cargo bench -p seedcorn-kernels {{ if op == "" { "" } else { "--bench " + op } }}

# Accept changed snapshots. Say in the commit why they changed.
bless:
    INSTA_UPDATE=always cargo test --workspace
    git status --short

# The API documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# What the server runs.
ci:
    .ci/run

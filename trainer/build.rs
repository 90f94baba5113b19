//! Tells the program which commit it is built from, when it is built from a clone.

use std::process::Command;

fn main() {
    // Whatever the program is made of, and the place where git notes a commit or another branch.
    for source in ["../kernels/src", "../adapters/src", "../data/src", "src", "../Cargo.lock", "build.rs"] {
        println!("cargo:rerun-if-changed={source}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    // `-dirty` when tracked files differ from the commit.
    if let Some(commit) = git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]) {
        println!("cargo:rustc-env=SEEDCORN_COMMIT={commit}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

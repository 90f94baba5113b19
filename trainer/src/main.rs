//! The `seedcorn` command.

fn main() {}

//! The command line: exact output and exit codes.
//!
//! Every test plays on a [`stage`](stage::Stage), a temporary folder with a tiny model, data and a recipe, and
//! breaks one thing. What is shown of a command: its exit code, stdout, stderr.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod bad_data;
mod bad_model;
mod bad_recipe;
mod help;
mod launch;
mod licences;
mod plan;
mod ranks;
mod report;
mod runs;
mod sign;
mod stage;
mod tensor;
mod verbs;
mod verify;
mod weights;

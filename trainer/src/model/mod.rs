//! Models: one decoder of parts, driven by an architecture spec.

pub mod config;
mod config_error;
#[cfg(test)]
mod config_tests;
pub mod family;
mod fields;
pub mod spec;

//! Causal attention over packed samples with grouped heads.

mod layout;

pub use layout::QkvLayout;

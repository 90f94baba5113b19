//! Frozen projections, low-rank adapters and the PEFT format.

//! The op on matrix units, in CubeCL: the CPU's sweep over blocks of the vocabulary.
//!
//! A block is a product of the rows with targets and 4096 rows of the head (its packed elements decoded on the way into
//! shared memory), one step of the online softmax, and where a gradient is wanted a second product, `exp . W`, onto
//! the sums so far, each row of these shrunk to its new maximum. Both products are those of
//! [`lora_linear`](crate::lora_linear::tensor_core).
//!
//! # Determinism
//! No atomics: a row's logits are summed by one cube, over the units of a plane and then over planes in a fixed tree, and
//! blocks come in rising order.
//!
//! # Numerics
//! Hidden states, weights and `exp` are rounded to bf16 (to nearest even) for the products, which are summed in f32;
//! `exp` is relative to the largest logit so far. The softmax's sums and losses are f32; `W[target]` is subtracted as
//! it is stored.

pub mod call;
pub(crate) mod rows;

/// Rows of the head whose logits exist at one time.
pub(crate) const BLOCK: usize = 4096;

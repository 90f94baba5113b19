//! Rotary position embedding of the query and key heads of a fused `qkv` tensor.
//!
//! Hugging Face's half rotation: element `i` of a head pairs with element `i + head_dim / 2`, and the pair
//! turns by `angle = position * inv_freq[i]`. Angle, cosine and sine are f32 as in transformers, where the
//! rounding of the angle is part of what the model was trained with.
//!
//! # Source
//! Su et al., "RoFormer", 2021, <https://arxiv.org/abs/2104.09864>; `apply_rotary_pos_emb` and
//! `LlamaRotaryEmbedding` in Hugging Face transformers.

mod autodiff;
mod backward;
mod cpu;
#[cfg(feature = "cube")]
mod cubecl;
pub mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::attention::QkvLayout;
use crate::{flex, isa};

/// The frequencies of a model, already scaled (llama3, linear, ..) by whoever reads its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Radians per position of each pair: `head_dim / 2` values.
    pub inv_freq: Arc<[f32]>,
    /// Factor on cosine and sine; 1 except for some long-context scalings.
    pub attention_scaling: f32,
}

/// Backends that have the op; call [`rope`] instead.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait RopeBackend: Backend {
    /// Rotates the query and key heads of `qkv: [t, width]`; `inverse` turns the other way.
    fn rope(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        positions: Arc<[u32]>,
        table: RopeTable,
        inverse: bool,
    ) -> FloatTensor<Self>;
}

/// Rotates every query and key head of token `t` by the angles of `positions[t]`; value heads are copied.
///
/// `y[i] = x[i] cos - x[i + h] sin`, `y[i + h] = x[i + h] cos + x[i] sin` with `h = head_dim / 2`.
///
/// # Shapes
/// - `qkv`: `[t, layout.width()]`, f32
/// - `positions`: `t` values; they restart at every packed sample
/// - result: as `qkv`
///
/// # Panics
/// If the shapes disagree, or `head_dim` is odd.
pub fn rope(qkv: Tensor<2>, layout: QkvLayout, positions: Arc<[u32]>, table: RopeTable) -> Tensor<2> {
    let [t, width] = qkv.dims();
    layout.assert_fits("rope", width);
    assert_eq!(positions.len(), t, "`rope`: positions against tokens");
    assert_eq!(table.inv_freq.len() * 2, layout.head_dim, "`rope`: twice the frequencies against `head_dim`");
    Tensor::from_dispatch(Dispatch::rope(qkv.into_dispatch(), layout, positions, table, false))
}

/// Rotates the query and key heads of rows on plain slices, in place: the path of `generate`.
///
/// # Panics
/// If the shapes disagree, as in [`rope`].
pub fn rope_in_place(qkv: &mut [f32], layout: QkvLayout, positions: &[u32], table: &RopeTable) {
    layout.assert_fits("rope", qkv.len().checked_div(positions.len()).unwrap_or(layout.width()));
    assert_eq!(table.inv_freq.len() * 2, layout.head_dim, "`rope`: twice the frequencies against `head_dim`");
    cpu::rotate(isa::tier(), qkv, layout, positions, table);
}

impl RopeBackend for Flex {
    fn rope(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        positions: Arc<[u32]>,
        table: RopeTable,
        inverse: bool,
    ) -> FloatTensor<Self> {
        let mut qkv = flex::contiguous(qkv);
        // In place where no one else holds the tensor; a copy otherwise.
        let rows = flex::slice_mut(&mut qkv);
        if inverse {
            backward::rotate(isa::tier(), rows, layout, &positions, &table);
        } else {
            cpu::rotate(isa::tier(), rows, layout, &positions, &table);
        }
        qkv
    }
}

//! Rows of a frozen table, one a token: `[tokens, width]`. The table never trains, so there is no gradient.
//!
//! # Limits
//! Memory: a row read and a row written a token.

#[cfg(feature = "cube")]
mod cubecl;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::frozen::FrozenWeight;

/// Looks up the rows of `ids` in `table: [rows, width]`; the result is on `device`, where the table is.
///
/// # Panics
/// When an id is not below the table's rows.
pub fn embedding(table: &FrozenWeight, ids: &[u32], device: &Device) -> Tensor<2> {
    let [rows, width] = table.shape();
    assert!(ids.iter().all(|&id| (id as usize) < rows), "an id beyond the table's {rows} rows");
    #[cfg(feature = "cube")]
    if let Some(weight) = table.on_device() {
        return cubecl::embedding(weight, table.compute(), ids, width, device);
    }
    let mut x = vec![0.0f32; ids.len() * width];
    x.par_chunks_exact_mut(width.max(1))
        .zip(ids)
        .with_min_len(64)
        .for_each(|(row, &id)| table.read_row(id as usize, row));
    Tensor::from_data(TensorData::new(x, [ids.len(), width]), device)
}

//! Merging of an adapter into a weight: `W + scale * B A`, in f32.
//!
//! Shapes: W `[out, in]`, A `[rank, in]`, B `[out, rank]`, all row-major.

use rayon::prelude::*;
use seedcorn_adapters::lora::LoraWeights;

use super::folder::ExportError;

/// Adds an adapter to its layer's weight in place.
///
/// # Numerics
/// A row of the update is summed over the rank in order, in f32, scaled, then added: the order PEFT's
/// `get_delta_weight` defines up to its matrix product. Rows are independent, so the number of threads does
/// not matter.
///
/// # Errors
/// A weight whose size is not the adapter's `[out, in]`.
pub fn merge_into(weight: &mut [f32], adapter: &LoraWeights) -> Result<(), ExportError> {
    let (rows, columns, rank) = (adapter.out_features, adapter.in_features, adapter.rank);
    if weight.len() != rows * columns || adapter.a.len() != rank * columns || adapter.b.len() != rows * rank {
        return Err(ExportError::MergeShape {
            module: adapter.name.clone(),
            elements: weight.len(),
            rows,
            columns,
        });
    }
    weight.par_chunks_mut(columns).zip(adapter.b.par_chunks(rank)).for_each(|(row, b)| {
        let mut delta = vec![0.0_f32; columns];
        for (b, a) in b.iter().zip(adapter.a.chunks(columns)) {
            for (sum, a) in delta.iter_mut().zip(a) {
                *sum += b * a;
            }
        }
        for (w, delta) in row.iter_mut().zip(&delta) {
            *w += adapter.scale * delta;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> LoraWeights {
        LoraWeights {
            name: "m.q_proj".to_owned(),
            rank: 2,
            scale: 0.5,
            a: vec![1.0, 2.0, 3.0, -1.0, 0.0, 4.0],
            b: vec![2.0, 1.0, 0.0, -3.0],
            in_features: 3,
            out_features: 2,
        }
    }

    #[test]
    fn adds_the_scaled_product() {
        let mut weight = vec![10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        merge_into(&mut weight, &adapter()).unwrap();
        // B A = [[1, 4, 10], [3, 0, -12]] by hand.
        assert_eq!(weight, [10.5, 22.0, 35.0, 41.5, 50.0, 54.0]);
    }

    #[test]
    fn other_shapes_are_errors() {
        let fault = merge_into(&mut [0.0; 5], &adapter()).unwrap_err().to_string();
        assert_eq!(fault, "`m.q_proj` has 5 elements, its adapter is for 2 x 3");
    }
}

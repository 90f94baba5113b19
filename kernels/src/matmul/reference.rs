//! The definition: three plain loops.

use super::{Mode, Operand, View, ViewMut};

/// Computes what [`super::matmul`] computes, one element after the other, accumulating in f64.
pub fn matmul_reference(m: usize, n: usize, k: usize, a: View, b: &Operand, c: ViewMut, mode: Mode) {
    let ViewMut { data, stride } = c;
    let mut column = vec![0.0f32; k];
    for j in 0..n {
        b.pack(0..k, j, 1, 1, &mut column);
        for i in 0..m {
            let row = &a.data[i * a.stride..][..k];
            let sum: f64 = row.iter().zip(&column).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let out = &mut data[i * stride + j];
            *out = if mode == Mode::Add { *out + sum as f32 } else { sum as f32 };
        }
    }
}

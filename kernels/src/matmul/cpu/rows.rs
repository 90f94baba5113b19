//! One or two rows of `a`: each column of `b` is read once, as it is stored, and used at once.

use rayon::prelude::*;

use super::super::{Mode, Operand, View, ViewMut};
use super::SharedOut;
use crate::isa::{Tier, tiered};
use crate::vector;

/// Columns of one task.
const TASK_COLUMNS: usize = 32;

pub(super) fn matmul(tier: Tier, m: usize, n: usize, k: usize, a: View, b: &Operand, c: ViewMut, mode: Mode) {
    let ViewMut { data, stride: ldc } = c;
    let out = SharedOut::new(data.as_mut_ptr());
    (0..n.div_ceil(TASK_COLUMNS)).into_par_iter().for_each_init(
        || vec![0.0f32; k],
        |column, task| {
            for j in task * TASK_COLUMNS..n.min((task + 1) * TASK_COLUMNS) {
                b.pack(0..k, j, 1, 1, column);
                for i in 0..m {
                    let sum = dot(tier, &a.data[i * a.stride..][..k], column);
                    // SAFETY: `super::super::matmul` checked that `c` holds row `i` and column `j`; each task
                    // has its own columns.
                    unsafe {
                        let out = out.at(i * ldc + j);
                        *out = if mode == Mode::Add { *out + sum } else { sum };
                    }
                }
            }
        },
    );
}

tiered! {
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body;
}

#[inline(always)]
fn dot_body<const FMA: bool, const WIDTH: usize>(a: &[f32], b: &[f32]) -> f32 {
    vector::dot::<FMA>(a, b)
}

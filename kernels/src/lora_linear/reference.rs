//! The definition: plain loops in f64.

use crate::frozen::FrozenWeight;
use crate::lora_linear::Dropout;

/// One projection on plain slices.
pub struct ReferencePart<'a> {
    /// Frozen weight `[out, in]`.
    pub weight: &'a FrozenWeight,
    /// Frozen bias `[out]`.
    pub bias: Option<&'a [f32]>,
    /// `A` `[rank, in]`, `B` `[out, rank]`, scale.
    pub factors: Option<(&'a [f32], &'a [f32], f32)>,
    /// Dropout on the adapter's input.
    pub dropout: Option<Dropout>,
}

/// Computes one projection: `[tokens, out]`.
pub fn lora_linear_reference(x: &[f32], part: &ReferencePart) -> Vec<f64> {
    let [out, k] = part.weight.shape();
    let mut weight = vec![0.0f32; out * k];
    part.weight.read(0, &mut weight);
    let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
    let mut y = Vec::with_capacity(x.len() / k * out);
    for (token, row) in x.chunks_exact(k).enumerate() {
        let exact: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let mask = |i: usize| part.dropout.map_or(1.0, |d| f64::from(d.factor((token * k + i) as u64)));
        let dropped: Vec<f64> = exact.iter().enumerate().map(|(i, value)| value * mask(i)).collect();
        for (j, w) in weight.chunks_exact(k).enumerate() {
            let mut sum = dot(&exact, w) + part.bias.map_or(0.0, |bias| f64::from(bias[j]));
            if let Some((a, b, scale)) = part.factors {
                let rank = a.len() / k;
                for (r, a) in a.chunks_exact(k).enumerate() {
                    sum += f64::from(scale) * dot(&dropped, a) * f64::from(b[j * rank + r]);
                }
            }
            y.push(sum);
        }
    }
    y
}

//! The definition: plain loops in f64.

use crate::frozen::FrozenWeight;

/// Returns the sum of losses and its gradient with respect to `h`.
pub fn linear_cross_entropy_reference(h: &[f32], head: &FrozenWeight, targets: &[i32]) -> (f64, Vec<f64>) {
    let [vocab, hidden] = head.shape();
    let mut weight = vec![0.0f32; vocab * hidden];
    head.read(0, &mut weight);
    let (mut loss, mut dh) = (0.0, vec![0.0f64; h.len()]);
    for (token, &target) in targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
        let x = &h[token * hidden..][..hidden];
        let dot = |row: &[f32]| x.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let logits: Vec<f64> = weight.chunks_exact(hidden).map(dot).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum_exp = max + logits.iter().map(|logit| (logit - max).exp()).sum::<f64>().ln();
        loss += log_sum_exp - logits[target as usize];
        for (index, (logit, row)) in logits.iter().zip(weight.chunks_exact(hidden)).enumerate() {
            let p = (logit - log_sum_exp).exp() - f64::from(u8::from(index == target as usize));
            for (d, w) in dh[token * hidden..].iter_mut().zip(row) {
                *d += p * f64::from(*w);
            }
        }
    }
    (loss, dh)
}

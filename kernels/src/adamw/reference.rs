//! The definition, one element in f64.

use super::AdamW;

/// Returns parameter, `m` and `v` after step `step` with gradient `g`.
pub fn step(cfg: AdamW, [p, m, v]: [f64; 3], g: f64, step: u64, lr: f64) -> [f64; 3] {
    let p = p * (1.0 - lr * cfg.weight_decay);
    let m = cfg.beta1 * m + (1.0 - cfg.beta1) * g;
    let v = cfg.beta2 * v + (1.0 - cfg.beta2) * g * g;
    let mean = m / (1.0 - cfg.beta1.powf(step as f64));
    let root = (v / (1.0 - cfg.beta2.powf(step as f64))).sqrt();
    [p - lr * mean / (root + cfg.eps), m, v]
}

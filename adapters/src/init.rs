//! PEFT's default initialisation: A uniform in `-1/sqrt(in)` to `1/sqrt(in)`, B zero.
//!
//! Every draw comes from (seed, purpose, module path), so neither the order of modules nor the set of
//! targets changes what a layer starts with.
//!
//! Source: huggingface/peft `tuners/lora/layer.py`, `reset_lora_parameters`: `kaiming_uniform_(a=sqrt(5))`,
//! whose bound is `sqrt(2 / (1 + 5)) * sqrt(3 / in) = 1 / sqrt(in)`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// Draws A, `[rank, in_features]` row-major, uniform in `[-1/sqrt(in_features), 1/sqrt(in_features))`.
///
/// # Numerics
/// 24 random bits each, so every value is exact before the last rounding and equal on all platforms.
#[must_use]
pub fn lora_a(seed: u64, name: &str, rank: usize, in_features: usize) -> Vec<f32> {
    let mut rng = stream(seed, "lora_A", name);
    let bound = 1.0 / (in_features as f64).sqrt();
    (0..rank * in_features)
        .map(|_| {
            let unit = f64::from(rng.next_u32() >> 8) / f64::from(1_u32 << 24);
            ((2.0 * unit - 1.0) * bound) as f32
        })
        .collect()
}

/// Opens the random stream of (seed, purpose, name): its key is the SHA-256 of the three.
fn stream(seed: u64, purpose: &str, name: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    // A zero byte ends the purpose, so that no two pairs run together.
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(name.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_moments_are_those_of_kaiming_uniform() {
        let a = lora_a(3, "model.layers.0.self_attn.q_proj", 64, 576);
        let bound = 1.0 / 24.0;
        assert!(a.iter().all(|x| x.abs() <= bound));
        let n = a.len() as f64;
        let mean = a.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let square = a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n;
        // Five standard errors of the mean and of the mean square of a uniform variable.
        let bound = f64::from(bound);
        assert!(mean.abs() < 5.0 * bound / (3.0 * n).sqrt(), "{mean}");
        let spread = bound.powi(2) * (4.0_f64 / 45.0).sqrt() / n.sqrt();
        assert!((square - bound.powi(2) / 3.0).abs() < 5.0 * spread, "{square}");
    }

    #[test]
    fn streams_depend_on_seed_and_name_only() {
        let a = lora_a(1, "x", 2, 8);
        assert_eq!(a, lora_a(1, "x", 2, 8));
        assert_ne!(a, lora_a(2, "x", 2, 8));
        assert_ne!(a, lora_a(1, "y", 2, 8));
        assert_eq!(a[..8], lora_a(1, "x", 1, 8)[..], "a larger rank only adds rows");
    }
}

//! What the tests of all ops share: seeded inputs, comparisons that say where, thread pools.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Draws `n` values, uniform in `-scale..scale`.
pub(crate) fn random(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0f32..1.0) * scale).collect()
}

/// Widens to f64, for the references.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Fails unless `|got - expected| <= tolerance * max(1, largest |expected|)` everywhere; returns the largest
/// error on that scale.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) -> f64 {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
    let error = |i: usize| (f64::from(got[i]) - expected[i]).abs() / scale;
    let worst = (0..got.len()).map(error).fold(0.0f64, |a, b| if b.is_nan() { b } else { a.max(b) });
    let bad: Vec<usize> = (0..got.len()).filter(|&i| error(i).is_nan() || error(i) > tolerance).collect();
    let pairs: Vec<_> = bad.iter().take(5).map(|&i| (i, got[i], expected[i])).collect();
    assert!(
        bad.is_empty(),
        "{what}: {} of {} differ, max {worst:e} > {tolerance:e}: {pairs:?}",
        bad.len(),
        got.len()
    );
    worst
}

/// Computes the gradient of `sum(f(x) * dy)` by central differences in f64.
pub(crate) fn finite_difference(x: &[f64], dy: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let value = |x: &[f64]| f(x).iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>();
    let step = 1e-5;
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            moved[i] = x[i] + step;
            let above = value(&moved);
            moved[i] = x[i] - step;
            let below = value(&moved);
            moved[i] = x[i];
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// Narrows to f32, for comparing a reference with finite differences.
pub(crate) fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// Runs `f` in pools of 1, 2 and 3 threads and fails unless all bits agree.
#[track_caller]
pub(crate) fn assert_thread_independent(what: &str, f: impl Fn() -> Vec<f32> + Sync) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let bits: Vec<u32> = pool.install(&f).into_iter().map(f32::to_bits).collect();
        bits
    };
    let one = run(1);
    assert_eq!(one, run(2), "{what}: 2 threads");
    assert_eq!(one, run(3), "{what}: 3 threads");
}

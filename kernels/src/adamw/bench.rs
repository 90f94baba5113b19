//! One update of as many parameters as rank 16 on all linear layers of SmolLM2-135M has.
//! Bytes are what must be read and written once.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use seedcorn_kernels::adamw::{AdamW, global_norm};

const PARAMETERS: usize = 4_884_480;

fn main() {
    divan::main();
}

fn values(scale: f32) -> Vec<f32> {
    (0..PARAMETERS).map(|i| scale * (i as f32 * 0.37).sin()).collect()
}

/// Reads parameters, gradients and both moments; writes all but the gradients.
#[divan::bench]
fn step(bencher: Bencher<'_, '_>) {
    let (mut params, grads) = (values(0.1), values(0.01));
    let (mut m, mut v) = (vec![0.0; PARAMETERS], vec![0.0; PARAMETERS]);
    let mut step = 0;
    bencher.counter(BytesCount::new(7 * PARAMETERS * 4)).bench_local(|| {
        step += 1;
        AdamW::default().step(black_box(&mut params), &grads, &mut m, &mut v, step, 1e-4);
    });
}

#[divan::bench]
fn norm(bencher: Bencher<'_, '_>) {
    let grads = values(0.01);
    bencher.counter(BytesCount::new(PARAMETERS * 4)).bench_local(|| global_norm(black_box(&[&grads])));
}

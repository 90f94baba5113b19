//! Against the definition: loss and gradient, odd sizes, no targets, large logits, threads.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::linear_cross_entropy;
use super::reference::linear_cross_entropy_reference;
use crate::frozen::{Compute, FrozenWeight, Storage};

struct Case {
    h: Vec<f32>,
    head: FrozenWeight,
    targets: Arc<[i32]>,
    shape: [usize; 2],
}

fn case(tokens: usize, hidden: usize, vocab: usize, magnitude: f32) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(tokens as u64);
    let mut random =
        |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-magnitude..magnitude)).collect() };
    let (h, head) = (random(tokens * hidden), random(vocab * hidden));
    let targets = (0..tokens).map(|i| if i % 3 == 1 { -100 } else { ((i * 7) % vocab) as i32 }).collect();
    let head = FrozenWeight::new(Storage::F32(head), [vocab, hidden], Compute::F32);
    Case { h, head, targets, shape: [tokens, hidden] }
}

fn run(case: &Case) -> (f32, Vec<f32>) {
    let h = Tensor::<2>::from_data(TensorData::new(case.h.clone(), case.shape), &Device::flex());
    let h = h.autodiff().require_grad();
    let loss = linear_cross_entropy(h.clone(), &case.head, case.targets.clone());
    let value = loss.clone().inner().into_scalar::<f32>();
    let mut grads = loss.backward();
    (value, h.grad_remove(&mut grads).unwrap().into_data().try_to_vec().unwrap())
}

#[test]
fn loss_and_gradient_equal_the_definition() {
    for (tokens, hidden, vocab, magnitude) in
        [(1, 8, 5, 1.0), (5, 64, 123, 1.0), (300, 16, 31, 1.0), (7, 32, 1000, 30.0)]
    {
        let case = case(tokens, hidden, vocab, magnitude);
        let (loss, dh) = run(&case);
        let (want, want_dh) = linear_cross_entropy_reference(&case.h, &case.head, &case.targets);
        // Logits of magnitude up to 3e4 carry 24 bits: relative 1e-6 of the loss, absolute 2e-3 in p at worst
        // where two logits nearly tie; measured 3e-7 and 5e-4 of the weights' magnitude.
        assert!((f64::from(loss) - want).abs() <= 2e-6 * want.abs() + 1e-6, "{loss} beside {want}");
        let bound = if magnitude > 1.0 { 2e-3 * f64::from(magnitude) } else { 2e-6 };
        for (i, (got, want)) in dh.iter().zip(&want_dh).enumerate() {
            assert!((f64::from(*got) - want).abs() <= bound, "dh {i}: {got} beside {want}");
        }
    }
}

#[test]
fn rows_without_targets_have_no_loss_and_no_gradient() {
    let mut case = case(4, 8, 10, 1.0);
    case.targets = vec![-100; 4].into();
    let (loss, dh) = run(&case);
    assert_eq!((loss, dh), (0.0, vec![0.0; 32]));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let case = case(300, 24, 77, 1.0);
    let on = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| run(&case))
    };
    assert!(on(1) == on(2) && on(1) == on(3));
}

#[test]
fn speed() {
    let var = |name: &str, default: usize| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let (n, hidden, vocab) = (var("N", 2048), var("H", 576), var("V", 49152));
    let h: Vec<f32> = (0..n * hidden).map(|i| (i as f32 * 0.37).sin()).collect();
    let w: Vec<half::bf16> = (0..vocab * hidden).map(|i| half::bf16::from_f32((i as f32 * 0.73).sin() * 0.1)).collect();
    let head = FrozenWeight::new(Storage::Bf16(w), [vocab, hidden], Compute::Bf16);
    let targets: Vec<i32> = (0..n).map(|i| (i * 7919 % vocab) as i32).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(var("T", 1)).build().unwrap();
    for gradient in [true, false] {
        let mut best = f64::MAX;
        for _ in 0..var("R", 5) {
            let cpu = || { let mut t: libc::timespec = unsafe { std::mem::zeroed() }; unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) }; t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9 };
            let start = cpu();
            let (loss, _) = pool.install(|| super::cpu::forward(crate::isa::tier(), &h, &head, &targets, gradient));
            let t = cpu() - start;
            best = best.min(t);
            println!("{gradient} {loss} {:.1} ms", t * 1e3);
        }
        println!("{gradient} best {:.1} ms {:.0} GFLOP/s", best * 1e3, (if gradient { 4.0 } else { 2.0 }) * (n * hidden * vocab) as f64 / best * 1e-9);
    }
}

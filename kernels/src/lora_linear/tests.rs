//! Against the definition: forward, and each gradient by central differences of the definition in f64.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::reference::{ReferencePart, lora_linear_reference};
use super::{Columns, Dropout, Factors, Part, lora_linear};
use crate::frozen::{Compute, FrozenWeight, Storage};
use crate::nf4;

const RANK: usize = 3;

struct Case {
    x: Vec<f32>,
    tokens: usize,
    width: usize,
    weights: Vec<FrozenWeight>,
    biases: Vec<Option<Arc<[f32]>>>,
    factors: Vec<Option<[Vec<f32>; 2]>>,
    dropout: Option<Dropout>,
}

const SCALE: f32 = 1.5;

fn random(len: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Three projections of different widths: quantized with adapter, plain without, biased with adapter.
fn case(tokens: usize, dropout: Option<Dropout>) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (width, outs) = (64, [20, 7, 33]);
    let weight = |storage, out| FrozenWeight::new(storage, [out, width], Compute::F32);
    let weights = vec![
        weight(Storage::Nf4(nf4::quantize(&random(20 * width, &mut rng), [20, width], 64, true)), 20),
        weight(Storage::F32(random(7 * width, &mut rng)), 7),
        weight(Storage::F32(random(33 * width, &mut rng)), 33),
    ];
    let factor =
        |out: usize, rng: &mut ChaCha8Rng| Some([random(RANK * width, rng), random(out * RANK, rng)]);
    Case {
        x: random(tokens * width, &mut rng),
        tokens,
        width,
        weights,
        biases: vec![None, None, Some(random(33, &mut rng).into())],
        factors: vec![factor(outs[0], &mut rng), None, factor(outs[2], &mut rng)],
        dropout,
    }
}

fn tensor(data: &[f32], shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), &Device::flex())
}

fn parts(case: &Case) -> Vec<Part> {
    let adapted = |index: usize| {
        case.factors[index].as_ref().map(|[a, b]| Factors {
            a: tensor(a, [RANK, case.width]).autodiff().require_grad(),
            b: tensor(b, [b.len() / RANK, RANK]).autodiff().require_grad(),
            scale: SCALE,
            dropout: case.dropout,
        })
    };
    let weights = case.weights.iter().zip(&case.biases).enumerate();
    weights
        .map(|(i, (weight, bias))| Part { weight: weight.clone(), bias: bias.clone(), factors: adapted(i) })
        .collect()
}

fn reference(case: &Case) -> Vec<f64> {
    let mut rows = vec![Vec::new(); case.tokens];
    for (index, weight) in case.weights.iter().enumerate() {
        let part = ReferencePart {
            weight,
            bias: case.biases[index].as_deref(),
            factors: case.factors[index].as_ref().map(|[a, b]| (&a[..], &b[..], SCALE)),
            dropout: case.dropout,
        };
        let y = lora_linear_reference(&case.x, &part);
        for (row, part) in rows.iter_mut().zip(y.chunks_exact(weight.shape()[0])) {
            row.extend_from_slice(part);
        }
    }
    rows.concat()
}

/// Sums of at most 64 products of values below 1 in f32; measured worst 4e-6.
fn assert_close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error < 2e-5 + 2e-5 * want.abs(), "{what}, element {i}: {got} beside {want}");
    }
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

const DROPOUT: Dropout = Dropout { probability: 0.25, key: 99, columns: None };

#[test]
fn forward_equals_the_definition() {
    for dropout in [None, Some(DROPOUT)] {
        for tokens in [1, 5, 40] {
            let case = case(tokens, dropout);
            let y = lora_linear(tensor(&case.x, [tokens, case.width]).autodiff(), &parts(&case), None);
            assert_close(&values(y.inner()), &reference(&case), "y");
        }
    }
}

#[test]
fn no_tokens_give_no_rows() {
    let case = case(0, None);
    let y = lora_linear(Tensor::zeros([0, case.width], &Device::flex()), &parts(&case), None);
    assert_eq!(y.dims(), [0, 60]);
}

#[test]
fn gradients_equal_central_differences_of_the_definition() {
    for dropout in [None, Some(DROPOUT)] {
        let case = case(6, dropout);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let dy = random(6 * 60, &mut rng);
        let x = tensor(&case.x, [6, case.width]).autodiff().require_grad();
        let parts = parts(&case);
        let y = lora_linear(x.clone(), &parts, None);
        let mut grads = crate::seed_gradient::seed_gradient(y, tensor(&dy, [6, 60])).backward();
        let difference = |edit: &dyn Fn(&mut Case, f32)| {
            let loss = |delta: f32| {
                let mut moved = self::case(6, dropout);
                edit(&mut moved, delta);
                let y = reference(&moved);
                y.iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum::<f64>()
            };
            // The op is linear in each of its inputs, so a large step has no truncation error.
            (loss(0.5) - loss(-0.5)) as f32
        };
        let picks = [0usize, 17, 63, 130, 191];
        let dx = values(x.grad_remove(&mut grads).unwrap());
        for i in picks {
            let want = difference(&|case, delta| case.x[i] += delta);
            assert_close(&dx[i..=i], &[f64::from(want)], "dx");
        }
        for part in [0, 2] {
            let factors = parts[part].factors.as_ref().unwrap();
            let da = values(factors.a.grad_remove(&mut grads).unwrap());
            let db = values(factors.b.grad_remove(&mut grads).unwrap());
            for i in picks {
                let want = difference(&|case, delta| case.factors[part].as_mut().unwrap()[0][i] += delta);
                assert_close(&da[i..=i], &[f64::from(want)], "dA");
                let j = i % db.len();
                let want = difference(&|case, delta| case.factors[part].as_mut().unwrap()[1][j] += delta);
                assert_close(&db[j..=j], &[f64::from(want)], "dB");
            }
        }
    }
}

#[test]
fn dropout_drops_the_share_it_says_and_keeps_the_mean() {
    let factors: Vec<f32> = (0..100_000).map(|i| DROPOUT.factor(i)).collect();
    let dropped = factors.iter().filter(|factor| **factor == 0.0).count() as f64 / 1e5;
    let mean = factors.iter().map(|factor| f64::from(*factor)).sum::<f64>() / 1e5;
    // Six standard deviations of a binomial share at n = 1e5: 0.0082, and a third more for the mean.
    assert!((dropped - 0.25).abs() < 0.0082 && (mean - 1.0).abs() < 0.011, "{dropped} {mean}");
}

#[test]
fn bf16_compute_rounds_inputs_and_weights() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (x, w) = (random(4 * 64, &mut rng), random(5 * 64, &mut rng));
    let round = |values: &[f32]| values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect::<Vec<_>>();
    let part = |values: Vec<f32>, compute| Part {
        weight: FrozenWeight::new(Storage::F32(values), [5, 64], compute),
        bias: None,
        factors: None,
    };
    let got = lora_linear(tensor(&x, [4, 64]), &[part(w.clone(), Compute::Bf16)], None);
    let want = lora_linear(tensor(&round(&x), [4, 64]), &[part(round(&w), Compute::F32)], None);
    // The tiles add in another order: measured worst 4e-7.
    let want: Vec<f64> = values(want).into_iter().map(f64::from).collect();
    assert_close(&values(got), &want, "y");
}

#[test]
fn a_part_of_the_columns_has_the_mask_of_the_whole() {
    let part = Dropout { columns: Some(Columns { first: 3, count: 4, of: 9 }), ..DROPOUT };
    for (row, column) in [(0, 0), (0, 3), (1, 0), (17, 2)] {
        assert_eq!(part.factor(row * 4 + column), DROPOUT.factor(row * 9 + 3 + column));
    }
}

//! `lora_linear` on a device: every storage, groups, bias, residual, dropout; each gradient.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::gated_act::GatedKind;
use seedcorn_kernels::gated_mlp::gated_mlp;
use seedcorn_kernels::lora_linear::reference::{ReferencePart, lora_linear_reference};
use seedcorn_kernels::lora_linear::{Dropout, Factors, Part, lora_linear};
use seedcorn_kernels::seed_gradient::seed_gradient;
use seedcorn_kernels::{int8, nf4};

use crate::harness::{Test, assert_close, random, tensor, values, wide};

pub(crate) const TESTS: &[Test] = &[
    ("lora_linear: forward and gradients equal the CPU's", forward_and_gradients_equal_the_cpu),
    ("lora_linear: forward equals the definition", forward_equals_the_definition),
    ("lora_linear: no tokens give no rows", no_tokens_give_no_rows),
    ("lora_linear: bf16 rounds inputs and weights", bf16_rounds_inputs_and_weights),
    ("gated_mlp: the composition equals the CPU's", gated_mlp_equals_the_cpu),
    ("lora_linear: two runs give the same bits", two_runs_give_the_same_bits),
];

const DROPOUT: Dropout = Dropout { probability: 0.25, key: 0xdead_beef_0123_4567, columns: None };
const SCALE: f32 = 1.5;

/// Sums of up to 1000 products of values below 1, against the largest of the result. Seen on lavapipe: 4e-7; times 3.
const TOLERANCE: f64 = 1.2e-6;

/// One projection before it is on a device.
struct Projection {
    storage: &'static str,
    out: usize,
    bias: bool,
    rank: usize,
}

struct Case {
    tokens: usize,
    width: usize,
    parts: Vec<Projection>,
    residual: bool,
    dropout: Option<Dropout>,
}

impl Case {
    fn weight(&self, index: usize, compute: Compute) -> FrozenWeight {
        let Projection { storage, out, .. } = self.parts[index];
        let shape = [out, self.width];
        let dense = random(index as u64, out * self.width, 1.0);
        let storage = match storage {
            "f32" => Storage::F32(dense),
            "bf16" => Storage::Bf16(dense.into_iter().map(half::bf16::from_f32).collect()),
            "int8" => Storage::Int8(int8::quantize(&dense, shape)),
            "nf4" => Storage::Nf4(nf4::quantize(&dense, shape, 64, true)),
            _ => Storage::Nf4(nf4::quantize(&dense, shape, 128, false)),
        };
        FrozenWeight::new(storage, shape, compute)
    }

    fn bias(&self, index: usize) -> Option<Arc<[f32]>> {
        let Projection { bias, out, .. } = self.parts[index];
        bias.then(|| random(30 + index as u64, out, 1.0).into())
    }

    fn factors(&self, index: usize) -> Option<[Vec<f32>; 2]> {
        let Projection { rank, out, .. } = self.parts[index];
        let of = |seed, len| random(seed + index as u64, len, 1.0);
        (rank > 0).then(|| [of(10, rank * self.width), of(20, out * rank)])
    }

    fn x(&self) -> Vec<f32> {
        random(40, self.tokens * self.width, 1.0)
    }

    fn parts(&self, device: &Device, compute: Compute) -> Vec<Part> {
        let part = |index: usize| Part {
            weight: self.weight(index, compute).on(device).expect("it fits"),
            bias: self.bias(index),
            factors: self.factors(index).map(|[a, b]| Factors {
                a: tensor(&a, [a.len() / self.width, self.width], device).autodiff().require_grad(),
                b: tensor(&b, [self.parts[index].out, a.len() / self.width], device)
                    .autodiff()
                    .require_grad(),
                scale: SCALE,
                dropout: self.dropout,
            }),
        };
        (0..self.parts.len()).map(part).collect()
    }

    /// `y`, `dx`, the residual's gradient, then `dA` and `dB` of the adapted parts.
    fn run(&self, device: &Device, compute: Compute) -> Vec<Vec<f32>> {
        let parts = self.parts(device, compute);
        let out: usize = self.parts.iter().map(|part| part.out).sum();
        let tracked = |tensor: Tensor<2>| tensor.autodiff().require_grad();
        let x = tracked(tensor(&self.x(), [self.tokens, self.width], device));
        let values_out = random(41, self.tokens * out, 1.0);
        let residual = self.residual.then(|| tracked(tensor(&values_out, [self.tokens, out], device)));
        let y = lora_linear(x.clone(), &parts, residual.clone());
        let mut all = vec![values(y.clone().inner())];
        let dy = tensor(&random(42, self.tokens * out, 1.0), [self.tokens, out], device);
        let mut grads = seed_gradient(y, dy).backward();
        let mut take = |tensor: &Tensor<2>| values(tensor.grad_remove(&mut grads).expect("tracked"));
        all.push(take(&x));
        all.extend(residual.as_ref().map(&mut take));
        for factors in parts.iter().filter_map(|part| part.factors.as_ref()) {
            all.extend([take(&factors.a), take(&factors.b)]);
        }
        all
    }
}

fn part(storage: &'static str, out: usize, bias: bool, rank: usize) -> Projection {
    Projection { storage, out, bias, rank }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dropout in [None, Some(DROPOUT)] {
        for tokens in [1, 5, 16, 17, 70] {
            let parts = vec![part("nf4", 20, false, 3), part("f32", 7, false, 0), part("int8", 33, true, 5)];
            cases.push(Case { tokens, width: 64, parts, residual: false, dropout });
        }
        let parts = vec![part("bf16", 130, true, 16), part("plain nf4", 65, false, 20)];
        cases.push(Case { tokens: 67, width: 200, parts, residual: true, dropout });
    }
    cases.push(Case {
        tokens: 3,
        width: 1,
        parts: vec![part("f32", 1, false, 1)],
        residual: true,
        dropout: None,
    });
    cases.push(Case {
        tokens: 130,
        width: 576,
        parts: vec![part("nf4", 100, false, 8)],
        residual: true,
        dropout: None,
    });
    cases
}

fn forward_and_gradients_equal_the_cpu(device: &Device) {
    for case in cases() {
        let (got, want) = (case.run(device, Compute::F32), case.run(&Device::flex(), Compute::F32));
        for (number, (got, want)) in got.iter().zip(&want).enumerate() {
            let what = format!(
                "{} tokens of {}, result {number}, dropout {:?}",
                case.tokens, case.width, case.dropout
            );
            let error = assert_close(&what, got, &wide(want), TOLERANCE);
            println!("{what}: {error:.1e}");
        }
    }
}

fn forward_equals_the_definition(device: &Device) {
    for case in cases().into_iter().filter(|case| !case.residual) {
        let y = &case.run(device, Compute::F32)[0];
        let mut rows = vec![Vec::new(); case.tokens];
        for index in 0..case.parts.len() {
            let (weight, bias, factors) =
                (case.weight(index, Compute::F32), case.bias(index), case.factors(index));
            let part = ReferencePart {
                weight: &weight,
                bias: bias.as_deref(),
                factors: factors.as_ref().map(|[a, b]| (&a[..], &b[..], SCALE)),
                dropout: case.dropout,
            };
            let y = lora_linear_reference(&case.x(), &part);
            for (row, part) in rows.iter_mut().zip(y.chunks_exact(weight.shape()[0])) {
                row.extend_from_slice(part);
            }
        }
        assert_close("y", y, &rows.concat(), TOLERANCE);
    }
}

fn no_tokens_give_no_rows(device: &Device) {
    let parts = vec![part("nf4", 20, false, 3), part("f32", 7, true, 0)];
    let case = Case { tokens: 0, width: 64, parts, residual: false, dropout: None };
    let results = case.run(device, Compute::F32);
    assert!(results[..2].iter().all(Vec::is_empty));
    assert_eq!(results[2..], [vec![0.0; 3 * 64], vec![0.0; 20 * 3]]);
}

/// Rounded operands, exact otherwise: against f32 products of rounded values.
fn bf16_rounds_inputs_and_weights(device: &Device) {
    let round =
        |values: &[f32]| -> Vec<f32> { values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect() };
    let (x, w) = (random(1, 40 * 64, 1.0), random(2, 50 * 64, 1.0));
    let run = |x: &[f32], w: Vec<f32>, compute| {
        let weight = FrozenWeight::new(Storage::F32(w), [50, 64], compute).on(device).expect("it fits");
        let part = Part { weight, bias: None, factors: None };
        values(lora_linear(tensor(x, [40, 64], device), &[part], None))
    };
    let want = run(&round(&x), round(&w), Compute::F32);
    assert_eq!(run(&x, w, Compute::Bf16), want);
}

fn gated_mlp_equals_the_cpu(device: &Device) {
    let (tokens, d, f, rank) = (37, 48, 100, 4);
    let run = |device: &Device| {
        let parts = [[f, d], [f, d], [d, f]].map(|shape: [usize; 2]| {
            let len = shape[0] * shape[1];
            let storage = Storage::Nf4(nf4::quantize(&random(1, len, 0.2), shape, 64, true));
            let leaf = |seed, shape: [usize; 2]| {
                tensor(&random(seed, shape[0] * shape[1], 0.2), shape, device).autodiff().require_grad()
            };
            let (a, b) = (leaf(2, [rank, shape[1]]), leaf(3, [shape[0], rank]));
            let weight = FrozenWeight::new(storage, shape, Compute::F32).on(device).expect("it fits");
            Part { weight, bias: None, factors: Some(Factors { a, b, scale: 0.5, dropout: None }) }
        });
        let x = tensor(&random(4, tokens * d, 2.0), [tokens, d], device).autodiff().require_grad();
        let norm = tensor(&random(5, d, 1.0), [d], device).autodiff();
        let y = gated_mlp(x.clone(), norm, 1e-5, &parts, GatedKind::SwiGlu);
        let mut all = vec![values(y.clone().inner())];
        let dy = tensor(&random(6, tokens * d, 1.0), [tokens, d], device);
        let mut grads = seed_gradient(y, dy).backward();
        all.push(values(x.grad_remove(&mut grads).expect("tracked")));
        for factors in parts.iter().filter_map(|part| part.factors.as_ref()) {
            all.push(values(factors.a.grad_remove(&mut grads).expect("tracked")));
            all.push(values(factors.b.grad_remove(&mut grads).expect("tracked")));
        }
        all
    };
    for (got, want) in run(device).iter().zip(&run(&Device::flex())) {
        assert_close("gated_mlp", got, &wide(want), 3.0 * TOLERANCE);
    }
}

fn two_runs_give_the_same_bits(device: &Device) {
    let case = cases().pop().expect("there are cases");
    let bits = |all: Vec<Vec<f32>>| -> Vec<u32> { all.concat().into_iter().map(f32::to_bits).collect() };
    let once = bits(case.run(device, Compute::Bf16));
    assert_eq!(once, bits(case.run(device, Compute::Bf16)));
}

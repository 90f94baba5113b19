//! The fused kernel against the composition it stands for, forward and every gradient.

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;

use super::{fits, gated_mlp_addend};
use crate::frozen::{Compute, FrozenWeight, Storage};
use crate::gated_act::{GatedKind, gated_act};
use crate::lora_linear::{Factors, Part, lora_linear};
use crate::nf4;
use crate::rms_norm::rms_norm;
use crate::seed_gradient::seed_gradient;
use crate::testing::{assert_close, assert_thread_independent, random, wide};

const EPS: f32 = 1e-5;

struct Case {
    tokens: usize,
    d: usize,
    f: usize,
    rank: usize,
    /// Which of gate, up and down are adapted.
    adapted: [bool; 3],
    nf4: bool,
    residual: bool,
}

fn tensor<const D: usize>(seed: u64, shape: [usize; D], scale: f32) -> Tensor<D> {
    let values = random(seed, shape.iter().product(), scale);
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

impl Case {
    fn parts(&self, compute: Compute) -> [Part; 3] {
        let shapes = [[self.f, self.d], [self.f, self.d], [self.d, self.f]];
        [0, 1, 2].map(|index| {
            let shape = shapes[index];
            let dense = random(index as u64, shape[0] * shape[1], 0.2);
            let storage = if self.nf4 {
                Storage::Nf4(nf4::quantize(&dense, shape, 64, true))
            } else {
                Storage::Bf16(dense.into_iter().map(bf16::from_f32).collect())
            };
            let seed = 10 + 2 * index as u64;
            let factors = self.adapted[index].then(|| Factors {
                a: tensor(seed, [self.rank, shape[1]], 0.2).autodiff().require_grad(),
                b: tensor(seed + 1, [shape[0], self.rank], 0.2).autodiff().require_grad(),
                scale: 0.5,
                dropout: None,
            });
            Part { weight: FrozenWeight::new(storage, shape, compute), bias: None, factors }
        })
    }

    fn x(&self) -> Tensor<2> {
        tensor(20, [self.tokens, self.d], 2.0).autodiff().require_grad()
    }

    fn norm(&self) -> Tensor<1> {
        tensor(21, [self.d], 1.0).autodiff()
    }

    /// `y`, `dx`, then `dA` and `dB` of the adapted parts.
    fn all(&self, y: Tensor<2>, x: &Tensor<2>, parts: &[Part; 3]) -> Vec<Vec<f32>> {
        let dy = tensor(22, [self.tokens, self.d], 1.0);
        let mut grads = seed_gradient(y.clone(), dy).backward();
        let mut all = vec![values(y.inner()), values(x.grad_remove(&mut grads).unwrap())];
        for factors in parts.iter().filter_map(|part| part.factors.as_ref()) {
            all.push(values(factors.a.grad_remove(&mut grads).unwrap()));
            all.push(values(factors.b.grad_remove(&mut grads).unwrap()));
        }
        all
    }

    fn fused(&self) -> Vec<Vec<f32>> {
        let (x, parts) = (self.x(), self.parts(Compute::Bf16));
        assert!(fits(self.tokens, &parts), "the case is one for the fused kernel");
        let y = gated_mlp_addend(x.clone(), self.norm(), EPS, &parts, GatedKind::SwiGlu, self.residual);
        self.all(y, &x, &parts)
    }

    fn composed(&self) -> Vec<Vec<f32>> {
        let (x, parts) = (self.x(), self.parts(Compute::F32));
        let normed = rms_norm(x.clone(), self.norm(), EPS);
        let inner = gated_act(lora_linear(normed, &parts[..2], None), GatedKind::SwiGlu);
        self.all(lora_linear(inner, &parts[2..], self.residual.then(|| x.clone())), &x, &parts)
    }
}

/// bf16 inputs of each product err by 2^-9 of their size; three products in a row, measured against the largest
/// element: at most 0.0065 over these cases (`dA` at rank 33).
#[test]
fn equals_the_composition_in_f32_up_to_bf16() {
    if !crate::isa::Tier::Amx.is_available() || crate::isa::tier() != crate::isa::Tier::Amx {
        return;
    }
    let all = [true; 3];
    for case in [
        Case { tokens: 16, d: 64, f: 64, rank: 4, adapted: all, nf4: false, residual: true },
        Case { tokens: 130, d: 128, f: 192, rank: 16, adapted: all, nf4: true, residual: true },
        Case { tokens: 300, d: 64, f: 128, rank: 20, adapted: all, nf4: false, residual: false },
        Case {
            tokens: 50,
            d: 64,
            f: 128,
            rank: 8,
            adapted: [true, false, false],
            nf4: false,
            residual: true,
        },
        Case {
            tokens: 257,
            d: 64,
            f: 64,
            rank: 8,
            adapted: [false, false, true],
            nf4: true,
            residual: false,
        },
        Case { tokens: 33, d: 64, f: 64, rank: 33, adapted: [false, true, true], nf4: false, residual: true },
    ] {
        let names = ["y", "dx", "first dA", "first dB", "dA", "dB", "dA", "dB"];
        for ((got, want), name) in case.fused().iter().zip(&case.composed()).zip(names) {
            assert_close(&format!("{name} of {} tokens", case.tokens), got, &wide(want), 0.013);
        }
    }
}

#[test]
fn threads_do_not_change_bits() {
    if crate::isa::tier() != crate::isa::Tier::Amx {
        return;
    }
    let case = Case { tokens: 700, d: 64, f: 128, rank: 8, adapted: [true; 3], nf4: true, residual: true };
    assert_thread_independent("gated_mlp", || case.fused().concat());
}

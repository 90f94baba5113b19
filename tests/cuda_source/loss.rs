//! `linear_cross_entropy`, loss and gradient, against its definition.

use std::path::Path;

use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::linear_cross_entropy::reference::linear_cross_entropy_reference;
use seedcorn_kernels::linear_cross_entropy::tensor_core::call::Head;
use seedcorn_kernels::lora_linear::tensor_core::weight::Packed;
use seedcorn_kernels::nf4;

use crate::interpreter::Interpreter;
use crate::numbers::{BF16, Compared, Dense, SUM, random};

/// One call of the op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) tokens: usize,
    pub(crate) hidden: usize,
    pub(crate) vocab: usize,
    /// Every so many tokens have no target; 0: all have one.
    pub(crate) skipped: usize,
    /// Whether the head is in NF4 with double quantization; else in bf16.
    pub(crate) quantized: bool,
}

/// One block of the vocabulary, and large tiles.
pub(crate) const PLAIN: Case = Case { tokens: 40, hidden: 64, vocab: 192, skipped: 3, quantized: false };

/// What is run.
pub(crate) fn cases() -> Vec<(&'static str, Case)> {
    vec![
        ("plain", PLAIN),
        ("quantized", Case { quantized: true, ..PLAIN }),
        ("two_blocks", Case { tokens: 20, hidden: 16, vocab: 4096 + 200, ..PLAIN }),
        ("odd", Case { tokens: 19, hidden: 37, vocab: 101, quantized: true, ..PLAIN }),
        ("no_targets", Case { tokens: 3, skipped: 1, ..PLAIN }),
        ("one_row", Case { tokens: 1, skipped: 0, ..PLAIN }),
    ]
}

impl Case {
    fn targets(&self) -> Vec<i32> {
        let target = |token: usize| match self.skipped {
            0 => 7,
            every if token.is_multiple_of(every) => -100,
            _ => (token * 7919 % self.vocab) as i32,
        };
        (0..self.tokens).map(target).collect()
    }

    /// Runs the op; what is compared are the loss and the gradient.
    pub(crate) fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String> {
        let Self { tokens, hidden, vocab, .. } = *self;
        let values = random(1, vocab * hidden, true);
        let storage = if self.quantized {
            Storage::Nf4(nf4::quantize(&values, [vocab, hidden], 64, true))
        } else {
            Storage::Bf16(values.iter().map(|value| half::bf16::from_f32(*value)).collect())
        };
        let weight = FrozenWeight::new(storage, [vocab, hidden], Compute::Bf16);
        let (h, targets) = (random(2, tokens * hidden, true), self.targets());
        let head = Head::new(device, &Packed::new(&weight));
        let on_device = device.upload_floats(&h);
        let fault = |fault: seedcorn_ptx::Fault| fault.to_string();
        let (loss, dh) = head.loss(device, &on_device, &targets, true).map_err(fault)?;
        let (alone, _) = head.loss(device, &on_device, &targets, false).map_err(fault)?;
        let mut compared = self.expected(&h, &weight, &targets);
        compared[0].got = device.floats(loss)?;
        compared[1].got = device.floats(alone)?;
        compared[2].got = device.floats(dh.ok_or("no gradient")?)?;
        Ok(compared)
    }

    /// The definition, and how far a kernel may be from it: weights that bf16 does not hold are rounded for a product,
    /// which moves a logit by that of the magnitudes it is summed from and the logarithm of a probability by twice
    /// as much; `exp` is rounded for the second product.
    fn expected(&self, h: &[f32], weight: &FrozenWeight, targets: &[i32]) -> Vec<Compared> {
        let hidden = self.hidden;
        let input = if self.quantized { BF16 } else { 0.0 };
        let (loss, dh) = linear_cross_entropy_reference(h, weight, targets);
        let mut head = vec![0.0; self.vocab * hidden];
        weight.read(0, &mut head);
        let (mut loss_bound, mut bound) = (0.0, vec![0.0; h.len()]);
        for (token, target) in targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
            let x = &h[token * hidden..][..hidden];
            let terms = |row: &[f32]| {
                x.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).collect::<Vec<_>>()
            };
            let rows: Vec<Vec<f64>> = head.chunks_exact(hidden).map(terms).collect();
            let logits: Vec<f64> = rows.iter().map(|row| row.iter().sum()).collect();
            let size = |row: &Vec<f64>| row.iter().map(|term| term.abs()).sum::<f64>();
            let moved = (input + SUM) * rows.iter().map(size).fold(0.0, f64::max);
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            loss_bound += 2.0 * moved + SUM * (1.0 + total.ln().abs());
            let off = (2.0 * moved).exp_m1() + BF16 + input + SUM;
            for (logit, row) in logits.iter().zip(head.chunks_exact(hidden)) {
                let p = logit.exp() / total;
                let bound = &mut bound[token * hidden..];
                bound.iter_mut().zip(row).for_each(|(bound, w)| *bound += p * off * f64::from(w.abs()));
            }
            let row = &head[*target as usize * hidden..][..hidden];
            bound[token * hidden..]
                .iter_mut()
                .zip(row)
                .for_each(|(bound, w)| *bound += SUM * f64::from(w.abs()));
        }
        let one = |value| Dense::from(vec![value], [1, 1]);
        let shape = [self.tokens, hidden];
        vec![
            Compared::new("loss", one(loss), &one(loss_bound)),
            Compared::new("loss without gradient", one(loss), &one(loss_bound)),
            Compared::new("dh", Dense::from(dh, shape), &Dense::from(bound, shape)),
        ]
    }
}

/// Runs a case and compares all of it.
pub(crate) fn check(toolkit: &Path, case: Case) -> Result<(), String> {
    let mut device = Interpreter::new(toolkit, 1);
    case.run(&mut device)?.iter().try_for_each(Compared::check)?;
    // The matrix unit did the work: two products with the gradient, one without, in fragments of 16 x 16 x 16.
    let rows = case.targets().iter().filter(|target| **target >= 0).count();
    let least = (3 * rows * case.hidden * case.vocab / 4096) as u64;
    let units = device.executed.get("wmma").copied().unwrap_or(0);
    if units < least {
        return Err(format!("{units} matrix instructions, expected at least {least}"));
    }
    Ok(())
}

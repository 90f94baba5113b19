//! LoRA gradients against finite differences of the loss, through the whole model.

use burn::tensor::Device;
use seedcorn::model::{Decoder, Input};
use seedcorn_adapters::Adapter;
use seedcorn_adapters::lora::LoraWeights;
use seedcorn_tests::model::{PLAIN, input, tiny, values};
use seedcorn_tests::scratch::Random;

use crate::reference::case;

fn adapter(model: &Decoder) -> Adapter {
    let mut random = Random(5);
    let rank = 4;
    let weights = model.projections().map(|one| {
        let [out_features, in_features] = one.weight.shape();
        let mut draw = |n: usize, size: f32| (0..n).map(|_| size * random.unit()).collect::<Vec<_>>();
        let a = draw(rank * in_features, 1.0 / (in_features as f32).sqrt());
        let b = draw(out_features * rank, 0.2);
        LoraWeights { name: one.name.clone(), rank, scale: 2.0, a, b, in_features, out_features }
    });
    Adapter::new(weights.collect(), &Device::flex())
}

/// Sums the losses of the tokens in f64. The logits are f32; the model's own loss is an f32 sum and too coarse
/// to take differences of.
fn loss(model: &Decoder, input: &Input, adapter: &Adapter) -> f64 {
    let logits = values(model.logits(input, Some(adapter)));
    let rows = logits.chunks_exact(model.spec.vocab_size).zip(input.targets.iter());
    rows.filter(|(_, target)| **target >= 0)
        .map(|(row, &target)| {
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum.ln() - f64::from(row[target as usize])
        })
        .sum()
}

/// Steps for the differences. Smaller ones drown in the rounding of f32 logits, larger ones in the fifth
/// derivative that Richardson's extrapolation leaves: measured over these elements, the worst relative
/// difference is 1e-3 at 0.1, 8e-5 at 0.03, 2e-4 at 0.01 and 2e-3 at 0.001.
const STEP: f32 = 0.03;
/// Largest difference, over the largest gradient of the tensor.
const GRADIENT: f64 = 5e-4;

/// Differentiates the loss by one element: central differences at `h` and `2 h`, extrapolated.
fn derivative(
    model: &Decoder,
    input: &Input,
    adapter: &mut Adapter,
    start: &[Vec<f32>],
    at: (usize, usize),
) -> f64 {
    let mut side = |h: f32| {
        let mut moved = start.to_vec();
        moved[at.0][at.1] += h;
        let value = f64::from(moved[at.0][at.1]);
        adapter.set_values(moved);
        (value, loss(model, input, adapter))
    };
    let mut central = |h: f32| {
        let (up, down) = (side(h), side(-h));
        (up.1 - down.1) / (up.0 - down.0)
    };
    (4.0 * central(STEP) - central(2.0 * STEP)) / 3.0
}

#[test]
fn gradients_of_both_factors() {
    let model = tiny("llama", "config.json", PLAIN);
    let input = input(&case("llama", 'a').rows);
    let mut adapter = adapter(&model);
    let start = adapter.values();
    let (_, gradients) = model.loss_and_gradients(&input, &adapter, None, 0);
    let mut worst = 0.0f64;
    for (tensor, gradient) in gradients.values().iter().enumerate() {
        let by_size = |x: &usize, y: &usize| gradient[*x].abs().total_cmp(&gradient[*y].abs());
        let largest = (0..gradient.len()).max_by(by_size).expect("no empty factor");
        let scale = f64::from(gradient[largest].abs());
        assert!(scale > 0.0, "factor {tensor} has no gradient");
        for at in [largest, gradient.len() / 3] {
            let found = derivative(&model, &input, &mut adapter, &start, (tensor, at));
            let relative = (found - f64::from(gradient[at])).abs() / scale;
            let module = &adapter.modules()[tensor / 2].name;
            assert!(
                relative < GRADIENT,
                "`{module}`, factor {}, element {at}: {found} by differences, {} by the model",
                ["A", "B"][tensor % 2],
                gradient[at],
            );
            worst = worst.max(relative);
        }
    }
    println!("largest relative difference of a LoRA gradient: {worst:e}");
}

//! LoRA gradients against finite differences of the loss, through the whole model.

use burn::tensor::Device;
use seedcorn::model::{Decoder, Input};
use seedcorn::recipe::Activation;
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

#[test]
fn measure() {
    let model = tiny("llama", "config.json", PLAIN);
    let input = input(&case("llama", 'a').rows);
    let mut adapter = adapter(&model);
    let (own, gradients) = model.loss_and_gradients(&input, &adapter, None, Activation::Recompute);
    println!("{own} {}", loss(&model, &input, &adapter));
    let start = adapter.values();
    let gradients = gradients.values();
    for h in [1e-1f32, 3e-2, 1e-2, 3e-3, 1e-3] {
        let mut worst = 0.0f64;
        let mut worst_r = 0.0f64;
        for (tensor, gradient) in gradients.iter().enumerate() {
            let largest = (0..gradient.len()).max_by(|&x, &y| gradient[x].abs().total_cmp(&gradient[y].abs())).unwrap();
            let scale = f64::from(gradient[largest].abs());
            for at in [largest, gradient.len() / 3] {
                let mut diff = |h: f32| {
                    let mut side = |h: f32| {
                        let mut v = start.clone();
                        v[tensor][at] += h;
                        let x = f64::from(v[tensor][at]);
                        adapter.set_values(v);
                        (x, loss(&model, &input, &adapter))
                    };
                    let (up, down) = (side(h), side(-h));
                    (up.1 - down.1) / (up.0 - down.0)
                };
                let (one, two) = (diff(h), diff(2.0 * h));
                let rich = (4.0 * one - two) / 3.0;
                worst = worst.max((one - f64::from(gradient[at])).abs() / scale);
                worst_r = worst_r.max((rich - f64::from(gradient[at])).abs() / scale);
            }
        }
        println!("h {h:e}: worst {worst:e}, richardson {worst_r:e}");
    }
}

//! Gradients through the whole model, of every linear layer.
//!
//! The gradient of a frozen weight is never computed. An adapter with A the identity, B zero and scale 1 adds
//! `B x` to `W x`, so that its dB is the dW of transformers.

use burn::tensor::Device;
use seedcorn::model::Decoder;
use seedcorn_adapters::Adapter;
use seedcorn_adapters::lora::LoraWeights;
use seedcorn_tests::model::{PLAIN, batch, relative_norm, tiny};

use crate::reference::{FAMILIES, case, gradients};

/// Norm of the difference over the norm of the gradient.
const GRADIENT: f64 = 1e-4;
/// q, k, v, o, gate, up and down of two layers.
const LINEAR_LAYERS: usize = 14;

fn identity(model: &Decoder) -> Adapter {
    let weights = model.projections().map(|one| {
        let [out_features, in_features] = one.weight.shape();
        let mut a = vec![0.0; in_features * in_features];
        a.iter_mut().step_by(in_features + 1).for_each(|diagonal| *diagonal = 1.0);
        let b = vec![0.0; out_features * in_features];
        LoraWeights { name: one.name.clone(), rank: in_features, scale: 1.0, a, b, in_features, out_features }
    });
    Adapter::new(weights.collect(), &Device::flex())
}

fn bits(gradients: &[Vec<f32>]) -> Vec<Vec<u32>> {
    gradients.iter().map(|one| one.iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn of_every_linear_layer() {
    let mut worst = (0.0, String::new());
    for family in FAMILIES {
        let (model, batch) = (tiny(family, "config.json", PLAIN), batch(&case(family, 'a').rows));
        let (adapter, expected) = (identity(&model), gradients(family));
        assert_eq!(adapter.modules().len(), LINEAR_LAYERS);
        let run = |kept_blocks| {
            let (loss, gradients) = model.loss_and_gradients(&(&batch).into(), &adapter, None, kept_blocks);
            (loss.to_bits(), gradients.values())
        };
        let (recomputed, kept) = (run(0), run(usize::MAX));
        assert_eq!((recomputed.0, bits(&recomputed.1)), (kept.0, bits(&kept.1)), "{family}");

        let scale = 1.0 / batch.target_tokens() as f32;
        for (module, pair) in adapter.modules().iter().zip(recomputed.1.chunks_exact(2)) {
            assert!(pair[0].iter().all(|&da| da == 0.0), "B is zero");
            let mean: Vec<f32> = pair[1].iter().map(|db| db * scale).collect();
            let name = format!("{}.weight", module.name);
            let found = relative_norm(&mean, &expected[&name].values);
            assert!(found < GRADIENT, "{family}: the gradient of `{name}` differs by {found:e}");
            if found > worst.0 {
                worst = (found, format!("{family} {name}"));
            }
        }
    }
    println!("largest relative difference of a gradient: {:e} ({})", worst.0, worst.1);
}

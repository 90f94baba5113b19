//! Frozen weights stay as they are, and an adapter that adds nothing changes nothing.

use std::io;

use burn::tensor::Device;
use seedcorn::build::{Prepared, precision};
use seedcorn::evaluate::Evaluation;
use seedcorn::model::{Decoder, Input};
use seedcorn::optimizer::Optimizer;
use seedcorn::parallel::Ranks;
use seedcorn::progress::{Observer, Progress, StepRecord};
use seedcorn::recipe::Reduction;
use seedcorn::stop::Stop;
use seedcorn::train::{Run, Settings, train};
use seedcorn_adapters::Adapter;
use seedcorn_data::Stream;
use seedcorn_kernels::adamw::AdamW;
use seedcorn_kernels::frozen::Storage;
use seedcorn_kernels::nf4::Absmax;
use seedcorn_tests::model::{batch, values};
use seedcorn_tests::scratch::{Scratch, samples};
use sha2::{Digest, Sha256};

/// Hears of steps and counts them.
#[derive(Default)]
pub(crate) struct Count(pub(crate) u64);

impl Observer for Count {
    fn step(&mut self, _: &StepRecord, _: &Adapter) -> io::Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn evaluation(&mut self, _: u64, _: &Evaluation) -> io::Result<()> {
        Ok(())
    }

    fn before_checkpoint(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts a run together by hand, around a model that the caller keeps.
pub(crate) fn by_hand<'a>(
    prepared: &'a Prepared,
    model: &'a Decoder,
    adapter: Adapter,
    observer: &'a mut Count,
    (ranks, stop): (&'a Ranks<'a>, &'a Stop),
) -> Run<'a> {
    let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    Run {
        ranks,
        stop,
        model: model.into(),
        optimizer: Optimizer::new(adamw, 1.0, &adapter),
        adapter,
        stream: Stream::new(prepared.dataset.clone(), prepared.stream.clone()).expect("a stream"),
        eval: &[],
        schedule: prepared.schedule,
        checkpoints: None,
        observer,
        progress: Progress::default(),
        settings: Settings {
            steps: prepared.steps,
            seed: 0,
            dropout: 0.0,
            kept_blocks: 0,
            reduction: Reduction::Tree,
            eval_micro_batch: 1,
            eval_every: 0,
            eval_max_samples: None,
            save_every: 0,
            output: prepared.recipe.output.clone(),
        },
    }
}

/// Hashes what every linear layer stores.
fn digest(model: &Decoder) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut floats = |values: &[f32]| values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    for projection in model.projections() {
        let mut dense = vec![0.0; projection.weight.shape().iter().product()];
        projection.weight.read(0, &mut dense);
        floats(&dense);
        floats(projection.bias.as_deref().unwrap_or_default());
    }
    for projection in model.projections() {
        match &*projection.weight.storage() {
            Storage::F32(_) | Storage::Bf16(_) => {}
            Storage::Int8(int8) => int8.codes.iter().for_each(|code| hash.update(code.to_le_bytes())),
            Storage::Nf4(nf4) => {
                hash.update(&nf4.packed);
                if let Absmax::Double { codes, .. } = &nf4.absmax {
                    hash.update(codes);
                }
            }
        }
    }
    hash.finalize().to_vec()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn training_moves_the_adapter_only() {
    for quantize in ["none", "nf4", "int8"] {
        let scratch = Scratch::new("qwen2", &samples(16, 5..30, 15));
        let prepared = scratch.prepare("run", &[&format!("model.quantize={quantize}")]).expect("prepared");
        let device = Device::flex();
        let model = prepared.base.load(precision(&prepared.recipe.model), &device).expect("loaded");
        let probe = Input::from(&batch(&samples(2, 5..30, 16)));
        let look = || (digest(&model), bits(&values(model.logits(&probe, None))));
        let (before, adapter) = (look(), Adapter::new(prepared.weights.clone(), &device));
        let start = adapter.values();

        let mut count = Count::default();
        let alone = (&Ranks::alone(), &Stop::default());
        let trained = train(by_hand(&prepared, &model, adapter, &mut count, alone)).expect("trained");
        assert_eq!(count.0, 4);
        assert!(look() == before, "{quantize}: the frozen model moved");
        for (index, (was, is)) in start.iter().zip(trained.adapter.values()).enumerate() {
            assert_ne!(*was, is, "{quantize}: factor {index} was not trained");
        }
        let adapted = values(model.logits(&probe, Some(&trained.adapter)));
        assert!(bits(&adapted) != before.1, "{quantize}: the adapter does nothing");
    }
}

#[test]
fn a_fresh_adapter_gives_the_logits_of_the_base() {
    for model in ["llama", "llama-tied", "mistral-swa", "qwen2", "qwen3"] {
        for quantize in ["none", "nf4"] {
            let scratch = Scratch::new(model, &samples(8, 5..30, 17));
            let prepared =
                scratch.prepare("run", &[&format!("model.quantize={quantize}")]).expect("prepared");
            let device = Device::flex();
            let decoder = prepared.base.load(precision(&prepared.recipe.model), &device).expect("loaded");
            let adapter = Adapter::new(prepared.weights.clone(), &device);
            let probe = Input::from(&batch(&samples(3, 5..30, 18)));
            let base = values(decoder.logits(&probe, None));
            let adapted = values(decoder.logits(&probe, Some(&adapter)));
            assert!(bits(&base) == bits(&adapted), "{model}, {quantize}");
        }
    }
}

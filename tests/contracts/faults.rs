//! What must not be trained on stops a run before it does harm.

use burn::tensor::Device;
use seedcorn::build::{Prepared, precision};
use seedcorn::parallel::Ranks;
use seedcorn::stop::Stop;
use seedcorn::train::{TrainError, train};
use seedcorn_adapters::Adapter;
use seedcorn_data::{MicroBatch, RecordFile, Stream};
use seedcorn_tests::model::fixture;
use seedcorn_tests::scratch::{Scratch, samples};

use crate::frozen::{Count, by_hand};

/// Returns the ids of each sample of a step, as the stream gives them.
fn ids_of_step(prepared: &Prepared, step: usize) -> Vec<Vec<u32>> {
    let mut stream = Stream::new(prepared.dataset.clone(), prepared.stream.clone()).expect("a stream");
    let batches: Vec<MicroBatch> =
        (0..step).map(|_| stream.next_step().expect("a step")).last().expect("one");
    let split = |batch: &MicroBatch| -> Vec<Vec<u32>> {
        let borders = batch.segments.windows(2);
        borders.map(|pair| batch.input_ids[pair[0] as usize..pair[1] as usize].to_vec()).collect()
    };
    batches.iter().flat_map(split).collect()
}

/// Reads the ids of the samples that a broken run kept.
fn kept(path: &std::path::Path) -> Vec<Vec<u32>> {
    let file = RecordFile::open(path).expect("a file of records");
    let ids = |index| {
        let fields = file.record(index).expect("a record").fields;
        serde_json::from_value(fields["input_ids"].clone()).expect("ids")
    };
    (0..file.len()).map(ids).collect()
}

#[test]
fn nothing_to_train() {
    let untrained = |(ids, _)| {
        let labels = vec![-100; Vec::len(&ids)];
        (ids, labels)
    };
    let samples: Vec<_> = samples(8, 5..30, 19).into_iter().map(untrained).collect();
    let scratch = Scratch::new("llama", &samples);
    let error = scratch.train("run", &[]).expect_err("nothing is trained");
    let fault = error.downcast_ref::<seedcorn_data::Error>();
    let Some(seedcorn_data::Error::NothingTrained { records: 8, dropped_untrained: 8, .. }) = fault else {
        panic!("{error:?}")
    };
    assert!(!scratch.path("run").exists());
}

/// The loss is not finite from the first step: nothing is updated, saved or exported.
#[test]
fn an_adapter_with_nan() {
    for value in [f32::NAN, f32::INFINITY] {
        let scratch = Scratch::new("llama", &samples(16, 5..30, 20));
        let prepared = scratch.prepare("run", &[]).expect("prepared");
        let model = prepared.base.load(precision(&prepared.recipe.model), &Device::flex()).expect("loaded");
        let mut adapter = Adapter::new(prepared.weights.clone(), &Device::flex());
        let mut broken = adapter.values();
        broken[9][3] = value;
        adapter.set_values(broken);
        let mut count = Count::default();
        let alone = (&Ranks::alone(), &Stop::default());
        let error = train(by_hand(&prepared, &model, adapter, &mut count, alone)).expect_err("not finite");
        let TrainError::NotFinite { step: 1, saved: Some(saved), .. } = &error else { panic!("{error:?}") };
        assert_eq!(count.0, 0, "no step was taken");
        assert_eq!(kept(saved), ids_of_step(&prepared, 1));
        assert!(error.hint().expect("a hint").contains(&saved.display().to_string()));
    }
}

/// A learning rate that breaks the run after its first update: the last good state stays, and nothing else.
#[test]
fn a_run_that_breaks_on_its_way() {
    let scratch = Scratch::new("llama", &samples(16, 5..30, 21));
    let overrides = ["optimizer.lr=1e30", "checkpoint.every_steps=1", "schedule.kind=constant"];
    let error = scratch.train("run", &overrides).expect_err("not finite");
    let Some(TrainError::NotFinite { step: 2, saved: Some(saved), .. }) = error.downcast_ref() else {
        panic!("{error:?}")
    };
    let run = scratch.path("run");
    assert_eq!(*saved, run.join("bad/step-000002.jsonl"));
    assert_eq!(kept(saved), ids_of_step(&scratch.prepare("run", &overrides).expect("prepared"), 2));
    assert_eq!(scratch.steps("run", "step"), [1.0]);
    let checkpoints: Vec<_> = fs_err::read_dir(run.join("checkpoints")).expect("saved").collect();
    assert_eq!(checkpoints.len(), 1);
    assert!(run.join("checkpoints/step-000001/manifest.json").exists());
    assert!(!run.join("adapter").exists());
    // The samples are data like any other.
    let text = fs_err::read_to_string(saved).expect("read");
    let again = Scratch::new("llama", &[]);
    again.write("data.jsonl", text);
    again.train("run", &["train.steps=1"]).expect("it trains alone");
}

#[test]
fn weights_with_nan() {
    let scratch = Scratch::new("llama", &samples(8, 5..30, 22));
    let model = fixture("models/llama");
    fs_err::create_dir(scratch.path("model")).expect("created");
    fs_err::copy(model.join("config.json"), scratch.path("model/config.json")).expect("copied");
    let mut weights = fs_err::read(model.join("model.safetensors")).expect("read");
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    scratch.write("model/model.safetensors", weights);
    let source = format!("model.source={}", scratch.path("model").display());
    let error = scratch.train("run", &[&source, "checkpoint.every_steps=1"]).expect_err("not finite");
    assert!(format!("{error:#}").contains("holds NaN at element"), "{error:#}");
    assert!(!scratch.path("run/adapter").exists());
    assert!(!scratch.path("run/checkpoints").exists());
}

//! What a plan says beforehand is what a run does: bytes of weights, bytes between ranks, peak memory.

use std::collections::{BTreeMap, VecDeque};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use burn::tensor::Device;
use seedcorn::build::{Prepared, precision};
use seedcorn::model::{Cut, Decoder, Model, Slice};
use seedcorn::parallel::{BatchSize, Call, Collective, Mesh, ParallelError, Ranks, Traffic};
use seedcorn::plan::{Frozen, Memory, Subject};
use seedcorn::stop::Stop;
use seedcorn::train::train;
use seedcorn_adapters::Adapter;
use seedcorn_tests::scratch::{Scratch, samples};

use crate::frozen::{Count, by_hand};

pub(crate) const MODELS: [&str; 7] =
    ["llama", "llama-tied", "mistral-swa", "qwen2", "qwen3", "gguf-llama", "llama-bnb-nf4"];

#[test]
fn frozen_weights_take_the_bytes_of_their_lines() {
    for model in MODELS {
        let scratch = Scratch::new(model, &samples(8, 5..30, 41));
        for quantize in ["none", "nf4", "int8"] {
            for more in
                [["model.compute=f32"].as_slice(), &["model.compute=bf16", "model.double_quant=false"]]
            {
                let quantize_set = format!("model.quantize={quantize}");
                let more: Vec<&str> =
                    more.iter().copied().filter(|set| quantize == "nf4" || !set.contains("double")).collect();
                let stored = model == "llama-bnb-nf4";
                if stored && quantize == "int8" {
                    continue; // A checkpoint that is quantized is not quantized again.
                }
                let prepared = scratch
                    .prepare("run", &[&[quantize_set.as_str()], more.as_slice()].concat())
                    .expect("prepared");
                let frozen = Subject::of(&prepared).frozen;
                let model_of =
                    prepared.base.load(precision(&prepared.recipe.model), &Device::flex()).expect("loaded");
                let linear: usize = model_of.projections().map(|one| one.weight.bytes()).sum();
                let biases =
                    model_of.projections().filter_map(|one| one.bias.as_ref()).map(|bias| 4 * bias.len());
                let what = format!("{model}, {quantize}, {more:?}");
                assert_eq!(frozen.linear, linear as u64, "{what}");
                assert_eq!(
                    frozen.linear + frozen.embedding + frozen.head,
                    model_of.weight_bytes() as u64,
                    "{what}"
                );
                let spec = &prepared.base.spec;
                let heads = if spec.qk_norm { 2 * spec.heads.head_dim * spec.num_layers } else { 0 };
                let norms = 4 * (spec.hidden_size * (2 * spec.num_layers + 1) + heads);
                assert_eq!(frozen.small, (norms + biases.sum::<usize>()) as u64, "{what}");
            }
        }
    }
}

/// Calls and bytes by purpose and collective.
pub(crate) type Sent = BTreeMap<(&'static str, &'static str), (u64, u64)>;

/// Ranks as threads that count what they send to others.
#[derive(Debug)]
struct Counted<'a> {
    rank: usize,
    hub: &'a Hub,
    sent: Mutex<Sent>,
}

#[derive(Debug)]
struct Hub {
    /// What each rank sends to each.
    boxes: Mutex<Vec<Vec<VecDeque<Vec<u8>>>>>,
    changed: Condvar,
}

impl Counted<'_> {
    fn pass(&self, members: &[usize], outgoing: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut boxes = self.hub.boxes.lock().expect("whole");
        members.iter().zip(outgoing).for_each(|(to, one)| boxes[self.rank][*to].push_back(one.to_vec()));
        self.hub.changed.notify_all();
        let mut incoming = Vec::new();
        while let Some(from) = members.get(incoming.len()) {
            match boxes[*from][self.rank].pop_front() {
                Some(message) => incoming.push(message),
                None => boxes = self.hub.changed.wait(boxes).expect("whole"),
            }
        }
        incoming
    }

    fn count(&self, op: &'static str, collective: &'static str, members: &[usize], outgoing: &[&[u8]]) {
        let others = members.iter().zip(outgoing).filter(|(to, _)| **to != self.rank);
        let bytes: usize = others.map(|(_, one)| one.len()).sum();
        let mut sent = self.sent.lock().expect("whole");
        let entry = sent.entry((op, collective)).or_default();
        *entry = (entry.0 + 1, entry.1 + bytes as u64);
    }
}

impl Collective for Counted<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hub.boxes.lock().expect("whole").len()
    }

    fn exchange_among(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        self.count(call.op, "exchange", members, outgoing);
        Ok(self.pass(members, outgoing))
    }

    fn all_gather_among(
        &self,
        call: Call,
        members: &[usize],
        own: &[u8],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        let outgoing = vec![own; members.len()];
        self.count(call.op, "all_gather", members, &outgoing);
        Ok(self.pass(members, &outgoing))
    }
}

/// Trains on the ranks of a mesh and returns what each has sent; where they share the weights, each keeps a part.
pub(crate) fn sent(prepared: &Prepared, mesh: Mesh, parts: bool) -> Vec<Sent> {
    let device = Device::flex();
    let size = mesh.ranks();
    let load = |rank| {
        let slice = Slice { index: mesh.tensor_index(rank), of: mesh.tensor };
        let cut = parts.then(|| Cut { index: mesh.data_index(rank), count: mesh.data });
        prepared.base.load_part(precision(&prepared.recipe.model), &device, slice, cut).expect("loaded")
    };
    let models: Vec<Decoder> = (0..size).map(load).collect();
    let models = &models;
    let boxes = Mutex::new(vec![vec![VecDeque::new(); size]; size]);
    let hub = Hub { boxes, changed: Condvar::new() };
    let body = &|rank| {
        let counted = Counted { rank, hub: &hub, sent: Mutex::default() };
        let adapter = Adapter::new(prepared.weights.clone(), &device);
        let mut observer = Count::default();
        let ranks = Ranks::new(&counted, mesh, Duration::from_mins(1));
        let stop = Stop::default();
        let mut run = by_hand(prepared, &models[rank], adapter, &mut observer, (&ranks, &stop));
        run.model = Model::new(&models[rank], &ranks);
        run.eval = prepared.dataset.eval();
        run.settings.kept_blocks = prepared.memory.kept_blocks;
        train(run).expect("trained");
        counted.sent.into_inner().expect("whole")
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..size).map(|rank| scope.spawn(move || body(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank that ends")).collect()
    })
}

#[test]
fn ranks_send_the_bytes_of_the_plan() {
    let scratch = Scratch::new("llama", &samples(40, 5..30, 42));
    // 6 micro-batches: on 2 ranks shares of two parts, on 3 of one, on 6 of a single micro-batch.
    let more = ["train.micro_batch=1", "train.batch_size=6", "data.eval_count=5"];
    let prepared = scratch.prepare("run", &more).expect("prepared");
    let subject = Subject::of(&prepared);
    let values = prepared.weights.iter().map(|one| one.a.len() + one.b.len()).sum();
    assert_eq!(subject.trained_values(), values as u64);
    let batches = subject.evaluation[1];
    assert_eq!(batches, 5);
    for size in [1, 2, 3, 6] {
        let mesh = Mesh::of_data(size);
        let traffic = Traffic::new(mesh, 6, values);
        let mut most = 0;
        for (rank, counted) in sent(&prepared, mesh, false).into_iter().enumerate() {
            let mut expected = Sent::new();
            let mut add = |op, collective, calls: u64, bytes| {
                let (made, sent) = expected.entry((op, collective)).or_default();
                (*made, *sent) = (*made + calls, *sent + calls * bytes);
            };
            traffic
                .of_step(rank)
                .iter()
                .for_each(|one| add(one.op, one.collective, prepared.steps, one.bytes));
            traffic.of_checkpoint().iter().for_each(|one| add(one.op, one.collective, 1, one.bytes));
            if size > 1 {
                // Before the first step and after the last; five batches do not divide.
                let bytes = 8 * (mesh.share(rank, batches).len() * (size - 1)) as u64;
                add("evaluation", "all_gather", 2, bytes);
                most = most.max(bytes);
            }
            assert_eq!(counted, expected, "rank {rank} of {size}");
        }
        assert_eq!(traffic.of_evaluation(batches).map_or(0, |one| one.bytes), most);
    }
}

/// Bytes and calls of what ranks that hold one model together send each other; and those beside them, of their slices.
#[test]
fn slices_send_the_bytes_of_the_plan() {
    // All samples are as long, and train all but their first token.
    let ids = |sample: u32| (0..20).map(|at| (sample * 31 + at * 7) % 250).collect::<Vec<u32>>();
    let samples: Vec<_> =
        (0..40).map(ids).map(|ids| (ids.clone(), ids.iter().map(|&id| id as i32).collect())).collect();
    let scratch = Scratch::new("sliced-llama", &samples);
    let size = BatchSize { tokens: 20, targets: 19 };
    for (data, tensor, activation) in [(1, 2, "recompute"), (1, 4, "keep"), (2, 2, "recompute")] {
        let mesh = Mesh { data, tensor };
        let sets = [
            format!("parallel.data={data}"),
            format!("parallel.tensor={tensor}"),
            format!("train.activation={activation}"),
        ];
        let more = ["train.micro_batch=1", "train.batch_size=4", "data.eval_count=4", "model.compute=f32"];
        let more: Vec<&str> = more.into_iter().chain(sets.iter().map(String::as_str)).collect();
        let prepared = scratch.prepare("run", &more).expect("prepared");
        let subject = Subject::of(&prepared);
        let (model, traffic) = (subject.model_traffic().expect("slices"), subject.traffic());
        let each = (4 / data) as u64;
        for (rank, counted) in sent(&prepared, mesh, false).into_iter().enumerate() {
            let mut expected = BTreeMap::new();
            let mut add = |one: &seedcorn::parallel::Sent, times: u64| {
                *expected.entry((one.op, one.collective)).or_default() += one.bytes * times;
            };
            let steps = prepared.steps;
            model.of_micro_batch(mesh, rank, size).iter().for_each(|one| add(one, steps * each));
            model.of_update(mesh, rank).iter().for_each(|one| add(one, steps));
            // Before the first step and after the last.
            model.of_evaluated(mesh, rank, size).iter().for_each(|one| add(one, 2 * each));
            traffic.of_step(rank).iter().for_each(|one| add(one, steps));
            traffic.of_checkpoint().iter().for_each(|one| add(one, 1));
            traffic.of_evaluation(4).iter().for_each(|one| add(one, 2));
            let bytes: BTreeMap<_, u64> =
                counted.into_iter().map(|(what, (_, bytes))| (what, bytes)).collect();
            assert_eq!(bytes, expected, "rank {rank} of {data} x {tensor}");
        }
        let planned: u64 = subject.slices_sent()[0].iter().map(|one| one.bytes).sum();
        let last = mesh.ranks() - 1;
        let of_batches: u64 = model
            .of_micro_batch(mesh, last, BatchSize { tokens: 20, targets: 20 })
            .iter()
            .map(|one| one.bytes)
            .sum();
        let once: u64 = model.of_update(mesh, last).iter().map(|one| one.bytes).sum();
        assert_eq!(planned, each * of_batches + once);
    }
}

#[test]
fn slices_of_weights_take_the_bytes_of_their_lines() {
    for (model, tensor) in [("sliced-llama", 4), ("sliced-qwen3", 2), ("llama-tied", 2), ("qwen2", 2)] {
        let scratch = Scratch::new(model, &samples(8, 5..30, 46));
        for more in [
            ["model.quantize=nf4", "model.compute=f32"],
            ["model.quantize=nf4", "model.double_quant=false"],
            ["model.quantize=int8", "model.compute=bf16"],
            ["model.quantize=none", "model.compute=bf16"],
        ] {
            if !model.starts_with("sliced") && more[0] == "model.quantize=nf4" {
                continue; // Its widths are not whole blocks.
            }
            let prepared = scratch.prepare("run", &more).expect("prepared");
            let (base, precision) = (&prepared.base, precision(&prepared.recipe.model));
            for index in 0..tensor {
                let slice = Slice { index, of: tensor };
                let planned = Frozen::new(&base.spec, precision, slice, &|name| base.weights.info(name));
                let loaded = base.load_part(precision, &Device::flex(), slice, None).expect("loaded");
                let what = format!("{model}, slice {index}, {more:?}");
                assert_eq!(
                    planned.linear + planned.embedding + planned.head,
                    loaded.weight_bytes() as u64,
                    "{what}"
                );
                let biases =
                    loaded.projections().filter_map(|one| one.bias.as_ref()).map(|bias| 4 * bias.len());
                let spec = &base.spec;
                let heads = if spec.qk_norm { 2 * spec.heads.head_dim * spec.num_layers } else { 0 };
                let norms = 4 * (spec.hidden_size * (2 * spec.num_layers + 1) + heads);
                assert_eq!(planned.small, (norms + biases.sum::<usize>()) as u64, "{what}");
            }
        }
    }
}

/// The peak of a process of its own, on whatever instruction tier there is; `docs/scale.md` has that of a real model.
#[test]
fn a_run_stays_within_its_plan() {
    let scratch = Scratch::new("wide", &samples(64, 127..128, 43));
    for (index, more) in [
        ["model.compute=f32", "train.activation=keep"],
        ["model.compute=bf16", "train.activation=keep"],
        ["model.compute=f32", "train.activation=recompute"],
    ]
    .iter()
    .enumerate()
    {
        let shape = ["train.batch_size=64", "train.micro_batch=64", "train.steps=2"];
        let overrides = [shape.as_slice(), more].concat();
        let planned = Memory::new(&Subject::of(&scratch.prepare("plan", &overrides).expect("prepared")), 2);
        let folder = format!("output={}", scratch.path(&format!("run-{index}")).display());
        let status = Command::new(env!("CARGO_BIN_EXE_seedcorn-under-test"))
            .args(["train", "--quiet", "--offline", "--threads", "2"])
            .args([overrides.as_slice(), &[&folder]].concat().iter().flat_map(|text| ["--set", text]))
            .arg(scratch.path("recipe.toml"))
            .stdin(Stdio::null())
            .status();
        assert!(status.expect("started").success());
        let measured = scratch.measured(&format!("run-{index}"), "peak_memory_bytes");
        let ratio = planned.peak as f64 / measured;
        println!("{more:?}: planned {}, measured {measured}: {ratio:.3}", planned.peak);
        assert!((0.9..=1.25).contains(&ratio), "{more:?}: planned {}, measured {measured}", planned.peak);
    }
}

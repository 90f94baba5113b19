//! Ranks that keep a part of the frozen weights each hold and send what the plan says.

use std::collections::BTreeSet;

use burn::tensor::Device;
use seedcorn::build::precision;
use seedcorn::model::{Cut, Pass, Slice};
use seedcorn::parallel::Mesh;
use seedcorn::plan::Subject;
use seedcorn_data::MicroBatch;
use seedcorn_tests::scratch::{Scratch, samples};

use crate::plan::{MODELS, sent};

/// The rows of tokens that each rank of a pass asks of the others, and that it is asked for.
fn rows_asked(batches: &[MicroBatch], size: usize, vocabulary: usize) -> [Vec<u64>; 2] {
    let mesh = Mesh::of_data(size);
    let keeper = |row: usize| (0..size).find(|rank| mesh.share(*rank, vocabulary).contains(&row));
    let (mut asks, mut asked) = (vec![0; size], vec![0; size]);
    for rank in 0..size {
        for batch in &batches[mesh.share(rank, batches.len())] {
            let rows: BTreeSet<u32> = batch.input_ids.iter().copied().collect();
            for row in rows {
                let keeper = keeper(row as usize).expect("a row of the table");
                if keeper != rank {
                    asks[rank] += 1;
                    asked[keeper] += 1;
                }
            }
        }
    }
    [asks, asked]
}

#[test]
fn ranks_that_share_weights_send_the_bytes_of_the_plan() {
    for (model, more) in [("llama", "model.quantize=nf4"), ("llama-tied", "model.quantize=int8")] {
        let scratch = Scratch::new(model, &samples(40, 5..30, 44));
        let more = [more, "train.micro_batch=1", "train.batch_size=6", "data.eval_count=5"];
        for size in [2, 3] {
            let ranks = [format!("parallel.data={size}"), "parallel.shard_base=true".to_owned()];
            let more: Vec<&str> = more.into_iter().chain(ranks.iter().map(String::as_str)).collect();
            let prepared = scratch.prepare("run", &more).expect("prepared");
            let subject = Subject::of(&prepared);
            let parts = subject.parts.as_ref().expect("ranks that share weights");
            // The fixtures have one range of rows.
            let vocabulary = subject.spec.vocab_size;
            assert_eq!(parts.stops(Pass::Forward) as usize, subject.spec.num_layers + 1);
            let mut passes = Vec::new();
            let evaluated: Vec<MicroBatch> =
                prepared.dataset.eval().iter().flat_map(|source| source.batches(1)).collect();
            passes.extend([(evaluated.clone(), Pass::Forward), (evaluated, Pass::Forward)]);
            let mut stream = prepared.order.clone();
            for _ in 0..prepared.steps {
                passes.push((stream.next_step().expect("a step"), Pass::Training));
            }
            let mut most = [0u64; 2];
            for (rank, counted) in sent(&prepared, Mesh::of_data(size), true).into_iter().enumerate() {
                let (mut weights, mut rows) = ((0, 0), (0, 0));
                for (batches, pass) in &passes {
                    let turns = batches.len().div_ceil(size) as u64;
                    weights.0 += turns * parts.stops(*pass);
                    weights.1 += turns * parts.of_pass(rank as u64, *pass);
                    let [asks, asked] = rows_asked(batches, size, vocabulary);
                    rows.0 += 2 * turns;
                    rows.1 += 4 * asks[rank] + parts.row_bytes() * asked[rank];
                }
                assert_eq!(counted[&("weights", "all_gather")], weights, "{model}: rank {rank} of {size}");
                assert_eq!(counted[&("embedding", "exchange")], rows, "{model}: rank {rank} of {size}");
                most = [most[0].max(weights.1), most[1] + rows.1];
            }
            let [step, evaluation] = subject.weights_sent();
            let planned = |place: usize| prepared.steps * step[place].bytes + 2 * evaluation[place].bytes;
            assert_eq!(planned(1), most[0]);
            // Planned for tokens of which none comes twice.
            assert!(planned(0) * size as u64 >= most[1], "{} planned, {} sent", planned(0), most[1]);
        }
    }
}

#[test]
fn parts_of_weights_take_the_bytes_of_their_lines() {
    for model in MODELS {
        let scratch = Scratch::new(model, &samples(8, 5..30, 45));
        for more in [["model.compute=f32", "parallel.data=2"], ["model.compute=bf16", "parallel.data=4"]] {
            let more = [more.as_slice(), &["parallel.shard_base=true", "train.micro_batch=1"]].concat();
            let prepared = scratch.prepare("run", &more).expect("prepared");
            let subject = Subject::of(&prepared);
            let parts = subject.parts.as_ref().expect("ranks that share weights");
            for index in 0..parts.ranks() {
                let cut = Some(Cut { index: index as usize, count: parts.ranks() as usize });
                let precision = precision(&prepared.recipe.model);
                let decoder =
                    prepared.base.load_part(precision, &Device::flex(), Slice::WHOLE, cut).expect("loaded");
                let tables = if parts.tied() { 1 } else { 2 };
                let planned = parts.own_blocks(index) + tables * parts.own_table(index);
                assert_eq!(planned, decoder.weight_bytes() as u64, "{model}: part {index}, {more:?}");
            }
        }
    }
}

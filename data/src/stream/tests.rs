use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Stream, StreamConfig};
use crate::batch::MicroBatch;
use crate::cursor::Cursor;
use crate::dataset::Dataset;
use crate::dataset::tests::mixed;
use crate::error::Error;

fn config(batch_size: usize, micro_batch: usize, packing: bool, shuffle: bool) -> StreamConfig {
    StreamConfig { batch_size, micro_batch, packing, max_length: 12, shuffle, seed: 5 }
}

fn stream(dataset: &Arc<Dataset>, config: StreamConfig) -> Stream {
    Stream::new(Arc::clone(dataset), config).unwrap()
}

/// First id of each segment: the record's number.
fn records(batch: &MicroBatch) -> Vec<u32> {
    batch.segments[..batch.segments.len() - 1].iter().map(|&start| batch.input_ids[start as usize]).collect()
}

#[test]
fn file_order_is_kept_across_epochs() {
    let dataset = mixed([1.0, 1.0]);
    let mut stream = stream(&dataset, config(8, 4, false, false));
    assert_eq!((stream.units_per_epoch(), stream.steps_per_epoch()), (20, 3));
    let mut seen = Vec::new();
    for step in 0..5 {
        let batches = stream.next_step().unwrap();
        let indices: Vec<u64> = batches.iter().map(|batch| batch.index).collect();
        assert_eq!(indices, [2 * step, 2 * step + 1]);
        seen.extend(batches.iter().flat_map(records));
    }
    let epoch: Vec<u32> = (0..13).chain(0..7).collect();
    assert_eq!(seen, [epoch.clone(), epoch].concat());
    assert_eq!(stream.cursor(), Cursor { step: 5, micro_batch: 10, epoch: 1, unit: 20 });
}

#[test]
fn each_epoch_has_its_own_order_and_every_sample() {
    let dataset = mixed([1.0, 1.0]);
    for packing in [false, true] {
        let stream = stream(&dataset, config(1, 1, packing, true));
        let epochs: Vec<Vec<usize>> = (0..3).map(|epoch| stream.epoch(epoch).unwrap().concat()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    }
}

#[test]
fn weights_say_how_often_a_source_is_seen() {
    let dataset = mixed([0.5, 2.0]);
    let stream = stream(&dataset, config(1, 1, true, true));
    let mut times: BTreeMap<usize, usize> = BTreeMap::new();
    for entry in stream.epoch(0).unwrap().concat() {
        *times.entry(entry).or_default() += 1;
    }
    // 13 records at 0.5 round to 7 of them once; 7 records at 2 are seen twice each.
    assert_eq!(times.iter().filter(|(entry, times)| **entry < 13 && **times == 1).count(), 7);
    assert_eq!(times.iter().filter(|(entry, times)| **entry >= 13 && **times == 2).count(), 7);
    assert_eq!(times.len(), 14);
}

#[test]
fn the_split_into_micro_batches_changes_no_step() {
    let dataset = mixed([1.0, 1.0]);
    for packing in [false, true] {
        let mut one = stream(&dataset, config(4, 4, packing, true));
        let mut four = stream(&dataset, config(4, 1, packing, true));
        assert_eq!(one.order_digest().unwrap(), four.order_digest().unwrap());
        for _ in 0..12 {
            let joined: Vec<u32> = four.next_step().unwrap().iter().flat_map(records).collect();
            assert_eq!(records(&one.next_step().unwrap()[0]), joined);
        }
    }
}

#[test]
fn faults_are_told() {
    let dataset = mixed([1.0, 1.0]);
    let told = |config| Stream::new(Arc::clone(&dataset), config).unwrap_err();
    let fault = told(config(6, 4, false, true));
    assert_eq!(fault.to_string(), "`batch_size` (6) is not a multiple of `micro_batch` (4)");
    assert_eq!(fault.hint().unwrap(), "use `batch_size` 4 or 8");
    assert_eq!(told(config(6, 0, false, true)).to_string(), "`micro_batch` is 0, the least is 1");
    let huge = usize::MAX;
    assert!(matches!(told(config(huge, 1, false, true)), Error::TooLarge { name: "batch_size", .. }));
    let short = StreamConfig { max_length: 3, ..config(4, 4, true, true) };
    assert_eq!(told(short).to_string(), "a sample has 6 tokens, a pack holds 3");
    let sparse = mixed([0.01, 0.01]);
    let fault = Stream::new(sparse, config(4, 4, true, true)).unwrap_err();
    assert!(matches!(fault, Error::EmptyEpoch { epoch: 0 }));

    let mut stream = stream(&dataset, config(4, 2, false, true));
    let before = stream.cursor();
    for cursor in [
        Cursor { step: 1, micro_batch: 1, epoch: 0, unit: 4 },
        Cursor { step: 1, micro_batch: 2, epoch: 0, unit: 21 },
        Cursor { step: u64::MAX, micro_batch: u64::MAX, epoch: 0, unit: 0 },
    ] {
        assert!(matches!(stream.seek(cursor), Err(Error::BadCursor { .. })));
        assert_eq!(stream.cursor(), before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn resumed_is_uninterrupted(
        stop in 0usize..12,
        micro in 1usize..4,
        times in 1usize..4,
        packing: bool,
        shuffle: bool,
        weights in prop::sample::select(vec![[1.0, 1.0], [0.4, 1.7]]),
    ) {
        let dataset = mixed(weights);
        let config = config(micro * times, micro, packing, shuffle);
        let mut whole = stream(&dataset, config.clone());
        for _ in 0..stop {
            whole.next_step().unwrap();
        }
        let saved = serde_json::to_string(&whole.cursor()).unwrap();
        let mut resumed = stream(&dataset, config);
        resumed.seek(serde_json::from_str(&saved).unwrap()).unwrap();
        for _ in 0..12 {
            prop_assert_eq!(whole.next_step().unwrap(), resumed.next_step().unwrap());
            prop_assert_eq!(whole.cursor(), resumed.cursor());
        }
    }

    #[test]
    fn micro_batches_are_whole(packing: bool, micro in 1usize..5) {
        let dataset = mixed([1.0, 1.0]);
        let mut stream = stream(&dataset, config(micro, micro, packing, true));
        for _ in 0..8 {
            for batch in stream.next_step().unwrap() {
                prop_assert_eq!(batch.segments[0], 0);
                prop_assert_eq!(*batch.segments.last().unwrap() as usize, batch.tokens());
                prop_assert!(batch.segments.is_sorted());
                for borders in batch.segments.windows(2) {
                    let (start, end) = (borders[0] as usize, borders[1] as usize);
                    let positions: Vec<u32> = (0..(end - start) as u32).collect();
                    prop_assert_eq!(&batch.positions[start..end], positions.as_slice());
                    prop_assert_eq!(batch.targets[end - 1], crate::batch::IGNORE);
                    for at in start..end - 1 {
                        prop_assert_eq!(batch.targets[at], batch.input_ids[at + 1] as i32);
                    }
                }
            }
        }
    }
}

use super::*;

fn row(step: u64) -> StepRow {
    StepRow {
        step,
        loss: 1.0 / step as f64,
        grad_norm: 0.25,
        lr: 1e-3,
        trained_tokens: 10 * step,
        tokens_per_second: 99.5,
        seconds: 0.5,
        cpu_seconds: Some(2.5),
        peak_memory_bytes: Some(4096),
        device_memory_bytes: None,
        adapter_sha256: None,
    }
}

/// Every event of a folder, in the order in which TensorBoard goes through it.
fn events(folder: &Path) -> Vec<Event> {
    let mut files = files(folder).expect("listed");
    files.sort();
    let read = |(path, _): &(PathBuf, u64)| {
        let bytes = fs_err::read(path).expect("read");
        let read = record::contents(&bytes).map(|content| Event::decode(content).expect("an event"));
        read.collect::<Vec<_>>()
    };
    files.iter().flat_map(read).collect()
}

/// `(step, tag, value)` of every scalar.
fn scalars(folder: &Path) -> Vec<(i64, String, f32)> {
    let of = |event: Event| match event.what {
        Some(What::Summary(summary)) => summary
            .value
            .into_iter()
            .map(|one| (event.step, one.tag, one.simple_value.expect("a value")))
            .collect(),
        _ => Vec::new(),
    };
    events(folder).into_iter().flat_map(of).collect()
}

#[test]
fn a_step_and_an_evaluation_are_events() {
    let folder = tempfile::tempdir().expect("temp folder");
    let mut file = EventFile::open(folder.path(), 0).expect("opened");
    file.eval(&EvalRow::new(0, 0.0, 7)).expect("written");
    file.step(&row(1)).expect("written");
    file.sync().expect("synced");
    let first = &events(folder.path())[0];
    assert_eq!(first.what, Some(What::FileVersion("brain.Event:2".to_owned())));
    assert!(first.wall_time > 1.6e9, "{}", first.wall_time);
    let expected = [
        (0, "eval/loss", 0.0),
        (0, "eval/perplexity", 1.0),
        (1, "train/loss", 1.0),
        (1, "train/grad_norm", 0.25),
        (1, "train/lr", 1e-3),
        (1, "train/tokens_per_second", 99.5),
        (1, "memory/peak_bytes", 4096.0),
    ];
    assert_eq!(scalars(folder.path()), expected.map(|(step, tag, value)| (step, tag.to_owned(), value)));
}

/// A learning rate ends at zero, which protobuf would leave out of an ordinary field.
#[test]
fn zero_is_a_value() {
    let folder = tempfile::tempdir().expect("temp folder");
    let mut file = EventFile::open(folder.path(), 0).expect("opened");
    file.step(&StepRow { lr: 0.0, ..row(1) }).expect("written");
    assert!(scalars(folder.path()).contains(&(1, "train/lr".to_owned(), 0.0)));
}

/// Bytes of an event as protobuf defines them, counted by hand.
#[test]
fn bytes_are_those_of_the_schema() {
    let value = vec![Scalar { tag: "a".to_owned(), simple_value: Some(1.0) }];
    let event = Event { wall_time: 2.0, step: 300, what: Some(What::Summary(Summary { value })) };
    let expected = [
        &[0x09, 0, 0, 0, 0, 0, 0, 0, 0x40][..], // 1: wall_time, 64 bit
        &[0x10, 0xac, 0x02],                    // 2: step, varint
        &[0x2a, 10],                            // 5: summary
        &[0x0a, 8],                             // 1: value
        &[0x0a, 1, b'a'],                       // 1: tag
        &[0x15, 0, 0, 0x80, 0x3f],              // 2: simple_value, 32 bit
    ];
    assert_eq!(event.encode_to_vec(), expected.concat());
}

#[test]
fn continuing_drops_later_steps_and_marks_the_start() {
    let folder = tempfile::tempdir().expect("temp folder");
    let mut file = EventFile::open(folder.path(), 0).expect("opened");
    file.eval(&EvalRow::new(0, 1.0, 7)).expect("written");
    for step in 1..=5 {
        file.step(&row(step)).expect("written");
    }
    // A kill in the middle of a record.
    file.file.write_all(&[1, 2, 3]).expect("written");
    drop(file);

    let mut file = EventFile::open(folder.path(), 3).expect("opened");
    for step in 4..=6 {
        file.step(&row(step)).expect("written");
    }
    let losses: Vec<_> =
        scalars(folder.path()).into_iter().filter(|(_, tag, _)| tag == "train/loss").collect();
    assert_eq!(losses.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let start = What::SessionLog(SessionLog { status: 1 });
    let starts = events(folder.path()).into_iter().filter(|event| event.what.as_ref() == Some(&start));
    assert_eq!(starts.map(|event| event.step).collect::<Vec<_>>(), [4]);
    drop(file);

    // A run that found no checkpoint starts again: nothing of before is left.
    drop(EventFile::open(folder.path(), 0).expect("opened"));
    assert_eq!(scalars(folder.path()), []);
}

#[test]
fn other_files_are_left_alone() {
    let folder = tempfile::tempdir().expect("temp folder");
    let theirs = folder.path().join("events.out.tfevents.1.theirs");
    fs_err::write(&theirs, "not ours").expect("written");
    drop(EventFile::open(folder.path(), 0).expect("opened"));
    assert_eq!(fs_err::read(&theirs).expect("there"), b"not ours");
}

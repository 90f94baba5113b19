//! Saves that are killed, cut short or tampered with, and what is found afterwards.

use super::*;
use std::io;
use std::path::{Path, PathBuf};

const RECIPE: &str = "[train]\nseed = 1\n";

fn state(step: u64) -> State {
    State {
        step,
        trained_tokens: step * 100,
        cursor: serde_json::json!({ "sample": step }),
        best_eval_loss: Some(1.5),
        recipe_digest: seedcorn_data::source::hash_text(RECIPE),
        lock_digest: "lock".to_owned(),
    }
}

fn store(run: &Path, keep: u64) -> Store {
    Store::open(run, keep).expect("a store")
}

fn save(store: &Store, step: u64) -> Saved {
    let tensors = vec![step as u8; 5000];
    store.save(&state(step), RECIPE, vec![("adapter.safetensors", bytes(tensors))]).expect("saved")
}

fn names(run: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(run.join("checkpoints")).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII")).collect();
    names.sort();
    names
}

fn resumed_step(run: &Path) -> (Option<u64>, Vec<String>) {
    let mut warnings = Vec::new();
    let resumed =
        store(run, 2).resume(RECIPE, "lock", |broken| warnings.push(broken.to_string())).expect("readable");
    (resumed.map(|resumed| resumed.state.step), warnings)
}

#[test]
fn saves_and_finds_everything_again() {
    let run = tempfile::tempdir().expect("temp folder");
    let store = store(run.path(), 2);
    assert!(store.resume(RECIPE, "lock", |_| panic!("nothing to warn of")).expect("readable").is_none());
    let saved = save(&store, 7);
    let resumed =
        store.resume(RECIPE, "lock", |_| panic!("nothing to warn of")).expect("readable").expect("there");
    assert_eq!(resumed.state, state(7));
    assert_eq!(resumed.saved, saved);
    assert_eq!(saved.read("adapter.safetensors").expect("there"), [7; 5000]);
    assert!(matches!(saved.read("moments"), Err(CheckpointError::NoFile { .. })));
    assert_eq!(names(run.path()), ["step-000007"]);
}

#[test]
fn keeps_the_newest() {
    let run = tempfile::tempdir().expect("temp folder");
    let store = store(run.path(), 2);
    for step in [5, 10, 15, 1_000_000] {
        save(&store, step);
    }
    assert_eq!(names(run.path()), ["step-000015", "step-1000000"]);
    assert_eq!(resumed_step(run.path()).0, Some(1_000_000));
}

/// A save is killed after each of its files: the checkpoint before it is found, the remains are removed.
#[test]
fn a_killed_save_leaves_the_previous_checkpoint() {
    for written in 0..4 {
        let run = tempfile::tempdir().expect("temp folder");
        let whole = save(&store(run.path(), 2), 10).folder;
        let remains = run.path().join("checkpoints/.tmp-step-000020");
        fs_err::create_dir(&remains).expect("create");
        let files = ["state.json", "recipe.toml", "adapter.safetensors", "manifest.json"];
        for name in &files[..written] {
            fs_err::copy(whole.join(name), remains.join(name)).expect("copy");
        }
        assert_eq!(resumed_step(run.path()), (Some(10), vec![]));
        assert_eq!(names(run.path()), ["step-000010"]);
    }
}

#[test]
fn a_kill_between_the_renames_of_a_replacement_loses_nothing() {
    let run = tempfile::tempdir().expect("temp folder");
    let folder = save(&store(run.path(), 1), 10).folder;
    let aside = run.path().join("checkpoints/.old-step-000010");
    fs_err::rename(&folder, &aside).expect("rename");
    assert_eq!(resumed_step(run.path()), (Some(10), vec![]));
    // And once the new one is in place, the old one goes.
    fs_err::create_dir(&aside).expect("create");
    assert_eq!(resumed_step(run.path()), (Some(10), vec![]));
    assert_eq!(names(run.path()), ["step-000010"]);
}

#[test]
fn broken_checkpoints_are_skipped_with_their_fault() {
    type Harm = fn(&Path) -> io::Result<()>;
    let cases: [(Harm, &str); 7] = [
        (
            |folder| fs_err::write(folder.join("adapter.safetensors"), [20; 4999]),
            "`adapter.safetensors` has 4999 bytes, the manifest says 5000",
        ),
        (
            |folder| fs_err::write(folder.join("adapter.safetensors"), [21; 5000]),
            "`adapter.safetensors` has sha256 ",
        ),
        (|folder| fs_err::remove_file(folder.join("state.json")), "`state.json` is missing"),
        (|folder| fs_err::remove_file(folder.join("manifest.json")), "`manifest.json` is missing"),
        (|folder| fs_err::write(folder.join("manifest.json"), "{"), "`manifest.json` is not a manifest: "),
        (
            |folder| {
                let list = r#"{"version":1,"step":20,"files":{"../x":{"bytes":0,"sha256":""}}}"#;
                fs_err::write(folder.join("manifest.json"), list)
            },
            "`manifest.json` lists `../x`, which is no plain file name",
        ),
        (
            |folder| fs_err::write(folder.join("manifest.json"), r#"{"version":1,"step":3,"files":{}}"#),
            "`manifest.json` is of step 3, the folder of step 20",
        ),
    ];
    for (harm, fault) in cases {
        let run = tempfile::tempdir().expect("temp folder");
        let store = store(run.path(), 2);
        save(&store, 10);
        let newest = save(&store, 20).folder;
        harm(&newest).expect("harmed");
        let (step, warnings) = resumed_step(run.path());
        assert_eq!(step, Some(10), "{fault}");
        let expected = format!("skipped the checkpoint `{}`: {fault}", newest.display());
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{warnings:?}");
        // The run reaches the broken step again, and its checkpoint takes the place of the broken one.
        save(&store, 15);
        assert_eq!(resumed_step(run.path()).0, Some(15));
        save(&store, 20);
        assert_eq!(resumed_step(run.path()), (Some(20), vec![]));
        assert_eq!(names(run.path()), ["step-000015", "step-000020"]);
    }
}

#[test]
fn a_full_disk_names_the_checkpoint_that_is_left() {
    let run = tempfile::tempdir().expect("temp folder");
    let store = store(run.path(), 1);
    let full = || -> Fill<'static> {
        Box::new(|out| {
            out.write_all(&vec![0; 100_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
    };
    let error = store.save(&state(1), RECIPE, vec![("moments", full())]).expect_err("full");
    assert!(error.hint().expect("a hint").starts_with("no earlier checkpoint exists"));
    assert!(names(run.path()).is_empty());

    let previous = save(&store, 1).folder;
    let error = store.save(&state(2), RECIPE, vec![("moments", full())]).expect_err("full");
    let path = run.path().join("checkpoints/step-000002");
    assert_eq!(error.to_string(), format!("could not save the checkpoint `{}`", path.display()));
    let hint = error.hint().expect("a hint");
    assert!(
        hint.starts_with(&format!("the previous checkpoint `{}` is intact", previous.display())),
        "{hint}"
    );
    assert_eq!(names(run.path()), ["step-000001"]);
    assert_eq!(resumed_step(run.path()), (Some(1), vec![]));
}

#[test]
fn another_recipe_is_refused_with_its_keys() {
    let run = tempfile::tempdir().expect("temp folder");
    let store = store(run.path(), 1);
    save(&store, 4);
    let other = "[train]\nseed = 2\nsteps = 9\n";
    let error = store.resume(other, "lock", |_| {}).expect_err("another recipe");
    let CheckpointError::OtherRecipe { differing, .. } = &error else { panic!("{error}") };
    assert_eq!(differing, &["`train.seed` was 1 and is 2", "`train.steps` was none and is 9"]);
    assert!(error.is_usage());
    let error = store.resume(RECIPE, "other", |_| {}).expect_err("other inputs");
    assert!(matches!(error, CheckpointError::OtherInputs { .. }) && error.is_usage(), "{error}");
}

#[test]
fn a_state_of_another_step_is_refused() {
    let run = tempfile::tempdir().expect("temp folder");
    let store = store(run.path(), 1);
    let from = save(&store, 4).folder;
    let list = fs_err::read_to_string(from.join("manifest.json")).expect("a manifest");
    let to: PathBuf = run.path().join("checkpoints/step-000005");
    fs_err::rename(&from, &to).expect("rename");
    fs_err::write(to.join("manifest.json"), list.replace("\"step\": 4", "\"step\": 5")).expect("write");
    assert!(matches!(store.resume(RECIPE, "lock", |_| {}), Err(CheckpointError::State { .. })));
}

#[test]
fn file_names_stay_in_the_folder() {
    let run = tempfile::tempdir().expect("temp folder");
    for name in ["", "../x", "a/b", ".hidden", "manifest.json", "state.json", "recipe.toml"] {
        let result = store(run.path(), 1).save(&state(1), RECIPE, vec![(name, bytes("x"))]);
        assert!(matches!(result, Err(CheckpointError::FileName { .. })), "{name}");
    }
}

#[test]
fn replacing_a_file_is_whole_or_nothing() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("run.lock");
    atomic::write_file(&path, b"one").expect("written");
    atomic::write_file(&path, b"two").expect("written");
    assert_eq!(fs_err::read(&path).expect("there"), b"two");
    assert_eq!(fs_err::read_dir(folder.path()).expect("a folder").count(), 1);
    assert!(atomic::write_file(&folder.path().join("no/such"), b"x").is_err());
}

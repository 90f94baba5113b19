//! The report of a run and its TensorBoard files.

use insta::assert_snapshot;
use serde_json::Value;

use crate::stage::Stage;

fn rows(stage: &Stage) -> Vec<Value> {
    stage.read("run/metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All event files of the run, one after the other.
fn events(stage: &Stage) -> Vec<u8> {
    let files = fs_err::read_dir(stage.path("run/tensorboard")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.iter().all(|path| path.to_string_lossy().contains("events.out.tfevents.")), "{paths:?}");
    paths.into_iter().flat_map(|path| fs_err::read(path).unwrap()).collect()
}

fn count(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

#[test]
fn a_run_leaves_its_report_and_events() {
    let stage = Stage::new();
    assert!(stage.train("--quiet --set data.eval_count=2 --set train.steps=6").starts_with("exit 0"));
    let (html, rows) = (stage.read("run/report.html"), rows(&stage));
    let number = |row: &Value, key: &str| format!("<td>{:.4}</td>", row[key].as_f64().unwrap());
    let steps: Vec<&Value> = rows.iter().filter(|row| row.get("loss").is_some()).collect();
    assert_eq!(steps.len(), 6);
    for step in steps {
        assert!(html.contains(&number(step, "loss")) && html.contains(&number(step, "grad_norm")), "{step}");
        assert!(html.contains(&format!("{:.6e}", step["loss"].as_f64().unwrap())), "{step}");
    }
    let (first, last) = (&rows[0]["eval_loss"], &rows[7]["eval_loss"]);
    let held_out = format!("{:.4} \u{2192} {:.4}", first.as_f64().unwrap(), last.as_f64().unwrap());
    assert!(html.contains(&held_out), "{held_out}");
    let lock: toml::Table = toml::from_str(&stage.read("run/run.lock")).unwrap();
    let files = lock["results"]["files"].as_array().unwrap();
    let adapter =
        files.iter().find(|file| file["name"].as_str() == Some("adapter/adapter_model.safetensors")).unwrap();
    assert!(html.contains(adapter["sha256"].as_str().unwrap()));

    let events = events(&stage);
    assert_eq!(
        (count(&events, "train/loss"), count(&events, "train/lr"), count(&events, "eval/loss")),
        (6, 6, 2)
    );
    for row in &rows {
        let loss = row.get("loss").or(row.get("eval_loss")).unwrap().as_f64().unwrap() as f32;
        assert!(events.windows(4).any(|window| window == loss.to_le_bytes()), "{row}");
    }
}

#[test]
fn the_report_is_made_again_from_the_folder() {
    let stage = Stage::new();
    assert!(stage.train("--quiet").starts_with("exit 0"));
    let html = stage.read("run/report.html");
    fs_err::remove_file(stage.path("run/report.html")).unwrap();
    assert_snapshot!(stage.seedcorn("report run"), @r"
    exit 0
    ----- stdout
    report: run/report.html
    ");
    assert_eq!(stage.read("run/report.html"), html);
    assert_snapshot!(stage.seedcorn("report model"), @r"
    exit 2
    ----- stderr
    error: `model` is not the folder of a run: it has no `run.lock`

    hint: name the folder that a recipe's `output` names, like `runs/quickstart`
    ");
}

/// Steps that are done again stand in the events once, and the page says where the run was continued.
#[test]
fn a_continued_run_has_every_step_once() {
    let stage = Stage::new();
    let more = "--quiet --set data.eval_count=2 --set train.steps=12 --set checkpoint.every_steps=4";
    assert!(stage.train(more).starts_with("exit 0"));
    let whole = (rows(&stage).len(), events(&stage));
    fs_err::remove_dir_all(stage.path("run/checkpoints/step-000012")).unwrap();
    fs_err::remove_dir_all(stage.path("run/adapter")).unwrap();
    assert!(stage.train(&format!("{more} --resume")).starts_with("exit 0"));
    assert_eq!(
        (rows(&stage).len(), fs_err::read_dir(stage.path("run/tensorboard")).unwrap().count()),
        (whole.0, 2)
    );
    for tag in ["train/loss", "train/lr", "eval/loss", "eval/perplexity"] {
        assert_eq!(count(&events(&stage), tag), count(&whole.1, tag), "{tag}");
    }
    assert!(stage.read("run/report.html").contains("continued after step 8 (dashed"));
    let facts: Value = serde_json::from_str(&stage.read("run/report.json")).unwrap();
    assert_eq!(
        facts["starts"].as_array().unwrap().iter().map(|start| &start["step"]).collect::<Vec<_>>(),
        [0, 8]
    );
}

/// What a model or a data set says is text in the page, whatever it looks like.
#[test]
fn a_folder_with_hostile_texts_has_a_harmless_report() {
    let stage = Stage::new();
    assert!(stage.train("--quiet").starts_with("exit 0"));
    let mut facts: Value = serde_json::from_str(&stage.read("run/report.json")).unwrap();
    let hostile = "</pre><script>alert(1)</script>";
    facts["train"][0]["name"] = hostile.into();
    facts["answers"] = serde_json::json!([
        { "step": 0, "question": hostile, "expected": "\u{0}", "answer": hostile }
    ]);
    stage.write("run/report.json", facts.to_string());
    assert!(stage.seedcorn("report run").starts_with("exit 0"));
    let html = stage.read("run/report.html");
    assert_eq!((html.matches("<script").count(), html.matches("&lt;script&gt;alert(1)").count()), (1, 3));
    // A folder whose other files are gone or damaged still has a page.
    stage.write("run/report.json", "[");
    stage.write("run/metrics.jsonl", "\u{0}\n{}\n");
    assert!(stage.seedcorn("report run").starts_with("exit 0"));
    assert!(stage.read("run/report.html").contains("No step is logged yet"));
}

#[test]
fn events_can_be_left_out() {
    let stage = Stage::new();
    assert!(stage.train("--quiet --set log.tensorboard=false").starts_with("exit 0"));
    assert!(!stage.path("run/tensorboard").exists() && stage.path("run/report.html").exists());
}

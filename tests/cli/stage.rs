//! A temporary folder with a model, data and a recipe, and the command run in it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

/// Two sequences a micro-batch, four steps, ready token ids.
const RECIPE: &str = r#"version = 1
output = "run"

[model]
source = "model"

[adapter]
rank = 2

[data]
max_length = 32
packing = false

[[data.train]]
source = "data.jsonl"
format = "tokens"

[train]
batch_size = 4
micro_batch = 2
steps = 4

[optimizer]
lr = 2e-2
"#;

pub(crate) struct Stage {
    folder: TempDir,
}

impl Stage {
    /// Sets up `model/` (the tiny Llama), `data.jsonl` (16 samples of token ids) and `recipe.toml`.
    pub(crate) fn new() -> Stage {
        let stage = Stage { folder: tempfile::tempdir().unwrap() };
        stage.copy("models/llama", "model");
        stage.write("data.jsonl", samples(16));
        stage.write("recipe.toml", RECIPE);
        stage
    }

    /// Sets up the same for data with text: the model has a tokenizer with a ChatML template.
    pub(crate) fn with_text(format: &str, lines: &[&str]) -> Stage {
        let stage = Stage::new();
        stage.copy("data/tokenizer.json", "model/tokenizer.json");
        stage.copy("data/tokenizer_config.json", "model/tokenizer_config.json");
        stage.copy("data/chatml.jinja", "model/chat_template.jinja");
        stage.edit("model/config.json", "\"vocab_size\": 256", "\"vocab_size\": 448");
        stage.edit("recipe.toml", "\"tokens\"", &format!("\"{format}\""));
        stage.write("data.jsonl", &(lines.join("\n") + "\n"));
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs_err::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs_err::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn read_bytes(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.path(name)).unwrap()
    }

    /// Copies the files of a folder of the stage.
    pub(crate) fn copy_folder(&self, from: &str, to: &str) {
        for entry in fs_err::read_dir(self.path(from)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            self.write(&format!("{to}/{name}"), self.read_bytes(&format!("{from}/{name}")));
        }
    }

    /// Replaces the one place where `old` stands.
    pub(crate) fn edit(&self, name: &str, old: &str, new: &str) {
        let text = self.read(name);
        assert_eq!(text.matches(old).count(), 1, "`{old}` in {name}:\n{text}");
        self.write(name, text.replace(old, new));
    }

    /// Copies a file, or the files of a folder, out of the fixtures.
    pub(crate) fn copy(&self, fixture: &str, name: &str) {
        let from = Path::new(FIXTURES).join(fixture);
        if from.is_file() {
            return self.write(name, fs_err::read(from).unwrap());
        }
        for entry in fs_err::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let file = entry.file_name().into_string().unwrap();
            self.write(&format!("{name}/{file}"), fs_err::read(entry.path()).unwrap());
        }
    }

    /// Makes a command that sees no setting of the machine it runs on.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env_clear().env("HOME", self.folder.path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Runs `seedcorn` and shows what came of it.
    pub(crate) fn seedcorn(&self, args: &str) -> String {
        let args = args.split_whitespace();
        self.show(&self.command(env!("CARGO_BIN_EXE_seedcorn")).args(args).output().unwrap())
    }

    /// Runs `train recipe.toml`, with further arguments, for what it says before the first step.
    pub(crate) fn train(&self, more: &str) -> String {
        self.seedcorn(&format!("train recipe.toml {more}"))
    }

    /// Shows exit code, stdout and stderr. Paths of the stage begin with `[HERE]`, times and speeds are gone.
    pub(crate) fn show(&self, output: &Output) -> String {
        let mut text = match output.status.code() {
            Some(code) => format!("exit {code}\n"),
            None => format!("{}\n", output.status),
        };
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            let part = String::from_utf8_lossy(bytes);
            if !part.is_empty() {
                write!(text, "----- {name}\n{part}").unwrap();
            }
        }
        let here = self.folder.path().display().to_string();
        let text = text.replace(&here, "[HERE]");
        let replace = |pattern: &str, text: &str, by: &str| -> String {
            regex::Regex::new(pattern).unwrap().replace_all(text, by).into_owned()
        };
        let text = replace(r"\d+ tokens/s  \w+ left", &text, "[SPEED]");
        let text = replace(r"\.seedcorn-new-\w+", &text, ".seedcorn-new-[RANDOM]");
        text.trim_end().to_owned()
    }
}

/// Lines of format `tokens`: each goes round the same five ids from its own start.
pub(crate) fn samples(count: u32) -> String {
    (0..count)
        .map(|sample| {
            let ids: Vec<u32> = (0..16).map(|at| (sample * 3 + at) % 5 + 40).collect();
            serde_json::json!({ "input_ids": ids, "labels": ids }).to_string() + "\n"
        })
        .collect()
}

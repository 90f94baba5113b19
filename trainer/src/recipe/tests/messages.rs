//! Every way a recipe can be wrong, with its message.

use super::*;

#[test]
fn unknown_keys_name_file_line_and_the_near_key() {
    let text = "version = 1\n[adapter]\nalpha = 3\nrnak = 8\n";
    assert_eq!(
        refused(text, &[]),
        (
            "unknown key `adapter.rnak` in `r/recipe.toml` at line 4".to_owned(),
            "did you mean `adapter.rank`?".to_owned()
        )
    );
    let (message, hint) = refused("version = 1\n[[data.train]]\n[[data.train]]\nformt = 'chat'\n", &[]);
    assert_eq!(message, "unknown key `data.train.1.formt` in `r/recipe.toml` at line 4");
    assert_eq!(hint, "did you mean `data.train.1.format`?");
    let (message, hint) = refused("[trian]\nsteps = 1\n", &[]);
    assert_eq!(message, "unknown key `trian` in `r/recipe.toml` at line 1");
    assert_eq!(hint, "did you mean `train`?");
    let (_, hint) = refused("learning = 1\n[schedule]\n", &[]);
    assert!(hint.starts_with("keys here: `version`, `output`, `device`, `model`"), "{hint}");
    let (_, hint) = refused("micro_batch = 4\n", &[]);
    assert_eq!(hint, "did you mean `train.micro_batch`?");
    let (message, hint) = refused("[parallel]\ndat = 2\n", &[]);
    assert_eq!(message, "unknown key `parallel.dat` in `r/recipe.toml` at line 2");
    assert_eq!(hint, "did you mean `parallel.data`?");
}

#[test]
fn wrong_types_name_both_sides() {
    let cases = [
        (
            "[adapter]\nrank = \"8\"\n",
            "`adapter.rank` in `r/recipe.toml` at line 2 must be a whole number that is not negative, got the string `8`",
        ),
        (
            "[train]\n\nsteps = -3\n",
            "`train.steps` in `r/recipe.toml` at line 3 must be a whole number that is not negative, got `-3`",
        ),
        (
            "[train]\nsteps = 2.5\n",
            "`train.steps` in `r/recipe.toml` at line 2 must be a whole number that is not negative, got `2.5`",
        ),
        (
            "[optimizer]\nlr = true\n",
            "`optimizer.lr` in `r/recipe.toml` at line 2 must be a number, got `true`",
        ),
        (
            "[optimizer]\nbetas = [0.9, \"x\"]\n",
            "`optimizer.betas.1` in `r/recipe.toml` at line 2 must be a number, got the string `x`",
        ),
        (
            "[data]\npacking = 1\n",
            "`data.packing` in `r/recipe.toml` at line 2 must be `true` or `false`, got `1`",
        ),
        ("[data]\ntrain = 1\n", "`data.train` in `r/recipe.toml` at line 2 must be a list, got `1`"),
        ("model = 1\n", "`model` in `r/recipe.toml` at line 1 must be a table, got `1`"),
        ("output = 1979-05-27\n", "`output` in `r/recipe.toml` at line 1 must be a string, got a date"),
        (
            "[adapter]\ntargets = 5\n",
            "`adapter.targets` in `r/recipe.toml` at line 2 must be `all-linear`, a regular expression or a list of names, got integer `5`",
        ),
        (
            "[adapter]\nrank_pattern = { q = \"x\" }\n",
            "`adapter.rank_pattern.q` in `r/recipe.toml` at line 2 must be u64, got string \"x\"",
        ),
        (
            "[model]\nquantize = \"nf5\"\n",
            "`model.quantize` in `r/recipe.toml` at line 2 is `nf5`, which is none of `none`, `nf4`, `int8`",
        ),
        (
            "[train]\nactivation = \"atuo\"\n",
            "`train.activation` in `r/recipe.toml` at line 2 is `atuo`, which is none of `recompute`, `keep`, `auto`",
        ),
        (
            "[train]\nmemory_budget = true\n",
            "`train.memory_budget` in `r/recipe.toml` at line 2 must be a number of bytes or a size like `4 GiB`, got boolean `true`",
        ),
        (
            "[parallel]\ndata = \"all\"\n",
            "`parallel.data` in `r/recipe.toml` at line 2 must be a number of ranks or `auto`, got string \"all\"",
        ),
        (
            "[parallel]\ndata = -1\n",
            "`parallel.data` in `r/recipe.toml` at line 2 must be a number of ranks or `auto`, got integer `-1`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text, &[]).0, expected);
    }
    assert_eq!(refused("[model]\nquantize = \"nf5\"\n", &[]).1, "did you mean `nf4`?");
    let (message, _) = refused("version = 1\n[train\n", &[]);
    assert!(message.starts_with("bad TOML in `r/recipe.toml` at line 2: "), "{message}");
    assert!(refused("version = 1\nversion = 1\n", &[]).0.contains("at line 2"));
}

#[test]
fn overrides_replace_add_and_are_checked() {
    let here = std::env::current_dir().expect("working folder");
    let recipe = resolve_with(
        FULL,
        &[
            "model.quantize=int8",
            "data.train.0.source=x.jsonl",
            "data.train.1.weight = 3",
            "data.train.2={source = \"hf:a/b\", format = \"text\"}",
            "adapter.targets=all-linear",
            "adapter.rank_pattern.layers.3.q_proj=2",
            "adapter.exclude=[\"a\", \"b\"]",
            "output=7",
        ],
    );
    assert_eq!(
        recipe.expect_err("double_quant is left").to_string(),
        "`model.double_quant` has no effect without `model.quantize = \"nf4\"`"
    );
    let recipe = resolve_with(
        &with(FULL, "double_quant = false\n", ""),
        &[
            "model.quantize=int8",
            "data.train.0.source=x.jsonl",
            "data.train.1.weight = 3",
            "data.train.2={source = \"hf:a/b\", format = \"text\"}",
            "data.train.3.source=y.csv",
            "data.train.3.format=completion",
            "adapter.targets=all-linear",
            "adapter.rank_pattern.layers.3.q_proj=2",
            "adapter.exclude=[\"a\", \"b\"]",
            "output=7",
        ],
    )
    .expect("valid");
    assert_eq!(recipe.model.quantize, Quantize::Int8);
    assert_eq!(recipe.data.train[0].source.path(), Some(here.join("x.jsonl").as_path()));
    assert_eq!(recipe.data.train[1].weight, Some(3.0));
    assert_eq!(recipe.data.train[2].source.typed(), "hf:a/b");
    assert_eq!(recipe.data.train[3].format, Format::Completion);
    assert_eq!(recipe.output, here.join("7"));
    let AdapterStart::Fresh(shape) = &recipe.adapter.start else { panic!("fresh") };
    assert!(shape.targets.is_all_linear());
    assert_eq!(shape.rank_pattern["layers.3.q_proj"], 2);
    assert_eq!(shape.exclude, ["a", "b"]);

    let cases = [
        (
            "adapter.rnak=4",
            "unknown key `adapter.rnak` in `--set adapter.rnak=4`",
            "did you mean `adapter.rank`?",
        ),
        (
            "data.train.0.form=x",
            "unknown key `data.train.0.form` in `--set data.train.0.form=x`",
            "did you mean `data.train.0.format`?",
        ),
        (
            "train.steps=many",
            "`train.steps` in `--set train.steps=many` must be a whole number that is not negative, got the string `many`",
            "",
        ),
        (
            "model.quantize=nf5",
            "`model.quantize` in `--set model.quantize=nf5` is `nf5`, which is none of `none`, `nf4`, `int8`",
            "did you mean `nf4`?",
        ),
        (
            "train.steps",
            "`--set train.steps` is not of the form `key=value`",
            "write it like `--set train.steps=20`",
        ),
        (
            "data.train.7.format=chat",
            "`--set data.train.7.format=chat` names item 7 of `data.train`, which has 2",
            "items are counted from 0; the next free number adds an item",
        ),
        ("data.train.format=chat", "unknown key `data.train.format` in `--set data.train.format=chat`", ""),
        (
            "adapter.targets=5",
            "`adapter.targets` in `--set adapter.targets=5` must be `all-linear`, a regular expression or a list of names, got integer `5`",
            "",
        ),
    ];
    for (text, message, hint) in cases {
        let refused = refused(FULL, &[text]);
        assert_eq!(refused.0, message);
        assert!(hint.is_empty() || refused.1 == hint, "{refused:?}");
    }
}

#[test]
fn an_override_can_supply_what_the_file_lacks() {
    let text = with(MINIMAL, "steps = 20\n", "");
    assert_eq!(refused(&text, &[]).0, "`train.steps` is missing");
    assert_eq!(resolve_with(&text, &["train.steps=3"]).expect("valid").train.length(), Length::Steps(3));
}

#[test]
fn refuses_what_would_be_ignored() {
    let cases = [
        ("[model]", "[model]\ndouble_quant = true", "model.double_quant"),
        ("[train]", "[train]\nmemory_budget = \"4 GiB\"", "train.memory_budget"),
        ("[train]", "[schedule]\nkind = \"constant\"\nmin_ratio = 0.1\n[train]", "schedule.min_ratio"),
        ("[train]", "[eval]\nevery_steps = 5\n[train]", "eval.every_steps"),
        ("[train]", "[checkpoint]\nevery_steps = 0\nkeep = 1\n[train]", "checkpoint.keep"),
        ("[train]", "[adapter]\nfrom = \"x\"\nrank = 4\n[train]", "adapter.rank"),
        (
            "[train]",
            "[[data.eval]]\nsource = \"e\"\nformat = \"chat\"\nweight = 1.0\n[train]",
            "data.eval.0.weight",
        ),
        ("format = \"chat\"", "format = \"tokens\"\ntrain_on = \"all\"", "data.train.0.train_on"),
        ("format = \"chat\"", "format = \"text\"\ntrain_on = \"last\"", "data.train.0.train_on"),
        ("format = \"chat\"", "format = \"text\"\nfields = { txt = \"body\" }", "data.train.0.fields.txt"),
        (
            "[[data.train]]",
            "[data]\ntrain_on = \"last\"\n[[data.train]]\ntrain_on = \"all\"",
            "data.train_on",
        ),
    ];
    for (from, to, key) in cases {
        let (message, hint) = refused(&with(MINIMAL, from, to), &[]);
        assert!(message.starts_with(&format!("`{key}` has no effect ")), "{message}");
        assert_eq!(hint, format!("remove `{key}`"));
    }
}

#[test]
fn refuses_values_out_of_range() {
    let zero_hash = with(MINIMAL, "[[data.train]]", "[[data.train]]\nsha256 = \"12\"");
    let cases: Vec<(String, &str)> = vec![
        (with(MINIMAL, "version = 1", "version = 2"), "recipe version 2 is not known, only 1"),
        (
            with(MINIMAL, "[[data.train]]", "[data]\non_long = \"split\"\n[[data.train]]"),
            "`data.on_long` must be `truncate` or `drop` for sources with questions and answers, got `split`",
        ),
        (with(MINIMAL, "batch_size = 8", "batch_size = 0"), "`train.batch_size` must be at least 1, got `0`"),
        (
            with(MINIMAL, "[train]", "[train]\nactivation = \"auto\"\nmemory_budget = \"4 gigs\""),
            "`train.memory_budget` must be a size of at least one byte, like `4 GiB` or 4000000000, got `4 gigs`",
        ),
        (
            with(MINIMAL, "[train]", "[train]\nactivation = \"auto\"\nmemory_budget = -1"),
            "`train.memory_budget` must be a size of at least one byte, like `4 GiB` or 4000000000, got `-1`",
        ),
        (
            with(MINIMAL, "[train]", "[train]\nactivation = \"auto\"\nmemory_budget = \"0.1 B\""),
            "`train.memory_budget` must be a size of at least one byte, like `4 GiB` or 4000000000, got `0.1 B`",
        ),
        (with(MINIMAL, "steps = 20", "steps = 0"), "`train.steps` must be at least 1, got `0`"),
        (
            with(MINIMAL, "steps = 20", "steps = 20\nepochs = 1"),
            "`train.steps`, `train.epochs` exclude each other",
        ),
        (
            with(MINIMAL, "steps = 20", "steps = 20\nmax_grad_norm = nan"),
            "`train.max_grad_norm` must be at least 0, got `NaN`",
        ),
        (with(MINIMAL, "source = \"hf:org/name@main\"", ""), "`model.source` is missing"),
        (
            with(MINIMAL, "hf:org/name@main", "ftp:x"),
            "`model.source` has a source of an unknown kind: `ftp:x`",
        ),
        (with(MINIMAL, "format = \"chat\"", ""), "`data.train.0.format` is missing"),
        (zero_hash, "`data.train.0.sha256` is not a sha256: got `12`"),
        (
            with(MINIMAL, "[train]", "[data]\nmax_length = 7\n[train]"),
            "`data.max_length` must be from 8 to 16777216 tokens, got `7`",
        ),
        (
            with(FULL, "dropout = 0.05", "dropout = 1.0"),
            "`adapter.dropout` must be at least 0 and less than 1, got `1`",
        ),
        (with(FULL, "rank = 8", "rank = 0"), "`adapter.rank` must be at least 1, got `0`"),
        (with(FULL, "weight = 2", "weight = 0"), "`data.train.0.weight` must be more than 0, got `0`"),
        (with(FULL, "lr = 1e-3", "lr = 0"), "`optimizer.lr` must be more than 0, got `0`"),
        (
            with(FULL, "[0.9, 0.95]", "[0.9, 1.0]"),
            "`optimizer.betas` must be at least 0 and less than 1, got `1`",
        ),
        (with(FULL, "[0.9, 0.95]", "[0.9]"), "`optimizer.betas` must be two numbers, got `[0.9]`"),
        (
            with(FULL, "targets = [\"q_proj\", \"v_proj\"]", "targets = \"(q\""),
            "`adapter.targets` is not a regular expression: `(q`",
        ),
        (
            with(FULL, "shuffle = false", "shuffle = false\neval_count = 3"),
            "`data.eval_count`, `data.eval` exclude each other",
        ),
        (
            with(FULL, "epochs = 2", "steps = 4"),
            "`schedule.warmup_steps` (5) is more than the 4 steps of the run",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(&text, &[]).0, expected);
    }
}

#[test]
fn ranks_that_do_not_divide_a_step_name_those_that_do() {
    let refusal = |overrides: &[&str]| refused(MINIMAL, overrides);
    let message = |ranks, micro_batches| {
        format!("`parallel.data` ({ranks}) does not divide the {micro_batches} micro-batches of a step")
    };
    let hint = |counts| format!("use {counts}, or change `train.batch_size` or `train.micro_batch`");
    assert_eq!(refusal(&["parallel.data=3"]), (message(3, 8), hint("1, 2, 4 or 8")));
    assert_eq!(refusal(&["parallel.data=2", "train.micro_batch=8"]), (message(2, 1), hint("1")));
    assert_eq!(refusal(&["parallel.data=16"]).0, message(16, 8));
    assert_eq!(refusal(&["parallel.data=0"]).0, "`parallel.data` must be at least 1, got `0`");

    let settle = |overrides: &[&str], launched| {
        let mut recipe = resolve_with(MINIMAL, overrides).expect("valid");
        let ranks = recipe.settle_ranks(launched, 1)?;
        assert_eq!(recipe.parallel.data, RankCount::Exactly(ranks as u64));
        Ok::<_, RecipeError>(ranks)
    };
    let text = |result: Result<usize, RecipeError>| result.expect_err("must be refused").to_string();
    assert_eq!(settle(&[], None).expect("valid"), 1);
    assert_eq!(settle(&[], Some(4)).expect("valid"), 4);
    assert_eq!(settle(&["parallel.data=4"], Some(4)).expect("valid"), 4);
    assert_eq!(settle(&["parallel.data=2"], None).expect("valid"), 2);
    assert_eq!(text(settle(&[], Some(3))), message(3, 8));
    assert_eq!(
        text(settle(&["parallel.data=2"], Some(4))),
        "`parallel.data` is 2, but the launcher has started 4 ranks"
    );
}

#[test]
fn a_batch_that_does_not_divide_names_the_two_nearest() {
    let text = with(MINIMAL, "batch_size = 8", "batch_size = 10\nmicro_batch = 4");
    assert_eq!(
        refused(&text, &[]),
        (
            "`train.batch_size` (10) is not a multiple of `train.micro_batch` (4)".to_owned(),
            "use 8 or 12".to_owned()
        )
    );
    let text = with(MINIMAL, "batch_size = 8", "batch_size = 3\nmicro_batch = 4");
    assert_eq!(refused(&text, &[]).1, "use 4, or a smaller `train.micro_batch`");
}

//! What stands beside the weights of a model folder: generation settings, tokenizer, chat template.

use seedcorn_data::{Tokenizer, TokenizerParts};
use serde_json::{Map, Value, json};

use super::folder::SIDE_FILES;
use crate::base::Base;

/// Name and content of a file.
pub type SideFile = (String, Vec<u8>);

const GENERATION: &str = "generation_config.json";

/// Collects the files that belong beside the weights of a merged model: those of the base's folder as they are,
/// or, for a GGUF file, what its metadata says. A missing `generation_config.json` is made from the
/// configuration's ids.
///
/// # Errors
/// A file that cannot be read.
pub fn side_files(base: &Base) -> std::io::Result<Vec<SideFile>> {
    let root = &base.resolved.root;
    let mut files = Vec::new();
    if root.is_dir() {
        for name in SIDE_FILES.into_iter().filter(|name| root.join(name).is_file()) {
            files.push((name.to_owned(), fs_err::read(root.join(name))?));
        }
    } else if let Some(tokenizer) = &base.tokenizer {
        files = tokenizer_files(tokenizer, base.spec.max_position_embeddings);
    }
    if !files.iter().any(|(name, _)| name == GENERATION) {
        files.push((GENERATION.to_owned(), pretty(&generation_config(&base.config))));
    }
    Ok(files)
}

/// Writes the ids that end, begin and pad a text as transformers derives them from `config.json`.
fn generation_config(config: &Value) -> Value {
    let mut map = Map::new();
    map.insert("_from_model_config".to_owned(), true.into());
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(id) = config.get(key).filter(|id| !id.is_null()) {
            map.insert(key.to_owned(), id.clone());
        }
    }
    Value::Object(map)
}

/// Writes a tokenizer in the files that transformers reads.
///
/// The class is `PreTrainedTokenizerFast`: it takes `tokenizer.json` as it is, while classes of a model's name
/// put their own pre-tokenizer in its place.
fn tokenizer_files(tokenizer: &Tokenizer, max_length: usize) -> Vec<SideFile> {
    let parts = tokenizer.parts();
    let tokens = [
        ("bos_token", &parts.bos),
        ("eos_token", &parts.eos),
        ("unk_token", &parts.unk),
        ("pad_token", &parts.pad),
    ];
    let special: Map<String, Value> = tokens
        .into_iter()
        .filter_map(|(key, token)| Some((key.to_owned(), Value::from(token.clone()?))))
        .collect();
    let mut config = Map::new();
    config.insert("add_bos_token".to_owned(), parts.add_bos.into());
    config.insert("add_eos_token".to_owned(), parts.add_eos.into());
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    config.insert("model_max_length".to_owned(), max_length.into());
    config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    config.extend(special.clone());
    let mut files = vec![("tokenizer.json".to_owned(), tokenizer_json(tokenizer, parts))];
    if let Some(template) = &parts.chat_template {
        config.insert("chat_template".to_owned(), template.as_str().into());
        files.push(("chat_template.jinja".to_owned(), template.clone().into_bytes()));
    }
    files.push(("tokenizer_config.json".to_owned(), pretty(&Value::Object(config))));
    files.push(("special_tokens_map.json".to_owned(), pretty(&Value::Object(special))));
    files
}

/// Returns `tokenizer.json` with a post-processor that adds BOS and EOS where they belong: other readers of the
/// folder know no other place for it.
fn tokenizer_json(tokenizer: &Tokenizer, parts: &TokenizerParts) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_str::<Value>(&parts.tokenizer_json) else {
        return parts.tokenizer_json.clone().into_bytes();
    };
    let bos = parts.bos.as_ref().zip(tokenizer.bos_id()).filter(|_| parts.add_bos);
    let eos = parts.eos.as_ref().zip(tokenizer.eos_id()).filter(|_| parts.add_eos);
    let sequence = |id: &str, kind: u32| {
        let token = |(token, _): (&String, u32)| json!({"SpecialToken": {"id": token, "type_id": kind}});
        let text = json!({"Sequence": {"id": id, "type_id": kind}});
        bos.map(token).into_iter().chain([text]).chain(eos.map(token)).collect::<Vec<_>>()
    };
    let entry =
        |(token, id): (&String, u32)| (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}));
    let special: Map<String, Value> = bos.into_iter().chain(eos).map(entry).collect();
    let pair = [sequence("A", 0), sequence("B", 1)].concat();
    let template = json!({
        "type": "TemplateProcessing", "single": sequence("A", 0), "pair": pair, "special_tokens": &special,
    });
    json["post_processor"] = if special.is_empty() { Value::Null } else { template };
    pretty(&json)
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a JSON value always prints");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/data/tokenizer.json");

    fn tokenizer(add_bos: bool, add_eos: bool) -> Tokenizer {
        Tokenizer::from_parts(TokenizerParts {
            tokenizer_json: fs_err::read_to_string(TOKENIZER).unwrap(),
            bos: Some("<s>".to_owned()),
            eos: Some("<|im_end|>".to_owned()),
            pad: Some("<|im_end|>".to_owned()),
            chat_template: Some("{% for m in messages %}{{ m['content'] }}{% endfor %}".to_owned()),
            add_bos,
            add_eos,
            ..TokenizerParts::default()
        })
        .unwrap()
    }

    #[test]
    fn a_written_tokenizer_reads_back() {
        for (add_bos, add_eos) in [(false, false), (true, false), (true, true), (false, true)] {
            let made = tokenizer(add_bos, add_eos);
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in tokenizer_files(&made, 77) {
                fs_err::write(folder.path().join(name), content).unwrap();
            }
            let mut back = Tokenizer::from_folder(folder.path()).unwrap().parts().clone();
            let text = "Some 12 words<|im_end|>";
            let again = Tokenizer::from_folder(folder.path()).unwrap();
            assert_eq!(again.encode(text, true).unwrap(), made.encode(text, true).unwrap());
            // Readers that know the post-processor only add the same tokens.
            let json: Value = serde_json::from_str(&back.tokenizer_json).unwrap();
            let single = json["post_processor"]["single"].as_array().map_or(1, Vec::len);
            assert_eq!(single, 1 + usize::from(add_bos) + usize::from(add_eos));
            back.tokenizer_json.clone_from(&made.parts().tokenizer_json);
            assert_eq!(&back, made.parts());
        }
    }

    #[test]
    fn generation_settings_hold_the_ids_there_are() {
        let made =
            generation_config(&json!({"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": null}));
        assert_eq!(made, json!({"_from_model_config": true, "bos_token_id": 1, "eos_token_id": [2, 3]}));
    }
}

//! `tokenizer.json` from GGUF metadata.
//!
//! Only byte-level BPE (`gpt2`), with the pre-tokenizers whose regular expressions are known. Source of these:
//! llama.cpp (MIT), `src/llama-vocab.cpp`, and the `tokenizer.json` of the models they are named after.

use seedcorn_data::TokenizerParts;
use serde_json::{Map, Value, json};

use super::error::GgufError;
use super::metadata::{Metadata, required};
use super::reader::Header;

/// Token types of GGUF that are matched before the text is split.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Reads the parts of a tokenizer.
pub(super) fn build(header: &Header, file: &[u8]) -> Result<TokenizerParts, GgufError> {
    let metadata = Metadata::new(header, file);
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let model = required(&key("model"), metadata.text(&key("model"))?)?;
    let pre = metadata.text(&key("pre"))?.unwrap_or("default");
    let splitter = Splitter::find(model, pre)?;
    let tokens = required(&key("tokens"), metadata.texts(&key("tokens"))?)?;
    let token = |name: &str| -> Result<Option<String>, GgufError> {
        let key = key(&format!("{name}_token_id"));
        let Some(id) = metadata.uint(&key)? else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| tokens.get(id)) {
            Some(token) => Ok(Some((*token).to_owned())),
            None => Err(GgufError::KeyValue {
                key,
                got: id.to_string(),
                expected: format!("an id below {}", tokens.len()),
            }),
        }
    };
    Ok(TokenizerParts {
        tokenizer_json: tokenizer_json(&metadata, &tokens, &splitter)?.to_string(),
        bos: token("bos")?,
        eos: token("eos")?,
        pad: token("padding")?,
        unk: token("unknown")?,
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
        add_bos: metadata.bool(&key("add_bos_token"))?.unwrap_or(splitter.add_bos),
        add_eos: metadata.bool(&key("add_eos_token"))?.unwrap_or(false),
    })
}

fn tokenizer_json(metadata: &Metadata<'_>, tokens: &[&str], splitter: &Splitter) -> Result<Value, GgufError> {
    let types_key = "tokenizer.ggml.token_type";
    let types = metadata.ints(types_key)?.unwrap_or_else(|| vec![1; tokens.len()]);
    if types.len() != tokens.len() {
        return Err(GgufError::KeyValue {
            key: types_key.to_owned(),
            got: format!("{} types", types.len()),
            expected: format!("one for each of {} tokens", tokens.len()),
        });
    }
    let merges_key = "tokenizer.ggml.merges";
    let mut merges = Vec::new();
    for merge in required(merges_key, metadata.texts(merges_key)?)? {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(GgufError::KeyValue {
                key: merges_key.to_owned(),
                got: format!("`{merge}`"),
                expected: "two tokens with a space between them".to_owned(),
            });
        };
        merges.push(json!([left, right]));
    }
    let added =
        tokens.iter().zip(&types).enumerate().filter(|(_, (_, ty))| [CONTROL, USER_DEFINED].contains(ty));
    let added: Vec<Value> = added
        .map(|(id, (token, &ty))| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": ty == CONTROL })
        })
        .collect();
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": splitter.normalizer, "pre_tokenizer": splitter.pre_tokenizer,
        "post_processor": null, "decoder": byte_level(true, true),
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                   "ignore_merges": splitter.ignore_merges, "vocab": vocab, "merges": merges },
    }))
}

/// How text is cut before byte pairs are merged.
struct Splitter {
    normalizer: Value,
    pre_tokenizer: Value,
    ignore_merges: bool,
    /// What `add_bos_token` is when the file does not say.
    add_bos: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp cuts with each of these in turn.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

impl Splitter {
    fn find(model: &str, pre: &str) -> Result<Self, GgufError> {
        let plain = |pre_tokenizer| Self {
            normalizer: Value::Null,
            pre_tokenizer,
            ignore_merges: false,
            add_bos: false,
        };
        Ok(match (model, pre) {
            ("gpt2", "smollm") => plain(sequence(&[
                json!({ "type": "Digits", "individual_digits": true }),
                byte_level(false, true),
            ])),
            ("gpt2", "gpt-2") => plain(byte_level(false, true)),
            ("gpt2", "default") => {
                let mut steps: Vec<Value> = DEFAULT.into_iter().map(split).collect();
                steps.push(byte_level(false, false));
                plain(sequence(&steps))
            }
            ("gpt2", "llama-bpe") => Self {
                ignore_merges: true,
                add_bos: true,
                ..plain(sequence(&[split(LLAMA3), byte_level(false, false)]))
            },
            ("gpt2", "qwen2") => Self {
                normalizer: json!({ "type": "NFC" }),
                ..plain(sequence(&[split(QWEN2), byte_level(false, false)]))
            },
            _ => return Err(GgufError::Tokenizer { model: model.to_owned(), pre: pre.to_owned() }),
        })
    }
}

fn sequence(steps: &[Value]) -> Value {
    json!({ "type": "Sequence", "pretokenizers": steps })
}

fn split(regex: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false })
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex })
}

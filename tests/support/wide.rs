//! Random models with sizes that the fixtures do not have: wide enough for the kernels of the matrix unit, which take whole
//! tiles, or made of parts that four ranks can share.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::scratch::Random;

/// Blocks of the model.
pub const LAYERS: usize = 6;

/// The sizes of a model.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    family: &'static str,
    hidden: usize,
    inner: usize,
    heads: usize,
    key_heads: usize,
    head_dim: usize,
    vocabulary: usize,
    layers: usize,
    tied: bool,
    biases: bool,
}

/// Hidden size, and width of the feed-forward layer: each a multiple of two tiles.
const WIDE: Sizes = Sizes {
    family: "llama",
    hidden: 128,
    inner: 192,
    heads: 2,
    key_heads: 1,
    head_dim: 64,
    vocabulary: 256,
    layers: LAYERS,
    tied: true,
    biases: false,
};

/// Widths that four slices divide, into whole blocks of NF4, and a vocabulary that they do not; biases everywhere.
const SLICED_LLAMA: Sizes = Sizes {
    family: "llama",
    hidden: 64,
    inner: 256,
    heads: 8,
    key_heads: 4,
    head_dim: 32,
    vocabulary: 257,
    layers: 2,
    tied: false,
    biases: true,
};

/// The same with norms of heads, without biases, and with one table for both ends.
const SLICED_QWEN3: Sizes =
    Sizes { family: "qwen3", heads: 4, head_dim: 64, tied: true, biases: false, ..SLICED_LLAMA };

/// Names of the models that are made rather than kept.
pub const MADE: [&str; 3] = ["wide", "sliced-llama", "sliced-qwen3"];

/// Writes the model of this name, one of [`MADE`], in Hugging Face layout, with values drawn from `seed`.
///
/// # Panics
/// When it cannot be written, or has another name.
pub fn write(folder: &Path, name: &str, seed: u64) {
    let sizes = match name {
        "wide" => WIDE,
        "sliced-llama" => SLICED_LLAMA,
        "sliced-qwen3" => SLICED_QWEN3,
        other => panic!("no model `{other}`"),
    };
    let architecture = if sizes.family == "llama" { "LlamaForCausalLM" } else { "Qwen3ForCausalLM" };
    let config = json!({
        "architectures": [architecture], "model_type": sizes.family, "hidden_act": "silu",
        "hidden_size": sizes.hidden, "intermediate_size": sizes.inner, "head_dim": sizes.head_dim,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.key_heads,
        "num_hidden_layers": sizes.layers, "vocab_size": sizes.vocabulary,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": sizes.tied, "bos_token_id": 1, "eos_token_id": 2,
        "attention_bias": sizes.biases, "mlp_bias": sizes.biases,
    });
    let mut random = Random(seed);
    let mut stored = Vec::new();
    for (name, shape) in shapes(sizes) {
        // A norm's weights lie around 1; a product keeps the size of its input.
        let (centre, spread) = match shape.as_slice() {
            [_, width] => (0.0, (3.0 / *width as f32).sqrt()),
            _ if name.rsplit('.').next() == Some("bias") => (0.0, 0.1),
            _ => (1.0, 0.2),
        };
        let values = (0..shape.iter().product()).map(|_| centre + spread * random.unit());
        stored.push((name, shape.clone(), values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()));
    }
    let views = stored.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("bytes that fit the shape"))
    });
    fs_err::create_dir_all(folder).expect("created");
    fs_err::write(folder.join("config.json"), config.to_string()).expect("written");
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("written");
}

fn shapes(sizes: Sizes) -> Vec<(String, Vec<usize>)> {
    let Sizes { hidden, inner, heads, key_heads, head_dim, vocabulary, layers, tied, biases, family } = sizes;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if !tied {
        shapes.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
    }
    for layer in 0..layers {
        let mut add = |name: &str, shape: Vec<usize>| {
            shapes.push((format!("model.layers.{layer}.{name}"), shape));
        };
        let linear = [
            ("self_attn.q_proj", [heads * head_dim, hidden]),
            ("self_attn.k_proj", [key_heads * head_dim, hidden]),
            ("self_attn.v_proj", [key_heads * head_dim, hidden]),
            ("self_attn.o_proj", [hidden, heads * head_dim]),
            ("mlp.gate_proj", [inner, hidden]),
            ("mlp.up_proj", [inner, hidden]),
            ("mlp.down_proj", [hidden, inner]),
        ];
        add("input_layernorm.weight", vec![hidden]);
        add("post_attention_layernorm.weight", vec![hidden]);
        for (name, shape) in linear {
            add(&format!("{name}.weight"), shape.to_vec());
            if biases {
                add(&format!("{name}.bias"), vec![shape[0]]);
            }
        }
        if family == "qwen3" {
            add("self_attn.q_norm.weight", vec![head_dim]);
            add("self_attn.k_norm.weight", vec![head_dim]);
        }
    }
    shapes
}

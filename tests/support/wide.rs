//! A random model that is wide enough for the kernels of the matrix unit, which the fixtures are not: they take
//! whole tiles.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::scratch::Random;

/// Blocks of the model.
pub const LAYERS: usize = 6;
/// Hidden size, and width of the feed-forward layer: each a multiple of two tiles.
const D: usize = 128;
const F: usize = 192;
const HEADS: usize = 2;
const KEY_HEADS: usize = 1;
const HEAD_DIM: usize = 64;
const VOCABULARY: usize = 256;

/// Writes a small Llama in Hugging Face layout, with tied embeddings and values drawn from `seed`.
///
/// # Panics
/// When it cannot be written.
pub fn write(folder: &Path, seed: u64) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": D, "intermediate_size": F, "head_dim": HEAD_DIM, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
    });
    let mut random = Random(seed);
    let mut stored = Vec::new();
    for (name, shape) in shapes() {
        // A norm's weights lie around 1; a product keeps the size of its input.
        let (centre, spread) = match shape.as_slice() {
            [_, width] => (0.0, (3.0 / *width as f32).sqrt()),
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

fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, D]),
        ("model.norm.weight".to_owned(), vec![D]),
    ];
    for layer in 0..LAYERS {
        let of_layer = [
            ("input_layernorm", vec![D]),
            ("self_attn.q_proj", vec![HEADS * HEAD_DIM, D]),
            ("self_attn.k_proj", vec![KEY_HEADS * HEAD_DIM, D]),
            ("self_attn.v_proj", vec![KEY_HEADS * HEAD_DIM, D]),
            ("self_attn.o_proj", vec![D, HEADS * HEAD_DIM]),
            ("post_attention_layernorm", vec![D]),
            ("mlp.gate_proj", vec![F, D]),
            ("mlp.up_proj", vec![F, D]),
            ("mlp.down_proj", vec![D, F]),
        ];
        shapes.extend(of_layer.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes
}

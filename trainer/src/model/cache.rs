//! Generation's path: tokens one after another, keys and values kept.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use seedcorn_adapters::Adapter;
use seedcorn_kernels::attention::{AttentionConfig, attention, attention_decode};
use seedcorn_kernels::device;

use super::decoder::Decoder;
use super::input::Adapted;

/// The keys and values of one sequence, for every block.
#[derive(Debug)]
pub struct KeyValueCache {
    layers: Vec<LayerCache>,
    tokens: usize,
}

/// One block's keys and values: `[tokens, num_kv_heads * head_dim]` each.
#[derive(Debug, Clone, Default)]
struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KeyValueCache {
    /// Returns the number of tokens that the cache has seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Decoder {
    /// Starts an empty sequence.
    pub fn cache(&self) -> KeyValueCache {
        KeyValueCache { layers: vec![LayerCache::default(); self.blocks.len()], tokens: 0 }
    }

    /// Appends tokens to a sequence and returns the logits after the last one: `[vocab]`.
    ///
    /// # Panics
    /// When there are no tokens.
    pub fn advance(
        &self,
        cache: &mut KeyValueCache,
        input_ids: &[u32],
        adapter: Option<&Adapter>,
    ) -> Vec<f32> {
        assert!(!input_ids.is_empty(), "no token to append");
        if !device::is_cpu(&self.device) {
            return self.advance_here(cache, input_ids, adapter);
        }
        // On a thread of the pool: from outside, each of some hundred small ops would wait to be woken.
        rayon::scope(|_| self.advance_here(cache, input_ids, adapter))
    }

    fn advance_here(
        &self,
        cache: &mut KeyValueCache,
        input_ids: &[u32],
        adapter: Option<&Adapter>,
    ) -> Vec<f32> {
        let adapted = Adapted::evaluated(adapter);
        let start = cache.tokens as u32;
        let positions: Arc<[u32]> = (start..start + input_ids.len() as u32).collect();
        let mut x = self.embedded(input_ids);
        let mut leaves = Vec::new();
        for (block, layer) in self.blocks.iter().zip(&mut cache.layers) {
            let qkv = block.queries_keys_values(x.clone(), &positions, &self.shared, adapted, &mut leaves);
            let heads = self.attend(qkv, layer, block.attention);
            x = block.attended(x, heads, adapted, &mut leaves);
            x = block.feed_forward_half(x, adapted, &mut leaves);
        }
        cache.tokens += input_ids.len();
        let last = x.narrow(0, input_ids.len() - 1, 1);
        values(self.head_logits(last))
    }

    /// Attends after adding the keys and values of `qkv` to the cache: all rows of a new sequence at once, later
    /// rows in turn.
    fn attend(&self, qkv: Tensor<2>, cache: &mut LayerCache, config: AttentionConfig) -> Tensor<2> {
        let (layout, [tokens, _]) = (self.shared.layout, qkv.dims());
        let (q_width, kv_width) = (layout.num_heads * layout.head_dim, layout.num_kv_heads * layout.head_dim);
        if cache.keys.is_empty() && tokens > 1 {
            for row in values(qkv.clone()).chunks_exact(layout.width()) {
                cache.keys.extend_from_slice(&row[q_width..q_width + kv_width]);
                cache.values.extend_from_slice(&row[q_width + kv_width..]);
            }
            return attention(qkv, layout, [0, tokens as u32].into(), config);
        }
        let qkv = values(qkv);
        let mut out = vec![0.0f32; tokens * q_width];
        for (row, out) in qkv.chunks_exact(layout.width()).zip(out.chunks_exact_mut(q_width)) {
            let (q, rest) = row.split_at(q_width);
            let (k, v) = rest.split_at(kv_width);
            cache.keys.extend_from_slice(k);
            cache.values.extend_from_slice(v);
            attention_decode(q, &cache.keys, &cache.values, layout, config, out);
        }
        Tensor::from_data(TensorData::new(out, [tokens, q_width]), &self.device)
    }
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("activations are f32")
}

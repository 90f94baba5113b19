//! Generation's path: tokens one after another, keys and values kept.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use seedcorn_adapters::Adapter;
use seedcorn_kernels::attention::{AttentionConfig, attention, attention_decode};
use seedcorn_kernels::device;

use super::decoder::{ACTIVATIONS, Decoder, Model, WHOLE, values};
use super::input::Adapted;
use super::shards::{Pass, Walk};
use crate::parallel::ParallelError;

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

    /// As [`Model::advance`], of a decoder that one rank holds.
    ///
    /// # Panics
    /// When other ranks hold a part, or there are no tokens.
    pub fn advance(
        &self,
        cache: &mut KeyValueCache,
        input_ids: &[u32],
        adapter: Option<&Adapter>,
    ) -> Vec<f32> {
        if !device::is_cpu(&self.device) {
            return Model::from(self).advance_here(cache, input_ids, adapter).expect(WHOLE);
        }
        // On a thread of the pool: from outside, each of some hundred small ops would wait to be woken.
        rayon::scope(|_| Model::from(self).advance_here(cache, input_ids, adapter).expect(WHOLE))
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

impl Model<'_> {
    /// Appends tokens to a sequence and returns the logits after the last one: `[vocab]`.
    ///
    /// # Errors
    /// [`ParallelError`]
    ///
    /// # Panics
    /// When there are no tokens.
    pub fn advance(
        self,
        cache: &mut KeyValueCache,
        input_ids: &[u32],
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, ParallelError> {
        if self.decoder.is_whole() {
            return Ok(self.decoder.advance(cache, input_ids, adapter));
        }
        self.advance_here(cache, input_ids, adapter)
    }

    fn advance_here(
        self,
        cache: &mut KeyValueCache,
        input_ids: &[u32],
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, ParallelError> {
        assert!(!input_ids.is_empty(), "no token to append");
        let adapted = Adapted::evaluated(adapter);
        let start = cache.tokens as u32;
        let positions: Arc<[u32]> = (start..start + input_ids.len() as u32).collect();
        let decoder = self.decoder;
        let mut walk = Walk::new(self, Pass::Forward)?;
        let mut x = self.embedded(&walk, input_ids)?;
        let mut leaves = Vec::new();
        for (index, (block, layer)) in decoder.blocks.iter().zip(&mut cache.layers).enumerate() {
            walk.block(index)?;
            let qkv = block.queries_keys_values(x.clone(), &positions, &decoder.shared, adapted, &mut leaves);
            let heads = decoder.attend(qkv, layer, block.attention);
            x = self.summed(ACTIVATIONS, block.attended(x, heads, adapted, &mut leaves))?;
            x = self.summed(ACTIVATIONS, block.feed_forward_half(x, adapted, &mut leaves))?;
        }
        cache.tokens += input_ids.len();
        let last = x.narrow(0, input_ids.len() - 1, 1);
        Ok(values(self.head_logits(walk, last)?))
    }
}

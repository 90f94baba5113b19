//! The two ends of a decoder: embedding, and last norm with head and loss. Ranks may have some of their rows each.

use burn::tensor::{Tensor, TensorData};
use seedcorn_adapters::Adapter;
use seedcorn_kernels::device;
use seedcorn_kernels::embedding::embedding;
use seedcorn_kernels::linear_cross_entropy::{RowSum, Sweep, linear_cross_entropy};
use seedcorn_kernels::lora_linear::{Part, lora_linear};
use seedcorn_kernels::seed_gradient::seed_gradient;

use super::decoder::{ACTIVATIONS, Model, values};
use super::input::{Adapted, Input};
use super::loss::Loss;
use super::shards::{Pass, Walk};
use super::slice::Slice;
use crate::parallel::{EMBEDDING, ParallelError};

/// What slices of the head have summed for the softmax of each token.
pub(crate) const SOFTMAX: &str = "softmax";
/// The logits of slices of the head.
const LOGITS: &str = "logits";
/// Bytes of a [`RowSum`] between ranks.
pub(crate) const ROW_SUM_BYTES: usize = 16;

type Result<T> = std::result::Result<T, ParallelError>;

impl Model<'_> {
    /// Computes the sum of the token losses of a micro-batch.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn loss_sum(self, input: &Input, adapter: Option<&Adapter>) -> Result<f64> {
        let mut walk = Walk::new(self, Pass::Forward)?;
        let h = self.hidden(&mut walk, input, Adapted::evaluated(adapter))?;
        let normed = self.decoder.normed(h);
        let loss = if self.decoder.is_whole() {
            let loss = linear_cross_entropy(normed, &self.decoder.head, input.targets.clone());
            f64::from(loss.into_scalar::<f32>())
        } else {
            self.sweep(&mut walk, normed, input, false)?.0
        };
        walk.end();
        Ok(loss)
    }

    /// Computes the logits of every token: `[t, vocab]`.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn logits(self, input: &Input, adapter: Option<&Adapter>) -> Result<Tensor<2>> {
        let mut walk = Walk::new(self, Pass::Forward)?;
        let h = self.hidden(&mut walk, input, Adapted::evaluated(adapter))?;
        self.head_logits(walk, h)
    }

    /// Looks up the embeddings of tokens: `[t, d]`. A token of another slice is zeros here, so the sum is exact.
    pub(super) fn embedded(self, walk: &Walk, input_ids: &[u32]) -> Result<Tensor<2>> {
        if self.decoder.is_whole() {
            return Ok(embedding(&self.decoder.embed, input_ids, &self.decoder.device));
        }
        let d = self.decoder.spec.hidden_size;
        let mut x = vec![0.0f32; input_ids.len() * d];
        walk.embed(input_ids, &mut x)?;
        let x = TensorData::new(x, [input_ids.len(), d]);
        self.summed(EMBEDDING, Tensor::from_data(x, &self.decoder.device))
    }

    /// Ends a pass with logits.
    pub(super) fn head_logits(self, mut walk: Walk, x_td: Tensor<2>) -> Result<Tensor<2>> {
        let normed = self.decoder.normed(x_td);
        let of = |weight| lora_linear(normed.clone(), &[Part { weight, bias: None, factors: None }], None);
        if self.decoder.is_whole() {
            return Ok(of(self.decoder.head.clone()));
        }
        let ([tokens, _], here) = (normed.dims(), self.decoder.vocabulary());
        let mut logits = vec![0.0f32; tokens * here.len()];
        let mut take = |start: usize, rows| {
            let part = values(of(rows));
            for (out, row) in logits.chunks_exact_mut(here.len()).zip(part.chunks_exact(part.len() / tokens))
            {
                out[start - here.start..][..row.len()].copy_from_slice(row);
            }
        };
        if walk.is_apart() {
            for range in 0..walk.head_ranges() {
                let (start, rows) = walk.head(range)?;
                take(start, rows);
            }
        } else {
            take(here.start, self.decoder.head.clone());
        }
        walk.end();
        let logits = self.of_all_slices(tokens, &logits)?;
        let shape = [tokens, self.decoder.spec.vocab_size];
        Ok(Tensor::from_data(TensorData::new(logits, shape), &self.decoder.device))
    }

    /// Puts the logits of all slices of the head side by side.
    fn of_all_slices(self, tokens: usize, own: &[f32]) -> Result<Vec<f32>> {
        let (ranks, spec) = (self.tensor(), &self.decoder.spec);
        let of = ranks.size();
        let width = |index| Slice { index, of }.vocabulary(spec).len();
        let slices = ranks.gather(LOGITS, own, |index| tokens * width(index))?;
        let mut whole = Vec::with_capacity(tokens * spec.vocab_size);
        for token in 0..tokens {
            for (index, slice) in slices.iter().enumerate() {
                whole.extend_from_slice(&slice[token * width(index)..][..width(index)]);
            }
        }
        Ok(whole)
    }

    /// Computes the loss and its gradient with respect to the last block's output.
    pub(super) fn head_loss(self, walk: &mut Walk, x: Tensor<2>, input: &Input) -> Result<(Loss, Tensor<2>)> {
        let x = x.autodiff().require_grad();
        let normed = self.decoder.normed(x.clone());
        let (loss, mut grads) = if self.decoder.is_whole() {
            let loss = linear_cross_entropy(normed, &self.decoder.head, input.targets.clone());
            let there = loss.clone().inner();
            let known = || Loss::Known(f64::from(there.clone().into_scalar::<f32>()));
            let is_here = device::is_cpu(&self.decoder.device);
            (if is_here { known() } else { Loss::There(Box::new(there)) }, loss.backward())
        } else {
            let (loss, dy) = self.sweep(walk, normed.clone().inner(), input, true)?;
            let dy = Tensor::from_data(TensorData::new(dy, normed.dims()), &self.decoder.device);
            (Loss::Known(loss), seed_gradient(normed, self.summed(ACTIVATIONS, dy)?).backward())
        };
        Ok((loss, x.grad_remove(&mut grads).expect("the head's input is tracked")))
    }

    /// Sweeps over the rows of the head that are here, or come here in ranges: the loss as the op over a whole head rounds
    /// it, and this slice's part of its gradient.
    fn sweep(
        self,
        walk: &mut Walk,
        normed: Tensor<2>,
        input: &Input,
        gradient: bool,
    ) -> Result<(f64, Vec<f32>)> {
        let (head, spec) = (&self.decoder.head, &self.decoder.spec);
        let shape = [spec.vocab_size, spec.hidden_size];
        let mut sweep = Sweep::new(&values(normed), shape, head.compute(), &input.targets, gradient);
        if walk.is_apart() {
            for range in 0..walk.head_ranges() {
                let (start, rows) = walk.head(range)?;
                sweep.take(start, &rows);
            }
        } else {
            sweep.take(self.decoder.vocabulary().start, head);
        }
        if !self.decoder.slice.is_part() {
            let (loss, dh) = sweep.finish();
            return Ok((f64::from(loss as f32), dh));
        }
        let all = self.row_sums(&sweep.row_sums())?;
        let loss: f64 = all.iter().map(|row| row.loss()).sum();
        Ok((f64::from(loss as f32), sweep.part_of_gradient(&all)))
    }

    /// Learns what all slices of the head have summed.
    fn row_sums(self, own: &[RowSum]) -> Result<Vec<RowSum>> {
        let message: Vec<u8> = own.iter().flat_map(|one| packed(*one)).collect();
        let slices = self.tensor().gather_bytes(SOFTMAX, &message, |_| message.len())?;
        let row = |slice: &[u8], row: usize| unpacked(&slice.as_chunks::<ROW_SUM_BYTES>().0[row]);
        let all = (0..own.len()).map(|index| {
            let (first, others) = slices.split_first().expect("this rank is there");
            others.iter().fold(row(first, index), |sum, slice| sum.with(row(slice, index)))
        });
        Ok(all.collect())
    }
}

fn packed(row: RowSum) -> [u8; ROW_SUM_BYTES] {
    let mut bytes = [0; ROW_SUM_BYTES];
    bytes[..4].copy_from_slice(&row.max.to_ne_bytes());
    bytes[4..8].copy_from_slice(&row.logit.to_ne_bytes());
    bytes[8..].copy_from_slice(&row.sum.to_ne_bytes());
    bytes
}

fn unpacked(bytes: &[u8; ROW_SUM_BYTES]) -> RowSum {
    let [max, logit] = [0, 4].map(|at| f32::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte])));
    RowSum { max, logit, sum: f64::from_ne_bytes(std::array::from_fn(|byte| bytes[8 + byte])) }
}

//! The two ends of a decoder: embedding, and last norm with head and loss. A rank that holds a slice has some of their rows.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use seedcorn_adapters::Adapter;
use seedcorn_kernels::linear_cross_entropy::{RowSum, Sweep, linear_cross_entropy};
use seedcorn_kernels::lora_linear::{Part, lora_linear};
use seedcorn_kernels::rms_norm::rms_norm;
use seedcorn_kernels::seed_gradient::seed_gradient;

use super::input::{Adapted, Input};
use super::pass::{ACTIVATIONS, Pass, Result, values};
use super::slice::Slice;

/// The sum over ranks of the rows that their slices of the embedding have.
pub(crate) const EMBEDDING: &str = "embedding";
/// What slices of the head have summed for the softmax of each token.
pub(crate) const SOFTMAX: &str = "softmax";
/// The logits of slices of the head.
const LOGITS: &str = "logits";
/// Bytes of a [`RowSum`] between ranks.
pub(crate) const ROW_SUM_BYTES: usize = 16;

impl Pass<'_> {
    /// Computes the sum of the token losses of a micro-batch.
    ///
    /// # Errors
    /// What the other ranks of the model make of it.
    pub fn loss_sum(&self, input: &Input, adapter: Option<&Adapter>) -> Result<f64> {
        let h = self.normed(self.hidden(input, Adapted::evaluated(adapter))?);
        if self.model.slice.is_part() {
            let (_, all) = self.swept(&values(h), input, false)?;
            return Ok(loss(&all));
        }
        let loss = linear_cross_entropy(h, &self.model.head, input.targets.clone());
        Ok(f64::from(loss.into_scalar::<f32>()))
    }

    /// Computes the logits of every token: `[t, vocab]`.
    ///
    /// # Errors
    /// What the other ranks of the model make of it.
    pub fn logits(&self, input: &Input, adapter: Option<&Adapter>) -> Result<Tensor<2>> {
        self.head_logits(self.hidden(input, Adapted::evaluated(adapter))?)
    }

    /// Looks up the embeddings of tokens: `[t, d]`. A token that another rank has is zeros here, so the sum is exact.
    pub(super) fn embedded(&self, input_ids: &[u32]) -> Result<Tensor<2>> {
        let d = self.model.spec.hidden_size;
        let here = self.model.slice.vocabulary(&self.model.spec);
        let mut x = vec![0.0f32; input_ids.len() * d];
        x.par_chunks_exact_mut(d).zip(input_ids).with_min_len(64).for_each(|(row, &id)| {
            if here.contains(&(id as usize)) {
                self.model.embed.read_row(id as usize - here.start, row);
            }
        });
        let x = Tensor::from_data(TensorData::new(x, [input_ids.len(), d]), &self.model.device);
        self.summed(EMBEDDING, x)
    }

    pub(super) fn head_logits(&self, x_td: Tensor<2>) -> Result<Tensor<2>> {
        let tokens = x_td.dims()[0];
        let head = Part { weight: self.model.head.clone(), bias: None, factors: None };
        let logits = lora_linear(self.normed(x_td), &[head], None);
        let spec = &self.model.spec;
        let of = self.ranks.size();
        if of == 1 {
            return Ok(logits);
        }
        let width = |index| Slice { index, of }.vocabulary(spec).len();
        let slices = self.ranks.gather(LOGITS, &values(logits), |index| tokens * width(index))?;
        let mut whole = Vec::with_capacity(tokens * spec.vocab_size);
        for token in 0..tokens {
            for (index, slice) in slices.iter().enumerate() {
                whole.extend_from_slice(&slice[token * width(index)..][..width(index)]);
            }
        }
        let whole = TensorData::new(whole, [tokens, spec.vocab_size]);
        Ok(Tensor::from_data(whole, &self.model.device))
    }

    fn normed(&self, x_td: Tensor<2>) -> Tensor<2> {
        rms_norm(x_td, self.model.norm.clone(), self.model.spec.rms_norm_eps)
    }

    /// Computes the loss and its gradient with respect to the last block's output.
    pub(super) fn head_loss(&self, x: Tensor<2>, input: &Input) -> Result<(f64, Tensor<2>)> {
        const TRACKED: &str = "the head's input is tracked";
        let x = x.autodiff().require_grad();
        let normed = self.normed(x.clone());
        if !self.model.slice.is_part() {
            let loss = linear_cross_entropy(normed, &self.model.head, input.targets.clone());
            let value = f64::from(loss.clone().inner().into_scalar::<f32>());
            let mut grads = loss.backward();
            return Ok((value, x.grad_remove(&mut grads).expect(TRACKED)));
        }
        let (sweep, all) = self.swept(&values(normed.clone().inner()), input, true)?;
        let dh = TensorData::new(sweep.part_of_gradient(&all), normed.dims());
        let dh = self.summed(ACTIVATIONS, Tensor::from_data(dh, &self.model.device))?;
        let mut grads = seed_gradient(normed, dh).backward();
        Ok((loss(&all), x.grad_remove(&mut grads).expect(TRACKED)))
    }

    /// Sweeps over the rows of the head that are here, and learns what all slices have summed.
    fn swept(&self, h: &[f32], input: &Input, gradient: bool) -> Result<(Sweep, Vec<RowSum>)> {
        let spec = &self.model.spec;
        let shape = [spec.vocab_size, spec.hidden_size];
        let mut sweep = Sweep::new(h, shape, self.model.head.compute(), &input.targets, gradient);
        sweep.take(self.model.slice.vocabulary(spec).start, &self.model.head);
        let own = sweep.row_sums();
        let message: Vec<u8> = own.iter().flat_map(|one| packed(*one)).collect();
        let slices = self.ranks.gather_bytes(SOFTMAX, &message, |_| message.len())?;
        let row = |slice: &[u8], row: usize| unpacked(&slice.as_chunks::<ROW_SUM_BYTES>().0[row]);
        let all = (0..own.len()).map(|index| {
            let (first, others) = slices.split_first().expect("this rank is there");
            others.iter().fold(row(first, index), |sum, slice| sum.with(row(slice, index)))
        });
        let all = all.collect();
        Ok((sweep, all))
    }
}

/// Adds up the losses of rows, rounded once as the op over a whole head does.
fn loss(rows: &[RowSum]) -> f64 {
    f64::from(rows.iter().map(|row| row.loss()).sum::<f64>() as f32)
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

//! The op as launches of the kernels.

use super::BLOCK;
use super::rows::{NOWHERE, UNITS};
use crate::lora_linear::tensor_core::Side;
use crate::lora_linear::tensor_core::call::{Added, Product, Right, whole};
use crate::lora_linear::tensor_core::weight::Packed;
use crate::tensor_core::{Device, Kernel, Launch};

/// A head on the device.
#[derive(Clone, Debug)]
pub struct Head<B> {
    pub(crate) weight: Right<B>,
    pub(crate) shape: [usize; 2],
}

impl<B: Clone> Head<B> {
    /// Copies a head to the device.
    pub fn new<D: Device<Buffer = B>>(device: &mut D, packed: &Packed) -> Self {
        Self { weight: Right::upload(device, packed), shape: packed.shape }
    }

    /// Computes the sum of the losses of rows with a target (those of 0 and more), and its gradient with respect to `h`
    /// if that is wanted.
    ///
    /// # Errors
    /// Those of the device.
    pub fn loss<D: Device<Buffer = B>>(
        &self,
        device: &mut D,
        h: &B,
        targets: &[i32],
        gradient: bool,
    ) -> Result<(B, Option<B>), D::Error> {
        let [vocab, hidden] = self.shape;
        let kept: Vec<u32> =
            (0..).zip(targets).filter(|(_, target)| **target >= 0).map(|(row, _)| row).collect();
        let wanted: Vec<u32> =
            targets.iter().filter(|target| **target >= 0).map(|target| *target as u32).collect();
        let rows = kept.len();
        let wanted = device.upload(words(&wanted));
        let state = device.reserve(12 * rows.max(1));
        let mut sums = None;
        if rows > 0 {
            let x = device.reserve(4 * rows * hidden);
            let kept = device.upload(words(&kept));
            each(device, Kernel::loss_gather(), rows * hidden, &[h, &kept, &x], &[hidden])?;
            let (factor, stride) = (device.reserve(4 * rows), BLOCK.min(vocab));
            let (x, logits) = (whole(x, hidden), whole(device.reserve(4 * rows * stride), stride));
            let total = gradient.then(|| whole(device.reserve(4 * rows * hidden), hidden));
            for first in (0..vocab).step_by(BLOCK) {
                let count = BLOCK.min(vocab - first);
                let weight = Right { row: first, ..self.weight.clone() };
                Product::new((&x, Side::Inner), (weight.clone(), Side::Inner), [rows, count, hidden])
                    .launch(device, &logits)?;
                device.launch(&Launch {
                    kernel: Kernel::loss_rows(),
                    cubes: [rows as u32, 1, 1],
                    buffers: &[&logits.buffer, &wanted, &state, &factor],
                    floats: &[],
                    words: &[stride as u32, first as u32, count as u32],
                })?;
                if let Some(total) = &total {
                    let onto = if first == 0 { Added::Nothing } else { Added::Scaled(factor.clone()) };
                    Product::new((&logits, Side::Inner), (weight, Side::Outer), [rows, hidden, count])
                        .onto(onto)
                        .launch(device, total)?;
                }
            }
            sums = total.map(|total| total.buffer);
        }
        let loss = device.reserve(4);
        device.launch(&Launch {
            kernel: Kernel::loss_sum(),
            cubes: [1, 1, 1],
            buffers: &[&state, &loss],
            floats: &[],
            words: &[rows as u32],
        })?;
        let dh = if gradient {
            Some(self.gradient(device, targets, &wanted, sums.as_ref(), &state)?)
        } else {
            None
        };
        Ok((loss, dh))
    }

    fn gradient<D: Device<Buffer = B>>(
        &self,
        device: &mut D,
        targets: &[i32],
        wanted: &B,
        sums: Option<&B>,
        state: &B,
    ) -> Result<B, D::Error> {
        let Right { kind, codes, table, scale_codes_at, .. } = &self.weight;
        let hidden = self.shape[1];
        let dh = device.reserve(4 * (targets.len() * hidden).max(1));
        let mut row = 0;
        let mut place = |target: &i32| {
            let place = if *target < 0 { NOWHERE } else { row };
            row += u32::from(*target >= 0);
            place
        };
        let places: Vec<u32> = targets.iter().map(&mut place).collect();
        let places = device.upload(words(&places));
        let buffers = [codes, table, &places, wanted, sums.unwrap_or(state), state, &dh];
        each(
            device,
            Kernel::loss_gradient(*kind),
            targets.len() * hidden,
            &buffers,
            &[hidden, *scale_codes_at],
        )?;
        Ok(dh)
    }
}

/// The bytes of words; of one where there are none, since no buffer is empty.
fn words(words: &[u32]) -> &[u8] {
    if words.is_empty() { &[0; 4] } else { bytemuck::cast_slice(words) }
}

/// Runs a kernel with a unit for each of `len` elements; `len` is its first number.
fn each<D: Device>(
    device: &mut D,
    kernel: Kernel,
    len: usize,
    buffers: &[&D::Buffer],
    numbers: &[usize],
) -> Result<(), D::Error> {
    if len == 0 {
        return Ok(());
    }
    let words: Vec<u32> = [len].iter().chain(numbers).map(|number| *number as u32).collect();
    let cubes = [len.div_ceil(UNITS) as u32, 1, 1];
    device.launch(&Launch { kernel, cubes, buffers, floats: &[], words: &words })
}

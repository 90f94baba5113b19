//! The loss of micro-batches, which on a device is not known before someone waits for it.

use burn::tensor::{Tensor, Transaction};

/// A sum of token losses.
#[derive(Clone, Debug)]
pub enum Loss {
    /// Known.
    Known(f64),
    /// In the memory of a device.
    There(Box<Tensor<1>>),
    /// Of two that are not known yet.
    Sum(Box<[Loss; 2]>),
}

impl Loss {
    /// Adds two losses. The sum is one of f64, wherever the losses are.
    #[must_use]
    pub fn plus(self, right: Self) -> Self {
        match (self, right) {
            (Self::Known(left), Self::Known(right)) => Self::Known(left + right),
            both => Self::Sum(Box::new(both.into())),
        }
    }

    /// Waits for the loss.
    ///
    /// # Panics
    /// When the device fails.
    pub fn value(self) -> f64 {
        if let Self::Known(loss) = self {
            return loss;
        }
        let mut read = self.register(Transaction::default()).execute().into_iter();
        self.with(&mut || read.next().and_then(|data| data.iter::<f32>().next()).expect("one value a loss"))
    }

    /// Asks for what is not known yet, along with whatever else is read.
    pub(crate) fn register(&self, reads: Transaction) -> Transaction {
        match self {
            Self::Known(_) => reads,
            Self::There(tensor) => reads.register(tensor.as_ref().clone()),
            Self::Sum(both) => both[1].register(both[0].register(reads)),
        }
    }

    /// The loss from the values of what was asked for, in that order.
    pub(crate) fn with(&self, next: &mut impl FnMut() -> f32) -> f64 {
        match self {
            Self::Known(loss) => *loss,
            Self::There(_) => f64::from(next()),
            Self::Sum(both) => {
                let left = both[0].with(next);
                left + both[1].with(next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_sum_does_not_depend_on_where_its_parts_are() {
        let values = [0.1f32, 1e8, -3.5, 7.25];
        let there = |value: f32| Loss::There(Box::new(Tensor::from_floats([value], &Device::flex())));
        let tree = |of: &dyn Fn(f32) -> Loss| {
            let [a, b, c, d] = values.map(of);
            a.plus(b).plus(c.plus(d)).value()
        };
        let known = tree(&|value| Loss::Known(f64::from(value)));
        assert_eq!(known.to_bits(), tree(&there).to_bits());
        assert_eq!(known, (f64::from(0.1f32) + 1e8) + (-3.5 + 7.25));
    }
}

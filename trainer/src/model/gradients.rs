//! Gradients of an adapter, and the tree in which those of several micro-batches are added.

use burn::tensor::Tensor;
use rayon::prelude::*;
use seedcorn_kernels::device;

/// The gradients of every factor: `[dA, dB]` of each module in the adapter's order.
#[derive(Clone, Debug)]
pub struct Gradients {
    modules: Vec<Option<[Tensor<2>; 2]>>,
}

impl Gradients {
    /// Room for the gradients of `modules` modules.
    pub fn new(modules: usize) -> Self {
        Self { modules: vec![None; modules] }
    }

    pub(super) fn set(&mut self, place: usize, gradients: [Tensor<2>; 2]) {
        self.modules[place] = Some(gradients);
    }

    /// Adds two gradients, element by element; on the CPU the modules on all threads, on a device in its one queue.
    #[must_use]
    pub fn plus(self, right: Self) -> Self {
        let add = |(left, right): (Option<[Tensor<2>; 2]>, Option<[Tensor<2>; 2]>)| {
            let ([la, lb], [ra, rb]) = (left?, right?);
            Some([la + ra, lb + rb])
        };
        let modules = if self.is_here() {
            self.modules.into_par_iter().zip(right.modules).map(add).collect()
        } else {
            self.modules.into_iter().zip(right.modules).map(add).collect()
        };
        Self { modules }
    }

    /// Reads the values back: `dA` and `dB` of each module in turn.
    ///
    /// # Panics
    /// When a module of the adapter is no part of the model.
    pub fn values(&self) -> Vec<Vec<f32>> {
        self.clone().into_values()
    }

    /// Returns them where they are wanted: on the CPU as values, else as tensors of the device.
    ///
    /// # Panics
    /// When a module of the adapter is no part of the model.
    pub fn summed(self) -> Summed {
        if self.is_here() {
            return Summed::Here(self.into_values());
        }
        let modules = self.modules.into_iter().map(|pair| pair.expect("every module is in the model"));
        Summed::There(modules.flatten().collect())
    }

    fn is_here(&self) -> bool {
        self.modules.iter().flatten().next().is_none_or(|[a, _]| device::is_cpu(&a.device()))
    }

    /// As [`Gradients::values`], without a copy.
    ///
    /// # Panics
    /// As there.
    pub fn into_values(self) -> Vec<Vec<f32>> {
        let modules = self.modules.into_iter().map(|pair| pair.expect("every module is in the model"));
        modules
            .flatten()
            .map(|tensor| tensor.into_data().try_into_vec().expect("gradients are f32"))
            .collect()
    }
}

/// The summed gradients of a step, in the order of [`seedcorn_adapters::Adapter::values`].
#[derive(Clone, Debug)]
pub enum Summed {
    /// Values, on the CPU.
    Here(Vec<Vec<f32>>),
    /// Tensors on a device.
    There(Vec<Tensor<2>>),
}

/// One item of a tree, and how many leaves it stands for.
struct Subtree<T> {
    leaves: usize,
    sum: T,
}

/// Adds items in one binary tree over their index: neighbours first, then pairs of pairs, an odd one out
/// joining at the end.
///
/// The shape depends on the number of items alone, never on who computed which, so that any number of
/// data-parallel ranks can finish the same sums. At most `log2(n) + 1` items exist at one time.
pub struct Tree<T> {
    pending: Vec<Subtree<T>>,
    add: fn(T, T) -> T,
}

impl<T> Tree<T> {
    /// An empty tree.
    pub fn new(add: fn(T, T) -> T) -> Self {
        Self { pending: Vec::new(), add }
    }

    /// Takes the next item.
    pub fn push(&mut self, item: T) {
        let mut new = Subtree { leaves: 1, sum: item };
        while let Some(left) = self.pending.pop_if(|last| last.leaves == new.leaves) {
            new = Subtree { leaves: 2 * new.leaves, sum: (self.add)(left.sum, new.sum) };
        }
        self.pending.push(new);
    }

    /// Adds up what is left; nothing for an empty tree.
    pub fn finish(mut self) -> Option<T> {
        let mut sum = self.pending.pop()?.sum;
        while let Some(left) = self.pending.pop() {
            sum = (self.add)(left.sum, sum);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;

    fn shape(items: usize) -> String {
        let mut tree = Tree::new(|left: String, right: String| format!("({left}{right})"));
        (0..items).for_each(|item| tree.push(item.to_string()));
        tree.finish().unwrap_or_default()
    }

    #[test]
    fn neighbours_are_added_first() {
        assert_eq!(shape(0), "");
        assert_eq!(shape(1), "0");
        assert_eq!(shape(4), "((01)(23))");
        assert_eq!(shape(6), "(((01)(23))(45))");
        assert_eq!(shape(7), "(((01)(23))((45)6))");
    }
}

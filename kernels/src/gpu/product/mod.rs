//! The tiled product that every linear op is made of: `out = (left . right) * scale (+ left2 . right2) (+ ..)`.
//!
//! A cube computes a tile of the output. It walks the inner axis in steps: its units fetch a stretch of both operands
//! into shared memory (packed weights are decoded there, once a tile), then each adds up its few elements of the
//! output in registers, in rising order of the inner index. There is no other sum, so bits depend on shapes alone.
//!
//! This is the plain path, f32 throughout: it runs where there is no matrix unit.
mod fetch;
mod kernel;
mod operand;
mod store;
mod tile;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use self::kernel::{PlacesLaunch, product_kernel};
use self::operand::Second;
pub(crate) use self::operand::{Matrix, Right};
use self::tile::Tile;
use super::number::Mask;
use super::weight::Kind;
use super::{Words, words};
use crate::device;
use crate::frozen::Compute;
use crate::lora_linear::Dropout;

/// How an operand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    /// `[m, k]`, or `[n, k]` on the right: the inner axis is the last.
    Inner,
    /// `[k, m]`, or `[k, n]` on the right: the inner axis is the first.
    Outer,
}

/// Which elements are multiplied by the dropout mask. The mask is that of the matrix in whose place they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Masked {
    Nothing,
    Left,
    Right,
    /// The second product.
    Second,
}

/// What the product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Onto {
    Nothing,
    /// A matrix that lies as the output.
    Addend,
    /// The output.
    Output,
    /// The output, each row times a factor.
    Scaled,
}

/// Everything that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    tile: Tile,
    left: Side,
    right: Side,
    kind: Kind,
    round_left: bool,
    round_right: bool,
    /// Elements of the right operand that are fetched at one time: those of a word, where rows begin with a word.
    together: usize,
    /// How the right operand of the second product lies.
    second: Option<Side>,
    masked: Masked,
    onto: Onto,
    bias: bool,
}
/// A product to be launched. What is not asked for is not there.
pub(crate) struct Product<'a> {
    left: (Matrix, Side),
    right: (Right, Side),
    /// Rows, columns, inner axis.
    sizes: [usize; 3],
    second: Option<Second>,
    scale: f32,
    compute: Compute,
    dropout: Option<(Dropout, Masked)>,
    onto: Onto,
    extra: Option<Words>,
    bias: Option<&'a Words>,
}

impl<'a> Product<'a> {
    /// `left . right^T` with `left: [m, k]` and `right: [n, k]`; `sizes` are `[m, n, k]`.
    pub(crate) fn transposed(left: Matrix, right: Right, sizes: [usize; 3], compute: Compute) -> Self {
        Self::new((left, Side::Inner), (right, Side::Inner), sizes, compute)
    }

    /// `left . right` with `left: [m, k]` and `right: [k, n]`.
    pub(crate) fn straight(left: Matrix, right: Right, sizes: [usize; 3], compute: Compute) -> Self {
        Self::new((left, Side::Inner), (right, Side::Outer), sizes, compute)
    }

    /// `left^T . right` with `left: [k, m]` and `right: [k, n]`.
    pub(crate) fn over_rows(left: Matrix, right: Right, sizes: [usize; 3], compute: Compute) -> Self {
        Self::new((left, Side::Outer), (right, Side::Outer), sizes, compute)
    }

    fn new(left: (Matrix, Side), right: (Right, Side), sizes: [usize; 3], compute: Compute) -> Self {
        let (second, dropout, extra, bias) = (None, None, None, None);
        let onto = Onto::Nothing;
        Self { left, right, sizes, second, scale: 1.0, compute, dropout, onto, extra, bias }
    }

    /// Multiplies the first product.
    pub(crate) fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Adds `left . right^T` with `left: [m, depth]` and `right: [n, depth]`.
    pub(crate) fn plus_transposed(self, left: Matrix, right: Right, depth: usize) -> Self {
        Self { second: Some(Second { left, right, side: Side::Inner, depth }), ..self }
    }

    /// Adds `left . right` with `left: [m, depth]` and `right: [depth, n]`, times the mask if there is one.
    pub(crate) fn plus_straight(
        self,
        left: Matrix,
        right: Right,
        depth: usize,
        dropout: Option<Dropout>,
    ) -> Self {
        let dropout = dropout.map(|dropout| (dropout, Masked::Second));
        Self { second: Some(Second { left, right, side: Side::Outer, depth }), dropout, ..self }
    }

    /// Applies the mask to the left operand.
    pub(crate) fn left_dropped(self, dropout: Option<Dropout>) -> Self {
        Self { dropout: dropout.map(|dropout| (dropout, Masked::Left)), ..self }
    }

    /// Applies the mask to the right operand.
    pub(crate) fn right_dropped(self, dropout: Option<Dropout>) -> Self {
        Self { dropout: dropout.map(|dropout| (dropout, Masked::Right)), ..self }
    }

    /// Adds a value to each column.
    pub(crate) fn bias(self, bias: Option<&'a Words>) -> Self {
        Self { bias, ..self }
    }

    /// Adds a matrix that lies as the output does, if there is one.
    pub(crate) fn onto_addend(self, addend: Option<&CubeTensor>) -> Self {
        match addend {
            Some(addend) => Self { onto: Onto::Addend, extra: Some(words(addend)), ..self },
            None => self,
        }
    }

    /// Adds what is in the output, if `adds`.
    pub(crate) fn onto_output(self, adds: bool) -> Self {
        Self { onto: if adds { Onto::Output } else { Onto::Nothing }, ..self }
    }

    /// Adds what is in the output, row `i` times `factors[i]`.
    pub(crate) fn onto_scaled(self, factors: &CubeTensor) -> Self {
        Self { onto: Onto::Scaled, extra: Some(words(factors)), ..self }
    }

    fn plan(&self, is_software: bool) -> Plan {
        let narrow = self.compute == Compute::Bf16;
        let right = &self.right.0;
        Plan {
            tile: Tile::of([self.sizes[0], self.sizes[1]], is_software),
            left: self.left.1,
            right: self.right.1,
            kind: right.kind,
            round_left: narrow,
            round_right: narrow && right.is_weight && right.kind != Kind::Bf16,
            together: self.together(),
            second: self.second.as_ref().map(|second| second.side),
            masked: self.dropout.map_or(Masked::Nothing, |(_, masked)| masked),
            onto: self.onto,
            bias: self.bias.is_some(),
        }
    }

    fn together(&self) -> usize {
        let (right, side) = &self.right;
        let elements = right.kind.elements_of_word();
        let [_, n, k] = self.sizes;
        let along = if *side == Side::Inner { k } else { n };
        let is_aligned = [right.at, right.width, along].iter().all(|size| size.is_multiple_of(elements));
        if is_aligned { elements } else { 1 }
    }

    /// Computes into the columns of `out` from `column` on.
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    pub(crate) fn launch(self, out: &CubeTensor, column: usize) {
        let ([m, n, k], plan) = (self.sizes, self.plan(device::is_software(&out.device)));
        if m == 0 || n == 0 {
            return;
        }
        let tile = plan.tile;
        let ((left, _), (right, _)) = (self.left, self.right);
        let stand_in = left.words.clone();
        let (left2, right2, depth2) = match self.second {
            Some(second) => (second.left, second.right, second.depth),
            None => (left.clone(), right.clone(), 0),
        };
        let places = PlacesLaunch::new(
            m as u32,
            n as u32,
            k as u32,
            left.at as u32,
            left.stride as u32,
            right.at as u32,
            right.first_row as u32,
            right.width as u32,
            right.scale_codes_at as u32,
            depth2 as u32,
            left2.at as u32,
            left2.stride as u32,
            right2.width as u32,
            column as u32,
            super::dims(out)[1] as u32,
            self.scale,
        );
        let cubes = [n.div_ceil(tile.cube[1]) as u32, m.div_ceil(tile.cube[0]) as u32];
        let [rows, columns] = tile.units();
        // SAFETY: the kernel reads and writes inside the sizes it is given, which are those of the buffers.
        unsafe {
            product_kernel::launch_unchecked(
                &out.client,
                CubeCount::Static(cubes[0], cubes[1], 1),
                CubeDim::new_1d((rows * columns) as u32),
                left.words.arg(),
                right.codes.arg(),
                right.table.arg(),
                left2.words.arg(),
                right2.codes.arg(),
                self.extra.as_ref().unwrap_or(&stand_in).arg(),
                self.bias.unwrap_or(&stand_in).arg(),
                super::arg(out),
                places,
                Mask::launch_args(self.dropout.map(|(dropout, _)| dropout)),
                plan,
            );
        }
    }
}

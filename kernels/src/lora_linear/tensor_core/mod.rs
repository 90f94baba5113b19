//! The products of the op on matrix units, in CubeCL: bf16 inputs, f32 sums.
//!
//! Everything that the op multiplies is one kernel, compiled for a [`Plan`]:
//! `out = (left . right) * scale (+ mask * (left2 . right2)) (+ bias) (+ addend)`.
//!
//! A cube computes a tile of the output. Its units fetch a stretch of both operands into registers while the planes
//! multiply the last stretch out of shared memory; packed weights are decoded on the way from registers to shared
//! memory, so each is read once from global memory by each cube and decoded once. The low-rank term is summed in the
//! same accumulators, and a tile is stored once.
//!
//! # Determinism
//! No atomics: every sum has one order, which depends on shapes alone. Where the inner axis is long and the output is
//! small (`dA`, `dB`) cubes sum parts of it, and `sum_parts` adds these in rising order.
//!
//! # Numerics
//! Both operands are rounded to bf16 (to nearest even), products are summed in f32 by the matrix unit.

pub mod call;
pub(crate) mod finish;
pub(crate) mod number;
pub(crate) mod product;
pub(crate) mod stage;
pub mod weight;

/// Rows, columns and inner size of what a plane multiplies at once.
pub(crate) const FRAGMENT: usize = 16;
/// Elements that one unit fetches together.
pub(crate) const RUN: usize = 8;
/// Elements between two lines in shared memory, so that the lines of a fragment are in different banks.
const PAD: usize = 8;
/// Units of a plane.
const PLANE: usize = 32;

/// Sizes of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    /// Rows and columns of the output that a cube computes.
    pub(crate) cube: [usize; 2],
    /// Rows and columns that one of its planes computes.
    pub(crate) plane: [usize; 2],
    /// Inner indices that are in shared memory at one time, twice.
    pub(crate) depth: usize,
}

impl Tile {
    /// For outputs of at least a tile each way.
    pub(crate) const SQUARE: Self = Self { cube: [128, 128], plane: [64, 32], depth: 32 };
    /// For few columns: the rank of an adapter.
    pub(crate) const NARROW: Self = Self { cube: [128, 16], plane: [32, 16], depth: 64 };
    /// For few rows.
    pub(crate) const FLAT: Self = Self { cube: [16, 128], plane: [16, 32], depth: 64 };
    /// For outputs that would fill few cubes.
    pub(crate) const SMALL: Self = Self { cube: [64, 64], plane: [32, 16], depth: 32 };
    /// For operands that are read element by element, which takes registers for addresses.
    pub(crate) const ODD: Self = Self { cube: [64, 32], plane: [16, 16], depth: 32 };

    /// The tile for an output: the largest that leaves a cube for each multiprocessor of the device. `whole` says that
    /// all operands are read in runs.
    pub(crate) fn of([rows, columns]: [usize; 2], whole: bool, multiprocessors: usize) -> Self {
        let [r, c] = Self::SQUARE.cube;
        match (rows <= 16, columns <= 16) {
            (_, true) => Self::NARROW,
            (true, false) => Self::FLAT,
            _ if !whole => Self::ODD,
            _ if rows.div_ceil(r) * columns.div_ceil(c) >= multiprocessors => Self::SQUARE,
            _ => Self::SMALL,
        }
    }

    /// Planes of a cube along rows and columns.
    pub(crate) const fn planes(self) -> [usize; 2] {
        [self.cube[0] / self.plane[0], self.cube[1] / self.plane[1]]
    }

    /// Units of a cube.
    pub(crate) const fn units(self) -> usize {
        self.planes()[0] * self.planes()[1] * PLANE
    }

    /// Fragments of a plane along rows and columns.
    const fn fragments(self) -> [usize; 2] {
        [self.plane[0] / FRAGMENT, self.plane[1] / FRAGMENT]
    }
}

/// How an operand lies, in global and in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// `[m, k]`, or `[n, k]` on the right: the inner axis is the last.
    Inner,
    /// `[k, m]`, or `[k, n]` on the right: the inner axis is the first.
    Outer,
}

impl Side {
    /// Lines of a stretch of `rows` by `depth`, and elements from one to the next.
    pub(crate) const fn lines(self, rows: usize, depth: usize) -> [usize; 2] {
        match self {
            Self::Inner => [rows, depth + PAD],
            Self::Outer => [depth, rows + PAD],
        }
    }

    /// Runs of bf16 that a stretch takes in shared memory.
    pub(crate) const fn runs(self, rows: usize, depth: usize) -> usize {
        let [lines, stride] = self.lines(rows, depth);
        lines * stride / RUN
    }
}

/// How the elements of a right operand are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// One f32 a word.
    F32,
    /// Two bf16 a word.
    Bf16,
    /// Four signed bytes a word; one scale a row.
    Int8,
    /// Eight codes a word; a scale for `1 << block_log2` elements.
    Nf4 {
        /// Binary logarithm of the block size.
        block_log2: u32,
        /// Codes that share a nested scale; 0 without double quantization.
        nested_block: u32,
    },
}

impl Kind {
    /// Words that a run takes.
    pub(crate) const fn words(self) -> usize {
        match self {
            Self::F32 => RUN,
            Self::Bf16 => RUN / 2,
            Self::Int8 => RUN / 4,
            Self::Nf4 { .. } => 1,
        }
    }
}

/// What is multiplied by the dropout mask. The mask is that of the matrix in whose place its elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Masked {
    /// Nothing.
    Nothing,
    /// The left operand.
    Left,
    /// The right operand.
    Right,
    /// The second product.
    Second,
}

/// What the product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Onto {
    /// Nothing.
    Nothing,
    /// A matrix that lies as the output.
    Addend,
    /// The output, each row times a factor.
    Scaled,
}

/// Everything that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    /// Sizes of a tile.
    pub(crate) tile: Tile,
    /// How the left operand lies.
    pub(crate) left: Side,
    /// How the right operand lies.
    pub(crate) right: Side,
    /// How the right operand is packed.
    pub(crate) kind: Kind,
    /// Whether every run of the left operands starts at a multiple of four and ends inside a line.
    pub(crate) left_whole: bool,
    /// Whether every run of the right operands starts at a multiple of eight and ends inside a line.
    pub(crate) right_whole: bool,
    /// How the right operand of the second product lies, which is not packed, and whether the runs of both its
    /// operands are whole; the left one lies as `[m, k]`.
    pub(crate) second: Option<(Side, bool)>,
    /// What is multiplied by the mask.
    pub(crate) masked: Masked,
    /// What the product is added to.
    pub(crate) onto: Onto,
    /// Whether each column has a bias.
    pub(crate) bias: bool,
}

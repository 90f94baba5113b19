//! The op on matrix units, in CubeCL: bf16 inputs, f32 sums.
//!
//! A plane owns 16 rows of a head: queries (forward, `dq`), or keys (`dk`, `dv`). The rows on the other side come a
//! block at a time into shared memory, rounded to bf16, and the planes of a cube share them. Scores are products in
//! registers, whose layout is that of the instruction (`mma.m16n8k16`), so the softmax is done where they are, and
//! what it leaves is the left operand of the next product as it stands: no score goes through memory.
//!
//! Tiles are counted from the start of a segment, so a sample gives the same bits in a pack and alone.
//!
//! # Determinism
//! No atomics: every sum has one owner and one order. `dk` and `dv` of a key head are summed by one cube over the query
//! heads that read it, in rising order.
//!
//! # Numerics
//! `q`, `k`, `v`, the output's gradient, probabilities and the gradients of scores are rounded to bf16 (to nearest even)
//! when they go into a product; products are summed in f32 by the matrix unit; softmax and its sums are f32.
//!
//! # Source
//! Dao, "FlashAttention-2", 2023, <https://arxiv.org/abs/2307.08691>; PTX ISA, "Matrix fragments for mma.m16n8k16".

pub mod call;
pub(crate) mod delta;
pub(crate) mod forward;
pub(crate) mod fragment;
pub(crate) mod keys;
pub(crate) mod mask;
pub(crate) mod queries;
pub(crate) mod stage;

/// Rows that a plane owns, and inner elements of one product.
pub(crate) const FRAGMENT: usize = 16;
/// Columns that one product makes.
pub(crate) const COLUMNS: usize = 8;
/// Elements that one unit fetches together.
pub(crate) const RUN: usize = 8;
/// Units of a plane.
pub(crate) const PLANE: usize = 32;

/// Sizes of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    /// Rows that a cube owns: 16 for each of its planes.
    pub(crate) rows: usize,
    /// Rows of the other side that are in shared memory at one time.
    pub(crate) block: usize,
}

impl Tile {
    /// The tile for heads of so many elements: the more, the less room there is in registers and shared memory.
    pub(crate) fn of(head_dim: usize) -> Self {
        match head_dim {
            ..=64 => Self { rows: 64, block: 64 },
            65..=128 => Self { rows: 64, block: 32 },
            _ => Self { rows: 32, block: 32 },
        }
    }

    /// The tile for the forward pass.
    pub(crate) fn of_forward(head_dim: usize) -> Self {
        match head_dim {
            ..=64 if head_dim.is_multiple_of(RUN) => Self { rows: 64, block: 32 },
            _ => Self::of(head_dim),
        }
    }

    /// Units of a cube.
    pub(crate) const fn units(self) -> usize {
        self.rows / FRAGMENT * PLANE
    }
}

/// Which gradients the kernel of keys gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gives {
    /// Both.
    Both,
    /// Those of keys.
    Keys,
    /// Those of values.
    Values,
}

impl Gives {
    /// The launches for heads of so many elements: above 128 the sums of both do not fit in registers, and scores are
    /// made twice.
    pub(crate) fn launches(head_dim: usize) -> &'static [Self] {
        if head_dim > 128 { &[Self::Values, Self::Keys] } else { &[Self::Both] }
    }
}

/// Everything that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    /// Sizes of a tile.
    pub(crate) tile: Tile,
    /// Elements of a head.
    pub(crate) head_dim: usize,
    /// Which gradients the kernel of keys gives.
    pub(crate) gives: Gives,
    /// Whether there is a window.
    pub(crate) windowed: bool,
    /// Whether scores are capped.
    pub(crate) capped: bool,
}

impl Plan {
    /// Elements of a head in shared memory: whole fragments.
    pub(crate) const fn padded(self) -> usize {
        self.head_dim.next_multiple_of(FRAGMENT)
    }

    /// Runs from one row in shared memory to the next: an odd number, so that the eight rows that `ldmatrix` reads
    /// together are in different banks.
    pub(crate) const fn line(self) -> usize {
        self.padded() / RUN + 1
    }

    /// Products along a head's elements.
    pub(crate) const fn depth(self) -> usize {
        self.padded() / FRAGMENT
    }

    /// Whether heads are read in runs.
    pub(crate) const fn whole(self) -> bool {
        self.head_dim.is_multiple_of(RUN)
    }
}

//! The tiled product that every linear op is made of: `out = (left . right) * scale (+ left2 . right2) (+ ..)`.
//!
//! A cube computes a tile of the output. It walks the inner axis in steps: its units fetch a stretch of both operands
//! into shared memory (packed weights are decoded there, once a tile), then each adds up its few elements of the
//! output in registers, in rising order of the inner index. There is no other sum, so bits depend on shapes alone.
//!
//! This is the plain path, f32 throughout: it runs where there is no matrix unit.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::number::{Mask, mask_factor, round_bf16};
use super::weight::{DeviceWeight, Kind, element};
use super::{Words, words};
use crate::frozen::Compute;
use crate::lora_linear::Dropout;

/// Sizes of a tile. The rows times columns over those of a unit are the units of a cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    /// Rows and columns of the output that a cube computes.
    cube: [usize; 2],
    /// Rows and columns that one of its units computes.
    unit: [usize; 2],
    /// Inner indices that are in shared memory at one time.
    depth: usize,
}

impl Tile {
    /// For outputs of at least a tile each way.
    const SQUARE: Self = Self { cube: [64, 64], unit: [4, 4], depth: 16 };
    /// For few columns: the rank of an adapter.
    const NARROW: Self = Self { cube: [64, 16], unit: [4, 1], depth: 16 };
    /// For few rows.
    const FLAT: Self = Self { cube: [16, 64], unit: [1, 4], depth: 16 };

    fn of([rows, columns]: [usize; 2]) -> Self {
        match (rows <= 16, columns <= 16) {
            (_, true) => Self::NARROW,
            (true, false) => Self::FLAT,
            (false, false) => Self::SQUARE,
        }
    }

    fn units(self) -> [usize; 2] {
        [self.cube[0] / self.unit[0], self.cube[1] / self.unit[1]]
    }
}

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
    /// How the right operand of the second product lies.
    second: Option<Side>,
    masked: Masked,
    onto: Onto,
    bias: bool,
}

/// A matrix of f32 on the device, or a window of one.
#[derive(Clone)]
pub(crate) struct Matrix {
    words: Words,
    /// Elements before the first.
    at: usize,
    /// Elements from one row to the next.
    stride: usize,
}

impl Matrix {
    /// A whole contiguous matrix.
    pub(crate) fn whole(tensor: &CubeTensor) -> Self {
        Self::columns(tensor, 0)
    }

    /// The columns of a contiguous matrix from `column` on.
    pub(crate) fn columns(tensor: &CubeTensor, column: usize) -> Self {
        Self { words: words(tensor), at: column, stride: super::dims(tensor)[1] }
    }
}

/// The right operand of a product.
#[derive(Clone)]
pub(crate) struct Right {
    kind: Kind,
    codes: Words,
    table: Words,
    scale_codes_at: usize,
    /// Elements before the first of its row.
    at: usize,
    first_row: usize,
    /// Elements of a row.
    width: usize,
    is_weight: bool,
}

impl Right {
    /// Rows of a frozen weight of `width` columns, from `first_row` on.
    pub(crate) fn weight(weight: &DeviceWeight, width: usize, first_row: usize) -> Self {
        let DeviceWeight { kind, codes, table, scale_codes_at, .. } = weight.clone();
        Self { kind, codes, table, scale_codes_at, at: 0, first_row, width, is_weight: true }
    }

    /// A whole contiguous matrix of f32.
    pub(crate) fn dense(tensor: &CubeTensor) -> Self {
        Self::window(Matrix::whole(tensor))
    }

    /// A matrix of f32, or a window of one.
    pub(crate) fn window(matrix: Matrix) -> Self {
        let Matrix { words: codes, at, stride: width } = matrix;
        let table = codes.clone();
        Self { kind: Kind::F32, codes, table, scale_codes_at: 0, at, first_row: 0, width, is_weight: false }
    }
}

/// `left . right` with an inner axis of `depth`, added to the first product.
struct Second {
    left: Matrix,
    right: Right,
    side: Side,
    depth: usize,
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

    fn plan(&self) -> Plan {
        let narrow = self.compute == Compute::Bf16;
        let right = &self.right.0;
        Plan {
            tile: Tile::of([self.sizes[0], self.sizes[1]]),
            left: self.left.1,
            right: self.right.1,
            kind: right.kind,
            round_left: narrow,
            round_right: narrow && right.is_weight && right.kind != Kind::Bf16,
            second: self.second.as_ref().map(|second| second.side),
            masked: self.dropout.map_or(Masked::Nothing, |(_, masked)| masked),
            onto: self.onto,
            bias: self.bias.is_some(),
        }
    }

    /// Computes into the columns of `out` from `column` on.
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    pub(crate) fn launch(self, out: &CubeTensor, column: usize) {
        let ([m, n, k], plan) = (self.sizes, self.plan());
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

/// Sizes and places that are known when a kernel is launched.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Places {
    m: u32,
    n: u32,
    k: u32,
    left_at: u32,
    left_stride: u32,
    right_at: u32,
    right_row: u32,
    right_width: u32,
    scale_codes_at: u32,
    k2: u32,
    left2_at: u32,
    left2_stride: u32,
    right2_width: u32,
    out_at: u32,
    out_stride: u32,
    scale: f32,
}

/// Sizes and places of one of the two products.
#[derive(CubeType, Clone, Copy)]
struct Walk {
    m: usize,
    n: usize,
    k: usize,
    left_at: usize,
    left_stride: usize,
    right_at: usize,
    right_row: usize,
    right_width: usize,
    scale_codes_at: usize,
}

#[cube(launch_unchecked)]
fn product_kernel(
    left: &[f32],
    codes: &[u32],
    table: &[f32],
    left2: &[f32],
    right2: &[u32],
    extra: &[f32],
    bias: &[f32],
    out: &mut [f32],
    places: Places,
    mask: Mask,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let mut a = Shared::<[f32]>::new_slice(comptime!(tile.depth * tile.cube[0]));
    let mut b = Shared::<[f32]>::new_slice(comptime!(tile.depth * tile.cube[1]));
    let mut sums = Array::<f32>::new(comptime!(tile.unit[0] * tile.unit[1]));
    let (m, n) = (places.m as usize, places.n as usize);
    let first = Walk {
        m,
        n,
        k: places.k as usize,
        left_at: places.left_at as usize,
        left_stride: places.left_stride as usize,
        right_at: places.right_at as usize,
        right_row: places.right_row as usize,
        right_width: places.right_width as usize,
        scale_codes_at: places.scale_codes_at as usize,
    };
    accumulate(left, codes, table, &mut a, &mut b, &mut sums, &first, &mask, plan);
    let per_unit = comptime!(tile.unit[0] * tile.unit[1]);
    #[unroll]
    for i in 0..per_unit {
        sums[i] = sums[i] * places.scale;
    }
    if comptime!(plan.second.is_some()) {
        let second = Walk {
            m,
            n,
            k: places.k2 as usize,
            left_at: places.left2_at as usize,
            left_stride: places.left2_stride as usize,
            right_at: 0usize.runtime(),
            right_row: 0usize.runtime(),
            right_width: places.right2_width as usize,
            scale_codes_at: 0usize.runtime(),
        };
        let side = comptime!(Plan {
            left: Side::Inner,
            right: plan.second.unwrap_or(Side::Inner),
            kind: Kind::F32,
            round_right: false,
            masked: Masked::Nothing,
            ..plan
        });
        if comptime!(plan.masked == Masked::Second) {
            let mut masked = Array::<f32>::new(comptime!(tile.unit[0] * tile.unit[1]));
            accumulate(left2, right2, table, &mut a, &mut b, &mut masked, &second, &mask, side);
            add_masked(&mut sums, &masked, n, &mask, tile);
        } else {
            accumulate(left2, right2, table, &mut a, &mut b, &mut sums, &second, &mask, side);
        }
    }
    write(out, &sums, extra, bias, &places, plan);
}

/// Adds the products of this unit's elements to `sums`, in rising order of the inner index.
#[cube]
fn accumulate(
    left: &[f32],
    codes: &[u32],
    table: &[f32],
    a: &mut Shared<[f32]>,
    b: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    walk: &Walk,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let [rows, columns] = comptime!(plan.tile.cube);
    let [unit_rows, unit_columns] = comptime!(plan.tile.unit);
    let [across_rows, across_columns] = comptime!(plan.tile.units());
    let depth = comptime!(plan.tile.depth);
    let unit = UNIT_POS as usize;
    let (row, column) = (unit / across_columns, unit % across_columns);
    let steps = walk.k.div_ceil(depth);
    for step in 0..steps {
        fetch_left(left, a, walk, step * depth, mask, plan);
        fetch_right(codes, table, b, walk, step * depth, mask, plan);
        sync_cube();
        for inner in 0..depth {
            let mut lefts = Array::<f32>::new(unit_rows);
            #[unroll]
            for i in 0..unit_rows {
                lefts[i] = a[inner * rows + row + i * across_rows];
            }
            #[unroll]
            for j in 0..unit_columns {
                let right = b[inner * columns + column + j * across_columns];
                #[unroll]
                for i in 0..unit_rows {
                    sums[i * unit_columns + j] += lefts[i] * right;
                }
            }
        }
        sync_cube();
    }
}

/// Fetches `depth` inner indices of the cube's rows.
#[cube]
fn fetch_left(
    left: &[f32],
    a: &mut Shared<[f32]>,
    walk: &Walk,
    start: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let rows = comptime!(plan.tile.cube[0]);
    let depth = comptime!(plan.tile.depth);
    let units = comptime!(plan.tile.units()[0] * plan.tile.units()[1]);
    let first = CUBE_POS_Y as usize * rows;
    #[unroll]
    for turn in 0..comptime!(rows * depth / units) {
        let place = UNIT_POS as usize + turn * units;
        let mut row = place / depth;
        let mut inner = place % depth;
        if comptime!(plan.left == Side::Outer) {
            row = place % rows;
            inner = place / rows;
        }
        let mut value = 0.0f32;
        let (i, k) = (first + row, start + inner);
        if i < walk.m && k < walk.k {
            let mut at = walk.left_at + i * walk.left_stride + k;
            if comptime!(plan.left == Side::Outer) {
                at = walk.left_at + k * walk.left_stride + i;
            }
            value = left[at];
            if comptime!(plan.masked == Masked::Left) {
                value *= mask_factor(mask, at as u32);
            }
            if comptime!(plan.round_left) {
                value = round_bf16(value);
            }
        }
        a[inner * rows + row] = value;
    }
}

/// Fetches, and decodes, `depth` inner indices of the cube's columns.
#[cube]
fn fetch_right(
    codes: &[u32],
    table: &[f32],
    b: &mut Shared<[f32]>,
    walk: &Walk,
    start: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let columns = comptime!(plan.tile.cube[1]);
    let depth = comptime!(plan.tile.depth);
    let units = comptime!(plan.tile.units()[0] * plan.tile.units()[1]);
    let first = CUBE_POS_X as usize * columns;
    #[unroll]
    for turn in 0..comptime!(columns * depth / units) {
        let place = UNIT_POS as usize + turn * units;
        let mut column = place / depth;
        let mut inner = place % depth;
        if comptime!(plan.right == Side::Outer) {
            column = place % columns;
            inner = place / columns;
        }
        let mut value = 0.0f32;
        let (j, k) = (first + column, start + inner);
        if j < walk.n && k < walk.k {
            let mut row = walk.right_row + j;
            let mut at = walk.right_at + row * walk.right_width + k;
            if comptime!(plan.right == Side::Outer) {
                row = walk.right_row + k;
                at = walk.right_at + row * walk.right_width + j;
            }
            value = element(codes, table, at, row, walk.scale_codes_at, plan.kind);
            if comptime!(plan.masked == Masked::Right) {
                value *= mask_factor(mask, at as u32);
            }
            if comptime!(plan.round_right) {
                value = round_bf16(value);
            }
        }
        b[inner * columns + column] = value;
    }
}

/// Adds elements of the second product, each times its place's factor in a matrix of `n` columns.
#[cube]
fn add_masked(sums: &mut Array<f32>, masked: &Array<f32>, n: usize, mask: &Mask, #[comptime] tile: Tile) {
    let [unit_rows, unit_columns] = comptime!(tile.unit);
    let [across_rows, across_columns] = comptime!(tile.units());
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_Y as usize * comptime!(tile.cube[0]) + unit / across_columns;
    let column = CUBE_POS_X as usize * comptime!(tile.cube[1]) + unit % across_columns;
    #[unroll]
    for i in 0..unit_rows {
        #[unroll]
        for j in 0..unit_columns {
            let at = (row + i * across_rows) * n + column + j * across_columns;
            sums[i * unit_columns + j] += masked[i * unit_columns + j] * mask_factor(mask, at as u32);
        }
    }
}

/// Writes this unit's elements, those inside the output.
#[cube]
fn write(
    out: &mut [f32],
    sums: &Array<f32>,
    extra: &[f32],
    bias: &[f32],
    places: &Places,
    #[comptime] plan: Plan,
) {
    let [unit_rows, unit_columns] = comptime!(plan.tile.unit);
    let [across_rows, across_columns] = comptime!(plan.tile.units());
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_Y as usize * comptime!(plan.tile.cube[0]) + unit / across_columns;
    let column = CUBE_POS_X as usize * comptime!(plan.tile.cube[1]) + unit % across_columns;
    #[unroll]
    for i in 0..unit_rows {
        #[unroll]
        for j in 0..unit_columns {
            let (y, x) = (row + i * across_rows, column + j * across_columns);
            if y < places.m as usize && x < places.n as usize {
                let at = y * places.out_stride as usize + places.out_at as usize + x;
                let mut value = sums[i * unit_columns + j];
                if comptime!(plan.bias) {
                    value += bias[x];
                }
                if comptime!(plan.onto == Onto::Addend) {
                    value += extra[at];
                } else if comptime!(plan.onto == Onto::Output) {
                    value += out[at];
                } else if comptime!(plan.onto == Onto::Scaled) {
                    value += out[at] * extra[y];
                }
                out[at] = value;
            }
        }
    }
}

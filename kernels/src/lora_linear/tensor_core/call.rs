//! The op as launches of the kernels: which products, of what sizes, in what order.

use super::weight::Packed;
use super::{Kind, Masked, Onto, Plan, RUN, Side, Tile};
use crate::lora_linear::Dropout;
use crate::tensor_core::{Device, Kernel, Launch};

/// Inner indices that one cube sums where the inner axis is that of tokens.
const TOKENS_OF_A_PART: usize = 1024;

/// A matrix of f32 on the device, or a window of one.
#[derive(Clone, Debug)]
pub struct Matrix<B> {
    /// Where the elements are.
    pub buffer: B,
    /// Elements before the first.
    pub at: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// A projection on the device: its frozen weight, and the trained factors if it is adapted.
#[derive(Clone, Debug)]
pub struct Part<B> {
    weight: Right<B>,
    shape: [usize; 2],
    bias: Option<B>,
    low_rank: Option<LowRank<B>>,
}

/// Trained factors on the device.
#[derive(Clone, Debug)]
pub struct LowRank<B> {
    /// `[rank, in]`.
    pub a: B,
    /// `[out, rank]`.
    pub b: B,
    /// Rank.
    pub rank: usize,
    /// What the low-rank product is multiplied by.
    pub scale: f32,
    /// Dropout on the adapter's input.
    pub dropout: Option<Dropout>,
}

/// What the backward pass gives: the gradients of `x`, `A` and `B`.
pub struct Gradients<B> {
    /// `[tokens, in]`.
    pub dx: B,
    /// `[rank, in]` and `[out, rank]`, if the projection is adapted.
    pub factors: Option<[B; 2]>,
}

/// The right operand of a product.
#[derive(Clone, Debug)]
pub(crate) struct Right<B> {
    pub(crate) kind: Kind,
    pub(crate) codes: B,
    pub(crate) table: B,
    pub(crate) scale_codes_at: usize,
    pub(crate) at: usize,
    /// The first of its rows.
    pub(crate) row: usize,
    pub(crate) width: usize,
}

impl<B: Clone> Right<B> {
    fn floats(matrix: &Matrix<B>) -> Self {
        let Matrix { buffer, at, stride } = matrix.clone();
        let (kind, scale_codes_at, row) = (Kind::F32, 0, 0);
        Self { kind, codes: buffer.clone(), table: buffer, scale_codes_at, at, row, width: stride }
    }

    /// Copies a weight to the device.
    pub(crate) fn upload<D: Device<Buffer = B>>(device: &mut D, packed: &Packed) -> Self {
        let codes = device.upload(bytemuck::cast_slice(&packed.codes));
        let none: &[f32] = &[0.0];
        let table = if packed.table.is_empty() { none } else { &packed.table };
        let table = device.upload(bytemuck::cast_slice(table));
        let (kind, scale_codes_at, width) = (packed.kind, packed.scale_codes_at, packed.shape[1]);
        Self { kind, codes, table, scale_codes_at, at: 0, row: 0, width }
    }
}

impl<B: Clone> Part<B> {
    /// Copies a weight and its bias to the device.
    pub fn new<D: Device<Buffer = B>>(
        device: &mut D,
        packed: &Packed,
        bias: Option<&[f32]>,
        low_rank: Option<LowRank<B>>,
    ) -> Self {
        let bias = bias.map(|bias| device.upload(bytemuck::cast_slice(bias)));
        let (weight, shape) = (Right::upload(device, packed), packed.shape);
        Self { weight, shape, bias, low_rank }
    }

    /// Computes `y` into a window of a matrix, and returns `t = scale * mask(x) . A^T`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn forward<D: Device<Buffer = B>>(
        &self,
        device: &mut D,
        x: &Matrix<B>,
        tokens: usize,
        residual: Option<&B>,
        y: &Matrix<B>,
    ) -> Result<Option<Matrix<B>>, D::Error> {
        let [out, width] = self.shape;
        let mut product =
            Product::new((x, Side::Inner), (self.weight.clone(), Side::Inner), [tokens, out, width]);
        let mut kept = None;
        if let Some(LowRank { a, b, rank, scale, dropout }) = &self.low_rank {
            let t = whole(device.reserve(4 * tokens * rank), *rank);
            let a = Right::floats(&whole(a.clone(), width));
            Product {
                scale: *scale,
                ..Product::new((x, Side::Inner), (a, Side::Inner), [tokens, *rank, width])
            }
            .masked(*dropout, Masked::Left)
            .launch(device, &t)?;
            product.second = Some((t.clone(), Right::floats(&whole(b.clone(), *rank)), Side::Inner, *rank));
            kept = Some(t);
        }
        product.bias.clone_from(&self.bias);
        product.onto = residual.map_or(Added::Nothing, |residual| Added::Addend(residual.clone()));
        product.launch(device, y)?;
        Ok(kept)
    }

    /// Computes the gradients from that of `y` and from what the forward pass kept.
    ///
    /// # Errors
    /// Those of the device.
    pub fn backward<D: Device<Buffer = B>>(
        &self,
        device: &mut D,
        x: &Matrix<B>,
        kept: Option<&Matrix<B>>,
        dy: &Matrix<B>,
        tokens: usize,
    ) -> Result<Gradients<B>, D::Error> {
        let [out, width] = self.shape;
        let dx = device.reserve(4 * tokens * width);
        let sizes = [tokens, width, out];
        let mut product = Product::new((dy, Side::Inner), (self.weight.clone(), Side::Outer), sizes);
        let mut factors = None;
        if let (Some(LowRank { a, b, rank, scale, dropout }), Some(t)) = (&self.low_rank, kept) {
            let u = whole(device.reserve(4 * tokens * rank), *rank);
            let b = Right::floats(&whole(b.clone(), *rank));
            Product {
                scale: *scale,
                ..Product::new((dy, Side::Inner), (b, Side::Outer), [tokens, *rank, out])
            }
            .launch(device, &u)?;
            let a = Right::floats(&whole(a.clone(), width));
            product.second = Some((u.clone(), a, Side::Outer, *rank));
            product = product.masked(*dropout, Masked::Second);
            let (da, db) = (device.reserve(4 * rank * width), device.reserve(4 * out * rank));
            Product::new((&u, Side::Outer), (Right::floats(x), Side::Outer), [*rank, width, tokens])
                .masked(*dropout, Masked::Right)
                .launch_in_parts(device, &da)?;
            Product::new((dy, Side::Outer), (Right::floats(t), Side::Outer), [out, *rank, tokens])
                .launch_in_parts(device, &db)?;
            factors = Some([da, db]);
        }
        product.launch(device, &whole(dx.clone(), width))?;
        Ok(Gradients { dx, factors })
    }
}

/// A whole matrix with rows of `stride` elements.
pub fn whole<B>(buffer: B, stride: usize) -> Matrix<B> {
    Matrix { buffer, at: 0, stride }
}

/// What a product is added to.
#[derive(Clone, Debug)]
pub(crate) enum Added<B> {
    Nothing,
    /// A matrix that lies as the output.
    Addend(B),
    /// The output, each row times its factor.
    Scaled(B),
}

/// A product to be launched.
pub(crate) struct Product<B> {
    left: (Matrix<B>, Side),
    right: (Right<B>, Side),
    /// Rows, columns, inner axis.
    sizes: [usize; 3],
    second: Option<(Matrix<B>, Right<B>, Side, usize)>,
    scale: f32,
    dropout: Option<Dropout>,
    masked: Masked,
    onto: Added<B>,
    bias: Option<B>,
}

impl<B: Clone> Product<B> {
    pub(crate) fn new(left: (&Matrix<B>, Side), right: (Right<B>, Side), sizes: [usize; 3]) -> Self {
        let left = (left.0.clone(), left.1);
        let (second, dropout, masked, onto, bias) = (None, None, Masked::Nothing, Added::Nothing, None);
        Self { left, right, sizes, second, scale: 1.0, dropout, masked, onto, bias }
    }

    pub(crate) fn onto(self, onto: Added<B>) -> Self {
        Self { onto, ..self }
    }

    fn masked(self, dropout: Option<Dropout>, masked: Masked) -> Self {
        let masked = if dropout.is_some() { masked } else { Masked::Nothing };
        Self { dropout, masked, ..self }
    }

    fn plan(&self, multiprocessors: usize) -> Plan {
        let [m, n, k] = self.sizes;
        let line = |side: Side, rows: usize, inner: usize| if side == Side::Inner { inner } else { rows };
        let left_whole = |matrix: &Matrix<B>, len: usize| matrix.at % 4 + matrix.stride % 4 + len % RUN == 0;
        let right_whole = |right: &Right<B>, len: usize| right.at % RUN + right.width % RUN + len % RUN == 0;
        let left_whole_runs = left_whole(&self.left.0, line(self.left.1, m, k));
        let right_whole_runs = right_whole(&self.right.0, line(self.right.1, n, k));
        Plan {
            tile: Tile::of([m, n], left_whole_runs && right_whole_runs, multiprocessors),
            left: self.left.1,
            right: self.right.1,
            kind: self.right.0.kind,
            left_whole: left_whole_runs,
            right_whole: right_whole_runs,
            second: self.second.as_ref().map(|(left, right, side, rank)| {
                (*side, left_whole(left, *rank) && right_whole(right, line(*side, n, *rank)))
            }),
            masked: self.masked,
            onto: match self.onto {
                Added::Nothing => Onto::Nothing,
                Added::Addend(_) => Onto::Addend,
                Added::Scaled(_) => Onto::Scaled,
            },
            bias: self.bias.is_some(),
        }
    }

    /// Computes into a window of a matrix.
    pub(crate) fn launch<D: Device<Buffer = B>>(
        self,
        device: &mut D,
        out: &Matrix<B>,
    ) -> Result<(), D::Error> {
        let inner = self.sizes[2];
        self.launch_parts(device, out, inner, 1)
    }

    /// Computes a whole matrix whose inner axis is that of tokens: in parts, which are then added in rising order.
    fn launch_in_parts<D: Device<Buffer = B>>(self, device: &mut D, out: &B) -> Result<(), D::Error> {
        let [m, n, k] = self.sizes;
        let parts = k.div_ceil(TOKENS_OF_A_PART).max(1);
        if parts == 1 {
            return self.launch(device, &whole(out.clone(), n));
        }
        let room = device.reserve(4 * parts * m * n);
        self.launch_parts(device, &whole(room.clone(), n), TOKENS_OF_A_PART, parts)?;
        let (kernel, len) = (Kernel::sum_parts(), m * n);
        let cubes = [len.div_ceil(kernel.units()) as u32, 1, 1];
        let words = [len as u32, parts as u32];
        device.launch(&Launch { kernel, cubes, buffers: &[&room, out], floats: &[], words: &words })
    }

    fn launch_parts<D: Device<Buffer = B>>(
        self,
        device: &mut D,
        out: &Matrix<B>,
        part: usize,
        parts: usize,
    ) -> Result<(), D::Error> {
        let ([m, n, k], plan) = (self.sizes, self.plan(device.multiprocessors()));
        if m == 0 || n == 0 {
            return Ok(());
        }
        let ((left, _), (right, _)) = (&self.left, &self.right);
        let none = (left.clone(), right.clone(), Side::Inner, 0);
        let (left2, right2, _, k2) = self.second.as_ref().unwrap_or(&none);
        let (probability, key) = Dropout::of_whole_inputs(self.dropout);
        // The order of `Places`, then of `Mask`.
        let places =
            [m, n, k, part, left.at, left.stride, right.at, right.row, right.width, right.scale_codes_at];
        let others = [*k2, left2.at, left2.stride, right2.width, out.at, out.stride, m * n];
        let mut words: Vec<u32> = places.iter().chain(&others).map(|value| *value as u32).collect();
        words.extend([key as u32, (key >> 32) as u32]);
        let [rows, columns] = plan.tile.cube;
        device.launch(&Launch {
            kernel: Kernel::product(plan),
            cubes: [n.div_ceil(columns) as u32, m.div_ceil(rows) as u32, parts as u32],
            buffers: &[
                &left.buffer,
                &right.codes,
                &right.table,
                &left2.buffer,
                &right2.codes,
                match &self.onto {
                    Added::Addend(extra) | Added::Scaled(extra) => extra,
                    Added::Nothing => &left.buffer,
                },
                self.bias.as_ref().unwrap_or(&left.buffer),
                &out.buffer,
            ],
            floats: &[self.scale, probability, 1.0 / (1.0 - probability)],
            words: &words,
        })
    }
}

//! `lora_linear`, forward and backward, against its definition.

use std::path::Path;

use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage, round_to_bf16};
use seedcorn_kernels::lora_linear::Dropout;
use seedcorn_kernels::lora_linear::reference::{ReferencePart, lora_linear_reference};
use seedcorn_kernels::lora_linear::tensor_core::call::{LowRank, Matrix, Part, whole};
use seedcorn_kernels::lora_linear::tensor_core::weight::Packed;
use seedcorn_kernels::{int8, nf4};

use crate::interpreter::Interpreter;
use crate::numbers::{BF16, Compared, Dense, SUM, random};

/// How the weight is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight {
    Nf4 { double: bool },
    Int8,
    Bf16,
}

/// One call of the op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) weight: Weight,
    pub(crate) tokens: usize,
    pub(crate) width: usize,
    pub(crate) out: usize,
    pub(crate) rank: usize,
    pub(crate) bias: bool,
    pub(crate) residual: bool,
    pub(crate) dropout: Option<Dropout>,
    /// Columns of `y` before and after those of this projection.
    pub(crate) beside: [usize; 2],
    /// Whether inputs are what bf16 holds; else they are rounded by the kernels.
    pub(crate) exact: bool,
}

/// Large tiles, all sizes whole.
pub(crate) const PLAIN: Case = Case {
    weight: Weight::Nf4 { double: true },
    tokens: 128,
    width: 192,
    out: 128,
    rank: 8,
    bias: false,
    residual: false,
    dropout: None,
    beside: [0, 0],
    exact: true,
};

const DROPOUT: Option<Dropout> =
    Some(Dropout { probability: 0.25, key: 0x0123_4567_89ab_cdef, columns: None });

/// What is run, each with the multiprocessors that choose its tiles.
pub(crate) fn cases() -> Vec<(&'static str, usize, Case)> {
    let nf4 = PLAIN;
    let single = Case { weight: Weight::Nf4 { double: false }, ..PLAIN };
    let int8 = Case { weight: Weight::Int8, ..PLAIN };
    let bf16 = Case { weight: Weight::Bf16, ..PLAIN };
    let all = Case { bias: true, residual: true, dropout: DROPOUT, beside: [8, 16], ..PLAIN };
    let odd = Case { tokens: 131, width: 123, out: 45, rank: 5, beside: [3, 1], ..all };
    vec![
        ("nf4", 1, nf4),
        ("nf4_small_tiles", 1000, Case { tokens: 70, ..nf4 }),
        ("nf4_single", 1000, single),
        ("nf4_all", 1, all),
        ("nf4_odd", 1, odd),
        ("nf4_odd_small_tiles", 1000, odd),
        ("nf4_inputs_rounded", 1000, Case { exact: false, ..all }),
        ("nf4_few_tokens", 1, Case { tokens: 3, ..all }),
        ("nf4_one_token_odd", 1, Case { tokens: 1, ..odd }),
        ("nf4_many_tokens", 1, Case { tokens: 1030, width: 64, out: 24, rank: 4, ..nf4 }),
        ("int8", 1, int8),
        ("int8_odd", 1000, Case { weight: Weight::Int8, ..odd }),
        ("bf16", 1, bf16),
        ("bf16_odd", 1000, Case { weight: Weight::Bf16, ..odd }),
    ]
}

struct Inputs {
    weight: FrozenWeight,
    x: Dense,
    a: Dense,
    b: Dense,
    dy: Dense,
    bias: Vec<f32>,
    residual: Dense,
}

const SCALE: f32 = 2.0;

impl Case {
    fn inputs(&self) -> Inputs {
        let Self { tokens, width, out, rank, exact, .. } = *self;
        let stride = out + self.beside[0] + self.beside[1];
        let values = random(1, out * width, true);
        let storage = match self.weight {
            Weight::Nf4 { double } => Storage::Nf4(nf4::quantize(&values, [out, width], 64, double)),
            Weight::Int8 => Storage::Int8(int8::quantize(&values, [out, width])),
            Weight::Bf16 => Storage::Bf16(values.iter().map(|value| half::bf16::from_f32(*value)).collect()),
        };
        Inputs {
            weight: FrozenWeight::new(storage, [out, width], Compute::Bf16),
            x: Dense::random(2, [tokens, width], exact),
            a: Dense::random(3, [rank, width], exact),
            b: Dense::random(4, [out, rank], exact),
            dy: Dense::random(5, [tokens, stride], exact),
            bias: random(6, out, exact),
            residual: Dense::random(7, [tokens, stride], exact),
        }
    }

    /// Runs the op; what is compared are `y`, `dx`, `dA` and `dB`.
    pub(crate) fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String> {
        let inputs = self.inputs();
        let (tokens, rank) = (self.tokens, self.rank);
        let [before, after] = self.beside;
        let stride = before + self.out + after;
        let x = whole(device.upload_floats(&inputs.x.floats()), self.width);
        let low_rank = LowRank {
            a: device.upload_floats(&inputs.a.floats()),
            b: device.upload_floats(&inputs.b.floats()),
            rank,
            scale: SCALE,
            dropout: self.dropout,
        };
        let bias = self.bias.then_some(inputs.bias.as_slice());
        let part = Part::new(device, &Packed::new(&inputs.weight), bias, Some(low_rank));
        let residual = self.residual.then(|| device.upload_floats(&inputs.residual.floats()));
        // What lies beside the projection's columns must stay as it is.
        let start = vec![7.5; tokens * stride];
        let y = Matrix { buffer: device.upload_floats(&start), at: before, stride };
        let fault = |fault: seedcorn_ptx::Fault| fault.to_string();
        let kept = part.forward(device, &x, tokens, residual.as_ref(), &y).map_err(fault)?;
        let dy = Matrix { buffer: device.upload_floats(&inputs.dy.floats()), at: before, stride };
        let gradients = part.backward(device, &x, kept.as_ref(), &dy, tokens).map_err(fault)?;
        let [da, db] = gradients.factors.ok_or("no gradients of the factors")?;
        let mut compared = self.expected(&inputs);
        let got =
            [device.floats(y.buffer)?, device.floats(gradients.dx)?, device.floats(da)?, device.floats(db)?];
        for (compared, got) in compared.iter_mut().zip(got) {
            compared.got = got;
        }
        Ok(compared)
    }

    /// The definition, in f64, and how far a kernel may be from it.
    ///
    /// f32 sums of `k` terms err by at most `k * 2^-24` of the sum of magnitudes; `2^-16` covers the sizes here. Every
    /// rounding to bf16 adds `2^-8` of the magnitude of what it goes into: half of the last of its 8 bits.
    fn expected(&self, inputs: &Inputs) -> Vec<Compared> {
        let Inputs { x, a, b, bias, residual, weight, .. } = inputs;
        let input = if self.exact { 0.0 } else { BF16 };
        let factor = |at: usize| self.dropout.map_or(1.0, |dropout| f64::from(dropout.factor(at as u64)));
        let mask = |matrix: &Dense| matrix.map(|at, value| value * factor(at));
        let dropped = mask(x);
        let masked = if self.dropout.is_some() { BF16 } else { input };
        let dense = Dense::weight(weight);
        let dy = inputs.dy.columns(self.beside[0], self.out);
        let t = dropped.times_transposed(a).scaled(SCALE.into());
        let u = dy.times(b).scaled(SCALE.into());
        // t and u err by the rounding of their inputs, which cancels less than they do, then are rounded themselves.
        let size =
            |left: &Dense, right: &Dense| left.magnitude().times_transposed(right).scaled(SCALE.into());
        let (t_size, u_size) = (size(&dropped, &a.magnitude()), size(&dy, &b.magnitude().transposed()));
        let t_error = t.magnitude().scaled(BF16).plus(&t_size.scaled(masked + input + SUM));
        let u_error = u.magnitude().scaled(BF16).plus(&u_size.scaled(2.0 * input + SUM));

        let part = ReferencePart {
            weight,
            bias: self.bias.then_some(bias.as_slice()),
            factors: Some((&a.floats(), &b.floats(), SCALE)),
            dropout: self.dropout,
        };
        let projected = Dense::from(lora_linear_reference(&x.floats(), &part), [self.tokens, self.out]);
        let low = t.magnitude().times_transposed(&b.magnitude());
        let low_error = t_error.times_transposed(&b.magnitude());
        let main = x.magnitude().times_transposed(&dense.magnitude());
        let [before, after] = self.beside;
        let y = residual.map(|at, residual| {
            let (row, column) = (at / (before + self.out + after), at % (before + self.out + after));
            match column.checked_sub(before).filter(|column| *column < self.out) {
                Some(column) => projected.at(row, column) + if self.residual { residual } else { 0.0 },
                None => 7.5,
            }
        });
        let y_bound = y.map(|at, value| {
            let (row, column) = (at / (before + self.out + after), at % (before + self.out + after));
            column.checked_sub(before).filter(|column| *column < self.out).map_or(0.0, |column| {
                let (low, main) = (low.at(row, column), main.at(row, column));
                low_error.at(row, column) + (low + main) * input + (low + main + value.abs()) * SUM
            })
        });

        let dx = dy.times(&dense).plus(&mask(&u.times(a)));
        let dx_low = mask(&u.magnitude().times(&a.magnitude()));
        let dx_main = dy.magnitude().times(&dense.magnitude());
        let dx_bound = mask(&u_error.times(&a.magnitude())).plus(&dx_low.plus(&dx_main).scaled(input + SUM));

        let da = u.transposed_times(&dropped);
        let da_low = u.magnitude().transposed_times(&dropped.magnitude());
        let da_bound = u_error.transposed_times(&dropped.magnitude()).plus(&da_low.scaled(masked + SUM));
        let db = dy.transposed_times(&t);
        let db_low = dy.magnitude().transposed_times(&t.magnitude());
        let db_bound = dy.magnitude().transposed_times(&t_error).plus(&db_low.scaled(input + SUM));
        vec![
            Compared::new("y", y, &y_bound),
            Compared::new("dx", dx, &dx_bound),
            Compared::new("dA", da, &da_bound),
            Compared::new("dB", db, &db_bound),
        ]
    }
}

/// Runs a case and compares all of it.
pub(crate) fn check(toolkit: &Path, multiprocessors: usize, case: Case) -> Result<(), String> {
    let mut device = Interpreter::new(toolkit, multiprocessors);
    case.run(&mut device)?.iter().try_for_each(Compared::check)?;
    // The matrix unit did the work: every multiply-add of the op, in fragments of 16 x 16 x 16.
    let units = device.executed.get("wmma").copied().unwrap_or(0);
    let least = (2 * case.tokens * case.width * case.out / 4096) as u64;
    if units < least {
        Err(format!("{units} matrix instructions, expected at least {least}"))
    } else {
        Ok(())
    }
}

/// Values that bf16 holds are not rounded by the kernels.
pub(crate) fn as_bf16(mut values: Vec<f32>) -> Vec<f32> {
    round_to_bf16(&mut values);
    values
}

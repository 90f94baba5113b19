//! Blocks, threads and the order of the loops, for any unit.
//!
//! A task is a stretch of rows times a stretch of columns. It packs its columns of the right operand at a depth
//! that the inner caches hold, and then takes the rows a slab at a time through all of them. The chain of each
//! output runs over the depths in rising order, through memory from one pass to the next, so that nothing here
//! changes bits: tasks may be cut by the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::scratch::with_lines;
use super::{Operand, SharedOut, Unit, View, ViewMut};

/// The fewest rows for which packing columns again, in another task, is worth it.
const TASK_ROWS: usize = 256;

/// One stretch of `k`: adds `left . right` to the output.
pub(crate) struct Segment<'a, 'l, U: Unit> {
    /// `[m, k]`.
    pub left: &'a U::Left<'l>,
    /// `[k, n]`.
    pub right: &'a Operand<'a>,
}

/// What the sums start at.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Zero.
    Zero,
    /// What is in the output.
    Kept,
    /// Rows of another matrix, a vector added to each row, or both.
    From {
        /// `[m, n]`.
        rows: Option<View<'a>>,
        /// `[n]`.
        bias: Option<&'a [f32]>,
    },
}

/// Where a product goes.
pub(crate) struct Output<'a> {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// `[m, n]`.
    pub c: ViewMut<'a>,
    /// What the sums start at.
    pub start: Start<'a>,
}

/// How the output is cut into tasks.
struct Grid {
    rows: usize,
    columns: usize,
    row_tasks: usize,
    column_tasks: usize,
}

impl Grid {
    /// `panel_bytes`: of one panel of all that is packed at once.
    fn new<U: Unit>(unit: U, m: usize, n: usize, panel_bytes: usize) -> Self {
        let width = unit.panel_columns();
        let panels = n.div_ceil(width);
        let threads = rayon::current_num_threads();
        let most = (unit.task_bytes() / panel_bytes).clamp(1, panels);
        let wanted = if threads > 1 { 4 * threads } else { 1 };
        let row_tasks = m.div_ceil(TASK_ROWS).min(wanted.div_ceil(panels.div_ceil(most))).max(1);
        // With few rows the columns are shared out more finely.
        let column_tasks = panels.div_ceil(most).max(wanted.div_ceil(row_tasks).min(panels));
        let columns = panels.div_ceil(column_tasks) * width;
        let rows = m.div_ceil(row_tasks).next_multiple_of(unit.slab_rows());
        Self { rows, columns, row_tasks: m.div_ceil(rows), column_tasks: n.div_ceil(columns) }
    }
}

/// A cut of a segment's `k`, and where its panels begin.
#[derive(Clone)]
struct Cut {
    segment: usize,
    depth: Range<usize>,
    offset: usize,
}

/// Cuts all segments and groups the cuts into passes: what is packed at once, and multiplied with one turn
/// through the output.
fn passes<U: Unit>(unit: U, segments: &[Segment<U>]) -> Vec<Vec<Cut>> {
    let mut passes: Vec<Vec<Cut>> = Vec::new();
    let mut filled = usize::MAX / 2;
    let most = unit.depth_most();
    for (segment, k) in segments.iter().map(|segment| segment.right.shape()[0]).enumerate() {
        let step = k.div_ceil(k.div_ceil(most).max(1)).next_multiple_of(unit.depth_grain()).max(1);
        for from in (0..k).step_by(step) {
            let depth = from..k.min(from + step);
            // A little more than the bound is better than another turn through the output.
            if filled + depth.len() > most + most / 4 {
                passes.push(Vec::new());
                filled = 0;
            }
            filled += depth.len().next_multiple_of(unit.depth_grain());
            passes.last_mut().expect("the first cut opens a pass").push(Cut { segment, depth, offset: 0 });
        }
    }
    passes
}

/// Computes `c = start + sum of left . right` over segments, on all threads of the current rayon pool.
///
/// # Panics
/// When `c` is too short.
pub(crate) fn product<U: Unit>(unit: U, output: Output, segments: &[Segment<U>]) {
    let Output { m, n, c: ViewMut { data, stride: ldc }, start } = output;
    if m == 0 || n == 0 {
        return;
    }
    assert!(data.len() >= (m - 1) * ldc + n, "the output is too short");
    let passes = passes(unit, segments);
    let panel_bytes =
        |pass: &Vec<Cut>| pass.iter().map(|cut| unit.panel_bytes(cut.depth.len())).sum::<usize>();
    let deepest = passes.iter().map(panel_bytes).max().unwrap_or(0).max(1);
    let grid = Grid::new(unit, m, n, deepest);
    let out = SharedOut::new(data.as_mut_ptr());
    (0..grid.row_tasks * grid.column_tasks).into_par_iter().for_each(|task| {
        let (row, column) = (task / grid.column_tasks * grid.rows, task % grid.column_tasks * grid.columns);
        let (rows, columns) = (row..m.min(row + grid.rows), column..n.min(column + grid.columns));
        let panels = columns.len().div_ceil(unit.panel_columns());
        let session = unit.begin();
        let slabs =
            || rows.clone().step_by(unit.slab_rows()).map(|row| row..rows.end.min(row + unit.slab_rows()));
        if passes.is_empty() {
            slabs().for_each(|slab| clear(start, &slab, &columns, out, ldc));
        }
        with_lines(panels * deepest, |lines| {
            for (turn, pass) in passes.iter().enumerate() {
                let mut pass = pass.clone();
                let mut offset = 0;
                for cut in &mut pass {
                    cut.offset = offset;
                    let size = panels * unit.panel_bytes(cut.depth.len());
                    let lines = lines.bytes_mut(offset..offset + size);
                    unit.pack(segments[cut.segment].right, cut.depth.clone(), columns.clone(), lines);
                    offset += size;
                }
                for slab in slabs() {
                    let add = turn > 0 || begin(start, &slab, &columns, out, ldc);
                    let c = out.at(slab.start * ldc + columns.start);
                    let cuts = pass.iter().map(|cut| {
                        (segments[cut.segment].left, cut.depth.clone(), lines.bytes(cut.offset..))
                    });
                    // SAFETY: the length of `c` was checked, tasks do not overlap, and the panels were
                    // just packed.
                    unsafe { unit.slab(&session, cuts, slab, columns.len(), c, ldc, add) };
                }
            }
        });
    });
}

/// Writes what the sums of a slab start at; returns whether there is something to add to.
fn begin(start: Start, rows: &Range<usize>, columns: &Range<usize>, out: SharedOut, ldc: usize) -> bool {
    let Start::From { rows: from, bias } = start else { return matches!(start, Start::Kept) };
    for row in rows.clone() {
        // SAFETY: `product` checked that `c` holds this row and these columns, which are this task's.
        let c = unsafe { std::slice::from_raw_parts_mut(out.at(row * ldc + columns.start), columns.len()) };
        match from {
            Some(view) => c.copy_from_slice(&view.data[row * view.stride..][columns.clone()]),
            None => c.fill(0.0),
        }
        if let Some(bias) = bias {
            c.iter_mut().zip(&bias[columns.clone()]).for_each(|(c, bias)| *c += bias);
        }
    }
    true
}

/// Writes a slab where there is nothing to multiply.
fn clear(start: Start, rows: &Range<usize>, columns: &Range<usize>, out: SharedOut, ldc: usize) {
    if begin(start, rows, columns, out, ldc) {
        return;
    }
    for row in rows.clone() {
        // SAFETY: as in `begin`.
        unsafe { std::slice::from_raw_parts_mut(out.at(row * ldc + columns.start), columns.len()) }.fill(0.0);
    }
}

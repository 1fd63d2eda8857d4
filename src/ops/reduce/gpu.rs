//! Dispatch of `shaders/reduce/{norm,sum_rows,add_rows}.wgsl`: repeated passes over fewer and fewer partial results.

use super::{Norm, ReductionKind, vector};
use crate::Result;
use crate::gpu::{Context, Dispatch, Operand, Span, kernels, parameters, pieces};
use crate::math::Onto;
use crate::ops::elementwise::gpu::accumulate;
use crate::tensor::{Tensor, View};

parameters!(NormParameters { count: u32, x_base: u32, partial_base: u32, root: u32 });
parameters!(SumRowsParameters {
    rows: u32,
    columns: u32,
    first_column: u32,
    chunk: u32,
    x_base: u32,
    partial_base: u32,
});

parameters!(AddRowsParameters {
    count: u32,
    rows: u32,
    columns: u32,
    first_column: u32,
    x_base: u32,
    y_base: u32
});

kernels! {
    NORM: "reduce/norm" {
        parameters: NormParameters,
        constants: [("FUNCTION", 4)],
        bindings: [Read, Write],
    }
    SUM_ROWS: "reduce/sum_rows" {
        parameters: SumRowsParameters,
        bindings: [Read, Write],
    }
    ADD_ROWS: "reduce/add_rows" {
        uses: ["lib/elements"],
        parameters: AddRowsParameters,
        bindings: [Read, Write],
    }
}

/// Elements that one workgroup of `reduce/norm.wgsl` reduces to one value.
const CHUNK: usize = 4096;
/// Rows that one workgroup of `reduce/sum_rows.wgsl` reduces to one row.
const CHUNK_ROWS: usize = 256;
const GROUP_COLUMNS: usize = 64;
/// The most rows per workgroup, and per dispatch of `reduce/add_rows.wgsl`.
const MOST_ROWS: usize = 4096;

pub(super) fn reduce(context: &Context, x: View<'_>, reduction: ReductionKind) -> Result<Tensor> {
    let (first, then, root) = match reduction {
        ReductionKind::Sum => (0, 0, false),
        ReductionKind::Norm(Norm::L1) => (1, 0, false),
        ReductionKind::Squares => (2, 0, false),
        ReductionKind::Norm(Norm::L2) => (2, 0, true),
        ReductionKind::Norm(Norm::Infinity) => (3, 3, false),
    };
    let mut partial = norm_pass(context, x, first, root)?;
    while partial.shape().elements() > 1 {
        partial = norm_pass(context, partial.view(), then, root)?;
    }
    Ok(partial)
}

fn norm_pass(context: &Context, x: View<'_>, function: u32, root: bool) -> Result<Tensor> {
    let count = x.shape().elements();
    let limits = context.limits();
    // Whole chunks, or less than one chunk where a binding is smaller than that.
    let whole = limits.binding_elements / CHUNK * CHUNK;
    let largest = if whole == 0 { limits.binding_elements } else { whole.min(limits.workgroups * CHUNK) };
    let groups = |elements: usize| elements.div_ceil(CHUNK);
    let total = pieces(count, largest).map(|piece| groups(piece.len())).sum();
    let partial = vector(x.device(), context, &[total])?;
    let mut done = 0;
    for piece in pieces(count, largest) {
        let sums = groups(piece.len());
        let from = context.bind(x.span().slice(piece.clone()))?;
        let to = context.bind(partial.view().span().slice(done..done + sums))?;
        context.dispatch(Dispatch {
            kernel: &NORM,
            constants: &[function],
            parameters: NormParameters {
                count: piece.len() as u32,
                x_base: from.base,
                partial_base: to.base,
                // Only the last pass, whose result is one value, computes the root.
                root: (root && total == 1).into(),
            },
            bindings: &[from, to],
            grid: [sums, 1, 1],
        })?;
        done += sums;
    }
    Ok(partial)
}

pub(super) fn sum_rows(context: &Context, x: View<'_>) -> Result<Tensor> {
    let columns = x.shape().last();
    if context.limits().binding_elements < 2 * columns {
        return sum_wide_rows(context, x);
    }
    let mut partial = sum_rows_pass(context, x, CHUNK_ROWS)?;
    while partial.shape().rows() > 1 {
        partial = sum_rows_pass(context, partial.view(), CHUNK_ROWS)?;
    }
    partial.reshape(&[columns])
}

/// Sums rows of which no two fit a binding, by adding row after row to the first.
fn sum_wide_rows(context: &Context, x: View<'_>) -> Result<Tensor> {
    let sum = vector(x.device(), context, &[x.shape().last()])?;
    let rows = x.matrix()?;
    for row in 0..x.shape().rows() {
        let onto = if row == 0 { Onto::Nothing } else { Onto::Previous };
        accumulate(context, rows.entry(row)?.span(), sum.view().span(), 1.0, onto)?;
    }
    Ok(sum)
}

pub(super) fn block_sums(context: &Context, x: View<'_>, block: usize) -> Result<Tensor> {
    let (rows, columns) = (x.shape().rows(), x.shape().last());
    // The order of a block's sum does not depend on the number of blocks or on the block's position.
    if block <= MOST_ROWS && block * columns <= context.limits().binding_elements {
        return sum_rows_pass(context, x, block);
    }
    let mut sums = vector(x.device(), context, &[rows.div_ceil(block), columns])?;
    let x = x.matrix()?;
    for (index, rows) in pieces(rows, block).enumerate() {
        let sum = sum_rows(context, x.outer(rows)?)?;
        accumulate(context, sum.view().span(), sums.view_mut()?.entry(index)?.span(), 1.0, Onto::Nothing)?;
    }
    Ok(sums)
}

/// target += x_r for each row r of x, from the last to the first.
pub(super) fn add_rows(context: &Context, x: View<'_>, target: Span<'_>) -> Result<()> {
    let (rows, columns) = (x.shape().rows(), x.shape().last());
    let limits = context.limits();
    let y = context.bind(target)?;
    let fitting = (limits.binding_elements / columns).clamp(1, MOST_ROWS);
    let blocks: Vec<_> = pieces(rows, fitting).collect();
    for piece in blocks.into_iter().rev() {
        let from = context.bind(x.span().slice(piece.start * columns..piece.end * columns))?;
        let operands = [from, y].map(Operand::All);
        context.elementwise(&ADD_ROWS, &[], columns, operands, |block, [x_base, y_base]| {
            AddRowsParameters {
                count: block.len() as u32,
                rows: piece.len() as u32,
                columns: columns as u32,
                first_column: block.start as u32,
                x_base,
                y_base,
            }
        })?;
    }
    Ok(())
}

/// Sums each group of `chunk` rows.
fn sum_rows_pass(context: &Context, x: View<'_>, chunk: usize) -> Result<Tensor> {
    let (rows, columns) = (x.shape().rows(), x.shape().last());
    let limits = context.limits();
    let fitting = (limits.binding_elements / columns).max(1);
    let whole = fitting / chunk * chunk;
    let largest = if whole == 0 { fitting } else { whole.min(limits.workgroups * chunk) };
    let groups = |rows: usize| rows.div_ceil(chunk);
    let total = pieces(rows, largest).map(|piece| groups(piece.len())).sum();
    let partial = vector(x.device(), context, &[total, columns])?;
    let mut done = 0;
    for piece in pieces(rows, largest) {
        let sums = groups(piece.len());
        let from = context.bind(x.span().slice(piece.start * columns..piece.end * columns))?;
        let to = context.bind(partial.view().span().slice(done * columns..(done + sums) * columns))?;
        for block in pieces(columns, limits.workgroups * GROUP_COLUMNS) {
            context.dispatch(Dispatch {
                kernel: &SUM_ROWS,
                constants: &[],
                parameters: SumRowsParameters {
                    rows: piece.len() as u32,
                    columns: columns as u32,
                    first_column: block.start as u32,
                    chunk: chunk as u32,
                    x_base: from.base,
                    partial_base: to.base,
                },
                bindings: &[from, to],
                grid: [block.len().div_ceil(GROUP_COLUMNS), sums, 1],
            })?;
        }
        done += sums;
    }
    Ok(partial)
}

//! Dispatch of `shaders/softmax/{softmax,softmax_backward}.wgsl`.

use super::Kind;
use crate::gpu::{Context, Dispatch, RowReduction, Span, kernel, parameters, pieces};
use crate::{Error, Result};

parameters!(SoftmaxParameters { rows: u32, columns: u32, x_base: u32, y_base: u32 });
parameters!(SoftmaxBackwardParameters { rows: u32, columns: u32, y_base: u32, d_y_base: u32, d_x_base: u32 });

kernel!(SOFTMAX: "softmax/softmax" {
    files: ["lib/math", "lib/row_reduction", "softmax/softmax"],
    parameters: SoftmaxParameters,
    constants: [("LANE_BITS", 9), ("LOGARITHM", 2)],
    bindings: [Read, Write],
});

kernel!(SOFTMAX_BACKWARD: "softmax/softmax_backward" {
    files: ["lib/math", "lib/row_reduction", "softmax/softmax_backward"],
    parameters: SoftmaxBackwardParameters,
    constants: [("LANE_BITS", 9), ("LOGARITHM", 2)],
    bindings: [Read, Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&SOFTMAX, &SOFTMAX_BACKWARD];

/// The longest row. Some software drivers silently end loops after 65,536 iterations, and a shader runs up to four loops
/// over a row, 256 columns per iteration.
const MAX_COLUMNS: usize = 1 << 22;

/// How the invocations of a workgroup are divided among rows of `columns` elements.
///
/// # Errors
/// [`Error::ExceedsLimit`] for a row that is too long for one workgroup.
pub(crate) fn row_reduction(context: &Context, columns: usize) -> Result<RowReduction> {
    if columns > MAX_COLUMNS {
        return Err(Error::ExceedsLimit {
            what: "one row of a softmax (classes)".into(),
            needed: columns as u64,
            limit: MAX_COLUMNS as u64,
        });
    }
    Ok(RowReduction::new(context, columns))
}

pub(super) fn forward(context: &Context, spans: [Span<'_>; 2], columns: usize, kind: Kind) -> Result<()> {
    let reduction = row_reduction(context, columns)?;
    for piece in pieces(spans[0].len() / columns, reduction.rows_at_once(context)) {
        let rows = piece.start * columns..piece.end * columns;
        let x = context.bind(spans[0].slice(rows.clone()))?;
        let y = context.bind(spans[1].slice(rows))?;
        context.dispatch(Dispatch {
            kernel: &SOFTMAX,
            constants: &[reduction.constant(), u32::from(kind == Kind::LogSoftmax)],
            parameters: SoftmaxParameters {
                rows: piece.len() as u32,
                columns: columns as u32,
                x_base: x.base,
                y_base: y.base,
            },
            bindings: &[x, y],
            grid: reduction.grid(piece.len()),
        })?;
    }
    Ok(())
}

/// Spans are y, dy and dx.
pub(super) fn backward(context: &Context, spans: [Span<'_>; 3], columns: usize, kind: Kind) -> Result<()> {
    let reduction = row_reduction(context, columns)?;
    for piece in pieces(spans[0].len() / columns, reduction.rows_at_once(context)) {
        let rows = piece.start * columns..piece.end * columns;
        let y = context.bind(spans[0].slice(rows.clone()))?;
        let d_y = context.bind(spans[1].slice(rows.clone()))?;
        let d_x = context.bind(spans[2].slice(rows))?;
        context.dispatch(Dispatch {
            kernel: &SOFTMAX_BACKWARD,
            constants: &[reduction.constant(), u32::from(kind == Kind::LogSoftmax)],
            parameters: SoftmaxBackwardParameters {
                rows: piece.len() as u32,
                columns: columns as u32,
                y_base: y.base,
                d_y_base: d_y.base,
                d_x_base: d_x.base,
            },
            bindings: &[y, d_y, d_x],
            grid: reduction.grid(piece.len()),
        })?;
    }
    Ok(())
}

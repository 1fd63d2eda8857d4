//! Dispatch of `shaders/{softmax,softmax_backward}.wgsl`: one workgroup a row.

use super::Kind;
use crate::gpu::{Context, Dispatch, Span, kernel, parameters, pieces};
use crate::{Error, Result};

parameters!(SoftmaxParameters { columns: u32, x_base: u32, y_base: u32 });
parameters!(SoftmaxBackwardParameters { columns: u32, y_base: u32, d_y_base: u32, d_x_base: u32 });

kernel!(SOFTMAX: "softmax" {
    files: ["math", "row_reduction", "softmax"],
    parameters: SoftmaxParameters,
    constants: [("LOGARITHM", 2)],
    bindings: [Read, Write],
});

kernel!(SOFTMAX_BACKWARD: "softmax_backward" {
    files: ["math", "row_reduction", "softmax_backward"],
    parameters: SoftmaxBackwardParameters,
    constants: [("LOGARITHM", 2)],
    bindings: [Read, Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&SOFTMAX, &SOFTMAX_BACKWARD];

/// The longest row: some software drivers end any loop after 65,536 turns without a word, and a shader runs at most
/// four loops of 256 columns a turn over a row.
const MAX_COLUMNS: usize = 1 << 22;

/// How many rows of `columns` elements one dispatch may take.
///
/// # Errors
/// [`Error::ExceedsLimit`] for a row that no workgroup gets through.
pub(crate) fn rows_at_once(context: &Context, columns: usize) -> Result<usize> {
    if columns > MAX_COLUMNS {
        return Err(Error::ExceedsLimit {
            what: "one row of a softmax (classes)".into(),
            needed: columns as u64,
            limit: MAX_COLUMNS as u64,
        });
    }
    Ok((context.limits().binding_elements / columns).clamp(1, context.limits().workgroups))
}

pub(super) fn forward(context: &Context, spans: [Span<'_>; 2], columns: usize, kind: Kind) -> Result<()> {
    for piece in pieces(spans[0].len() / columns, rows_at_once(context, columns)?) {
        let rows = piece.start * columns..piece.end * columns;
        let x = context.bind(spans[0].slice(rows.clone()))?;
        let y = context.bind(spans[1].slice(rows))?;
        context.dispatch(Dispatch {
            kernel: &SOFTMAX,
            constants: &[u32::from(kind == Kind::LogSoftmax)],
            parameters: SoftmaxParameters { columns: columns as u32, x_base: x.base, y_base: y.base },
            bindings: &[x, y],
            grid: [piece.len(), 1, 1],
        })?;
    }
    Ok(())
}

/// Spans are y, dy and dx.
pub(super) fn backward(context: &Context, spans: [Span<'_>; 3], columns: usize, kind: Kind) -> Result<()> {
    for piece in pieces(spans[0].len() / columns, rows_at_once(context, columns)?) {
        let rows = piece.start * columns..piece.end * columns;
        let y = context.bind(spans[0].slice(rows.clone()))?;
        let d_y = context.bind(spans[1].slice(rows.clone()))?;
        let d_x = context.bind(spans[2].slice(rows))?;
        context.dispatch(Dispatch {
            kernel: &SOFTMAX_BACKWARD,
            constants: &[u32::from(kind == Kind::LogSoftmax)],
            parameters: SoftmaxBackwardParameters {
                columns: columns as u32,
                y_base: y.base,
                d_y_base: d_y.base,
                d_x_base: d_x.base,
            },
            bindings: &[y, d_y, d_x],
            grid: [piece.len(), 1, 1],
        })?;
    }
    Ok(())
}

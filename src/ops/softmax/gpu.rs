//! Dispatch of `shaders/softmax/{softmax,softmax_backward}.wgsl`.

use super::SoftmaxKind;
use crate::gpu::{Context, RowOperand, RowReduction, Span, kernels, parameters};
use crate::{Error, Result};

parameters!(SoftmaxParameters { rows: u32, columns: u32, x_base: u32, y_base: u32 });
parameters!(SoftmaxBackwardParameters { rows: u32, columns: u32, y_base: u32, d_y_base: u32, d_x_base: u32 });

kernels! {
    SOFTMAX: "softmax/softmax" {
        uses: ["lib/math", "lib/row_reduction"],
        parameters: SoftmaxParameters,
        constants: [("LANE_BITS", 9), ("LOGARITHM", 2)],
        bindings: [Read, Write],
    }
    SOFTMAX_BACKWARD: "softmax/softmax_backward" {
        uses: ["lib/math", "lib/row_reduction"],
        parameters: SoftmaxBackwardParameters,
        constants: [("LANE_BITS", 9), ("LOGARITHM", 2)],
        bindings: [Read, Read, Write],
    }
}

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

pub(super) fn forward(
    context: &Context,
    spans: [Span<'_>; 2],
    columns: usize,
    kind: SoftmaxKind,
) -> Result<()> {
    let (constants, rows) = ([u32::from(kind == SoftmaxKind::LogSoftmax)], spans[0].len() / columns);
    let operands = spans.map(|span| RowOperand::Each(span, columns));
    let reduction = row_reduction(context, columns)?;
    reduction.dispatch(context, &SOFTMAX, &constants, rows, operands, |piece, [x_base, y_base]| {
        SoftmaxParameters { rows: piece.len() as u32, columns: columns as u32, x_base, y_base }
    })
}

/// Spans are y, dy and dx.
pub(super) fn backward(
    context: &Context,
    spans: [Span<'_>; 3],
    columns: usize,
    kind: SoftmaxKind,
) -> Result<()> {
    let (constants, rows) = ([u32::from(kind == SoftmaxKind::LogSoftmax)], spans[0].len() / columns);
    let operands = spans.map(|span| RowOperand::Each(span, columns));
    let reduction = row_reduction(context, columns)?;
    reduction.dispatch(context, &SOFTMAX_BACKWARD, &constants, rows, operands, |piece, bases| {
        let [y_base, d_y_base, d_x_base] = bases;
        let (rows, columns) = (piece.len() as u32, columns as u32);
        SoftmaxBackwardParameters { rows, columns, y_base, d_y_base, d_x_base }
    })
}

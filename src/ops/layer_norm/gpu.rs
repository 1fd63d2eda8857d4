//! Dispatch of `shaders/norm/{layer_norm,layer_norm_backward}.wgsl`, once per group of columns.

use super::LAYER_NORM_EPSILON;
use crate::Result;
use crate::gpu::{Context, Dispatch, RowReduction, Span, kernels, parameters, pieces};

parameters!(LayerNormParameters {
    rows: u32,
    width: u32,
    first: u32,
    columns: u32,
    epsilon: f32,
    x_base: u32,
    gain_base: u32,
    shift_base: u32,
    y_base: u32,
});
parameters!(LayerNormBackwardParameters {
    rows: u32,
    width: u32,
    first: u32,
    columns: u32,
    epsilon: f32,
    x_base: u32,
    gain_base: u32,
    d_y_base: u32,
    d_x_base: u32,
    terms_base: u32,
});

kernels! {
    LAYER_NORM: "norm/layer_norm" {
        uses: ["lib/row_reduction"],
        parameters: LayerNormParameters,
        constants: [("LANE_BITS", 9), ("SHIFTED", 2)],
        bindings: [Read, Read, Read, Write],
    }
    LAYER_NORM_BACKWARD: "norm/layer_norm_backward" {
        uses: ["lib/row_reduction"],
        parameters: LayerNormBackwardParameters,
        constants: [("LANE_BITS", 9)],
        bindings: [Read, Read, Read, Write, Write],
    }
}

/// Each group of columns with its first column.
fn places(groups: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    groups.iter().scan(0, |next, &columns| {
        let first = *next;
        *next += columns;
        Some((first, columns))
    })
}

/// Spans are x, gain and y.
pub(super) fn forward(
    context: &Context,
    [x, gain, y]: [Span<'_>; 3],
    shift: Option<Span<'_>>,
    groups: &[usize],
) -> Result<()> {
    let width = gain.len();
    let reduction = RowReduction::new(context, width);
    let gain = context.bind(gain)?;
    let shift = shift.map(|shift| context.bind(shift)).transpose()?;
    for piece in pieces(x.len() / width, reduction.rows_at_once(context)) {
        let rows = piece.start * width..piece.end * width;
        let (x, y) = (context.bind(x.slice(rows.clone()))?, context.bind(y.slice(rows))?);
        for (first, columns) in places(groups) {
            context.dispatch(Dispatch {
                kernel: &LAYER_NORM,
                constants: &[reduction.constant(), shift.is_some().into()],
                parameters: LayerNormParameters {
                    rows: piece.len() as u32,
                    width: width as u32,
                    first: first as u32,
                    columns: columns as u32,
                    epsilon: LAYER_NORM_EPSILON,
                    x_base: x.base,
                    gain_base: gain.base,
                    shift_base: shift.map_or(0, |bound| bound.base),
                    y_base: y.base,
                },
                // Without a shift the gain is bound in its place; the shader does not read it.
                bindings: &[x, gain, shift.unwrap_or(gain), y],
                grid: reduction.grid(piece.len()),
            })?;
        }
    }
    Ok(())
}

/// Computes from x, gain and dy the gradient dx and each row's term of the gain's gradient.
pub(super) fn backward(
    context: &Context,
    [x, gain, d_y]: [Span<'_>; 3],
    result: [Span<'_>; 2],
    groups: &[usize],
) -> Result<()> {
    let width = gain.len();
    let reduction = RowReduction::new(context, width);
    let gain = context.bind(gain)?;
    for piece in pieces(x.len() / width, reduction.rows_at_once(context)) {
        let rows = piece.start * width..piece.end * width;
        let [x, d_y, d_x, terms] =
            [x, d_y, result[0], result[1]].map(|span| context.bind(span.slice(rows.clone())));
        let (x, d_y, d_x, terms) = (x?, d_y?, d_x?, terms?);
        for (first, columns) in places(groups) {
            context.dispatch(Dispatch {
                kernel: &LAYER_NORM_BACKWARD,
                constants: &[reduction.constant()],
                parameters: LayerNormBackwardParameters {
                    rows: piece.len() as u32,
                    width: width as u32,
                    first: first as u32,
                    columns: columns as u32,
                    epsilon: LAYER_NORM_EPSILON,
                    x_base: x.base,
                    gain_base: gain.base,
                    d_y_base: d_y.base,
                    d_x_base: d_x.base,
                    terms_base: terms.base,
                },
                bindings: &[x, gain, d_y, d_x, terms],
                grid: reduction.grid(piece.len()),
            })?;
        }
    }
    Ok(())
}

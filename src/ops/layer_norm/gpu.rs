//! Dispatch of `shaders/norm/{layer_norm,layer_norm_backward}.wgsl`, once per group of columns.

use super::LAYER_NORM_EPSILON;
use crate::Result;
use crate::gpu::{Context, RowOperand, RowReduction, Span, kernels, parameters};

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
    // Without a shift the gain is bound in its place; the shader does not read it.
    let [all_gain, all_shift] = [gain, shift.unwrap_or(gain)].map(RowOperand::All);
    let operands = [RowOperand::Each(x, width), all_gain, all_shift, RowOperand::Each(y, width)];
    let constants = [shift.is_some().into()];
    for (first, columns) in places(groups) {
        reduction.dispatch(context, &LAYER_NORM, &constants, x.len() / width, operands, |piece, bases| {
            let [x_base, gain_base, shift_base, y_base] = bases;
            LayerNormParameters {
                rows: piece.len() as u32,
                width: width as u32,
                first: first as u32,
                columns: columns as u32,
                epsilon: LAYER_NORM_EPSILON,
                x_base,
                gain_base,
                shift_base,
                y_base,
            }
        })?;
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
    let gain = RowOperand::All(context.bind(gain)?);
    let [x_rows, d_y, d_x, terms] = [x, d_y, result[0], result[1]].map(|span| RowOperand::Each(span, width));
    let operands = [x_rows, gain, d_y, d_x, terms];
    for (first, columns) in places(groups) {
        reduction.dispatch(
            context,
            &LAYER_NORM_BACKWARD,
            &[],
            x.len() / width,
            operands,
            |piece, bases| {
                let [x_base, gain_base, d_y_base, d_x_base, terms_base] = bases;
                LayerNormBackwardParameters {
                    rows: piece.len() as u32,
                    width: width as u32,
                    first: first as u32,
                    columns: columns as u32,
                    epsilon: LAYER_NORM_EPSILON,
                    x_base,
                    gain_base,
                    d_y_base,
                    d_x_base,
                    terms_base,
                }
            },
        )?;
    }
    Ok(())
}

//! Dispatch of `shaders/elementwise/permute.wgsl`. Where x is larger than a binding, each section of y is dispatched once
//! per section of x and copies the elements that lie there.

use crate::Result;
use crate::gpu::{Context, Operand, kernels, parameters, pieces};
use crate::shape::MAX_RANK;
use crate::tensor::View;

parameters!(PermuteParameters {
    count: u32,
    /// The offsets of the bound sections in all of y and in all of x.
    y_first: u32,
    x_first: u32,
    x_count: u32,
    x_base: u32,
    y_base: u32,
    size1: u32,
    size2: u32,
    size3: u32,
    stride0: u32,
    stride1: u32,
    stride2: u32,
    stride3: u32,
});

kernels! {
    PERMUTE: "elementwise/permute" {
        uses: ["lib/elements"],
        parameters: PermuteParameters,
        bindings: [Read, Write],
    }
}

pub(super) fn permute(context: &Context, x: View<'_>, y: View<'_>, axes: &[usize]) -> Result<()> {
    let sizes = x.shape().dimensions();
    let stride = |axis: usize| sizes[axis + 1..].iter().product::<usize>() as u32;
    // Missing outer dimensions have size one.
    let missing = MAX_RANK - axes.len();
    let mut y_sizes = [1; MAX_RANK];
    let mut strides = [0; MAX_RANK];
    for (place, &axis) in axes.iter().enumerate() {
        y_sizes[missing + place] = sizes[axis] as u32;
        strides[missing + place] = stride(axis);
    }
    let count = y.shape().elements();
    for x_piece in pieces(x.shape().elements(), context.limits().binding_elements) {
        let from = context.bind(x.span().slice(x_piece.clone()))?;
        let operands = [Operand::All(from), Operand::Each(y.span())];
        context.elementwise(&PERMUTE, &[], count, operands, |y_piece, [x_base, y_base]| {
            PermuteParameters {
                count: y_piece.len() as u32,
                y_first: y_piece.start as u32,
                x_first: x_piece.start as u32,
                x_count: x_piece.len() as u32,
                x_base,
                y_base,
                size1: y_sizes[1],
                size2: y_sizes[2],
                size3: y_sizes[3],
                stride0: strides[0],
                stride1: strides[1],
                stride2: strides[2],
                stride3: strides[3],
            }
        })?;
    }
    Ok(())
}

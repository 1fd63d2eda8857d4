//! Dispatch of `shaders/elementwise/zero_padding.wgsl`.

use crate::Result;
use crate::gpu::{Context, Operand, Span, kernels, parameters};

parameters!(ZeroPaddingParameters {
    count: u32,
    /// The offset in all of x of the first element of this dispatch.
    first: u32,
    rows: u32,
    features: u32,
    x_base: u32,
    lengths_base: u32,
    y_base: u32,
});

kernels! {
    ZERO_PADDING: "elementwise/zero_padding" {
        uses: ["lib/elements"],
        parameters: ZeroPaddingParameters,
        bindings: [Read, Read, Write],
    }
}

pub(super) fn zero_padding(
    context: &Context,
    x: Span<'_>,
    lengths: Span<'_>,
    [rows, features]: [usize; 2],
    y: Span<'_>,
) -> Result<()> {
    let operands = [Operand::Each(x), Operand::All(context.bind(lengths)?), Operand::Each(y)];
    context.elementwise(&ZERO_PADDING, &[], x.len(), operands, |piece, [x_base, lengths_base, y_base]| {
        ZeroPaddingParameters {
            count: piece.len() as u32,
            first: piece.start as u32,
            rows: rows as u32,
            features: features as u32,
            x_base,
            lengths_base,
            y_base,
        }
    })
}

//! Dispatch of `shaders/elementwise/zero_padding.wgsl`.

use crate::Result;
use crate::gpu::{Context, Dispatch, ELEMENTWISE_GROUP, Span, kernel, parameters, pieces};

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

kernel!(ZERO_PADDING: "elementwise/zero_padding" {
    files: ["elementwise/zero_padding"],
    parameters: ZeroPaddingParameters,
    constants: [],
    bindings: [Read, Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&ZERO_PADDING];

pub(super) fn zero_padding(
    context: &Context,
    x: Span<'_>,
    lengths: Span<'_>,
    [rows, features]: [usize; 2],
    y: Span<'_>,
) -> Result<()> {
    let lengths = context.bind(lengths)?;
    for piece in pieces(x.len(), context.limits().elements(ELEMENTWISE_GROUP)) {
        let from = context.bind(x.slice(piece.clone()))?;
        let to = context.bind(y.slice(piece.clone()))?;
        context.dispatch(Dispatch {
            kernel: &ZERO_PADDING,
            constants: &[],
            parameters: ZeroPaddingParameters {
                count: piece.len() as u32,
                first: piece.start as u32,
                rows: rows as u32,
                features: features as u32,
                x_base: from.base,
                lengths_base: lengths.base,
                y_base: to.base,
            },
            bindings: &[from, lengths, to],
            grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
        })?;
    }
    Ok(())
}

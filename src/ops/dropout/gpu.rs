//! Dispatch of `shaders/elementwise/dropout.wgsl`: one invocation computes four consecutive elements.

use super::Mask;
use crate::Result;
use crate::gpu::{Context, Dispatch, ELEMENTWISE_GROUP, Span, kernels, parameters, pieces};
use crate::math::Onto;

parameters!(DropoutParameters {
    count: u32,
    /// The index of the first element in the mask.
    first: u32,
    period: u32,
    threshold: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
    scale: f32,
    add: u32,
    x_base: u32,
    y_base: u32,
});

kernels! {
    DROPOUT: "elementwise/dropout" {
        uses: ["lib/philox"],
        parameters: DropoutParameters,
        bindings: [Read, Write],
    }
}

/// Elements per invocation: the numbers of one Philox block.
const NEIGHBOURS: usize = 4;

pub(super) fn dropout(context: &Context, x: Span<'_>, mask: Mask, y: Span<'_>, onto: Onto) -> Result<()> {
    let [seed_low, seed_high, stream_low, stream_high] = mask.stream.words();
    // Dispatches start at a multiple of four, where a block of random numbers starts.
    let largest = context.limits().elements(ELEMENTWISE_GROUP) / NEIGHBOURS * NEIGHBOURS;
    for piece in pieces(x.len(), largest.max(NEIGHBOURS)) {
        let from = context.bind(x.slice(piece.clone()))?;
        let to = context.bind(y.slice(piece.clone()))?;
        context.dispatch(Dispatch {
            kernel: &DROPOUT,
            constants: &[],
            parameters: DropoutParameters {
                count: piece.len() as u32,
                first: (mask.first + piece.start) as u32,
                period: mask.period,
                threshold: mask.threshold(),
                seed_low,
                seed_high,
                stream_low,
                stream_high,
                scale: (1.0 / (1.0 - f64::from(mask.rate))) as f32,
                add: (onto == Onto::Previous).into(),
                x_base: from.base,
                y_base: to.base,
            },
            bindings: &[from, to],
            grid: [piece.len().div_ceil(NEIGHBOURS * ELEMENTWISE_GROUP), 1, 1],
        })?;
    }
    Ok(())
}

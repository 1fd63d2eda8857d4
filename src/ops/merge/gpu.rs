//! Dispatch of `shaders/elementwise/merge.wgsl`, split by rows or, where a row is longer than a binding, by columns.

use std::ops::Range;

use super::Merge;
use crate::Result;
use crate::gpu::{Context, Dispatch, ELEMENTWISE_GROUP, Span, kernels, parameters, pieces};

parameters!(MergeParameters {
    count: u32,
    columns: u32,
    first_stride: u32,
    second_stride: u32,
    z_stride: u32,
    first_base: u32,
    second_base: u32,
    z_base: u32,
    factor: f32,
});

kernels! {
    MERGE: "elementwise/merge" {
        uses: ["lib/elements"],
        parameters: MergeParameters,
        constants: [("FUNCTION", 3)],
        bindings: [Read, Read, Write],
    }
}

/// How an element of the target is computed, besides the factor: first + second, first · second, or first.
const SUM: u32 = 0;
const PRODUCT: u32 = 1;
const FIRST: u32 = 2;

/// Rows of H columns with a stride.
#[derive(Clone, Copy)]
struct MergeRows<'a> {
    span: Span<'a>,
    stride: usize,
}

impl<'a> MergeRows<'a> {
    /// The half of `span` \[R, 2·H\] that starts at column `from`.
    fn half(span: Span<'a>, from: usize, columns: usize) -> Self {
        Self { span: span.slice(from..span.len()), stride: 2 * columns }
    }

    fn whole(span: Span<'a>, columns: usize) -> Self {
        Self { span, stride: columns }
    }

    /// The span from the first to the last element of a block.
    fn block(&self, rows: &Range<usize>, columns: &Range<usize>) -> Span<'a> {
        self.span.slice(rows.start * self.stride + columns.start..(rows.end - 1) * self.stride + columns.end)
    }
}

pub(super) fn merge(
    context: &Context,
    both: Span<'_>,
    columns: usize,
    mode: Merge,
    y: Span<'_>,
) -> Result<()> {
    let [forward, reverse] = [0, columns].map(|from| MergeRows::half(both, from, columns));
    let function = match mode {
        Merge::Sum => (SUM, 1.0),
        Merge::Mean => (SUM, 0.5),
        Merge::Product => (PRODUCT, 1.0),
        Merge::Concat => unreachable!("the caller copies"),
    };
    run(context, [forward, reverse, MergeRows::whole(y, columns)], columns, function)
}

/// Spans are both, dy and dboth.
pub(super) fn backward(context: &Context, spans: [Span<'_>; 3], columns: usize, mode: Merge) -> Result<()> {
    let [both, d_y, d_both] = spans;
    let function = match mode {
        Merge::Sum => (FIRST, 1.0),
        Merge::Mean => (FIRST, 0.5),
        Merge::Product => (PRODUCT, 1.0),
        Merge::Concat => unreachable!("the caller copies"),
    };
    for (own, other) in [(0, columns), (columns, 0)] {
        let other = MergeRows::half(both, other, columns);
        let target = MergeRows::half(d_both, own, columns);
        run(context, [MergeRows::whole(d_y, columns), other, target], columns, function)?;
    }
    Ok(())
}

fn run(
    context: &Context,
    [first, second, z]: [MergeRows<'_>; 3],
    columns: usize,
    (code, factor): (u32, f32),
) -> Result<()> {
    let largest = context.limits().elements(ELEMENTWISE_GROUP);
    let rows_at_once = (context.limits().binding_elements / (2 * columns)).min(largest / columns).max(1);
    for rows in pieces(z.span.len().div_ceil(z.stride), rows_at_once) {
        for columns in pieces(columns, largest) {
            let bound = [first, second, z].map(|operand| context.bind(operand.block(&rows, &columns)));
            let [first_bound, second_bound, z_bound] = bound;
            let bindings = [first_bound?, second_bound?, z_bound?];
            let count = rows.len() * columns.len();
            context.dispatch(Dispatch {
                kernel: &MERGE,
                constants: &[code],
                parameters: MergeParameters {
                    count: count as u32,
                    columns: columns.len() as u32,
                    first_stride: first.stride as u32,
                    second_stride: second.stride as u32,
                    z_stride: z.stride as u32,
                    first_base: bindings[0].base,
                    second_base: bindings[1].base,
                    z_base: bindings[2].base,
                    factor,
                },
                bindings: &bindings,
                grid: [count.div_ceil(ELEMENTWISE_GROUP), 1, 1],
            })?;
        }
    }
    Ok(())
}

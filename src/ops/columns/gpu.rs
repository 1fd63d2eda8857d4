//! Dispatch of `shaders/elementwise/columns.wgsl`.

use crate::Result;
use crate::gpu::{Context, Dispatch, ELEMENTWISE_GROUP, Span, kernels, parameters, pieces};

parameters!(ColumnsParameters {
    count: u32,
    columns: u32,
    x_width: u32,
    y_width: u32,
    x_base: u32,
    y_base: u32,
});

kernels! {
    COLUMNS: "elementwise/columns" {
        uses: ["lib/elements"],
        parameters: ColumnsParameters,
        bindings: [Read, Write],
    }
}

/// Copies `columns` columns from x, starting at column `firsts[0]`, to y at `firsts[1]`; rows have `widths` elements.
pub(super) fn copy_columns(
    context: &Context,
    [x, y]: [Span<'_>; 2],
    widths: [usize; 2],
    firsts: [usize; 2],
    columns: usize,
) -> Result<()> {
    let limits = context.limits();
    let widest = widths[0].max(widths[1]);
    let rows = (limits.binding_elements / widest).min(limits.workgroups * ELEMENTWISE_GROUP / columns).max(1);
    for piece in pieces(x.len() / widths[0], rows) {
        let [from, to] = [(x, widths[0]), (y, widths[1])]
            .map(|(span, width)| context.bind(span.slice(piece.start * width..piece.end * width)));
        let (from, to) = (from?, to?);
        let count = piece.len() * columns;
        context.dispatch(Dispatch {
            kernel: &COLUMNS,
            constants: &[],
            parameters: ColumnsParameters {
                count: count as u32,
                columns: columns as u32,
                x_width: widths[0] as u32,
                y_width: widths[1] as u32,
                x_base: from.base + firsts[0] as u32,
                y_base: to.base + firsts[1] as u32,
            },
            bindings: &[from, to],
            grid: [count.div_ceil(ELEMENTWISE_GROUP), 1, 1],
        })?;
    }
    Ok(())
}

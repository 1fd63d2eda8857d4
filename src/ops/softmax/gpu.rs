//! Dispatch of `shaders/{softmax,softmax_backward}.wgsl`: one workgroup a row.

use super::Kind;
use crate::Result;
use crate::gpu::{Access, Context, Dispatch, Kernel, Span, parameters, pieces};

parameters!(SoftmaxParameters { columns: u32, x_base: u32, y_base: u32 });
parameters!(SoftmaxBackwardParameters { columns: u32, y_base: u32, d_y_base: u32, d_x_base: u32 });

static SOFTMAX: Kernel = Kernel {
    name: "softmax",
    source: concat!(
        include_str!("../../../shaders/math.wgsl"),
        include_str!("../../../shaders/row_reduction.wgsl"),
        include_str!("../../../shaders/softmax.wgsl"),
    ),
    constants: &[("LOGARITHM", 2)],
    bindings: &[Access::Read, Access::Write],
    fields: SoftmaxParameters::FIELDS,
    parameter_bytes: size_of::<SoftmaxParameters>(),
};

static SOFTMAX_BACKWARD: Kernel = Kernel {
    name: "softmax_backward",
    source: concat!(
        include_str!("../../../shaders/math.wgsl"),
        include_str!("../../../shaders/row_reduction.wgsl"),
        include_str!("../../../shaders/softmax_backward.wgsl"),
    ),
    constants: &[("LOGARITHM", 2)],
    bindings: &[Access::Read, Access::Read, Access::Write],
    fields: SoftmaxBackwardParameters::FIELDS,
    parameter_bytes: size_of::<SoftmaxBackwardParameters>(),
};

#[cfg(test)]
pub(crate) static KERNELS: &[&Kernel] = &[&SOFTMAX, &SOFTMAX_BACKWARD];

/// How many rows of `columns` elements one dispatch may take.
pub(crate) fn rows_at_once(context: &Context, columns: usize) -> usize {
    (context.limits().binding_elements / columns).clamp(1, context.limits().workgroups)
}

pub(super) fn forward(context: &Context, spans: [Span<'_>; 2], columns: usize, kind: Kind) -> Result<()> {
    for piece in pieces(spans[0].len() / columns, rows_at_once(context, columns)) {
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
    for piece in pieces(spans[0].len() / columns, rows_at_once(context, columns)) {
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

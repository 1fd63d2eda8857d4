//! Dispatch of `shaders/{unary,unary_backward,binary,accumulate}.wgsl`.

use super::{Activation, Binary};
use crate::Result;
use crate::gpu::{Access, Context, Kernel, Span, parameters};

parameters!(UnaryParameters { count: u32, x_base: u32, y_base: u32, alpha: f32, beta: f32 });
parameters!(UnaryBackwardParameters {
    count: u32,
    x_base: u32,
    y_base: u32,
    d_y_base: u32,
    d_x_base: u32,
    alpha: f32,
    beta: f32,
});
parameters!(BinaryParameters { count: u32, a_base: u32, b_base: u32, z_base: u32, factor: f32 });
parameters!(AccumulateParameters { count: u32, x_base: u32, z_base: u32, factor: f32, keep: u32 });

static UNARY: Kernel = Kernel {
    name: "unary",
    source: concat!(
        include_str!("../../../shaders/math.wgsl"),
        include_str!("../../../shaders/activations.wgsl"),
        include_str!("../../../shaders/unary.wgsl"),
    ),
    constants: &[("FUNCTION", Activation::ALL.len() as u32)],
    bindings: &[Access::Read, Access::Write],
    fields: UnaryParameters::FIELDS,
    parameter_bytes: size_of::<UnaryParameters>(),
};

static UNARY_BACKWARD: Kernel = Kernel {
    name: "unary_backward",
    source: concat!(
        include_str!("../../../shaders/math.wgsl"),
        include_str!("../../../shaders/activations.wgsl"),
        include_str!("../../../shaders/unary_backward.wgsl"),
    ),
    constants: &[("FUNCTION", Activation::ALL.len() as u32)],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
    fields: UnaryBackwardParameters::FIELDS,
    parameter_bytes: size_of::<UnaryBackwardParameters>(),
};

static BINARY: Kernel = Kernel {
    name: "binary",
    source: include_str!("../../../shaders/binary.wgsl"),
    constants: &[("FUNCTION", 4)],
    bindings: &[Access::Read, Access::Read, Access::Write],
    fields: BinaryParameters::FIELDS,
    parameter_bytes: size_of::<BinaryParameters>(),
};

static ACCUMULATE: Kernel = Kernel {
    name: "accumulate",
    source: include_str!("../../../shaders/accumulate.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    fields: AccumulateParameters::FIELDS,
    parameter_bytes: size_of::<AccumulateParameters>(),
};

#[cfg(test)]
pub(crate) static KERNELS: &[&Kernel] = &[&UNARY, &UNARY_BACKWARD, &BINARY, &ACCUMULATE];

pub(super) fn unary(context: &Context, x: Span<'_>, function: Activation, y: Span<'_>) -> Result<()> {
    let (alpha, beta) = function.constants();
    context.elementwise(&UNARY, &[function.code()], [x, y], |count, [x_base, y_base]| UnaryParameters {
        count,
        x_base,
        y_base,
        alpha,
        beta,
    })
}

/// Spans are x, y, dy and dx.
pub(super) fn unary_backward(context: &Context, spans: [Span<'_>; 4], function: Activation) -> Result<()> {
    let (alpha, beta) = function.constants();
    let constants = [function.code()];
    context.elementwise(&UNARY_BACKWARD, &constants, spans, |count, [x_base, y_base, d_y_base, d_x_base]| {
        UnaryBackwardParameters { count, x_base, y_base, d_y_base, d_x_base, alpha, beta }
    })
}

/// Spans are a, b and z.
pub(super) fn binary(context: &Context, spans: [Span<'_>; 3], function: Binary) -> Result<()> {
    let (code, factor) = match function {
        Binary::Add => (0, 0.0),
        Binary::Sub => (1, 0.0),
        Binary::Mul => (2, 0.0),
        Binary::Axpy(factor) => (3, factor),
    };
    context.elementwise(&BINARY, &[code], spans, |count, [a_base, b_base, z_base]| BinaryParameters {
        count,
        a_base,
        b_base,
        z_base,
        factor,
    })
}

/// What becomes of a target's old values.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Old {
    Keep,
    Overwrite,
}

/// target = factor · x, or target += factor · x.
pub(crate) fn accumulate(
    context: &Context,
    x: Span<'_>,
    target: Span<'_>,
    factor: f32,
    old: Old,
) -> Result<()> {
    let keep = u32::from(old == Old::Keep);
    context.elementwise(&ACCUMULATE, &[], [x, target], |count, [x_base, z_base]| AccumulateParameters {
        count,
        x_base,
        z_base,
        factor,
        keep,
    })
}

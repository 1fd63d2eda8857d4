//! Dispatch of `shaders/elementwise/{unary,unary_backward,binary,accumulate}.wgsl`.

use super::{Activation, Binary};
use crate::Result;
use crate::gpu::{Context, Span, kernel, parameters};
use crate::math::Onto;

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

kernel!(UNARY: "elementwise/unary" {
    files: ["lib/math", "lib/activations", "elementwise/unary"],
    parameters: UnaryParameters,
    constants: [("FUNCTION", Activation::ALL.len() as u32)],
    bindings: [Read, Write],
});

kernel!(UNARY_BACKWARD: "elementwise/unary_backward" {
    files: ["lib/math", "lib/activations", "elementwise/unary_backward"],
    parameters: UnaryBackwardParameters,
    constants: [("FUNCTION", Activation::ALL.len() as u32)],
    bindings: [Read, Read, Read, Write],
});

kernel!(BINARY: "elementwise/binary" {
    files: ["elementwise/binary"],
    parameters: BinaryParameters,
    constants: [("FUNCTION", 4)],
    bindings: [Read, Read, Write],
});

kernel!(ACCUMULATE: "elementwise/accumulate" {
    files: ["elementwise/accumulate"],
    parameters: AccumulateParameters,
    constants: [],
    bindings: [Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&UNARY, &UNARY_BACKWARD, &BINARY, &ACCUMULATE];

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

/// target = factor · x, or target += factor · x.
pub(crate) fn accumulate(
    context: &Context,
    x: Span<'_>,
    target: Span<'_>,
    factor: f32,
    onto: Onto,
) -> Result<()> {
    let keep = u32::from(onto == Onto::Previous);
    context.elementwise(&ACCUMULATE, &[], [x, target], |count, [x_base, z_base]| AccumulateParameters {
        count,
        x_base,
        z_base,
        factor,
        keep,
    })
}

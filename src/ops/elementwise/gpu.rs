//! Dispatch of `shaders/elementwise/{unary,unary_backward,binary,accumulate}.wgsl`.

use super::{Activation, Binary};
use crate::Result;
use crate::gpu::{Context, Operand, Span, kernels, parameters};
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

kernels! {
    UNARY: "elementwise/unary" {
        uses: ["lib/elements", "lib/math", "lib/activations"],
        parameters: UnaryParameters,
        constants: [("FUNCTION", Activation::ALL.len() as u32)],
        bindings: [Read, Write],
    }
    UNARY_BACKWARD: "elementwise/unary_backward" {
        uses: ["lib/elements", "lib/math", "lib/activations"],
        parameters: UnaryBackwardParameters,
        constants: [("FUNCTION", Activation::ALL.len() as u32)],
        bindings: [Read, Read, Read, Write],
    }
    BINARY: "elementwise/binary" {
        uses: ["lib/elements"],
        parameters: BinaryParameters,
        constants: [("FUNCTION", 4)],
        bindings: [Read, Read, Write],
    }
    ACCUMULATE: "elementwise/accumulate" {
        uses: ["lib/elements"],
        parameters: AccumulateParameters,
        bindings: [Read, Write],
    }
}

pub(super) fn unary(context: &Context, x: Span<'_>, function: Activation, y: Span<'_>) -> Result<()> {
    let (alpha, beta) = function.constants();
    let operands = [x, y].map(Operand::Each);
    context.elementwise(&UNARY, &[function.code()], x.len(), operands, |piece, [x_base, y_base]| {
        UnaryParameters { count: piece.len() as u32, x_base, y_base, alpha, beta }
    })
}

/// Spans are x, y, dy and dx.
pub(super) fn unary_backward(context: &Context, spans: [Span<'_>; 4], function: Activation) -> Result<()> {
    let (alpha, beta) = function.constants();
    let (constants, count, operands) = ([function.code()], spans[0].len(), spans.map(Operand::Each));
    context.elementwise(&UNARY_BACKWARD, &constants, count, operands, |piece, bases| {
        let [x_base, y_base, d_y_base, d_x_base] = bases;
        let count = piece.len() as u32;
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
    let (count, operands) = (spans[0].len(), spans.map(Operand::Each));
    context.elementwise(&BINARY, &[code], count, operands, |piece, [a_base, b_base, z_base]| {
        BinaryParameters { count: piece.len() as u32, a_base, b_base, z_base, factor }
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
    let operands = [x, target].map(Operand::Each);
    context.elementwise(&ACCUMULATE, &[], x.len(), operands, |piece, [x_base, z_base]| AccumulateParameters {
        count: piece.len() as u32,
        x_base,
        z_base,
        factor,
        keep,
    })
}

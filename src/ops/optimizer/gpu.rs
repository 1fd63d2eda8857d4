//! Dispatch of `shaders/optimizer/{sgd,adam,clip}.wgsl`.

use std::ops::Range;

use super::{AdamStep, Moments, SgdStep};
use crate::Result;
use crate::gpu::{Context, Operand, Span, kernels, parameters};

parameters!(SgdParameters {
    count: u32,
    gradient_base: u32,
    parameter_base: u32,
    velocity_base: u32,
    rate: f32,
    momentum: f32,
    undamped: f32,
    decay: f32,
    /// 1: this is the first step, and the velocity is not read.
    first: u32,
    nesterov: u32,
});
parameters!(AdamParameters {
    count: u32,
    gradient_base: u32,
    parameter_base: u32,
    first_base: u32,
    second_base: u32,
    largest_base: u32,
    step: f32,
    correction: f32,
    epsilon: f32,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    decay: f32,
    shrink: f32,
    /// 1: AMSGrad.
    keep_largest: u32,
});
parameters!(ClipParameters { count: u32, gradient_base: u32, norm_base: u32, max_norm: f32 });

kernels! {
    SGD: "optimizer/sgd" {
        uses: ["lib/elements"],
        parameters: SgdParameters,
        bindings: [Read, Write, Write],
    }
    ADAM: "optimizer/adam" {
        uses: ["lib/elements", "lib/math"],
        parameters: AdamParameters,
        bindings: [Read, Write, Write, Write, Write],
    }
    CLIP: "optimizer/clip" {
        uses: ["lib/elements", "lib/math"],
        parameters: ClipParameters,
        bindings: [Read, Write],
    }
}

pub(super) fn sgd(
    context: &Context,
    parameters: Span<'_>,
    gradient: Span<'_>,
    velocity: Option<Span<'_>>,
    step: SgdStep,
) -> Result<()> {
    let velocity_operand = velocity.map_or(Operand::Absent, Operand::Each);
    let operands = [Operand::Each(gradient), Operand::Each(parameters), velocity_operand];
    let make =
        |piece: Range<usize>, [gradient_base, parameter_base, velocity_base]: [u32; 3]| SgdParameters {
            count: piece.len() as u32,
            gradient_base,
            parameter_base,
            velocity_base,
            rate: step.rate as f32,
            // The shader does not access the velocity if the momentum is zero.
            momentum: if velocity.is_some() { step.momentum as f32 } else { 0.0 },
            undamped: (1.0 - step.dampening) as f32,
            decay: step.decay as f32,
            first: step.first.into(),
            nesterov: step.nesterov.into(),
        };
    context.elementwise(&SGD, &[], parameters.len(), operands, make)
}

pub(super) fn adam(
    context: &Context,
    parameters: Span<'_>,
    gradient: Span<'_>,
    moments: &Moments<'_>,
    step: AdamStep,
) -> Result<()> {
    let largest = moments.largest.as_ref().map(|largest| largest.span());
    let [gradient, first, second] =
        [gradient, moments.first.span(), moments.second.span()].map(Operand::Each);
    let largest_operand = largest.map_or(Operand::Absent, Operand::Each);
    let operands = [gradient, Operand::Each(parameters), first, second, largest_operand];
    let power = step.count as f64;
    let make = |piece: Range<usize>, bases: [u32; 5]| AdamParameters {
        count: piece.len() as u32,
        gradient_base: bases[0],
        parameter_base: bases[1],
        first_base: bases[2],
        second_base: bases[3],
        largest_base: bases[4],
        step: (step.rate / (1.0 - step.beta1.powf(power))) as f32,
        correction: (1.0 - step.beta2.powf(power)).sqrt() as f32,
        epsilon: step.epsilon as f32,
        beta1: step.beta1 as f32,
        beta2: step.beta2 as f32,
        rest1: (1.0 - step.beta1) as f32,
        rest2: (1.0 - step.beta2) as f32,
        decay: step.decay as f32,
        shrink: (1.0 - step.rate * step.decoupled_decay) as f32,
        keep_largest: largest.is_some().into(),
    };
    context.elementwise(&ADAM, &[], parameters.len(), operands, make)
}

pub(super) fn clip(context: &Context, gradient: Span<'_>, norm: Span<'_>, max_norm: f32) -> Result<()> {
    let operands = [Operand::All(context.bind(norm)?), Operand::Each(gradient)];
    context.elementwise(&CLIP, &[], gradient.len(), operands, |piece, [norm_base, gradient_base]| {
        ClipParameters { count: piece.len() as u32, gradient_base, norm_base, max_norm }
    })
}

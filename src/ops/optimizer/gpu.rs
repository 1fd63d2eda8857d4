//! Dispatch of `shaders/optimizer/{sgd,adam,clip}.wgsl`.

use super::{AdamStep, Moments, SgdStep};
use crate::Result;
use crate::gpu::{Context, Dispatch, ELEMENTWISE_GROUP, Span, kernel, parameters, pieces};

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

kernel!(SGD: "optimizer/sgd" {
    files: ["optimizer/sgd"],
    parameters: SgdParameters,
    constants: [],
    bindings: [Read, Write, Write],
});

kernel!(ADAM: "optimizer/adam" {
    files: ["lib/math", "optimizer/adam"],
    parameters: AdamParameters,
    constants: [],
    bindings: [Read, Write, Write, Write, Write],
});

kernel!(CLIP: "optimizer/clip" {
    files: ["lib/math", "optimizer/clip"],
    parameters: ClipParameters,
    constants: [],
    bindings: [Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&SGD, &ADAM, &CLIP];

pub(super) fn sgd(
    context: &Context,
    parameters: Span<'_>,
    gradient: Span<'_>,
    velocity: Option<Span<'_>>,
    step: SgdStep,
) -> Result<()> {
    let spans = [Some(gradient), Some(parameters), velocity];
    let make = |count, [gradient_base, parameter_base, velocity_base]: [u32; 3]| SgdParameters {
        count,
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
    context.elementwise_with_gaps(&SGD, &[], parameters.len(), spans, make)
}

pub(super) fn adam(
    context: &Context,
    parameters: Span<'_>,
    gradient: Span<'_>,
    moments: &Moments<'_>,
    step: AdamStep,
) -> Result<()> {
    let largest = moments.largest.as_ref().map(|largest| largest.span());
    let spans =
        [Some(gradient), Some(parameters), Some(moments.first.span()), Some(moments.second.span()), largest];
    let power = step.count as f64;
    let make = |count, bases: [u32; 5]| AdamParameters {
        count,
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
    context.elementwise_with_gaps(&ADAM, &[], parameters.len(), spans, make)
}

pub(super) fn clip(context: &Context, gradient: Span<'_>, norm: Span<'_>, max_norm: f32) -> Result<()> {
    let norm = context.bind(norm)?;
    for piece in pieces(gradient.len(), context.limits().elements(ELEMENTWISE_GROUP)) {
        let target = context.bind(gradient.slice(piece.clone()))?;
        context.dispatch(Dispatch {
            kernel: &CLIP,
            constants: &[],
            parameters: ClipParameters {
                count: piece.len() as u32,
                gradient_base: target.base,
                norm_base: norm.base,
                max_norm,
            },
            bindings: &[norm, target],
            grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
        })?;
    }
    Ok(())
}

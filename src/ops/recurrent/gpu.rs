//! Dispatch of `shaders/recurrent_{forward,backward}.wgsl`: one call for each time step, in one pass.

use std::ops::Range;

use super::{Cell, Sizes, Weights};
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, Span, kernel, parameters, pieces};
use crate::ops::Activation;

parameters!(ForwardParameters {
    rows: u32,
    hidden: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    bias_base: u32,
    has_bias: u32,
    from_initial: u32,
    previous_base: u32,
    gates_base: u32,
    output_base: u32,
    alpha: f32,
    beta: f32,
});
parameters!(BackwardParameters {
    rows: u32,
    hidden: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    output_base: u32,
    d_output_base: u32,
    d_last_base: u32,
    gates_base: u32,
    next_base: u32,
    future: u32,
    alpha: f32,
    beta: f32,
});

/// Rows and units of a workgroup.
const TILE: usize = 16;

kernel!(VANILLA_FORWARD: "recurrent_forward.vanilla" {
    files: ["math", "activations", "cells/vanilla", "recurrent_forward"],
    parameters: ForwardParameters,
    constants: [("FUNCTION", Activation::ALL.len() as u32)],
    bindings: [Read, Read, Read, Write, Write],
});

kernel!(VANILLA_BACKWARD: "recurrent_backward.vanilla" {
    files: ["math", "activations", "cells/vanilla", "recurrent_backward"],
    parameters: BackwardParameters,
    constants: [("FUNCTION", Activation::ALL.len() as u32)],
    bindings: [Read, Read, Read, Read, Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&crate::gpu::Kernel] = &[&VANILLA_FORWARD, &VANILLA_BACKWARD];

/// What a cell brings to the two step kernels.
struct CellKernels {
    forward: &'static Kernel,
    backward: &'static Kernel,
    constants: [u32; 1],
    alpha: f32,
    beta: f32,
}

fn kernels(cell: Cell) -> CellKernels {
    match cell {
        Cell::Vanilla(activation) => {
            let (alpha, beta) = activation.constants();
            let constants = [activation.code()];
            CellKernels { forward: &VANILLA_FORWARD, backward: &VANILLA_BACKWARD, constants, alpha, beta }
        }
    }
}

pub(super) struct Forward<'a> {
    pub(super) cell: Cell,
    pub(super) sizes: Sizes,
    pub(super) weights: Weights<'a>,
    pub(super) initial: Span<'a>,
}

/// The part of the batch and of the units that one dispatch computes.
struct Block {
    rows: Range<usize>,
    units: Range<usize>,
}

impl Block {
    fn grid(&self) -> [usize; 3] {
        [self.units.len().div_ceil(TILE), self.rows.len().div_ceil(TILE), 1]
    }
}

/// Blocks that respect the device's grid: one, but for the largest layers.
fn blocks(context: &Context, sizes: Sizes) -> Vec<Block> {
    let side = context.limits().workgroups * TILE;
    pieces(sizes.rows, side)
        .flat_map(|rows| pieces(sizes.hidden, side).map(move |units| Block { rows: rows.clone(), units }))
        .collect()
}

/// Stretches of time whose gates fit a binding, with one more step for the neighbour.
fn stretches(context: &Context, sizes: Sizes, gates: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    let step = sizes.rows * sizes.hidden * gates;
    let fitting = (context.limits().binding_elements / step).saturating_sub(1).max(1);
    pieces(sizes.steps, fitting).collect::<Vec<_>>().into_iter()
}

/// The elements of steps `range` in an array of `step` elements a step.
fn elements(range: Range<usize>, step: usize) -> Range<usize> {
    range.start * step..range.end * step
}

pub(super) fn forward(
    context: &Context,
    call: &Forward<'_>,
    gates: Span<'_>,
    output: Span<'_>,
) -> Result<()> {
    let Sizes { rows, hidden, .. } = call.sizes;
    let kernels = kernels(call.cell);
    let state = rows * hidden;
    let weight = context.bind(call.weights.weight_hh.span())?;
    let bias = call.weights.bias_hh.map(|bias| context.bind(bias.span())).transpose()?;
    let initial = context.bind(call.initial)?;
    let blocks = blocks(context, call.sizes);
    for stretch in stretches(context, call.sizes, call.cell.gates()) {
        // The step before the stretch is bound with it: its state comes from there.
        let first = stretch.start.saturating_sub(1);
        let gates_step = state * call.cell.gates();
        let gates = context.bind(gates.slice(elements(stretch.clone(), gates_step)))?;
        let output = context.bind(output.slice(elements(first..stretch.end, state)))?;
        let at = |bound: &Bound<'_>, step: usize| bound.base + (step * state) as u32;
        for t in stretch.clone() {
            let previous = match t {
                0 => initial.base,
                _ => at(&output, t - 1 - first),
            };
            for block in &blocks {
                context.dispatch(Dispatch {
                    kernel: kernels.forward,
                    constants: &kernels.constants,
                    parameters: ForwardParameters {
                        rows: rows as u32,
                        hidden: hidden as u32,
                        first_row: block.rows.start as u32,
                        first_unit: block.units.start as u32,
                        weight_base: weight.base,
                        bias_base: bias.map_or(0, |bias| bias.base),
                        has_bias: bias.is_some().into(),
                        from_initial: (t == 0).into(),
                        previous_base: previous,
                        gates_base: gates.base + ((t - stretch.start) * gates_step) as u32,
                        output_base: at(&output, t - first),
                        alpha: kernels.alpha,
                        beta: kernels.beta,
                    },
                    // Where there is no bias something else is bound, and not read.
                    bindings: &[weight, bias.unwrap_or(weight), initial, gates, output],
                    grid: block.grid(),
                })?;
            }
        }
    }
    Ok(())
}

pub(super) struct Backward<'a> {
    pub(super) cell: Cell,
    pub(super) sizes: Sizes,
    pub(super) weight_hh: Span<'a>,
    pub(super) output: Span<'a>,
    pub(super) d_output: Span<'a>,
    pub(super) d_last: Option<Span<'a>>,
}

pub(super) fn backward(context: &Context, call: &Backward<'_>, gates: Span<'_>) -> Result<()> {
    let Sizes { steps, rows, hidden } = call.sizes;
    let kernels = kernels(call.cell);
    let state = rows * hidden;
    let gates_step = state * call.cell.gates();
    let weight = context.bind(call.weight_hh)?;
    let d_last = call.d_last.map(|d_last| context.bind(d_last)).transpose()?;
    let blocks = blocks(context, call.sizes);
    for stretch in stretches(context, call.sizes, call.cell.gates()).rev() {
        // The step after the stretch is bound with it: its gradient comes from there.
        let end = (stretch.end + 1).min(steps);
        let gates = context.bind(gates.slice(elements(stretch.start..end, gates_step)))?;
        let output = context.bind(call.output.slice(elements(stretch.clone(), state)))?;
        let d_output = context.bind(call.d_output.slice(elements(stretch.clone(), state)))?;
        for t in stretch.clone().rev() {
            let local = t - stretch.start;
            let is_last = t + 1 == steps;
            let gates_base = gates.base + (local * gates_step) as u32;
            for block in &blocks {
                context.dispatch(Dispatch {
                    kernel: kernels.backward,
                    constants: &kernels.constants,
                    parameters: BackwardParameters {
                        rows: rows as u32,
                        hidden: hidden as u32,
                        first_row: block.rows.start as u32,
                        first_unit: block.units.start as u32,
                        weight_base: weight.base,
                        output_base: output.base + (local * state) as u32,
                        d_output_base: d_output.base + (local * state) as u32,
                        d_last_base: d_last.map_or(0, |bound| bound.base),
                        gates_base,
                        next_base: if is_last { gates_base } else { gates_base + gates_step as u32 },
                        future: match (is_last, d_last.is_some()) {
                            (false, _) => 0,
                            (true, true) => 1,
                            (true, false) => 2,
                        },
                        alpha: kernels.alpha,
                        beta: kernels.beta,
                    },
                    // Where no gradient comes from the last state something else is bound, and not read.
                    bindings: &[weight, output, d_output, d_last.unwrap_or(weight), gates],
                    grid: block.grid(),
                })?;
            }
        }
    }
    Ok(())
}

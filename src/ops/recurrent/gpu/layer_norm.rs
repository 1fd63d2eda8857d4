//! The time loop with layer normalisation on the GPU (Ba et al., 2016, arXiv:1607.06450, equations 20 to 22):
//! each step is a matrix product with W_hh and one dispatch of
//! `shaders/recurrent/layer_norm/{forward,backward}.wgsl`. CPU reference:
//! `src/ops/recurrent/cpu/cells/layer_norm.rs`.
//!
//! The running state has a buffer of its own. Padded steps leave a row's state unchanged, so that the buffer
//! holds the final state after the last step.

use super::boundary_states::{self, States};
use super::forward::{ForwardOutput, dummy_bindings};
use super::operands;
use super::step_flags::{self, StepFlags};
use super::time_chunks::{Arrays, Reach};
use crate::Result;
use crate::gpu::{Context, Kernel, RowOperand, RowReduction, Span, kernel, parameters};
use crate::ops::matmul::MatmulSizes;
use crate::ops::matmul::gpu::{Add, matmul};
use crate::ops::recurrent::Norms;
use crate::ops::recurrent::weight_gradients::RecurrentNormGradients;
use crate::ops::recurrent::{Call, Cell, PassGradients, SavedActivations, Sizes, StateTensors, StateView};
use crate::ops::{Form, LAYER_NORM_EPSILON, sum_rows};
use crate::tensor::{Tensor, View};

parameters!(ForwardParameters {
    hidden_size: u32,
    width: u32,
    first_row: u32,
    end_row: u32,
    epsilon: f32,
    norms_base: u32,
    state_norm_base: u32,
    product_base: u32,
    step_flags_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    hidden_base: u32,
    cell_base: u32,
});
parameters!(BackwardParameters {
    hidden_size: u32,
    d_width: u32,
    first_row: u32,
    end_row: u32,
    epsilon: f32,
    norms_base: u32,
    state_norm_base: u32,
    d_output_base: u32,
    step_flags_base: u32,
    /// The flags of the following step in this direction; `ends` is 1 where there is none.
    next_step_flags_base: u32,
    ends: u32,
    before_base: u32,
    gates_base: u32,
    product_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    d_norms_base: u32,
    norms_width: u32,
});

/// Declares the forward and backward kernels of a cell in a module of that name.
macro_rules! normalised_kernels {
    ($cell:ident: $file:literal) => {
        mod $cell {
            use super::*;
            kernel!(FORWARD: "recurrent/layer_norm/forward" of $cell {
                files: [
                    "lib/math", "lib/row_reduction", "recurrent/common/step_flag_bits", "recurrent/layer_norm/row", $file,
                    "recurrent/layer_norm/forward"
                ],
                parameters: ForwardParameters,
                constants: [("LANE_BITS", 9), ("HAS_STEP_FLAGS", 2), ("BIASED", 2)],
                bindings: [Read, Read, Read, Write, Write, Write, Write, Write],
            });
            kernel!(BACKWARD: "recurrent/layer_norm/backward" of $cell {
                files: [
                    "lib/math", "lib/row_reduction", "recurrent/common/step_flag_bits", "recurrent/layer_norm/row", $file,
                    "recurrent/layer_norm/backward", "recurrent/layer_norm/backward_row"
                ],
                parameters: BackwardParameters,
                constants: [("LANE_BITS", 9), ("HAS_STEP_FLAGS", 2), ("BIASED", 2)],
                bindings: [Read, Read, Read, Read, Write, Write, Write, Write],
            });
            pub(super) static BOTH: [&Kernel; 2] = [&FORWARD, &BACKWARD];
        }
    };
}
normalised_kernels!(lstm: "recurrent/layer_norm/lstm");
normalised_kernels!(gru: "recurrent/layer_norm/gru");

/// All kernels with layer normalisation.
#[cfg(test)]
pub(crate) static KERNELS: &[&Kernel] = &[lstm::BOTH[0], lstm::BOTH[1], gru::BOTH[0], gru::BOTH[1]];

/// The forward and backward kernels of `cell`.
fn kernels(cell: &Cell) -> [&'static Kernel; 2] {
    match cell {
        Cell::Gru => gru::BOTH,
        // `Rnn` refuses layer normalisation for any other cell.
        _ => lstm::BOTH,
    }
}

/// Concatenates norm_hh, bias_hh and norm_c; returns the offset of norm_c as well.
fn joined_norms(call: &Call<'_>, norms: &Norms<'_>) -> Result<(Tensor, usize)> {
    let parts = [Some(norms.recurrent), call.weights.bias_hh, norms.cell];
    let parts: Vec<View<'_>> = parts.into_iter().flatten().collect();
    let before = norms.recurrent.shape().elements() * if call.weights.bias_hh.is_some() { 2 } else { 1 };
    Ok((operands::joined(&parts)?, before))
}

const NEITHER: Reach = Reach { before: 0, after: 0 };

pub(crate) fn forward(
    context: &Context,
    call: &Call<'_>,
    norms: &Norms<'_>,
    sizes: Sizes,
    projected: &mut Tensor,
    output: &mut Tensor,
) -> Result<ForwardOutput> {
    let Sizes { steps, rows, hidden_size, .. } = sizes;
    let device = projected.device().clone();
    let gates = projected.shape().last();
    let hidden = operands::copy(call.initial.hidden, &[rows, hidden_size])?;
    let cell = call.initial.cell.map(|cell| operands::copy(cell, &[rows, hidden_size])).transpose()?;
    let saved =
        cell.as_ref().map(|_| Tensor::unwritten(&device, &[steps, rows, 2 * hidden_size])).transpose()?;
    let product = Tensor::unwritten(&device, &[steps, rows, gates])?;
    let step_flags = step_flags::step_flags(context, std::slice::from_ref(call), steps, rows)?;
    let flags = StepFlags::new(step_flags.as_ref(), steps * rows);
    let dummy_bindings = dummy_bindings(context)?;
    let width = output.shape().last();
    {
        let (own, target) = (projected.view_mut()?, output.view_mut()?);
        let arrays = Arrays {
            gates: (own.span(), NEITHER),
            output: (target.span(), NEITHER),
            d_output: target.span(),
            saved: saved.as_ref().map(|saved| (saved.view().span(), NEITHER)),
            // The binding of the unprojected outputs is free: layer normalisation excludes a projection.
            unprojected: Some(product.view().span()),
            step_flags: flags.span.map(|step_flags| (step_flags, NEITHER)),
            dummy_bindings: &dummy_bindings,
            columns: [call.column; 2],
            reversed: call.traversal.reversed(),
            directions: 1,
        };
        let (norms, state_norm) = joined_norms(call, norms)?;
        let norms = context.bind(norms.view().span())?;
        let state = context.bind(hidden.view().span())?;
        let state_cell = cell.as_ref().map_or(Span::new(&dummy_bindings[1], 0, 1), |cell| cell.view().span());
        let state_cell = context.bind(state_cell)?;
        let [kernel, _] = kernels(call.equations.cell);
        let reduction = RowReduction::new(context, hidden_size);
        let constants = [flags.span.is_some().into(), call.weights.bias_hh.is_some().into()];
        let mut time_chunks = arrays.time_chunks(context, sizes)?;
        if call.traversal.reversed() {
            time_chunks.reverse();
        }
        for chunk in &time_chunks {
            let operands = [
                norms,
                chunk.unprojected.bound,
                // Without step flags another buffer is bound and not read.
                chunk.step_flags.map_or(norms, |step_flags| step_flags.bound),
                chunk.gates.bound,
                chunk.output.bound,
                chunk.saved.bound,
                state,
                state_cell,
            ]
            .map(RowOperand::All);
            for t in call.traversal.order_of(chunk.steps.clone()) {
                let size = MatmulSizes::dense([rows, gates, hidden_size]);
                let step = product.view().span().slice(t * rows * gates..(t + 1) * rows * gates);
                let spans = [hidden.view().span(), call.weights.weight_hh.span(), step];
                matmul(context, spans, size, Form::RightTransposed, Add::Bias(None))?;
                reduction.dispatch(context, kernel, &constants, rows, operands, |piece, _| {
                    ForwardParameters {
                        hidden_size: hidden_size as u32,
                        width: width as u32,
                        first_row: piece.start as u32,
                        end_row: piece.end as u32,
                        epsilon: LAYER_NORM_EPSILON,
                        norms_base: norms.base,
                        state_norm_base: norms.base + state_norm as u32,
                        product_base: chunk.unprojected.at(t),
                        step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
                        gates_base: chunk.gates.at(t),
                        output_base: chunk.output.at(t),
                        saved_base: chunk.saved.at(t),
                        hidden_base: state.base,
                        cell_base: state_cell.base,
                    }
                })?;
            }
        }
    }
    let last = StateTensors { hidden, cell };
    Ok(ForwardOutput { saved, unprojected: None, product: Some(product), step_flags, last: vec![last] })
}

pub(crate) fn backward(
    context: &Context,
    call: &Call<'_>,
    norms: &Norms<'_>,
    mut kept: SavedActivations,
    sizes: Sizes,
    output: &Tensor,
    d_output: View<'_>,
    d_last: Option<StateView<'_>>,
) -> Result<PassGradients> {
    let Sizes { rows, hidden_size, steps, .. } = sizes;
    let equations = call.equations;
    let mut gates = kept.take_gates();
    let SavedActivations { saved, product, step_flags, .. } = kept;
    let Some(mut product) = product else { unreachable!("forward on a GPU keeps it") };
    let width = gates.shape().last();
    let step_flags = StepFlags::new(step_flags.as_ref(), steps * rows);
    let start =
        States { states: output, column: call.column, columns: hidden_size, initial: call.initial.hidden };
    let previous = boundary_states::previous(context, call, sizes, &start, step_flags)?;
    let carry = operands::carry(std::slice::from_ref(call), sizes, &[d_last])?;
    let rest = if equations.has_cell_state() { 2 * hidden_size } else { hidden_size };
    let d_norms = Tensor::zeros(gates.device(), &[rows, width + rest])?;
    let before = saved.as_ref().unwrap_or(&previous);
    {
        // Gradients replace gates and products.
        let (own_gates, own_product) = (gates.view_mut()?, product.view_mut()?);
        let dummy_bindings = dummy_bindings(context)?;
        let arrays = Arrays {
            gates: (own_gates.span(), NEITHER),
            // The outputs are not read: their binding holds d_output.
            output: (d_output.span(), NEITHER),
            d_output: d_output.span(),
            saved: Some((before.view().span(), NEITHER)),
            unprojected: Some(own_product.span()),
            step_flags: step_flags.span.map(|step_flags| (step_flags, Reach { before: 0, after: 1 })),
            dummy_bindings: &dummy_bindings,
            columns: [call.column; 2],
            reversed: call.traversal.reversed(),
            directions: 1,
        };
        let (norms, state_norm) = joined_norms(call, norms)?;
        let norms = context.bind(norms.view().span())?;
        let bound_carry = context.bind(carry.view().span())?;
        let bound_d_norms = context.bind(d_norms.view().span())?;
        let [_, kernel] = kernels(call.equations.cell);
        let reduction = RowReduction::new(context, hidden_size);
        let constants = [step_flags.span.is_some().into(), call.weights.bias_hh.is_some().into()];
        let mut time_chunks = arrays.time_chunks(context, sizes)?;
        if !call.traversal.reversed() {
            time_chunks.reverse();
        }
        for chunk in &time_chunks {
            let operands = [
                norms,
                chunk.output.bound,
                chunk.step_flags.map_or(norms, |step_flags| step_flags.bound),
                chunk.saved.bound,
                chunk.gates.bound,
                chunk.unprojected.bound,
                bound_carry,
                bound_d_norms,
            ]
            .map(RowOperand::All);
            for t in call.traversal.order_of(chunk.steps.clone()).into_iter().rev() {
                let after = call.traversal.successor(t, steps);
                reduction.dispatch(context, kernel, &constants, rows, operands, |piece, _| {
                    BackwardParameters {
                        hidden_size: hidden_size as u32,
                        d_width: (chunk.output.stride / rows) as u32,
                        first_row: piece.start as u32,
                        end_row: piece.end as u32,
                        epsilon: LAYER_NORM_EPSILON,
                        norms_base: norms.base,
                        state_norm_base: norms.base + state_norm as u32,
                        d_output_base: chunk.output.at(t),
                        step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
                        next_step_flags_base: chunk
                            .step_flags
                            .map_or(0, |step_flags| step_flags.at(after.unwrap_or(t))),
                        ends: after.is_none().into(),
                        before_base: chunk.saved.at(t),
                        gates_base: chunk.gates.at(t),
                        product_base: chunk.unprojected.at(t),
                        carry_base: bound_carry.base,
                        carry_cell_base: bound_carry.base + (rows * hidden_size) as u32,
                        d_norms_base: bound_d_norms.base,
                        norms_width: (width + rest) as u32,
                    }
                })?;
                let size = MatmulSizes::dense([rows, hidden_size, width]);
                let step = own_product.span().slice(t * rows * width..(t + 1) * rows * width);
                let carried = carry.view().span().slice(0..rows * hidden_size);
                let spans = [step, call.weights.weight_hh.span(), carried];
                matmul(context, spans, size, Form::Plain, Add::Previous)?;
            }
        }
    }
    let d_norms = sum_rows(&d_norms)?;
    let (carried, cell) = operands::carry_sizes(call, sizes);
    let part = |from: usize, to: usize| operands::copy(carry.view().outer(from..to)?, &[rows, hidden_size]);
    let d_initial = StateTensors {
        hidden: part(0, carried)?,
        cell: (cell > 0).then(|| part(carried, carried + cell)).transpose()?,
    };
    // The gradient of the recurrent bias of a GRU's last gate, already summed: shaped as one step of one row.
    let last_bias = || operands::copy(d_norms.view().outer(width..width + rest)?, &[1, 1, hidden_size]);
    let d_apart = equations.last_gate_apart().then(last_bias).transpose()?;
    Ok(PassGradients {
        gates: equations.gates(),
        d_projected: gates,
        d_apart,
        previous,
        modulated: None,
        cells: None,
        projection: None,
        product: Some(RecurrentNormGradients { d_product: product, d_norms }),
        entry: None,
        d_initial,
    })
}

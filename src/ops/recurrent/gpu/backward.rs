//! The backward pass of the time loop on the GPU, for one direction or for both: from the last step to the
//! first, each step computes the gradients of its gates from d_output and from the gates' gradients of the
//! following step through W_hh. The gradients of weights and inputs are computed afterwards from all steps
//! together (`src/ops/recurrent/weight_gradients.rs`). CPU reference: `src/ops/recurrent/cpu/time_loop.rs`.

use super::bidirectional::{DirectionOperand, part_of};
use super::boundary_states::{self, GateGradients, States};
use super::forward::{BEFORE, dummy_bindings};
use super::kernels::CellKernels;
use super::operands::{self, BackwardPass, InitialOperands, LoopGradients};
use super::parameters::{BackwardOperands, BackwardParameters};
use super::per_step::StepKernel;
use super::projection::{Projection, ProjectionStep};
use super::sequence::SequenceKernel;
use super::sliding_windows;
use super::split_k::blocks;
use super::step_flags::StepFlags;
use super::strategy;
use super::time_chunks::{Arrays, Reach, TimeChunk};
use crate::Result;
use crate::gpu::{Context, Span};
use crate::ops::dropout;
use crate::ops::recurrent::{Call, Pass, PassGradients, SavedActivations, Sizes, StateTensors, StateView};
use crate::tensor::Tensor;

/// Runs the backward loop and returns the gradients of each direction.
pub(crate) fn backward(
    context: &Context,
    calls: &[Call<'_>],
    sizes: Sizes,
    mut saved_activations: SavedActivations,
    output: &Tensor,
    d_output: Tensor,
    d_last: &[Option<StateView<'_>>],
) -> Result<Vec<PassGradients>> {
    let count = calls.len();
    let gates = saved_activations.take_gates();
    let SavedActivations { saved, unprojected, step_flags, .. } = saved_activations;
    let step_flags = StepFlags::new(step_flags.as_ref(), count * sizes.steps * sizes.rows);
    let saved_of = |index: usize| saved.as_ref().map(|saved| part_of(saved, index, count));
    let mut cells = Vec::with_capacity(count);
    for (index, call) in calls.iter().enumerate() {
        cells.push(cell_states(context, call, sizes, saved_of(index), step_flags.of(index, count))?);
    }
    let run = BackwardPass {
        context,
        calls,
        call: &calls[0],
        sizes,
        step_flags,
        output,
        unprojected: unprojected.as_ref(),
        d_output: d_output.view(),
    };
    let modulated =
        |(index, call): (usize, &Call<'_>)| saved_of(index).filter(|_| call.equations.resets_before());
    let modulated: Vec<_> = calls.iter().enumerate().map(modulated).collect();
    let result = match run.call.traversal.windows() {
        // The backward loop overwrites the saved activations unless the gradients need them.
        None => plain(&run, gates, saved, d_last)?,
        Some(windows) => vec![sliding_windows::backward(&run, &gates, saved.as_ref(), d_last[0], windows)?],
    };
    // Nothing reads d_output after the loop; freed here, its memory can be reused by what is allocated next.
    drop(d_output);
    let mut gradients = Vec::with_capacity(count);
    for (index, ((result, cells), modulated)) in result.into_iter().zip(cells).zip(modulated).enumerate() {
        let call = &calls[index];
        gradients.push(PassGradients {
            gates: call.equations.gates(),
            d_projected: result.d_projected,
            d_apart: result.d_apart,
            previous: hidden_states(context, call, sizes, output, step_flags.of(index, count))?,
            modulated,
            cells,
            projection: result.d_hidden.zip(unprojected.clone()),
            product: None,
            entry: None,
            d_initial: result.d_initial,
        });
    }
    Ok(gradients)
}

/// The hidden state before each step of a direction [T, B, P], multiplied by the state's dropout mask where
/// there is one.
fn hidden_states(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    output: &Tensor,
    step_flags: StepFlags<'_>,
) -> Result<Tensor> {
    let start = States {
        states: output,
        column: call.column,
        columns: sizes.projection_size,
        initial: call.initial.hidden,
    };
    let previous = boundary_states::previous(context, call, sizes, &start, step_flags)?;
    match call.state_mask {
        Some(mask) => dropout(&previous, mask),
        None => Ok(previous),
    }
}

/// The cell states before and after each step [T, B, H], where peepholes read them.
fn cell_states(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    saved: Option<Tensor>,
    step_flags: StepFlags<'_>,
) -> Result<Option<(Tensor, Tensor)>> {
    match (call.equations.peepholes(), saved, call.initial.cell) {
        (1.., Some(saved), Some(initial)) => {
            let start = States { states: &saved, column: 0, columns: sizes.hidden_size, initial };
            Ok(Some((boundary_states::previous(context, call, sizes, &start, step_flags)?, saved)))
        }
        _ => Ok(None),
    }
}

/// The backward pass without sliding windows, from the last step to the first. The gradients of each step
/// replace its saved activations.
fn plain(
    run: &BackwardPass<'_>,
    mut gates: Tensor,
    saved: Option<Tensor>,
    d_last: &[Option<StateView<'_>>],
) -> Result<Vec<LoopGradients>> {
    let BackwardPass { context, calls, call, sizes, step_flags, .. } = *run;
    let Sizes { steps, rows, projection_size, .. } = sizes;
    let carry = operands::carry(calls, sizes, d_last)?;
    let projection = Projection::new(call, sizes, rows)?;
    let d_hidden = || Tensor::unwritten(gates.device(), &[steps, rows, projection_size]);
    let d_hidden = projection.is_some().then(d_hidden).transpose()?;
    let split = {
        let own = gates.view_mut()?;
        let dummy_bindings = dummy_bindings(context)?;
        let result = run.unprojected.map(|unprojected| unprojected.view().span());
        let arrays = Arrays {
            gates: (own.span(), Reach { before: 0, after: 1 }),
            output: (result.unwrap_or(run.output.view().span()), BEFORE),
            d_output: run.d_output.span(),
            saved: saved.as_ref().map(|saved| (saved.view().span(), Reach { before: 1, after: 1 })),
            unprojected: None,
            step_flags: step_flags.span.map(|step_flags| (step_flags, Reach { before: 0, after: 1 })),
            dummy_bindings: &dummy_bindings,
            columns: [if result.is_some() { 0 } else { call.column }, call.column],
            reversed: call.traversal.reversed(),
            directions: calls.len(),
        };
        let mut time_chunks = arrays.time_chunks(context, sizes)?;
        if !call.traversal.reversed() {
            time_chunks.reverse();
        }
        let operands = BackwardOperands {
            pass: run,
            weights: &DirectionOperand::weights(calls)?,
            initial: &InitialOperands::of(context, calls, sizes)?,
            carry: &carry,
            d_unprojected: projection.as_ref().map(|projection| &projection.d_unprojected),
        };
        let kernels = CellKernels::of(context, calls, sizes, step_flags.span.is_some(), Pass::Backward)?;
        let many = kernels.many(call, strategy::choose_for(context, calls, sizes)?);
        let step = kernels.step();
        for chunk in &time_chunks {
            match &many {
                Some(many) => many.backward(&operands, chunk)?,
                None => {
                    let projection = projection.as_ref().zip(d_hidden.as_ref());
                    step_by_step(&operands, &step, projection, own.span(), chunk)?
                }
            }
        }
        // With a projection, the backward product of a step is a matrix product of its own.
        let is_in_slices = many.as_ref().map_or(projection.is_none(), SequenceKernel::is_persistent);
        is_in_slices.then_some(step.split)
    };
    let gradients_of = |index: usize| {
        let (call, count) = (&calls[index], calls.len());
        let gates = part_of(&gates, index, count);
        let saved = saved.as_ref().filter(|_| call.equations.last_gate_apart());
        let d_apart = saved.map(|saved| part_of(saved, index, count));
        let of = GateGradients {
            gates: gates.view().span(),
            apart: d_apart.as_ref().map(|apart| apart.view().span()),
        };
        let (carried, cell) = operands::carry_sizes(call, sizes);
        let [first, first_cell] = [index * carried, count * carried + index * cell];
        let left = carry.view().outer(first..first + carried)?;
        let d_initial = StateTensors {
            hidden: boundary_states::d_initial(
                context,
                call,
                sizes,
                of,
                left,
                step_flags.of(index, count),
                split,
            )?,
            cell: match cell {
                0 => None,
                cell => {
                    let left = carry.view().outer(first_cell..first_cell + cell)?;
                    Some(operands::copy(left, &[rows, sizes.hidden_size])?)
                }
            },
        };
        Ok(LoopGradients { d_projected: gates, d_apart, d_hidden: d_hidden.clone(), d_initial })
    };
    (0..calls.len()).map(gradients_of).collect()
}

/// Strategy `per_step`: one dispatch per step of a time chunk. With a projection, the products of the step
/// are dispatched before it and write the gradient of h.
fn step_by_step(
    operands: &BackwardOperands<'_>,
    kernel: &StepKernel<'_>,
    projection: Option<(&Projection<'_>, &Tensor)>,
    gates: Span<'_>,
    chunk: &TimeChunk<'_>,
) -> Result<()> {
    let BackwardPass { context, call, sizes, .. } = *operands.pass;
    let Sizes { steps, rows, hidden_size, projection_size } = sizes;
    let bound = operands.bind(chunk)?;
    let bindings = bound.bindings();
    let blocks = blocks(context, sizes, kernel.split);
    for t in call.traversal.order_of(chunk.steps.clone()).into_iter().rev() {
        if let Some((projection, d_hidden)) = projection {
            let after = call.traversal.successor(t, steps);
            let all = rows * call.equations.gates() * hidden_size;
            let next = after.unwrap_or(t);
            projection.step_back(
                context,
                &ProjectionStep {
                    rows,
                    next_gates: after.map(|next| gates.slice(next * all..(next + 1) * all)),
                    d_output: chunk.d_output.bound,
                    d_output_base: chunk.d_output.at(t),
                    width: Some(chunk.d_output.stride / rows),
                    step_flags: chunk.step_flags.map(|flags| (flags.bound, [flags.at(t), flags.at(next)])),
                    carry: bound.carry,
                    carry_bases: [bound.carry.base; 2],
                    d_hidden: d_hidden
                        .view()
                        .span()
                        .slice(t * rows * projection_size..(t + 1) * rows * projection_size),
                },
            )?;
        }
        let parameters = bound.parameters(&[t]);
        kernel.run(context, &bindings, &blocks, |block| BackwardParameters {
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            ..parameters
        })?;
    }
    Ok(())
}

//! The time loop on the GPU: a cell's kernels over all time steps, in one pass, of one direction or of both. The way back
//! is in `back.rs`.

use super::bidirectional::{DirectionOperand, part_of, second};
use super::boundary_states as support;
use super::kernels::{CellKernels, FIRST_STEP, HAS_BIAS, REVERSED, flag};
use super::operands::{self as operands, InitialOperands};
use super::per_step::{ForwardParameters, StepKernel};
use super::projection::project;
use super::sequence;
use super::time_chunks::{Arrays, Reach, TimeChunk, blocks};
use crate::Result;
use crate::gpu::{Buffer, Context, Span};
use crate::ops::permute;
use crate::ops::recurrent::{Call, Sizes, StateTensors};
use crate::tensor::Tensor;

const NEITHER: Reach = Reach { before: 0, after: 0 };
pub(crate) const BEFORE: Reach = Reach { before: 1, after: 0 };

/// What [`forward`] makes beside the gates and the output.
pub(crate) struct ForwardOutput {
    pub(crate) saved: Option<Tensor>,
    pub(crate) unprojected: Option<Tensor>,
    pub(crate) product: Option<Tensor>,
    pub(crate) step_flags: Option<Buffer>,
    /// Of each direction.
    pub(crate) last: Vec<StateTensors>,
}

/// An array over time [T, B, `width`], or that of both directions.
fn over_time(calls: &[Call<'_>], sizes: Sizes, width: usize) -> Vec<usize> {
    let one = [sizes.steps, sizes.rows, width];
    if calls.len() == 1 { one.to_vec() } else { [&[calls.len()], &one[..]].concat() }
}

pub(crate) fn forward(
    context: &Context,
    calls: &[Call<'_>],
    sizes: Sizes,
    projected: &mut Tensor,
    output: &mut Tensor,
) -> Result<ForwardOutput> {
    let Sizes { steps, rows, units, .. } = sizes;
    let device = projected.device().clone();
    let call = &calls[0];
    let array = |exists: bool| match exists {
        true => Tensor::unwritten(&device, &over_time(calls, sizes, units)).map(Some),
        false => Ok(None),
    };
    let saved = array(call.equations.saves())?;
    let unprojected = array(call.weights.projection.is_some())?;
    let step_flags = support::step_flags(context, calls, steps, rows)?;
    let dummy_bindings = dummy_bindings(context)?;
    let width = output.shape().last();
    {
        let (gates, target) = (projected.view_mut()?, output.view_mut()?);
        let arrays = Arrays {
            gates: (gates.span(), NEITHER),
            output: (target.span(), BEFORE),
            d_output: None,
            saved: saved.as_ref().map(|saved| (saved.view().span(), BEFORE)),
            unprojected: unprojected.as_ref().map(|unprojected| unprojected.view().span()),
            step_flags: step_flags
                .as_ref()
                .map(|step_flags| (Span::new(step_flags, 0, calls.len() * steps * rows), NEITHER)),
            dummy_bindings: dummy_bindings.each_ref().map(|dummy| Span::new(dummy, 0, 1)),
            columns: [call.column; 2],
            reversed: call.traversal.reversed(),
            directions: calls.len(),
        };
        let kernels = CellKernels::of(context, calls, sizes, step_flags.is_some())?;
        let operands = InitialOperands::of(context, calls, sizes)?;
        let own = sequence::Forward { context, calls, sizes, operands: &operands, width };
        let strategy = sequence::strategy(context, calls, sizes)?;
        let many = kernels.many_forward(call, strategy);
        // Refuses a row larger than a binding, before any work.
        let mut time_chunks = arrays.time_chunks(context, sizes)?;
        // To copy W_hh moves as much as a step reads of it: not for a single one.
        let needs_transposed = many.as_ref().map_or(steps > 1, |many| !many.is_persistent());
        let transposed = match needs_transposed {
            true => Some(transposed(calls)?),
            false => None,
        };
        let weights = match &transposed {
            Some(transposed) => {
                DirectionOperand::of(&[transposed.view().named_as(calls[0].weights.weight_hh)])?
            }
            None => DirectionOperand::weights(calls)?,
        };
        if call.traversal.reversed() {
            time_chunks.reverse();
        }
        let step = kernels.forward();
        for chunk in &time_chunks {
            match &many {
                Some(many) => many.forward(&own, &weights, chunk)?,
                None => {
                    let weights = StepWeights { values: &weights, transposed: needs_transposed };
                    step_by_step(&own, &step, &weights, chunk, &arrays)?
                }
            }
        }
    }
    let mut last = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        let saved = saved.as_ref().map(|saved| part_of(saved, index, calls.len()));
        last.push(support::last_state(context, call, sizes, output, saved.as_ref())?);
    }
    Ok(ForwardOutput { saved, unprojected, product: None, step_flags, last })
}

/// W_hh as [P, G·H], of each direction: neighbouring units then have neighbouring weights.
fn transposed(calls: &[Call<'_>]) -> Result<Tensor> {
    let result = calls.iter().map(|call| permute(call.weights.weight_hh, &[1, 0]));
    let mut result = result.collect::<Result<Vec<_>>>()?;
    match result.len() {
        1 => Ok(result.remove(0)),
        _ => operands::joined(&result.iter().map(Tensor::view).collect::<Vec<_>>()),
    }
}

/// W_hh of one direction or both, as [G·H, P] or as [P, G·H].
struct StepWeights<'a> {
    values: &'a DirectionOperand<'a>,
    transposed: bool,
}

/// A dispatch for each step of a stretch. What there may be of `transposed` weights has the same sums.
fn step_by_step(
    of: &sequence::Forward<'_>,
    kernel: &StepKernel,
    weights: &StepWeights<'_>,
    chunk: &TimeChunk<'_>,
    arrays: &Arrays<'_>,
) -> Result<()> {
    let sequence::Forward { context, calls, sizes, operands, width } = *of;
    let call = &calls[0];
    let Sizes { steps, rows, units, hidden } = sizes;
    let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
    let [weight_unit, weight_term] = match weights.transposed {
        true => [1, call.equations.gates() * units],
        false => [hidden, 1],
    };
    let biases = DirectionOperand::biases(calls)?;
    let weight = context.bind(weights.values.span())?;
    let bias = biases.as_ref().map(|bias| context.bind(bias.span())).transpose()?;
    let initial = operands.bind(context)?;
    let blocks = blocks(context, sizes, kernel.split);
    let bindings = [
        weight,
        // What is missing is replaced by something else, and not read.
        bias.unwrap_or(weight),
        initial,
        chunk.step_flags.map_or(weight, |step_flags| step_flags.bound),
        chunk.gates.bound,
        chunk.output.bound,
        chunk.saved.bound,
        chunk.unprojected.bound,
    ];
    for t in call.traversal.order_of(chunk.steps.clone()) {
        let before = call.traversal.neighbour(t, steps);
        let [second_behind, second_beside] = second(calls.len(), t, sizes);
        kernel.run(context, &bindings, &blocks, |block| ForwardParameters {
            rows: rows as u32,
            hidden_size: units as u32,
            projection_size: hidden as u32,
            width: width as u32,
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            weight_base: weight.base,
            weight_unit: weight_unit as u32,
            weight_term: weight_term as u32,
            bias_base: bias.map_or(0, |bias| bias.base),
            initial_base: operands.hidden(initial.base),
            initial_cell_base: operands.cell(initial.base),
            peepholes_base: operands.peepholes(initial.base),
            mask_base: operands.mask(initial.base),
            step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
            gates_base: chunk.gates.at(t),
            output_base: chunk.output.at(t),
            saved_base: chunk.saved.at(t),
            unprojected_base: chunk.unprojected.at(t),
            pass_flags: flag(FIRST_STEP, before.is_none())
                | flag(HAS_BIAS, bias.is_some())
                | flag(REVERSED, call.traversal.reversed()),
            second_behind,
            second_beside,
            first_number: ((call.traversal.first + t) * rows * units) as u32,
            seed_low,
            seed_high,
            stream_low,
            stream_high,
        })?;
        if let (Some(projection), Some(unprojected)) = (call.weights.projection, arrays.unprojected) {
            let own = unprojected.slice(t * rows * units..(t + 1) * rows * units);
            let last = (t + 1) * rows * width - width + call.column + hidden;
            let columns = arrays.output.0.slice(t * rows * width + call.column..last);
            project(context, projection, own, columns, width)?;
        }
    }
    Ok(())
}

/// Stand-ins for arrays that a cell does without: two, as no memory may be bound twice for writing.
pub(crate) fn dummy_bindings(context: &Context) -> Result<[Buffer; 2]> {
    let dummy = || context.allocate(1, "a stand-in for what a cell does not save");
    Ok([dummy()?, dummy()?])
}

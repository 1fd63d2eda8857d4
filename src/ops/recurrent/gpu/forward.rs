//! The forward pass of the time loop on the GPU, for one direction or for both:
//!
//! `h_t, c_t = cell(W_ih x_t + b_ih, W_hh h_{t-1} + b_hh, c_{t-1})`, and `h_t = W_hr m_t` with a projection.
//!
//! `projected` holds W_ih x + b_ih for all steps. CPU reference: `src/ops/recurrent/cpu/time_loop.rs`.

use super::bidirectional::{DirectionOperand, part_of};
use super::boundary_states;
use super::kernels::CellKernels;
use super::operands::{self, InitialOperands};
use super::parameters::{ForwardOperands, ForwardParameters};
use super::per_step::StepKernel;
use super::projection::project;
use super::split_k::blocks;
use super::step_flags::{self, StepFlags};
use super::strategy;
use super::time_chunks::{Arrays, Reach, TimeChunk};
use crate::Result;
use crate::gpu::{Buffer, Context};
use crate::ops::permute;
use crate::ops::recurrent::{Call, Pass, Sizes, StateTensors};
use crate::tensor::Tensor;

const NEITHER: Reach = Reach { before: 0, after: 0 };
pub(crate) const BEFORE: Reach = Reach { before: 1, after: 0 };

/// The results of [`forward`] besides the gates and the output, which it writes in place.
pub(crate) struct ForwardOutput {
    pub(crate) saved: Option<Tensor>,
    pub(crate) unprojected: Option<Tensor>,
    pub(crate) product: Option<Tensor>,
    pub(crate) step_flags: Option<Buffer>,
    /// The final states, one per direction.
    pub(crate) last: Vec<StateTensors>,
}

/// The shape of an array over time: [T, B, `width`], or [2, T, B, `width`] for both directions.
fn all_steps(calls: &[Call<'_>], sizes: Sizes, width: usize) -> Vec<usize> {
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
    let Sizes { steps, rows, hidden_size, .. } = sizes;
    let device = projected.device().clone();
    let call = &calls[0];
    let array = || Tensor::unwritten(&device, &all_steps(calls, sizes, hidden_size));
    let saved = call.equations.saves().then(array).transpose()?;
    let unprojected = call.weights.projection.is_some().then(array).transpose()?;
    let step_flags = step_flags::step_flags(context, calls, steps, rows)?;
    let flags = StepFlags::new(step_flags.as_ref(), calls.len() * steps * rows);
    let dummy_bindings = dummy_bindings(context)?;
    let width = output.shape().last();
    {
        let (gates, target) = (projected.view_mut()?, output.view_mut()?);
        let arrays = Arrays {
            gates: (gates.span(), NEITHER),
            output: (target.span(), BEFORE),
            d_output: target.span(),
            saved: saved.as_ref().map(|saved| (saved.view().span(), BEFORE)),
            unprojected: unprojected.as_ref().map(|unprojected| unprojected.view().span()),
            step_flags: flags.span.map(|step_flags| (step_flags, NEITHER)),
            dummy_bindings: &dummy_bindings,
            columns: [call.column; 2],
            reversed: call.traversal.reversed(),
            directions: calls.len(),
        };
        let kernels = CellKernels::of(context, calls, sizes, step_flags.is_some(), Pass::Forward)?;
        let initial = InitialOperands::of(context, calls, sizes)?;
        let many = kernels.many(call, strategy::choose_for(context, calls, sizes)?);
        // Returns an error for a row larger than a binding before any work is dispatched.
        let mut time_chunks = arrays.time_chunks(context, sizes)?;
        // Transposing W_hh moves as many bytes as one step reads, so it does not pay for a single step.
        let is_transposed = many.as_ref().map_or(steps > 1, |many| !many.is_persistent());
        let transposed = is_transposed.then(|| transposed(calls)).transpose()?;
        let weights = match &transposed {
            Some(transposed) => {
                DirectionOperand::of(&[transposed.view().named_as(calls[0].weights.weight_hh)])?
            }
            None => DirectionOperand::weights(calls)?,
        };
        let biases = DirectionOperand::biases(calls)?;
        let operands =
            ForwardOperands { context, calls, sizes, weights, is_transposed, biases, initial, width };
        if call.traversal.reversed() {
            time_chunks.reverse();
        }
        let step = kernels.step();
        for chunk in &time_chunks {
            match &many {
                Some(many) => many.forward(&operands, chunk)?,
                None => step_by_step(&operands, &step, chunk, &arrays)?,
            }
        }
    }
    let mut last = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        let saved = saved.as_ref().map(|saved| part_of(saved, index, calls.len()));
        last.push(boundary_states::last_state(context, call, sizes, output, saved.as_ref())?);
    }
    Ok(ForwardOutput { saved, unprojected, product: None, step_flags, last })
}

/// W_hh as [P, G·H], one direction after the other, so that neighbouring units read neighbouring weights.
fn transposed(calls: &[Call<'_>]) -> Result<Tensor> {
    let result = calls.iter().map(|call| permute(call.weights.weight_hh, &[1, 0]));
    let mut result = result.collect::<Result<Vec<_>>>()?;
    match result.len() {
        1 => Ok(result.remove(0)),
        _ => operands::joined(&result.iter().map(Tensor::view).collect::<Vec<_>>()),
    }
}

/// Strategy `per_step`: one dispatch per step of a time chunk.
fn step_by_step(
    operands: &ForwardOperands<'_>,
    kernel: &StepKernel<'_>,
    chunk: &TimeChunk<'_>,
    arrays: &Arrays<'_>,
) -> Result<()> {
    let ForwardOperands { context, calls, sizes, width, .. } = *operands;
    let call = &calls[0];
    let Sizes { rows, hidden_size, projection_size, .. } = sizes;
    let bound = operands.bind(chunk)?;
    let bindings = [&bound.bindings()[..], &[chunk.unprojected.bound]].concat();
    let blocks = blocks(context, sizes, kernel.split);
    for t in call.traversal.order_of(chunk.steps.clone()) {
        let parameters = bound.parameters(&[t]);
        kernel.run(context, &bindings, &blocks, |block| ForwardParameters {
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            ..parameters
        })?;
        if let (Some(projection), Some(unprojected)) = (call.weights.projection, arrays.unprojected) {
            let own = unprojected.slice(t * rows * hidden_size..(t + 1) * rows * hidden_size);
            let last = (t + 1) * rows * width - width + call.column + projection_size;
            let columns = arrays.output.0.slice(t * rows * width + call.column..last);
            project(context, projection, own, columns, width)?;
        }
    }
    Ok(())
}

/// Buffers bound in place of arrays that a cell does not have. There are two because no buffer may be bound
/// twice for writing.
pub(crate) fn dummy_bindings(context: &Context) -> Result<[Buffer; 2]> {
    let dummy = || context.allocate(1, "a dummy binding for arrays that a cell does not save");
    Ok([dummy()?, dummy()?])
}

//! Parameters and bindings of the kernels of the time loop: one struct for the forward pass and one for the
//! backward pass, for every strategy.
//!
//! A dispatch computes one step or many (`steps`). Each `*_base` is the offset of the first of them in the
//! bound array; from there the kernels compute the offsets of the other steps, of the steps before and after
//! them, and of the second direction (`shaders/recurrent/common/{forward,backward}_arrays.wgsl`).

use super::bidirectional::{DirectionOperand, second};
use super::operands::{BackwardPass, InitialOperands};
use super::time_chunks::TimeChunk;
use crate::Result;
use crate::gpu::{Bound, Context, parameters};
use crate::ops::recurrent::{Call, Sizes};
use crate::tensor::Tensor;

parameters!(ForwardParameters {
    rows: u32,
    hidden_size: u32,
    projection_size: u32,
    /// Elements per row of the output.
    width: u32,
    /// Number of steps of the dispatch.
    steps: u32,
    /// The increment from one step to the next: 1, or 2^32 - 1 (-1) where the first direction is reversed.
    direction: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    /// Strides of the weight matrix between units, and between the terms of a sum.
    weight_unit: u32,
    weight_term: u32,
    bias_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    step_flags_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    unprojected_base: u32,
    pass_flags: u32,
    /// For two directions: the offset in steps from the first direction's step to the second's, modulo 2^32,
    /// in arrays [2, T, ..] and in arrays [T, ..].
    second_behind: u32,
    second_beside: u32,
    /// Random numbers: the counter of the first number of the first step, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});

parameters!(BackwardParameters {
    /// Rows of the dispatch: those of the batch, or of several steps (sliding windows).
    rows: u32,
    batch: u32,
    hidden_size: u32,
    /// Elements per row of the output, and of d_output.
    width: u32,
    d_width: u32,
    /// Number of steps of the dispatch.
    steps: u32,
    /// The increment from one step to the next in backward order: 2^32 - 1 (-1), or 1 where the first
    /// direction is reversed.
    direction: u32,
    first_row: u32,
    first_unit: u32,
    weight_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    step_flags_base: u32,
    output_base: u32,
    d_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    /// Where the gradient of the state is written.
    carry_base: u32,
    carry_cell_base: u32,
    /// Offsets in rows, modulo 2^32: from a step's gates to those of the following step, and from where the
    /// carry is written to where it is read.
    next_row: u32,
    carry_row: u32,
    pass_flags: u32,
    /// As in `ForwardParameters`.
    second_behind: u32,
    second_beside: u32,
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});

/// Bits of `pass_flags`, as in `shaders/recurrent/common/layer.wgsl`.
pub(crate) const FIRST_STEP: u32 = 1;
pub(crate) const LAST_STEP: u32 = 2;
pub(crate) const TAKES_OUTPUTS: u32 = 4;
pub(crate) const HAS_BIAS: u32 = 8;

/// `flag` if `holds`, else 0.
pub(crate) fn flag(flag: u32, holds: bool) -> u32 {
    if holds { flag } else { 0 }
}

/// Increments of the step: the shaders compute modulo 2^32.
const LATER: u32 = 1;
const EARLIER: u32 = u32::MAX;

/// The operands of a forward pass, of one direction or both, except the arrays over time.
pub(crate) struct ForwardOperands<'a> {
    pub(crate) context: &'a Context,
    /// One direction, or both.
    pub(crate) calls: &'a [Call<'a>],
    pub(crate) sizes: Sizes,
    /// W_hh as [P, G·H] if `is_transposed`, else as [G·H, P].
    pub(crate) weights: DirectionOperand<'a>,
    pub(crate) is_transposed: bool,
    pub(crate) biases: Option<DirectionOperand<'a>>,
    pub(crate) initial: InitialOperands<'a>,
    /// Elements per row of the output.
    pub(crate) width: usize,
}

/// [`ForwardOperands`] and the arrays of one time chunk, bound.
pub(crate) struct BoundForward<'a> {
    operands: &'a ForwardOperands<'a>,
    chunk: &'a TimeChunk<'a>,
    weight: Bound<'a>,
    bias: Option<Bound<'a>>,
    initial: Bound<'a>,
}

impl ForwardOperands<'_> {
    pub(crate) fn bind<'a>(&'a self, chunk: &'a TimeChunk<'a>) -> Result<BoundForward<'a>> {
        let bias = self.biases.as_ref().map(|biases| self.context.bind(biases.span())).transpose()?;
        Ok(BoundForward {
            operands: self,
            chunk,
            weight: self.context.bind(self.weights.span())?,
            bias,
            initial: self.initial.bind(self.context)?,
        })
    }
}

impl<'a> BoundForward<'a> {
    /// The storage bindings, the same for every strategy. Another buffer is bound in place of an array that
    /// the layer does not have; the kernels do not read it.
    pub(crate) fn bindings(&self) -> [Bound<'a>; 7] {
        let Self { chunk, weight, bias, initial, .. } = self;
        [
            *weight,
            bias.unwrap_or(*weight),
            *initial,
            chunk.step_flags.map_or(*weight, |step_flags| step_flags.bound),
            chunk.gates.bound,
            chunk.output.bound,
            chunk.saved.bound,
        ]
    }

    /// The parameters of a dispatch that computes the steps `order` for all rows and units.
    pub(crate) fn parameters(&self, order: &[usize]) -> ForwardParameters {
        let Self { operands, chunk, weight, bias, initial } = self;
        let ForwardOperands { calls, sizes, is_transposed, width, .. } = **operands;
        let Sizes { steps, rows, hidden_size, projection_size } = sizes;
        let call = &calls[0];
        let t = order[0];
        let [second_behind, second_beside] = second(calls.len(), t, sizes);
        let [initial_base, initial_cell_base, peepholes_base, mask_base] =
            operands.initial.offsets(initial.base);
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let [weight_unit, weight_term] = match is_transposed {
            true => [1, call.equations.gates() * hidden_size],
            false => [projection_size, 1],
        };
        ForwardParameters {
            rows: rows as u32,
            hidden_size: hidden_size as u32,
            projection_size: projection_size as u32,
            width: width as u32,
            steps: order.len() as u32,
            direction: if call.traversal.reversed() { EARLIER } else { LATER },
            first_row: 0,
            first_unit: 0,
            weight_base: weight.base,
            weight_unit: weight_unit as u32,
            weight_term: weight_term as u32,
            bias_base: bias.map_or(0, |bias| bias.base),
            initial_base,
            initial_cell_base,
            peepholes_base,
            mask_base,
            step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
            gates_base: chunk.gates.at(t),
            output_base: chunk.output.at(t),
            saved_base: chunk.saved.at(t),
            unprojected_base: chunk.unprojected.at(t),
            pass_flags: flag(FIRST_STEP, call.traversal.neighbour(t, steps).is_none())
                | flag(HAS_BIAS, bias.is_some()),
            second_behind,
            second_beside,
            first_number: ((call.traversal.first + t) * rows * hidden_size) as u32,
            seed_low,
            seed_high,
            stream_low,
            stream_high,
        }
    }
}

/// The operands of a backward pass except the arrays over time, and the carried gradient of the state.
pub(crate) struct BackwardOperands<'a> {
    pub(crate) pass: &'a BackwardPass<'a>,
    pub(crate) weights: &'a DirectionOperand<'a>,
    pub(crate) initial: &'a InitialOperands<'a>,
    /// Hidden [1 or 2, B, P], followed by cell [1 or 2, B, H].
    pub(crate) carry: &'a Tensor,
    /// With a projection, the gradient of m [B, H], where h = W_hr m.
    pub(crate) d_unprojected: Option<&'a Tensor>,
}

/// [`BackwardOperands`] and the arrays of one time chunk, bound.
pub(crate) struct BoundBackward<'a> {
    operands: &'a BackwardOperands<'a>,
    chunk: &'a TimeChunk<'a>,
    weight: Bound<'a>,
    initial: Bound<'a>,
    pub(crate) carry: Bound<'a>,
    d_unprojected: Option<Bound<'a>>,
}

impl BackwardOperands<'_> {
    pub(crate) fn bind<'b>(&'b self, chunk: &'b TimeChunk<'b>) -> Result<BoundBackward<'b>> {
        let context = self.pass.context;
        let d_unprojected = self.d_unprojected.map(|gradient| context.bind(gradient.view().span()));
        Ok(BoundBackward {
            operands: self,
            chunk,
            weight: context.bind(self.weights.span())?,
            initial: self.initial.bind(context)?,
            carry: context.bind(self.carry.view().span())?,
            d_unprojected: d_unprojected.transpose()?,
        })
    }
}

impl<'a> BoundBackward<'a> {
    /// The storage bindings, the same for every strategy. Without step flags the weights are bound in their
    /// place and not read.
    pub(crate) fn bindings(&self) -> [Bound<'a>; 8] {
        let Self { chunk, weight, initial, carry, d_unprojected, .. } = self;
        [
            *weight,
            chunk.output.bound,
            d_unprojected.unwrap_or(chunk.d_output.bound),
            *initial,
            chunk.step_flags.map_or(*weight, |step_flags| step_flags.bound),
            chunk.gates.bound,
            chunk.saved.bound,
            *carry,
        ]
    }

    /// The parameters of a dispatch that computes the steps `order`, given in backward order, for all rows
    /// and units.
    pub(crate) fn parameters(&self, order: &[usize]) -> BackwardParameters {
        let Self { operands, chunk, weight, initial, carry, d_unprojected } = self;
        let BackwardOperands { pass, initial: places, .. } = operands;
        let BackwardPass { calls, call, sizes, .. } = **pass;
        let Sizes { steps, rows, hidden_size, projection_size } = sizes;
        let (t, end) = (order[0], order[order.len() - 1]);
        let [second_behind, second_beside] = second(calls.len(), t, sizes);
        let [initial_base, initial_cell_base, peepholes_base, mask_base] = places.offsets(initial.base);
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let direction = if call.traversal.reversed() { LATER } else { EARLIER };
        BackwardParameters {
            rows: rows as u32,
            batch: rows as u32,
            hidden_size: hidden_size as u32,
            width: (chunk.output.stride / rows) as u32,
            d_width: d_unprojected.map_or(chunk.d_output.stride / rows, |_| hidden_size) as u32,
            steps: order.len() as u32,
            direction,
            first_row: 0,
            first_unit: 0,
            weight_base: weight.base,
            initial_base,
            initial_cell_base,
            peepholes_base,
            mask_base,
            step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
            output_base: chunk.output.at(t),
            d_output_base: d_unprojected.map_or(chunk.d_output.at(t), |bound| bound.base),
            gates_base: chunk.gates.at(t),
            saved_base: chunk.saved.at(t),
            carry_base: carry.base,
            carry_cell_base: carry.base + (calls.len() * rows * projection_size) as u32,
            next_row: 0u32.wrapping_sub(direction.wrapping_mul(rows as u32)),
            carry_row: 0,
            pass_flags: flag(FIRST_STEP, call.traversal.neighbour(end, steps).is_none())
                | flag(LAST_STEP, call.traversal.successor(t, steps).is_none())
                | TAKES_OUTPUTS,
            second_behind,
            second_beside,
            first_number: ((call.traversal.first + t) * rows * hidden_size) as u32,
            seed_low,
            seed_high,
            stream_low,
            stream_high,
        }
    }
}

//! Many steps in one dispatch: `shaders/recurrent_sequence_{forward,backward}.wgsl`.

use std::ops::Range;

use super::backward::{BackwardLoop, BackwardPass};
use super::bidirectional::{DirectionOperand, second};
use super::kernels::{FIRST_STEP, HAS_BIAS, LAST_STEP, TAKES_OUTPUTS, flag};
use super::operands::InitialOperands;
use super::persistent::PersistentKernel;
use super::persistent::division::Capacity;
use super::split_k::SplitK;
use super::strategy::{RowDivision, Strategy, StrategyInputs, choose};
use super::time_chunks::TimeChunk;
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, RecurrentStrategy, parameters, pieces};
use crate::ops::recurrent::{Call, Sizes};
use crate::tuning::RecurrentShape;

parameters!(SequenceForwardParameters {
    rows: u32,
    hidden_size: u32,
    /// Of the step's kernel, P: here H.
    projection_size: u32,
    width: u32,
    /// How many steps, and whether time goes up (1) or down (2^32 - 1).
    steps: u32,
    direction: u32,
    first_row: u32,
    weight_base: u32,
    bias_base: u32,
    initial_base: u32,
    initial_cell_base: u32,
    peepholes_base: u32,
    mask_base: u32,
    step_flags_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    /// FIRST_STEP holds for the first of the steps.
    pass_flags: u32,
    /// Of both directions: how many steps behind the first one's place the second one's is in arrays [2, T, ..], and in
    /// arrays [T, ..]; modulo 2^32.
    second_behind: u32,
    second_beside: u32,
    /// Of the random numbers: the first that the first step draws, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});
parameters!(SequenceBackwardParameters {
    rows: u32,
    batch: u32,
    hidden_size: u32,
    width: u32,
    d_width: u32,
    /// How many steps, and whether this pass goes up in time (1) or down (2^32 - 1).
    steps: u32,
    direction: u32,
    first_row: u32,
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
    carry_base: u32,
    carry_cell_base: u32,
    /// LAST_STEP holds for the first of the steps taken; FIRST_STEP for the last of them.
    pass_flags: u32,
    /// Of both directions: how many steps behind the first one's place the second one's is in arrays [2, T, ..], and in
    /// arrays [T, ..]; modulo 2^32.
    second_behind: u32,
    second_beside: u32,
    /// Of the random numbers: the first that the first step draws, the key, the stream.
    first_number: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
});

/// One step on in time, or one back, in the shaders' wrapping numbers.
const UP: u32 = 1;
const DOWN: u32 = u32::MAX;

/// What the forward loop has beside a stretch of time.
pub(crate) struct Forward<'a> {
    pub(crate) context: &'a Context,
    /// One direction, or both.
    pub(crate) calls: &'a [Call<'a>],
    pub(crate) sizes: Sizes,
    pub(crate) operands: &'a InitialOperands<'a>,
    /// Elements of a row of the output.
    pub(crate) width: usize,
}

/// A kernel that takes many steps, with its constants and how its work is divided.
pub(crate) struct SequenceKernel {
    pub(crate) kind: KernelKind,
    /// How many directions share a dispatch.
    pub(crate) directions: usize,
}

/// How it takes them.
pub(crate) enum KernelKind {
    /// Each workgroup all units of some rows.
    Rows { kernel: &'static Kernel, constants: Vec<u32>, division: RowDivision },
    /// Each workgroup some units, whose weights it keeps.
    Persistent(PersistentKernel),
}

/// How the steps of `calls`, one direction or both, are taken.
///
/// # Errors
/// Those of [`Context::waiting_workgroups`].
pub(crate) fn strategy(context: &Context, calls: &[Call<'_>], sizes: Sizes) -> Result<Strategy> {
    let call = &calls[0];
    // A step of theirs is more than a dispatch.
    if call.weights.projection.is_some() || call.equations.resets_before() {
        return Ok(Strategy::PerStep);
    }
    let (gates, Sizes { units, rows, .. }) = (call.equations.gates(), sizes);
    let inputs = |wanted, capacity| StrategyInputs {
        gates,
        units,
        rows,
        directions: calls.len(),
        slice_bits: SplitK::of(context, sizes).slice_bits(),
        capacity,
        kind: context.kind(),
        wanted,
    };
    let choices = context.choices();
    let shape = RecurrentShape { gates, units, rows };
    let wanted = choices.recurrent(shape);
    // Nobody makes the self-test who would not wait; who compares all ways does.
    let asks = match wanted {
        RecurrentStrategy::Persistent => true,
        _ => context.trusts_waiting() && (choices.notes() || inputs(wanted, None).depends_on_capacity()),
    };
    let capacity = if asks { capacity(context)? } else { None };
    let taken = |wanted| choose(&inputs(wanted, capacity));
    // There is nothing to note where all wishes lead to the same.
    let others = [RecurrentStrategy::Sequence, RecurrentStrategy::Persistent];
    if choices.notes() && others.into_iter().any(|way| taken(way) != Strategy::PerStep) {
        choices.note_recurrent(shape, taken(wanted).name());
    }
    Ok(taken(wanted))
}

/// What there is for workgroups that wait for each other, where they may.
fn capacity(context: &Context) -> Result<Option<Capacity>> {
    let workgroups = context.waiting_workgroups()?;
    let words = context.limits().binding_elements;
    let iterations = context.completion_iterations();
    Ok((workgroups > 0).then(|| Capacity {
        workgroups,
        words,
        weight_bits: context.weight_bits(),
        iterations,
    }))
}

impl SequenceKernel {
    /// The steps `order` in parts that one dispatch may take each, and the rows of each dispatch.
    fn parts<'o>(
        &self,
        context: &Context,
        call: &Call<'_>,
        sizes: Sizes,
        order: &'o [usize],
    ) -> impl Iterator<Item = (&'o [usize], Range<usize>)> {
        let (most, side) = match &self.kind {
            KernelKind::Rows { division, .. } => (
                division.steps(call.equations.gates(), sizes.units),
                context.limits().workgroups * division.rows(),
            ),
            KernelKind::Persistent(kernel) => (kernel.steps(), sizes.rows),
        };
        order.chunks(most).flat_map(move |steps| pieces(sizes.rows, side).map(move |rows| (steps, rows)))
    }

    fn dispatch<P: bytemuck::Pod>(
        &self,
        context: &Context,
        [steps, rows]: [usize; 2],
        bindings: &[Bound<'_>],
        parameters: P,
    ) -> Result<()> {
        match &self.kind {
            KernelKind::Rows { kernel, constants, division } => context.dispatch(Dispatch {
                kernel,
                constants,
                parameters,
                bindings,
                grid: [rows.div_ceil(division.rows()), 1, self.directions],
            }),
            KernelKind::Persistent(kernel) => kernel.dispatch(context, steps, bindings, parameters),
        }
    }

    /// Whether W_hh stays on chip: it is then read as [G·H, H], and otherwise forward as [H, G·H].
    pub(crate) fn is_persistent(&self) -> bool {
        matches!(self.kind, KernelKind::Persistent(_))
    }

    /// All steps of a stretch. `weights` is W_hh of one direction or both, as [`SequenceKernel::is_on_chip`] says.
    pub(crate) fn forward(
        &self,
        of: &Forward<'_>,
        weights: &DirectionOperand<'_>,
        chunk: &TimeChunk<'_>,
    ) -> Result<()> {
        let Forward { context, calls, sizes, operands, width } = *of;
        let call = &calls[0];
        let Sizes { steps, rows, units, .. } = sizes;
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let weight = context.bind(weights.span())?;
        let biases = DirectionOperand::biases(calls)?;
        let bias = biases.as_ref().map(|bias| context.bind(bias.span())).transpose()?;
        let initial = operands.bind(context)?;
        let bindings = [
            weight,
            // What is missing is replaced by something else, and not read.
            bias.unwrap_or(weight),
            initial,
            chunk.step_flags.map_or(weight, |step_flags| step_flags.bound),
            chunk.gates.bound,
            chunk.output.bound,
            chunk.saved.bound,
        ];
        let order = call.traversal.order_of(chunk.steps.clone());
        for (part, part_rows) in self.parts(context, call, sizes, &order) {
            let t = part[0];
            let starts = call.traversal.neighbour(t, steps).is_none();
            let [second_behind, second_beside] = second(calls.len(), t, sizes);
            let parameters = SequenceForwardParameters {
                rows: rows as u32,
                hidden_size: units as u32,
                projection_size: units as u32,
                width: width as u32,
                steps: part.len() as u32,
                direction: if call.traversal.reversed() { DOWN } else { UP },
                first_row: part_rows.start as u32,
                weight_base: weight.base,
                bias_base: bias.map_or(0, |bias| bias.base),
                initial_base: operands.hidden(initial.base),
                initial_cell_base: operands.cell(initial.base),
                peepholes_base: operands.peepholes(initial.base),
                mask_base: operands.mask(initial.base),
                step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
                gates_base: chunk.gates.at(t),
                output_base: chunk.output.at(t),
                saved_base: chunk.saved.at(t),
                pass_flags: flag(FIRST_STEP, starts) | flag(HAS_BIAS, bias.is_some()),
                second_behind,
                second_beside,
                first_number: ((call.traversal.first + t) * rows * units) as u32,
                seed_low,
                seed_high,
                stream_low,
                stream_high,
            };
            self.dispatch(context, [part.len(), part_rows.len()], &bindings, parameters)?;
        }
        Ok(())
    }

    /// All steps of a stretch back.
    pub(crate) fn backward(&self, of: &BackwardLoop<'_>, chunk: &TimeChunk<'_>) -> Result<()> {
        let BackwardPass { context, calls, call, sizes, .. } = *of.run;
        let Sizes { steps, rows, units, .. } = sizes;
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let weights = DirectionOperand::weights(calls)?;
        let weight = context.bind(weights.span())?;
        let operands = InitialOperands::of(context, calls, sizes)?;
        let initial = operands.bind(context)?;
        let carry = context.bind(of.carry.view().span())?;
        let Some(d_output) = chunk.d_output else { unreachable!("every way back has one") };
        let bindings = [
            weight,
            chunk.output.bound,
            d_output.bound,
            initial,
            // Where there are no marks something else is bound, and not read.
            chunk.step_flags.map_or(weight, |step_flags| step_flags.bound),
            chunk.gates.bound,
            chunk.saved.bound,
            carry,
        ];
        let mut order = call.traversal.order_of(chunk.steps.clone());
        order.reverse();
        for (part, part_rows) in self.parts(context, call, sizes, &order) {
            let (t, end) = (part[0], part[part.len() - 1]);
            let (ends, starts) = (
                call.traversal.successor(t, steps).is_none(),
                call.traversal.neighbour(end, steps).is_none(),
            );
            let [second_behind, second_beside] = second(calls.len(), t, sizes);
            let parameters = SequenceBackwardParameters {
                rows: rows as u32,
                batch: rows as u32,
                hidden_size: units as u32,
                width: (chunk.output.stride / rows) as u32,
                d_width: (d_output.stride / rows) as u32,
                steps: part.len() as u32,
                direction: if call.traversal.reversed() { UP } else { DOWN },
                first_row: part_rows.start as u32,
                weight_base: weight.base,
                initial_base: operands.hidden(initial.base),
                initial_cell_base: operands.cell(initial.base),
                peepholes_base: operands.peepholes(initial.base),
                mask_base: operands.mask(initial.base),
                step_flags_base: chunk.step_flags.map_or(0, |step_flags| step_flags.at(t)),
                output_base: chunk.output.at(t),
                d_output_base: d_output.at(t),
                gates_base: chunk.gates.at(t),
                saved_base: chunk.saved.at(t),
                carry_base: carry.base,
                carry_cell_base: carry.base + (calls.len() * rows * units) as u32,
                pass_flags: flag(FIRST_STEP, starts) | flag(LAST_STEP, ends) | TAKES_OUTPUTS,
                second_behind,
                second_beside,
                first_number: ((call.traversal.first + t) * rows * units) as u32,
                seed_low,
                seed_high,
                stream_low,
                stream_high,
            };
            self.dispatch(context, [part.len(), part_rows.len()], &bindings, parameters)?;
        }
        Ok(())
    }
}

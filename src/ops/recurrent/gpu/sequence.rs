//! Many steps in one dispatch: `shaders/recurrent_sequence_{forward,backward}.wgsl`.

use std::ops::Range;

use super::backward::{Loop, Run};
use super::bidirectional::{Stack, second};
use super::kernels::{FIRST_STEP, HAS_BIAS, LAST_STEP, TAKES_OUTPUTS, flag};
use super::operands::Given;
use super::persistent::OnChipKernel;
use super::persistent::division::Room;
use super::split_k::Split;
use super::strategy::{Facts, Plan, Tier, choose};
use super::time_chunks::Stretch;
use crate::Result;
use crate::gpu::{Bound, Context, Dispatch, Kernel, RecurrentTier, parameters, pieces};
use crate::ops::recurrent::{Call, Sizes};
use crate::tuning::RecurrentShape;

parameters!(SequenceForwardParameters {
    rows: u32,
    hidden: u32,
    /// Of the step's kernel, P: here H.
    state: u32,
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
    marks_base: u32,
    gates_base: u32,
    output_base: u32,
    saved_base: u32,
    /// FIRST_STEP holds for the first of the steps.
    flags: u32,
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
    hidden: u32,
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
    marks_base: u32,
    output_base: u32,
    d_output_base: u32,
    gates_base: u32,
    saved_base: u32,
    carry_base: u32,
    carry_cell_base: u32,
    /// LAST_STEP holds for the first of the steps taken; FIRST_STEP for the last of them.
    flags: u32,
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
    pub(crate) given: &'a Given<'a>,
    /// Elements of a row of the output.
    pub(crate) width: usize,
}

/// A kernel that takes many steps, with its constants and how its work is divided.
pub(crate) struct SequenceKernel {
    pub(crate) way: Way,
    /// How many directions share a dispatch.
    pub(crate) directions: usize,
}

/// How it takes them.
pub(crate) enum Way {
    /// Each workgroup all units of some rows.
    Rows { kernel: &'static Kernel, constants: Vec<u32>, plan: Plan },
    /// Each workgroup some units, whose weights it keeps.
    OnChip(OnChipKernel),
}

/// How the steps of `calls`, one direction or both, are taken.
///
/// # Errors
/// Those of [`Context::waiting_workgroups`].
pub(crate) fn tier(context: &Context, calls: &[Call<'_>], sizes: Sizes) -> Result<Tier> {
    let call = &calls[0];
    // A step of theirs is more than a dispatch.
    if call.weights.projection.is_some() || call.equations.resets_before() {
        return Ok(Tier::Steps);
    }
    let (gates, Sizes { units, rows, .. }) = (call.equations.gates(), sizes);
    let facts = |wanted, room| Facts {
        gates,
        units,
        rows,
        directions: calls.len(),
        slice_bits: Split::of(context, sizes).slice_bits(),
        room,
        kind: context.kind(),
        wanted,
    };
    let choices = context.choices();
    let shape = RecurrentShape { gates, units, rows };
    let wanted = choices.recurrent(shape);
    // Nobody makes the self-test who would not wait; who compares all ways does.
    let asks = match wanted {
        RecurrentTier::OnChip => true,
        _ => context.trusts_waiting() && (choices.notes() || facts(wanted, None).asks_for_room()),
    };
    let room = if asks { room(context)? } else { None };
    let taken = |wanted| choose(&facts(wanted, room));
    // There is nothing to note where all wishes lead to the same.
    let others = [RecurrentTier::Sequence, RecurrentTier::OnChip];
    if choices.notes() && others.into_iter().any(|way| taken(way) != Tier::Steps) {
        choices.note_recurrent(shape, taken(wanted).name());
    }
    Ok(taken(wanted))
}

/// What there is for workgroups that wait for each other, where they may.
fn room(context: &Context) -> Result<Option<Room>> {
    let workgroups = context.waiting_workgroups()?;
    let words = context.limits().binding_elements;
    let turns = context.completion_turns();
    Ok((workgroups > 0).then(|| Room { workgroups, words, weight_bits: context.weight_bits(), turns }))
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
        let (most, side) = match &self.way {
            Way::Rows { plan, .. } => {
                (plan.steps(call.equations.gates(), sizes.units), context.limits().workgroups * plan.rows())
            }
            Way::OnChip(kernel) => (kernel.steps(), sizes.rows),
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
        match &self.way {
            Way::Rows { kernel, constants, plan } => context.dispatch(Dispatch {
                kernel,
                constants,
                parameters,
                bindings,
                grid: [rows.div_ceil(plan.rows()), 1, self.directions],
            }),
            Way::OnChip(kernel) => kernel.dispatch(context, steps, bindings, parameters),
        }
    }

    /// Whether W_hh stays on chip: it is then read as [G·H, H], and otherwise forward as [H, G·H].
    pub(crate) fn is_on_chip(&self) -> bool {
        matches!(self.way, Way::OnChip(_))
    }

    /// All steps of a stretch. `weights` is W_hh of one direction or both, as [`SequenceKernel::is_on_chip`] says.
    pub(crate) fn forward(&self, of: &Forward<'_>, weights: &Stack<'_>, stretch: &Stretch<'_>) -> Result<()> {
        let Forward { context, calls, sizes, given, width } = *of;
        let call = &calls[0];
        let Sizes { steps, rows, units, .. } = sizes;
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let weight = context.bind(weights.span())?;
        let biases = Stack::biases(calls)?;
        let bias = biases.as_ref().map(|bias| context.bind(bias.span())).transpose()?;
        let initial = given.bind(context)?;
        let bindings = [
            weight,
            // What is missing is replaced by something else, and not read.
            bias.unwrap_or(weight),
            initial,
            stretch.marks.map_or(weight, |marks| marks.bound),
            stretch.gates.bound,
            stretch.output.bound,
            stretch.saved.bound,
        ];
        let order = call.walk.order_of(stretch.steps.clone());
        for (part, part_rows) in self.parts(context, call, sizes, &order) {
            let t = part[0];
            let starts = call.walk.neighbour(t, steps).is_none();
            let [second_behind, second_beside] = second(calls.len(), t, sizes);
            let parameters = SequenceForwardParameters {
                rows: rows as u32,
                hidden: units as u32,
                state: units as u32,
                width: width as u32,
                steps: part.len() as u32,
                direction: if call.walk.reversed() { DOWN } else { UP },
                first_row: part_rows.start as u32,
                weight_base: weight.base,
                bias_base: bias.map_or(0, |bias| bias.base),
                initial_base: given.hidden(initial.base),
                initial_cell_base: given.cell(initial.base),
                peepholes_base: given.peepholes(initial.base),
                mask_base: given.mask(initial.base),
                marks_base: stretch.marks.map_or(0, |marks| marks.at(t)),
                gates_base: stretch.gates.at(t),
                output_base: stretch.output.at(t),
                saved_base: stretch.saved.at(t),
                flags: flag(FIRST_STEP, starts) | flag(HAS_BIAS, bias.is_some()),
                second_behind,
                second_beside,
                first_number: ((call.walk.first + t) * rows * units) as u32,
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
    pub(crate) fn backward(&self, of: &Loop<'_>, stretch: &Stretch<'_>) -> Result<()> {
        let Run { context, calls, call, sizes, .. } = *of.run;
        let Sizes { steps, rows, units, .. } = sizes;
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let weights = Stack::weights(calls)?;
        let weight = context.bind(weights.span())?;
        let given = Given::of(context, calls, sizes)?;
        let initial = given.bind(context)?;
        let carry = context.bind(of.carry.view().span())?;
        let Some(d_output) = stretch.d_output else { unreachable!("every way back has one") };
        let bindings = [
            weight,
            stretch.output.bound,
            d_output.bound,
            initial,
            // Where there are no marks something else is bound, and not read.
            stretch.marks.map_or(weight, |marks| marks.bound),
            stretch.gates.bound,
            stretch.saved.bound,
            carry,
        ];
        let mut order = call.walk.order_of(stretch.steps.clone());
        order.reverse();
        for (part, part_rows) in self.parts(context, call, sizes, &order) {
            let (t, end) = (part[0], part[part.len() - 1]);
            let (ends, starts) =
                (call.walk.successor(t, steps).is_none(), call.walk.neighbour(end, steps).is_none());
            let [second_behind, second_beside] = second(calls.len(), t, sizes);
            let parameters = SequenceBackwardParameters {
                rows: rows as u32,
                batch: rows as u32,
                hidden: units as u32,
                width: (stretch.output.stride / rows) as u32,
                d_width: (d_output.stride / rows) as u32,
                steps: part.len() as u32,
                direction: if call.walk.reversed() { UP } else { DOWN },
                first_row: part_rows.start as u32,
                weight_base: weight.base,
                initial_base: given.hidden(initial.base),
                initial_cell_base: given.cell(initial.base),
                peepholes_base: given.peepholes(initial.base),
                mask_base: given.mask(initial.base),
                marks_base: stretch.marks.map_or(0, |marks| marks.at(t)),
                output_base: stretch.output.at(t),
                d_output_base: d_output.at(t),
                gates_base: stretch.gates.at(t),
                saved_base: stretch.saved.at(t),
                carry_base: carry.base,
                carry_cell_base: carry.base + (calls.len() * rows * units) as u32,
                flags: flag(FIRST_STEP, starts) | flag(LAST_STEP, ends) | TAKES_OUTPUTS,
                second_behind,
                second_beside,
                first_number: ((call.walk.first + t) * rows * units) as u32,
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

//! The time loop on the GPU: a cell's kernels over all time steps, in one pass, of one direction or of both. The way back
//! is in `back.rs`.

use super::bidirectional::{Stack, part_of, second};
use super::boundary_states as support;
use super::kernels::{CellKernels, FIRST_STEP, HAS_BIAS, REVERSED, flag};
use super::operands::{self as given, Given};
use super::per_step::{ForwardParameters, StepKernel};
use super::projection::project;
use super::sequence;
use super::time_chunks::{Arrays, Reach, Stretch, blocks};
use crate::Result;
use crate::gpu::{Buffer, Context, Span};
use crate::ops::permute;
use crate::ops::recurrent::{Call, Sizes, StateParts};
use crate::tensor::Tensor;

const NEITHER: Reach = Reach { before: 0, after: 0 };
pub(crate) const BEFORE: Reach = Reach { before: 1, after: 0 };

/// What [`forward`] makes beside the gates and the output.
pub(crate) struct Made {
    pub(crate) saved: Option<Tensor>,
    pub(crate) unprojected: Option<Tensor>,
    pub(crate) product: Option<Tensor>,
    pub(crate) marks: Option<Buffer>,
    /// Of each direction.
    pub(crate) last: Vec<StateParts>,
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
) -> Result<Made> {
    let Sizes { steps, rows, units, .. } = sizes;
    let device = projected.device().clone();
    let call = &calls[0];
    let array = |exists: bool| match exists {
        true => Tensor::unwritten(&device, &over_time(calls, sizes, units)).map(Some),
        false => Ok(None),
    };
    let saved = array(call.equations.saves())?;
    let unprojected = array(call.weights.projection.is_some())?;
    let marks = support::marks(context, calls, steps, rows)?;
    let scraps = scraps(context)?;
    let width = output.shape().last();
    {
        let (gates, target) = (projected.view_mut()?, output.view_mut()?);
        let arrays = Arrays {
            gates: (gates.span(), NEITHER),
            output: (target.span(), BEFORE),
            d_output: None,
            saved: saved.as_ref().map(|saved| (saved.view().span(), BEFORE)),
            unprojected: unprojected.as_ref().map(|unprojected| unprojected.view().span()),
            marks: marks.as_ref().map(|marks| (Span::new(marks, 0, calls.len() * steps * rows), NEITHER)),
            scraps: scraps.each_ref().map(|scrap| Span::new(scrap, 0, 1)),
            columns: [call.column; 2],
            reversed: call.walk.reversed(),
            directions: calls.len(),
        };
        let kernels = CellKernels::of(context, calls, sizes, marks.is_some())?;
        let given = Given::of(context, calls, sizes)?;
        let own = sequence::Forward { context, calls, sizes, given: &given, width };
        let tier = sequence::tier(context, calls, sizes)?;
        let many = kernels.many_forward(call, tier);
        // Refuses a row larger than a binding, before any work.
        let mut stretches = arrays.stretches(context, sizes)?;
        // To copy W_hh moves as much as a step reads of it: not for a single one.
        let needs_transposed = many.as_ref().map_or(steps > 1, |many| !many.is_on_chip());
        let transposed = match needs_transposed {
            true => Some(transposed(calls)?),
            false => None,
        };
        let weights = match &transposed {
            Some(transposed) => Stack::of(&[transposed.view().named_as(calls[0].weights.weight_hh)])?,
            None => Stack::weights(calls)?,
        };
        if call.walk.reversed() {
            stretches.reverse();
        }
        let step = kernels.forward();
        for stretch in &stretches {
            match &many {
                Some(many) => many.forward(&own, &weights, stretch)?,
                None => {
                    let weights = Weights { values: &weights, transposed: needs_transposed };
                    step_by_step(&own, &step, &weights, stretch, &arrays)?
                }
            }
        }
    }
    let mut last = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        let saved = saved.as_ref().map(|saved| part_of(saved, index, calls.len()));
        last.push(support::last_state(context, call, sizes, output, saved.as_ref())?);
    }
    Ok(Made { saved, unprojected, product: None, marks, last })
}

/// W_hh as [P, G·H], of each direction: neighbouring units then have neighbouring weights.
fn transposed(calls: &[Call<'_>]) -> Result<Tensor> {
    let made = calls.iter().map(|call| permute(call.weights.weight_hh, &[1, 0]));
    let mut made = made.collect::<Result<Vec<_>>>()?;
    match made.len() {
        1 => Ok(made.remove(0)),
        _ => given::joined(&made.iter().map(Tensor::view).collect::<Vec<_>>()),
    }
}

/// W_hh of one direction or both, as [G·H, P] or as [P, G·H].
struct Weights<'a> {
    values: &'a Stack<'a>,
    transposed: bool,
}

/// A dispatch for each step of a stretch. What there may be of `transposed` weights has the same sums.
fn step_by_step(
    of: &sequence::Forward<'_>,
    kernel: &StepKernel,
    weights: &Weights<'_>,
    stretch: &Stretch<'_>,
    arrays: &Arrays<'_>,
) -> Result<()> {
    let sequence::Forward { context, calls, sizes, given, width } = *of;
    let call = &calls[0];
    let Sizes { steps, rows, units, hidden } = sizes;
    let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
    let [weight_unit, weight_term] = match weights.transposed {
        true => [1, call.equations.gates() * units],
        false => [hidden, 1],
    };
    let biases = Stack::biases(calls)?;
    let weight = context.bind(weights.values.span())?;
    let bias = biases.as_ref().map(|bias| context.bind(bias.span())).transpose()?;
    let initial = given.bind(context)?;
    let blocks = blocks(context, sizes, kernel.split);
    let bindings = [
        weight,
        // What is missing is replaced by something else, and not read.
        bias.unwrap_or(weight),
        initial,
        stretch.marks.map_or(weight, |marks| marks.bound),
        stretch.gates.bound,
        stretch.output.bound,
        stretch.saved.bound,
        stretch.unprojected.bound,
    ];
    for t in call.walk.order_of(stretch.steps.clone()) {
        let before = call.walk.neighbour(t, steps);
        let [second_behind, second_beside] = second(calls.len(), t, sizes);
        kernel.run(context, &bindings, &blocks, |block| ForwardParameters {
            rows: rows as u32,
            hidden: units as u32,
            state: hidden as u32,
            width: width as u32,
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            weight_base: weight.base,
            weight_unit: weight_unit as u32,
            weight_term: weight_term as u32,
            bias_base: bias.map_or(0, |bias| bias.base),
            initial_base: given.hidden(initial.base),
            initial_cell_base: given.cell(initial.base),
            peepholes_base: given.peepholes(initial.base),
            mask_base: given.mask(initial.base),
            marks_base: stretch.marks.map_or(0, |marks| marks.at(t)),
            gates_base: stretch.gates.at(t),
            output_base: stretch.output.at(t),
            saved_base: stretch.saved.at(t),
            unprojected_base: stretch.unprojected.at(t),
            flags: flag(FIRST_STEP, before.is_none())
                | flag(HAS_BIAS, bias.is_some())
                | flag(REVERSED, call.walk.reversed()),
            second_behind,
            second_beside,
            first_number: ((call.walk.first + t) * rows * units) as u32,
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
pub(crate) fn scraps(context: &Context) -> Result<[Buffer; 2]> {
    let scrap = || context.allocate(1, "a stand-in for what a cell does not save");
    Ok([scrap()?, scrap()?])
}

//! The time loop on the GPU: a cell's kernels over all time steps, in one pass.

use super::given::{self, Given};
use super::kernels::{
    BackwardParameters, CellKernels, FIRST_STEP, ForwardParameters, HAS_BIAS, LAST_STEP, StepKernel,
    TAKES_OUTPUTS, flag,
};
use super::projection::{Place, Projection, project};
use super::sequence;
use super::stretch::{Arrays, Reach, Stretch, blocks};
use super::support::{self, GateGradients, Marks, States};
use super::{Call, Gradients, Sizes, StateParts, StateView, Steps, lags};
use crate::Result;
use crate::gpu::{Buffer, Context, Span};
use crate::ops::{dropout, permute};
use crate::shape::Shape;
use crate::tensor::{Tensor, View};

const NEITHER: Reach = Reach { before: 0, after: 0 };
const BEFORE: Reach = Reach { before: 1, after: 0 };

/// What [`forward`] makes beside the gates and the output.
pub(super) struct Made {
    pub(super) saved: Option<Tensor>,
    pub(super) unprojected: Option<Tensor>,
    pub(super) product: Option<Tensor>,
    pub(super) marks: Option<Buffer>,
    pub(super) last: StateParts,
}

pub(super) fn forward(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    projected: &mut Tensor,
    output: &mut Tensor,
) -> Result<Made> {
    let Sizes { steps, rows, units, .. } = sizes;
    let device = projected.device().clone();
    let array = |exists: bool| match exists {
        true => Tensor::uninitialized(context, &device, Shape::new(&[steps, rows, units])?).map(Some),
        false => Ok(None),
    };
    let saved = array(call.equations.saves())?;
    let unprojected = array(call.weights.projection.is_some())?;
    let marks = support::marks(context, &call.walk, steps, rows)?;
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
            marks: marks.as_ref().map(|marks| (Span::new(marks, 0, steps * rows), NEITHER)),
            scraps: scraps.each_ref().map(|scrap| Span::new(scrap, 0, 1)),
            columns: [call.column; 2],
            reversed: call.walk.reversed(),
        };
        let kernels = CellKernels::of(call, marks.is_some())?;
        let given = Given::of(call, sizes)?;
        let own = sequence::Forward { context, call, sizes, given: &given, width };
        let sequence = sequence::plan(context, call, sizes).and_then(|plan| kernels.sequence_forward(plan));
        let transposed = match sequence {
            Some(_) => Some(permute(call.weights.weight_hh, &[1, 0])?),
            None => None,
        };
        let mut stretches = arrays.stretches(context, sizes)?;
        if call.walk.reversed() {
            stretches.reverse();
        }
        for stretch in &stretches {
            match (&sequence, &transposed) {
                (Some(sequence), Some(transposed)) => sequence.forward(&own, transposed, stretch)?,
                _ => step_by_step(&own, &kernels.forward(), stretch, &arrays)?,
            }
        }
    }
    let last = support::last_state(context, call, sizes, output, saved.as_ref())?;
    Ok(Made { saved, unprojected, product: None, marks, last })
}

/// A dispatch for each step of a stretch.
fn step_by_step(
    of: &sequence::Forward<'_>,
    kernel: &StepKernel,
    stretch: &Stretch<'_>,
    arrays: &Arrays<'_>,
) -> Result<()> {
    let sequence::Forward { context, call, sizes, given, width } = *of;
    let Sizes { steps, rows, units, hidden } = sizes;
    let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
    let weight = context.bind(call.weights.weight_hh.span())?;
    let bias = call.weights.bias_hh.map(|bias| context.bind(bias.span())).transpose()?;
    let initial = given.bind(context)?;
    let blocks = blocks(context, sizes);
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
        let previous = before.unwrap_or(t);
        kernel.run(context, &bindings, &blocks, |block| ForwardParameters {
            rows: rows as u32,
            hidden: units as u32,
            state: hidden as u32,
            width: width as u32,
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            weight_base: weight.base,
            bias_base: bias.map_or(0, |bias| bias.base),
            initial_base: initial.base,
            initial_cell_base: given.cell(initial.base),
            peepholes_base: given.peepholes(initial.base),
            mask_base: given.mask(initial.base),
            marks_base: stretch.marks.map_or(0, |marks| marks.at(t)),
            gates_base: stretch.gates.at(t),
            output_base: stretch.output.at(t),
            saved_base: stretch.saved.at(t),
            previous_output_base: stretch.output.at(previous),
            previous_saved_base: stretch.saved.at(previous),
            unprojected_base: stretch.unprojected.at(t),
            flags: flag(FIRST_STEP, before.is_none()) | flag(HAS_BIAS, bias.is_some()),
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
pub(super) fn scraps(context: &Context) -> Result<[Buffer; 2]> {
    let scrap = || context.allocate(1, "a stand-in for what a cell does not save");
    Ok([scrap()?, scrap()?])
}

/// What the gradients of a backward pass are made of.
pub(super) struct Slopes {
    pub(super) d_projected: Tensor,
    /// At the last gate's recurrent part, where it is another.
    pub(super) d_apart: Option<Tensor>,
    /// At h [T, B, P], where a projection makes it.
    pub(super) d_hidden: Option<Tensor>,
    pub(super) d_initial: StateParts,
}

pub(super) fn backward(
    context: &Context,
    call: &Call<'_>,
    sizes: Sizes,
    mut kept: Steps,
    output: &Tensor,
    d_output: Tensor,
    d_last: Option<StateView<'_>>,
) -> Result<Gradients> {
    let Sizes { steps, rows, units, hidden } = sizes;
    let equations = call.equations;
    let gates = kept.take_gates();
    let Steps { saved, unprojected, marks, .. } = kept;
    let marks = Marks { span: marks.as_ref().map(|marks| Span::new(marks, 0, steps * rows)) };
    let cells = match (equations.peepholes(), &saved, call.initial.cell) {
        (1.., Some(saved), Some(initial)) => {
            let start = States { states: saved, column: 0, columns: units, initial };
            Some((support::previous(context, call, sizes, &start, marks)?, saved.clone()))
        }
        _ => None,
    };
    let modulated = saved.clone().filter(|_| equations.resets_before());
    let upstream = d_output.view();
    let run =
        Run { context, call, sizes, marks, output, unprojected: unprojected.as_ref(), d_output: upstream };
    let made = match call.walk.windows() {
        None => plain(&run, gates, saved, d_last)?,
        Some(windows) => lags::backward(&run, &gates, saved.as_ref(), d_last, windows)?,
    };
    let Slopes { d_projected, d_apart, d_hidden, d_initial } = made;
    // Nothing reads it after the loop, and nothing before the loop reads what comes now: they may share memory.
    drop(d_output);
    let start = States { states: output, column: call.column, columns: hidden, initial: call.initial.hidden };
    let previous = support::previous(context, call, sizes, &start, marks)?;
    let previous = match call.state_mask {
        Some(mask) => dropout(&previous, mask)?,
        None => previous,
    };
    let projection = d_hidden.zip(unprojected);
    Ok(Gradients {
        equations,
        d_projected,
        d_apart,
        previous,
        modulated,
        cells,
        projection,
        product: None,
        entry: None,
        d_initial,
    })
}

/// What both ways back through time have to know.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) call: &'a Call<'a>,
    pub(super) sizes: Sizes,
    pub(super) marks: Marks<'a>,
    pub(super) output: &'a Tensor,
    /// What the cell made of h, where a projection follows.
    pub(super) unprojected: Option<&'a Tensor>,
    pub(super) d_output: View<'a>,
}

/// From the last step to the first: each step's gradients replace what was kept of it.
fn plain(
    run: &Run<'_>,
    mut gates: Tensor,
    saved: Option<Tensor>,
    d_last: Option<StateView<'_>>,
) -> Result<Slopes> {
    let Run { context, call, sizes, marks, .. } = *run;
    let Sizes { steps, rows, hidden, .. } = sizes;
    let carry = given::carry(call, sizes, d_last)?;
    let projection = Projection::new(call, sizes, rows)?;
    let d_hidden = match projection {
        Some(_) => Some(Tensor::unwritten(gates.device(), &[steps, rows, hidden])?),
        None => None,
    };
    {
        let own = gates.view_mut()?;
        let scraps = scraps(context)?;
        let made = run.unprojected.map(|unprojected| unprojected.view().span());
        let arrays = Arrays {
            gates: (own.span(), Reach { before: 0, after: 1 }),
            output: (made.unwrap_or(run.output.view().span()), BEFORE),
            d_output: Some(run.d_output.span()),
            saved: saved.as_ref().map(|saved| (saved.view().span(), Reach { before: 1, after: 1 })),
            unprojected: None,
            marks: marks.span.map(|marks| (marks, Reach { before: 0, after: 1 })),
            scraps: scraps.each_ref().map(|scrap| Span::new(scrap, 0, 1)),
            columns: [if made.is_some() { 0 } else { call.column }, call.column],
            reversed: call.walk.reversed(),
        };
        let mut stretches = arrays.stretches(context, sizes)?;
        if !call.walk.reversed() {
            stretches.reverse();
        }
        let loop_back = Loop { run, carry: &carry, projection: &projection, d_hidden: d_hidden.as_ref() };
        let kernels = CellKernels::of(call, marks.span.is_some())?;
        let sequence = sequence::plan(context, call, sizes).and_then(|plan| kernels.sequence_backward(plan));
        for stretch in &stretches {
            match &sequence {
                Some(sequence) => sequence.backward(&loop_back, stretch)?,
                None => loop_back.step_by_step(&kernels.backward(), own.span(), stretch)?,
            }
        }
    }
    let d_apart = saved.filter(|_| call.equations.last_gate_apart());
    let of = GateGradients {
        gates: gates.view().span(),
        apart: d_apart.as_ref().map(|apart| apart.view().span()),
    };
    let (carried, cell) = given::carry_sizes(call, sizes);
    let d_initial = StateParts {
        hidden: support::d_initial(context, call, sizes, of, carry.view().outer(0..carried)?, marks)?,
        cell: match cell {
            0 => None,
            cell => Some(given::copy(carry.view().outer(carried..carried + cell)?, &[rows, sizes.units])?),
        },
    };
    Ok(Slopes { d_projected: gates, d_apart, d_hidden, d_initial })
}

/// The loop back over a stretch of time.
pub(super) struct Loop<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) carry: &'a Tensor,
    projection: &'a Option<Projection<'a>>,
    d_hidden: Option<&'a Tensor>,
}

impl Loop<'_> {
    /// A dispatch for each step of a stretch.
    fn step_by_step(&self, kernel: &StepKernel, gates: Span<'_>, stretch: &Stretch<'_>) -> Result<()> {
        let Run { context, call, sizes, .. } = *self.run;
        let Sizes { steps, rows, units, hidden } = sizes;
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        let weight = context.bind(call.weights.weight_hh.span())?;
        let given = Given::of(call, sizes)?;
        let initial = given.bind(context)?;
        let carry = context.bind(self.carry.view().span())?;
        let carry_cell = carry.base + (rows * hidden) as u32;
        let blocks = blocks(context, sizes);
        let Some(d_output) = stretch.d_output else { unreachable!("given above") };
        let d_unprojected = match self.projection {
            Some(projection) => Some(context.bind(projection.d_unprojected.view().span())?),
            None => None,
        };
        let bindings = [
            weight,
            stretch.output.bound,
            d_unprojected.unwrap_or(d_output.bound),
            initial,
            // Where there are no marks something else is bound, and not read.
            stretch.marks.map_or(weight, |marks| marks.bound),
            stretch.gates.bound,
            stretch.saved.bound,
            carry,
        ];
        for t in call.walk.order_of(stretch.steps.clone()).into_iter().rev() {
            let (before, after) = (call.walk.neighbour(t, steps), call.walk.successor(t, steps));
            let (previous, next) = (before.unwrap_or(t), after.unwrap_or(t));
            let all = rows * call.equations.gates() * units;
            let marked = stretch.marks.map(|marks| (marks.bound, [marks.at(t), marks.at(next)]));
            let [marks_base, next_marks_base] = marked.map_or([0; 2], |(_, bases)| bases);
            if let (Some(projection), Some(d_hidden)) = (self.projection, self.d_hidden) {
                projection.step_back(
                    context,
                    &Place {
                        rows,
                        next_gates: after.map(|next| gates.slice(next * all..(next + 1) * all)),
                        d_output: d_output.bound,
                        d_output_base: d_output.at(t),
                        width: Some(d_output.stride / rows),
                        marks: marked,
                        carry,
                        carry_bases: [carry.base; 2],
                        d_hidden: d_hidden.view().span().slice(t * rows * hidden..(t + 1) * rows * hidden),
                    },
                )?;
            }
            kernel.run(context, &bindings, &blocks, |block| BackwardParameters {
                rows: rows as u32,
                batch: rows as u32,
                hidden: units as u32,
                width: (stretch.output.stride / rows) as u32,
                d_width: d_unprojected.map_or(d_output.stride / rows, |_| units) as u32,
                first_row: block.rows.start as u32,
                first_unit: block.units.start as u32,
                weight_base: weight.base,
                initial_base: initial.base,
                initial_cell_base: given.cell(initial.base),
                peepholes_base: given.peepholes(initial.base),
                mask_base: given.mask(initial.base),
                marks_base,
                next_marks_base,
                next_gates_base: stretch.gates.at(next),
                next_saved_base: stretch.saved.at(next),
                output_base: stretch.output.at(t),
                d_output_base: d_unprojected.map_or(d_output.at(t), |bound| bound.base),
                previous_output_base: stretch.output.at(previous),
                gates_base: stretch.gates.at(t),
                saved_base: stretch.saved.at(t),
                previous_saved_base: stretch.saved.at(previous),
                carry_base: carry.base,
                carry_cell_base: carry_cell,
                carry_out_base: carry.base,
                carry_cell_out_base: carry_cell,
                flags: flag(FIRST_STEP, before.is_none()) | flag(LAST_STEP, after.is_none()) | TAKES_OUTPUTS,
                first_number: ((call.walk.first + t) * rows * units) as u32,
                seed_low,
                seed_high,
                stream_low,
                stream_high,
            })?;
        }
        Ok(())
    }
}

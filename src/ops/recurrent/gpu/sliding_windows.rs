//! Truncated back-propagation in windows that overlap, on the GPU: at each lag one backward step of all windows
//! together, which are rows of one large batch.

use std::ops::Range;

use super::backward::{BackwardPass, LoopGradients};
use super::boundary_states::{self as support, GateGradients, StepFlags};
use super::kernels::{CellKernels, LAST_STEP, TAKES_OUTPUTS, flag};
use super::operands::InitialOperands;
use super::per_step::{BackwardParameters, StepKernel};
use super::projection::{Projection, ProjectionStep};
use super::time_chunks::blocks;
use crate::Result;
use crate::gpu::{Bound, Buffer, Span, pieces};
use crate::ops::elementwise::{add_into, copy_into};
use crate::ops::embedding_backward;
use crate::ops::recurrent::{Call, Sizes, SlidingWindows, StateTensors, StateView, Traversal};
use crate::tensor::{Indices, Tensor, View};

/// The windows that end at some consecutive steps, and the memory that they go back through: two of each, for the
/// lag before and the present one.
struct Group<'a> {
    run: &'a BackwardPass<'a>,
    gates: &'a Tensor,
    saved: Option<&'a Tensor>,
    windows: SlidingWindows,
    /// The last steps of the windows.
    ends: Range<usize>,
    operands: &'a InitialOperands<'a>,
    kernel: &'a StepKernel,
    projection: &'a Option<Projection<'a>>,
    /// Gradients of the gates [2, N, B, G·H].
    d_gates: Tensor,
    /// Those at the last gate's recurrent part [2, N, B, H], where they are others.
    d_apart: Option<Tensor>,
    /// The gradient at h of the present lag [N, B, P], where a projection makes it.
    d_hidden: Option<Tensor>,
    /// The gradient at the states on its way back: hidden [2, N, B, P], then cell [2, N, B, H].
    carry: Tensor,
    dummy: Buffer,
}

/// Where the windows of a group stand at a lag.
struct Stand {
    /// The step of each window that has one.
    steps: Range<usize>,
    /// How many windows of the lag before come before the first of these.
    ahead: usize,
    /// Which half of the memory is written; the other is that of the lag before.
    half: usize,
    lag: usize,
}

pub(crate) fn backward(
    run: &BackwardPass<'_>,
    gates: &Tensor,
    saved: Option<&Tensor>,
    d_last: Option<StateView<'_>>,
    windows: SlidingWindows,
) -> Result<LoopGradients> {
    let BackwardPass { context, call, sizes, step_flags, .. } = *run;
    let Sizes { steps, rows, units, hidden } = sizes;
    let device = gates.device();
    let equations = &call.equations;
    let ends: Vec<Range<usize>> = match windows.every {
        1 => pieces(steps, largest(run, gates)).collect(),
        _ => windows.ends(steps).into_iter().map(|end| end..end + 1).collect(),
    };
    let most = ends.iter().map(ExactSizeIterator::len).max().unwrap_or(1);
    let projection = Projection::new(call, sizes, most * rows)?;
    let is_projected = projection.is_some();
    let zeros = |width: usize| Tensor::zeros(device, &[steps, rows, width]);
    let cell = equations.has_cell_state();
    let mut result = LoopGradients {
        d_projected: zeros(equations.gates() * units)?,
        d_apart: if equations.last_gate_apart() { Some(zeros(units)?) } else { None },
        d_hidden: if is_projected { Some(zeros(hidden)?) } else { None },
        d_initial: StateTensors {
            hidden: Tensor::zeros(device, &[rows, hidden])?,
            cell: if cell { Some(Tensor::zeros(device, &[rows, units])?) } else { None },
        },
    };
    let one = std::slice::from_ref(call);
    let operands = InitialOperands::of(context, one, sizes)?;
    let kernel = CellKernels::of(context, one, sizes, step_flags.span.is_some())?.backward();
    for ends in ends {
        let both = |width: usize| Tensor::zeros(device, &[2, ends.len(), rows, width]);
        let mut group = Group {
            run,
            gates,
            saved,
            windows,
            operands: &operands,
            kernel: &kernel,
            projection: &projection,
            d_gates: both(equations.gates() * units)?,
            d_apart: if equations.last_gate_apart() { Some(both(units)?) } else { None },
            d_hidden: if is_projected {
                Some(Tensor::unwritten(device, &[ends.len(), rows, hidden])?)
            } else {
                None
            },
            carry: Tensor::zeros(device, &[2 * ends.len() * rows * (hidden + if cell { units } else { 0 })])?,
            dummy: context.allocate(1, "a stand-in for what a cell does not save")?,
            ends,
        };
        if let Some(d_last) = d_last {
            group.begin(d_last)?;
        }
        for lag in 0..windows.depth.min(group.ends.end) {
            group.step_back(lag, &mut result)?;
        }
    }
    if let (true, Some(d_last)) = (call.traversal.has_empty_rows(), d_last) {
        let StateTensors { hidden, cell } = &mut result.d_initial;
        *hidden = support::but_empty_rows(context, &call.traversal, hidden, d_last.hidden)?;
        if let (Some(cell), Some(d_cell)) = (cell, d_last.cell) {
            *cell = support::but_empty_rows(context, &call.traversal, cell, d_cell)?;
        }
    }
    Ok(result)
}

/// How many windows go together, so that all that they read and write fits bindings.
fn largest(run: &BackwardPass<'_>, gates: &Tensor) -> usize {
    let Sizes { rows, units, hidden, .. } = run.sizes;
    let carry = rows * (hidden + units);
    let step = 2 * gates.shape().inner().elements().max(run.output.shape().inner().elements()).max(carry);
    (run.context.limits().binding_elements / step).saturating_sub(1).max(1)
}

impl Group<'_> {
    fn stand(&self, lag: usize) -> Stand {
        let first = |lag: usize| self.ends.start.max(lag) - lag;
        let steps = first(lag)..self.ends.end - lag;
        let ahead = if lag == 0 { 0 } else { steps.start + 1 - first(lag - 1) };
        Stand { steps, ahead, half: lag % 2, lag }
    }

    /// Puts the gradient at each row's final state where the window that its last step belongs to finds it.
    fn begin(&mut self, d_last: StateView<'_>) -> Result<()> {
        let BackwardPass { call, sizes, .. } = *self.run;
        let Sizes { steps, rows, .. } = sizes;
        let first = self.windows.owner(self.ends.start);
        let count = self.ends.len() * rows;
        let place = |row: usize| {
            let last = call.traversal.length(row, steps).checked_sub(1);
            let window = last.and_then(|last| self.windows.owner(last).checked_sub(first));
            let window = window.filter(|&window| window < self.ends.len());
            // The others are left to their groups, behind the last place; rows without steps belong to none.
            window.map_or(count, |window| window * rows + row) as u32
        };
        let places: Vec<u32> = (0..rows).map(place).collect();
        let places = Indices::from_slice(d_last.hidden.device(), &[rows], &places)?;
        // The lag before the first one has the other half.
        for (part, d_part) in [Some(d_last.hidden), d_last.cell].into_iter().flatten().enumerate() {
            let all = embedding_backward(&places, d_part, count + 1)?;
            let own = all.view().outer(0..count)?;
            let place = self.carried(part, 1, 0..count);
            copy_into(self.carry.view_mut()?.outer(place.clone())?, own.reshaped(&[place.len()])?)?;
        }
        Ok(())
    }

    /// Where some rows of the hidden (0) or the cell part (1) of a half of the carry stand in it.
    fn carried(&self, part: usize, half: usize, rows: Range<usize>) -> Range<usize> {
        let Sizes { rows: batch, units, hidden, .. } = self.run.sizes;
        let all = self.ends.len() * batch;
        let (first, width) = if part == 0 { (0, hidden) } else { (2 * all * hidden, units) };
        let start = first + half * all * width;
        start + rows.start * width..start + rows.end * width
    }

    /// One step back of all windows.
    fn step_back(&mut self, lag: usize, result: &mut LoopGradients) -> Result<()> {
        let stand = self.stand(lag);
        let Stand { steps, half, .. } = &stand;
        let (steps, half, count) = (steps.clone(), *half, steps.len());
        let kept = self.gates.view().outer(steps.clone())?;
        copy_into(self.d_gates.view_mut()?.entry(half)?.outer(0..count)?, kept)?;
        if let (Some(d_apart), Some(saved)) = (&mut self.d_apart, self.saved) {
            copy_into(d_apart.view_mut()?.entry(half)?.outer(0..count)?, saved.view().outer(steps.clone())?)?;
        }
        self.dispatch(&stand)?;
        let add = |total: &mut Tensor, own: View<'_>| {
            add_into(total.view_mut()?.outer(steps.clone())?, own.outer(0..count)?)
        };
        add(&mut result.d_projected, self.d_gates.view().entry(half)?)?;
        if let (Some(total), Some(own)) = (&mut result.d_apart, &self.d_apart) {
            add(total, own.view().entry(half)?)?;
        }
        if let (Some(total), Some(own)) = (&mut result.d_hidden, &self.d_hidden) {
            add(total, own.view())?;
        }
        // The window at the first step sends the rest to the initial state.
        if steps.start == 0 { self.arrive(half, &mut result.d_initial) } else { Ok(()) }
    }

    fn dispatch(&self, stand: &Stand) -> Result<()> {
        let BackwardPass { context, call, sizes, step_flags, output, unprojected, d_output, .. } = *self.run;
        let Sizes { rows, units, hidden, .. } = sizes;
        let (steps, half) = (stand.steps.clone(), stand.half);
        let count = steps.len() * rows;
        let ahead = stand.ahead * rows;
        let gate_row = call.equations.gates() * units;
        let windows = self.ends.len() * rows;
        // Row `row` of a half of an array of both lags, where a row is `width` wide.
        let row_of = |half: usize, row: usize, width: usize| (half * windows + row) * width;

        // The step before the first is read, too, and the mark of the step after the last.
        let first = steps.start.saturating_sub(1);
        let states_array = unprojected.unwrap_or(output);
        let column = if unprojected.is_some() { 0 } else { call.column };
        let states = BoundSteps::bind(self.run, states_array.view().span(), first..steps.end)?;
        let d_outputs = BoundSteps::bind(self.run, d_output.span(), steps.clone())?;
        let step_flags = match step_flags.span {
            Some(span) => {
                Some(BoundSteps::bind(self.run, span, steps.start..(steps.end + 1).min(sizes.steps))?)
            }
            None => None,
        };
        let d_gates = context.bind(self.d_gates.view().span())?;
        let dummy = context.bind(Span::new(&self.dummy, 0, 1))?;
        let (saved, [saved_base, next_saved_base]) = match (&self.d_apart, self.saved) {
            (Some(d_apart), _) => {
                let bound = context.bind(d_apart.view().span())?;
                let at = |half, row| bound.base + row_of(half, row, units) as u32;
                (bound, [at(half, 0), at(1 - half, ahead)])
            }
            (None, Some(saved)) => {
                let saved = BoundSteps::bind(self.run, saved.view().span(), first..steps.end)?;
                (saved.bound, [saved.at(steps.start), 0])
            }
            (None, None) => (dummy, [0; 2]),
        };
        let carry = context.bind(self.carry.view().span())?;
        let carry_at = |part, half, row| carry.base + self.carried(part, half, row..row).start as u32;
        let [step_flags_base, next_step_flags_base] = step_flags
            .as_ref()
            .map_or([0; 2], |step_flags| [step_flags.at(steps.start), step_flags.at(steps.start + 1)]);
        // Windows go together only where each has one output of its own; the last may have fewer than the others.
        let end = self.ends.end - 1;
        let takes_outputs = self.windows.owns(self.windows.owner(end), end - stand.lag);
        let d_width = d_outputs.step / rows;
        let mut d_unprojected = None;
        if let (Some(projection), Some(d_hidden)) = (self.projection, &self.d_hidden) {
            let next = row_of(1 - half, ahead, gate_row);
            let all = self.d_gates.view().span();
            projection.step_back(
                context,
                &ProjectionStep {
                    rows: count,
                    next_gates: (stand.lag > 0).then(|| all.slice(next..next + count * gate_row)),
                    d_output: d_outputs.bound,
                    d_output_base: d_outputs.at(steps.start) + call.column as u32,
                    width: takes_outputs.then_some(d_width),
                    step_flags: step_flags
                        .as_ref()
                        .map(|step_flags| (step_flags.bound, [step_flags_base, next_step_flags_base])),
                    carry,
                    carry_bases: [carry_at(0, 1 - half, ahead), carry_at(0, half, 0)],
                    d_hidden: d_hidden.view().span().slice(0..count * hidden),
                },
            )?;
            d_unprojected = Some(context.bind(projection.d_unprojected.view().span())?);
        }
        let weight = context.bind(call.weights.weight_hh.span())?;
        let initial = self.operands.bind(context)?;
        let bindings = [
            weight,
            states.bound,
            d_unprojected.unwrap_or(d_outputs.bound),
            initial,
            step_flags.as_ref().map_or(weight, |step_flags| step_flags.bound),
            d_gates,
            saved,
            carry,
        ];
        let blocks = blocks(context, Sizes { rows: count, ..sizes }, self.kernel.split);
        let [seed_low, seed_high, stream_low, stream_high] = call.equations.words();
        self.kernel.run(context, &bindings, &blocks, |block| BackwardParameters {
            rows: count as u32,
            batch: rows as u32,
            hidden_size: units as u32,
            width: (states.step / rows) as u32,
            d_width: d_unprojected.map_or(d_width, |_| units) as u32,
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            weight_base: weight.base,
            initial_base: self.operands.hidden(initial.base),
            initial_cell_base: self.operands.cell(initial.base),
            peepholes_base: self.operands.peepholes(initial.base),
            mask_base: self.operands.mask(initial.base),
            step_flags_base,
            next_step_flags_base,
            next_gates_base: d_gates.base + row_of(1 - half, ahead, gate_row) as u32,
            next_saved_base,
            output_base: states.at(steps.start) + column as u32,
            d_output_base: match d_unprojected {
                Some(bound) => bound.base,
                None => d_outputs.at(steps.start) + call.column as u32,
            },
            gates_base: d_gates.base + row_of(half, 0, gate_row) as u32,
            saved_base,
            carry_base: carry_at(0, 1 - half, ahead),
            carry_cell_base: carry_at(1, 1 - half, ahead),
            carry_out_base: carry_at(0, half, 0),
            carry_cell_out_base: carry_at(1, half, 0),
            pass_flags: flag(LAST_STEP, stand.lag == 0)
                | flag(TAKES_OUTPUTS, takes_outputs || d_unprojected.is_some()),
            second_behind: 0,
            second_beside: 0,
            first_number: (steps.start * rows * units) as u32,
            seed_low,
            seed_high,
            stream_low,
            stream_high,
        })
    }

    /// Adds to the gradient at the initial state what the rows of the first step, which come first, send there.
    fn arrive(&self, half: usize, d_initial: &mut StateTensors) -> Result<()> {
        let BackwardPass { context, call, sizes, step_flags, .. } = *self.run;
        let Sizes { rows, units, .. } = sizes;
        let gates = self.d_gates.view().entry(half)?.outer(0..1)?;
        let apart = match &self.d_apart {
            Some(d_apart) => Some(d_apart.view().entry(half)?.outer(0..1)?.span()),
            None => None,
        };
        // A sequence of that step alone.
        let one = Sizes { steps: 1, ..sizes };
        let first = Call { traversal: Traversal { lengths: None, ..call.traversal }, ..*call };
        let step_flags = StepFlags { span: step_flags.span.map(|step_flags| step_flags.slice(0..rows)) };
        let of = GateGradients { gates: gates.span(), apart };
        let carry = self.carry.view().outer(self.carried(0, half, 0..rows))?;
        let product = self.projection.is_none().then_some(self.kernel.split);
        let sent = support::d_initial(context, &first, one, of, carry, step_flags, product)?;
        add_into(d_initial.hidden.view_mut()?, sent.view())?;
        if let Some(d_cell) = &mut d_initial.cell {
            let carry = self.carry.view().outer(self.carried(1, half, 0..rows))?;
            add_into(d_cell.view_mut()?, carry.reshaped(&[rows, units])?)?;
        }
        Ok(())
    }
}

/// A bound stretch of an array over time.
struct BoundSteps<'a> {
    bound: Bound<'a>,
    first: usize,
    /// Elements of a step.
    step: usize,
}

impl<'a> BoundSteps<'a> {
    fn bind(run: &BackwardPass<'_>, span: Span<'a>, steps: Range<usize>) -> Result<Self> {
        let step = span.len() / run.sizes.steps;
        let bound = run.context.bind(span.slice(steps.start * step..steps.end * step))?;
        Ok(Self { bound, first: steps.start, step })
    }

    fn at(&self, t: usize) -> u32 {
        self.bound.base + ((t - self.first) * self.step) as u32
    }
}

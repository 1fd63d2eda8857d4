//! Truncated back-propagation through time with overlapping windows, on the GPU: BPTT(h; h') of Williams and
//! Peng (1990). For each lag, one backward step computes all windows of a group together, as rows of one
//! large batch. CPU reference: `src/ops/recurrent/cpu/sliding_windows.rs`.

use std::ops::Range;

use super::bidirectional::DirectionOperand;
use super::boundary_states::{self, GateGradients};
use super::kernels::CellKernels;
use super::operands::{BackwardPass, InitialOperands, LoopGradients};
use super::parameters::{BackwardOperands, BackwardParameters, LAST_STEP, TAKES_OUTPUTS, flag};
use super::per_step::StepKernel;
use super::projection::{Projection, ProjectionStep};
use super::split_k::blocks;
use super::step_flags::StepFlags;
use super::time_chunks::{ChunkArray, TimeChunk};
use crate::gpu::{Buffer, Span, pieces};
use crate::ops::elementwise::{add_into, copy_into};
use crate::ops::embedding_backward;
use crate::ops::recurrent::{Call, Pass, Sizes, SlidingWindows, StateTensors, StateView, Traversal};
use crate::tensor::{Indices, Tensor, View};
use crate::{Error, Result};

/// The windows that end at consecutive steps, and their buffers. Each buffer has two halves, for the previous
/// lag and the current one. N is the number of windows.
struct WindowGroup<'a> {
    run: &'a BackwardPass<'a>,
    gates: &'a Tensor,
    saved: Option<&'a Tensor>,
    windows: SlidingWindows,
    /// The last step of each window.
    ends: Range<usize>,
    weights: &'a DirectionOperand<'a>,
    initial: &'a InitialOperands<'a>,
    kernel: &'a StepKernel<'a>,
    projection: &'a Option<Projection<'a>>,
    /// The gradient of the gates [2, N, B, G·H].
    d_gates: Tensor,
    /// The gradient of the last gate's recurrent part [2, N, B, H], where it differs.
    d_apart: Option<Tensor>,
    /// With a projection, the gradient of h at the current lag [N, B, P].
    d_hidden: Option<Tensor>,
    /// The carried gradient of the states: hidden [2, N, B, P], followed by cell [2, N, B, H].
    carry: Tensor,
    dummy: Buffer,
}

/// The position of a group's windows at a lag.
struct LagPosition {
    /// The current step of each window that still has one.
    steps: Range<usize>,
    /// How many windows of the previous lag precede the first of these.
    ahead: usize,
    /// The half of the buffers that is written; the other holds the previous lag.
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
    let Sizes { steps, rows, hidden_size, projection_size } = sizes;
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
        d_projected: zeros(equations.gates() * hidden_size)?,
        d_apart: if equations.last_gate_apart() { Some(zeros(hidden_size)?) } else { None },
        d_hidden: if is_projected { Some(zeros(projection_size)?) } else { None },
        d_initial: StateTensors {
            hidden: Tensor::zeros(device, &[rows, projection_size])?,
            cell: if cell { Some(Tensor::zeros(device, &[rows, hidden_size])?) } else { None },
        },
    };
    let one = std::slice::from_ref(call);
    let weights = DirectionOperand::weights(one)?;
    let initial = InitialOperands::of(context, one, sizes)?;
    let kernel = CellKernels::of(context, one, sizes, step_flags.span.is_some(), Pass::Backward)?.step();
    for ends in ends {
        let d_hidden = || Tensor::unwritten(device, &[ends.len(), rows, projection_size]);
        let state = projection_size + if cell { hidden_size } else { 0 };
        let both = |width: usize| Tensor::zeros(device, &[2, ends.len(), rows, width]);
        let mut group = WindowGroup {
            run,
            gates,
            saved,
            windows,
            weights: &weights,
            initial: &initial,
            kernel: &kernel,
            projection: &projection,
            d_gates: both(equations.gates() * hidden_size)?,
            d_apart: if equations.last_gate_apart() { Some(both(hidden_size)?) } else { None },
            d_hidden: is_projected.then(d_hidden).transpose()?,
            carry: Tensor::zeros(device, &[2 * ends.len() * rows * state])?,
            dummy: context.allocate(1, "a dummy binding for arrays that a cell does not save")?,
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
        *hidden = boundary_states::but_empty_rows(context, &call.traversal, hidden, d_last.hidden)?;
        if let (Some(cell), Some(d_cell)) = (cell, d_last.cell) {
            *cell = boundary_states::but_empty_rows(context, &call.traversal, cell, d_cell)?;
        }
    }
    Ok(result)
}

/// How many windows fit one group, so that everything it reads and writes fits a binding.
fn largest(run: &BackwardPass<'_>, gates: &Tensor) -> usize {
    let Sizes { rows, hidden_size, projection_size, .. } = run.sizes;
    let carry = rows * (projection_size + hidden_size);
    let step = 2 * gates.shape().inner().elements().max(run.output.shape().inner().elements()).max(carry);
    (run.context.limits().binding_elements / step).saturating_sub(1).max(1)
}

impl WindowGroup<'_> {
    fn position(&self, lag: usize) -> LagPosition {
        let first = |lag: usize| self.ends.start.max(lag) - lag;
        let steps = first(lag)..self.ends.end - lag;
        let ahead = if lag == 0 { 0 } else { steps.start + 1 - first(lag - 1) };
        LagPosition { steps, ahead, half: lag % 2, lag }
    }

    /// Stores the gradient of each row's final state in the carry of the window that owns the row's last
    /// step.
    fn begin(&mut self, d_last: StateView<'_>) -> Result<()> {
        let BackwardPass { call, sizes, .. } = *self.run;
        let Sizes { steps, rows, .. } = sizes;
        let first = self.windows.owner(self.ends.start);
        let count = self.ends.len() * rows;
        let place = |row: usize| {
            let last = call.traversal.length(row, steps).checked_sub(1);
            let window = last.and_then(|last| self.windows.owner(last).checked_sub(first));
            let window = window.filter(|&window| window < self.ends.len());
            // The other rows belong to other groups and are written behind the last place; rows without steps
            // belong to no group.
            window.map_or(count, |window| window * rows + row) as u32
        };
        let places: Vec<u32> = (0..rows).map(place).collect();
        let places = Indices::from_slice(d_last.hidden.device(), &[rows], &places)?;
        // Lag 0 reads the other half as the previous lag.
        for (part, d_part) in [Some(d_last.hidden), d_last.cell].into_iter().flatten().enumerate() {
            let all = embedding_backward(&places, d_part, count + 1)?;
            let own = all.view().outer(0..count)?;
            let place = self.carried(part, 1, 0..count);
            copy_into(self.carry.view_mut()?.outer(place.clone())?, own.reshaped(&[place.len()])?)?;
        }
        Ok(())
    }

    /// The range of `rows` in the hidden (0) or cell (1) part of a half of the carry.
    fn carried(&self, part: usize, half: usize, rows: Range<usize>) -> Range<usize> {
        let Sizes { rows: batch, hidden_size, projection_size, .. } = self.run.sizes;
        let all = self.ends.len() * batch;
        let (first, width) =
            if part == 0 { (0, projection_size) } else { (2 * all * projection_size, hidden_size) };
        let start = first + half * all * width;
        start + rows.start * width..start + rows.end * width
    }

    /// Computes one backward step of all windows.
    fn step_back(&mut self, lag: usize, result: &mut LoopGradients) -> Result<()> {
        let position = self.position(lag);
        let LagPosition { steps, half, .. } = &position;
        let (steps, half, count) = (steps.clone(), *half, steps.len());
        let kept = self.gates.view().outer(steps.clone())?;
        copy_into(self.d_gates.view_mut()?.entry(half)?.outer(0..count)?, kept)?;
        if let (Some(d_apart), Some(saved)) = (&mut self.d_apart, self.saved) {
            copy_into(d_apart.view_mut()?.entry(half)?.outer(0..count)?, saved.view().outer(steps.clone())?)?;
        }
        self.dispatch(&position)?;
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
        // The window at the first step sends its carry to the initial state.
        if steps.start == 0 { self.add_initial_gradient(half, &mut result.d_initial) } else { Ok(()) }
    }

    fn dispatch(&self, position: &LagPosition) -> Result<()> {
        let BackwardPass { context, call, sizes, step_flags, output, unprojected, d_output, .. } = *self.run;
        let Sizes { rows, hidden_size, projection_size, .. } = sizes;
        let (steps, half) = (position.steps.clone(), position.half);
        let count = steps.len() * rows;
        let ahead = position.ahead * rows;
        let gate_row = call.equations.gates() * hidden_size;
        let windows = self.ends.len() * rows;
        // The offset of row `row` in a half of a buffer, whose rows have `width` elements.
        let row_of = |half: usize, row: usize, width: usize| (half * windows + row) * width;

        // The backward step also reads the state before the first step, and the flags of the step after the
        // last.
        let first = steps.start.saturating_sub(1);
        let flagged = steps.start..(steps.end + 1).min(sizes.steps);
        let all_steps = |span, steps, column| self.bind(span, steps, column);
        let dummy = context.bind(Span::new(&self.dummy, 0, 1))?;
        let dummy = ChunkArray { bound: dummy, first: 0, stride: 0, column: 0 };
        // Buffers with two halves are not indexed by step: they are bound whole, and the offset of the half
        // is added below.
        let of_lags = |span| Ok::<_, Error>(ChunkArray { bound: context.bind(span)?, ..dummy });
        let chunk = TimeChunk {
            steps: steps.clone(),
            gates: of_lags(self.d_gates.view().span())?,
            output: match unprojected {
                Some(unprojected) => all_steps(unprojected.view().span(), first..steps.end, 0)?,
                None => all_steps(output.view().span(), first..steps.end, call.column)?,
            },
            d_output: all_steps(d_output.span(), steps.clone(), call.column)?,
            saved: match (&self.d_apart, self.saved) {
                (Some(d_apart), _) => of_lags(d_apart.view().span())?,
                (None, Some(saved)) => all_steps(saved.view().span(), first..steps.end, 0)?,
                (None, None) => dummy,
            },
            unprojected: dummy,
            step_flags: step_flags.span.map(|span| all_steps(span, flagged, 0)).transpose()?,
        };
        let operands = BackwardOperands {
            pass: self.run,
            weights: self.weights,
            initial: self.initial,
            carry: &self.carry,
            d_unprojected: self.projection.as_ref().map(|projection| &projection.d_unprojected),
        };
        let bound = operands.bind(&chunk)?;
        let carry = bound.carry;
        let carry_at = |part, half, row| carry.base + self.carried(part, half, row..row).start as u32;
        // A group has more than one window only where each owns one output; the last may own fewer than the
        // others.
        let end = self.ends.end - 1;
        let takes_outputs = self.windows.owns(self.windows.owner(end), end - position.lag);
        if let (Some(projection), Some(d_hidden)) = (self.projection, &self.d_hidden) {
            let next = row_of(1 - half, ahead, gate_row);
            let all = self.d_gates.view().span();
            let flags_at = |flags: ChunkArray<'_>| [flags.at(steps.start), flags.at(steps.start + 1)];
            projection.step_back(
                context,
                &ProjectionStep {
                    rows: count,
                    next_gates: (position.lag > 0).then(|| all.slice(next..next + count * gate_row)),
                    d_output: chunk.d_output.bound,
                    d_output_base: chunk.d_output.at(steps.start),
                    width: takes_outputs.then_some(chunk.d_output.stride / rows),
                    step_flags: chunk.step_flags.map(|flags| (flags.bound, flags_at(flags))),
                    carry,
                    carry_bases: [carry_at(0, 1 - half, ahead), carry_at(0, half, 0)],
                    d_hidden: d_hidden.view().span().slice(0..count * projection_size),
                },
            )?;
        }
        let own = bound.parameters(&[steps.start]);
        // The rows of the previous lag are in the other half, `ahead` rows further.
        let next_row = ((1 - half) * windows + ahead).wrapping_sub(half * windows) as u32;
        let apart_row = if self.d_apart.is_some() { row_of(half, 0, hidden_size) as u32 } else { 0 };
        let parameters = BackwardParameters {
            rows: count as u32,
            gates_base: own.gates_base + row_of(half, 0, gate_row) as u32,
            saved_base: own.saved_base + apart_row,
            carry_base: carry_at(0, half, 0),
            carry_cell_base: carry_at(1, half, 0),
            next_row,
            carry_row: next_row,
            pass_flags: flag(LAST_STEP, position.lag == 0)
                | flag(TAKES_OUTPUTS, takes_outputs || self.projection.is_some()),
            first_number: (steps.start * rows * hidden_size) as u32,
            ..own
        };
        let blocks = blocks(context, Sizes { rows: count, ..sizes }, self.kernel.split);
        self.kernel.run(context, &bound.bindings(), &blocks, |block| BackwardParameters {
            first_row: block.rows.start as u32,
            first_unit: block.units.start as u32,
            ..parameters
        })
    }

    /// Binds the steps `steps` of an array over time, whose rows are read from `column` on.
    fn bind<'s>(&self, span: Span<'s>, steps: Range<usize>, column: usize) -> Result<ChunkArray<'s>> {
        let stride = span.len() / self.run.sizes.steps;
        let bound = self.run.context.bind(span.slice(steps.start * stride..steps.end * stride))?;
        Ok(ChunkArray { bound, first: steps.start, stride, column })
    }

    /// Adds the gradient that the rows of the first step, which come first, send to the initial state.
    fn add_initial_gradient(&self, half: usize, d_initial: &mut StateTensors) -> Result<()> {
        let BackwardPass { context, call, sizes, step_flags, .. } = *self.run;
        let Sizes { rows, hidden_size, .. } = sizes;
        let gates = self.d_gates.view().entry(half)?.outer(0..1)?;
        let apart = self.d_apart.as_ref().map(|d_apart| d_apart.view().entry(half)?.outer(0..1));
        let apart = apart.transpose()?.map(|apart| apart.span());
        // A sequence of that step only.
        let one = Sizes { steps: 1, ..sizes };
        let first = Call { traversal: Traversal { lengths: None, ..call.traversal }, ..*call };
        let step_flags = StepFlags { span: step_flags.span.map(|step_flags| step_flags.slice(0..rows)) };
        let of = GateGradients { gates: gates.span(), apart };
        let carry = self.carry.view().outer(self.carried(0, half, 0..rows))?;
        let product = self.projection.is_none().then_some(self.kernel.split);
        let sent = boundary_states::d_initial(context, &first, one, of, carry, step_flags, product)?;
        add_into(d_initial.hidden.view_mut()?, sent.view())?;
        if let Some(d_cell) = &mut d_initial.cell {
            let carry = self.carry.view().outer(self.carried(1, half, 0..rows))?;
            add_into(d_cell.view_mut()?, carry.reshaped(&[rows, hidden_size])?)?;
        }
        Ok(())
    }
}

//! The time loop on the CPU, the reference for the kernels of `shaders/recurrent/`: back-propagation through
//! time (Werbos 1990, "Backpropagation through time: what it does and how to do it"), step by step, and row
//! by row where rows differ. Threads divide the rows of a large batch.

use ndarray::{Array2, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, CowArray, Ix2};

use super::batch_split::{CellStateMut, cut, split_fields};
use super::cells::{self, Step, StepGradients, StepTarget};
use super::weights::{Matrices, Rows};
use super::zoneout;
use crate::math::{TILE_ROWS, in_parts, part_rows};
use crate::ops::recurrent::traversal::{Before, Traversal};
use crate::ops::recurrent::{CellState, CellStateView};
use crate::tensor::Real;

/// The operands that all steps of one layer in one direction share.
pub(crate) struct TimeLoop<'a, 'm, F: Real> {
    pub(crate) matrices: &'a Matrices<'m, F>,
    pub(crate) traversal: &'a Traversal<'a>,
    pub(crate) steps: usize,
}

/// The arrays of a forward pass.
pub(crate) struct Forward<'a, F> {
    pub(crate) rows: Rows,
    /// W_ih x + b_ih [T, B, G·H]; overwritten with the gates as the backward pass reads them.
    pub(crate) gates: ArrayViewMut3<'a, F>,
    /// Other values that the backward pass reads [T, B, H].
    pub(crate) saved: Option<ArrayViewMut3<'a, F>>,
    /// The columns of this direction in the output [T, B, P].
    pub(crate) output: ArrayViewMut3<'a, F>,
    pub(crate) initial: CellStateView<'a, F>,
    /// The state after each row's last step.
    pub(crate) last: CellStateMut<'a, F>,
}

split_fields!(Forward { rows, gates, saved, output, initial, last });

/// The arrays of a backward pass.
pub(crate) struct Backward<'a, F> {
    pub(crate) saved_steps: SavedSteps<'a, F>,
    /// The gates that the forward pass saved [T, B, G·H]; overwritten with the gradient of W_ih x + b_ih.
    pub(crate) gates: ArrayViewMut3<'a, F>,
    /// The gradient of the output [T, B, P].
    pub(crate) d_output: ArrayView3<'a, F>,
    /// The gradient of the state after each row's last step.
    pub(crate) d_last: CellStateView<'a, F>,
    pub(crate) d_initial: CellStateMut<'a, F>,
    pub(crate) arrays: GradientArrays<'a, F>,
}

split_fields!(Backward { saved_steps, gates, d_output, d_last, d_initial, arrays });

/// What the forward pass saved besides the gates, for one direction.
#[derive(Clone, Copy)]
pub(crate) struct SavedSteps<'a, F> {
    pub(crate) rows: Rows,
    pub(crate) saved: Option<ArrayView3<'a, F>>,
    pub(crate) output: ArrayView3<'a, F>,
    pub(crate) initial: CellStateView<'a, F>,
}

split_fields!(SavedSteps { rows, saved, output, initial });

/// The states before a step: borrowed, or copied where rows differ.
pub(crate) struct Previous<'a, F> {
    hidden: CowArray<'a, F, Ix2>,
    cell: CowArray<'a, F, Ix2>,
}

impl<F: Real> Previous<'_, F> {
    fn view(&self) -> CellStateView<'_, F> {
        CellStateView { hidden: self.hidden.view(), cell: self.cell.view() }
    }
}

impl<'a, F: Real> SavedSteps<'a, F> {
    fn previous(&self, all: &TimeLoop<'_, '_, F>, t: usize) -> Previous<'a, F> {
        let mut result = self.initial;
        if let Some(neighbour) = all.traversal.neighbour(t, all.steps) {
            result.hidden = self.output.index_axis_move(Axis(0), neighbour);
            if let (true, Some(saved)) = (all.matrices.equations.has_cell_state(), self.saved) {
                result.cell = saved.index_axis_move(Axis(0), neighbour);
            }
        }
        if !all.traversal.has_step_flags() {
            return Previous { hidden: result.hidden.into(), cell: result.cell.into() };
        }
        let mut result = result.to_owned();
        all.begin(t, self.rows, self.initial, &mut result);
        Previous { hidden: result.hidden.into(), cell: result.cell.into() }
    }

    fn step<'s>(&'s self, t: usize, before: &'s Previous<'_, F>) -> Step<'s, F> {
        Step {
            saved: self.saved.map(|saved| saved.index_axis_move(Axis(0), t)),
            before: before.view(),
            hidden: self.output.index_axis(Axis(0), t),
            rows: self.rows,
        }
    }
}

/// The arrays from which weight gradients are computed, besides the gates' gradients; zeros in the padding.
/// The pass writes every element.
pub(crate) struct GradientArrays<'a, F> {
    /// The hidden state before each step [T, B, P].
    pub(crate) previous: ArrayViewMut3<'a, F>,
    /// The cell state before each step [T, B, H], if requested.
    pub(crate) cells: Option<ArrayViewMut3<'a, F>>,
    /// With a projection h = W_hr m, m of each step [T, B, H].
    pub(crate) unprojected: Option<ArrayViewMut3<'a, F>>,
    /// The gradient of the last gate's part of W_hh h' + b_hh [T, B, H], where it differs.
    pub(crate) d_apart: Option<ArrayViewMut3<'a, F>>,
    /// The whole gradient of h [T, B, P], if requested.
    pub(crate) d_hidden: Option<ArrayViewMut3<'a, F>>,
}

split_fields!(GradientArrays { previous, cells, unprojected, d_apart, d_hidden });

impl<F: Real> TimeLoop<'_, '_, F> {
    /// Rows per thread.
    fn batch_range(&self, rows: usize) -> usize {
        part_rows(rows, self.steps * rows * self.matrices.weight.len(), TILE_ROWS)
    }

    /// The state of row `row` of the part `rows` before step `t`.
    fn before(&self, t: usize, row: usize, rows: Rows) -> Before {
        self.traversal.before(t, rows.first + row, self.steps, rows.all)
    }

    /// The rows of a part for which step `t` is padding.
    fn padding(&self, t: usize, rows: Rows, count: usize) -> impl Iterator<Item = usize> {
        (0..count).filter(move |&row| self.before(t, row, rows) == Before::Padding)
    }

    /// Overwrites rows of `state` that start from the initial state or from zeros at step `t`.
    fn begin(&self, t: usize, rows: Rows, initial: CellStateView<'_, F>, state: &mut CellState<F>) {
        for row in 0..state.hidden.nrows() {
            match self.before(t, row, rows) {
                Before::Padding | Before::Previous => {}
                Before::Initial => state.take(row, initial),
                Before::Zero => state.clear(row),
            }
        }
    }

    pub(crate) fn forward(&self, pass: Forward<'_, F>) {
        let count = pass.rows.all;
        in_parts(cut(pass, count, self.batch_range(count)), |part| self.forward_rows(part));
    }

    fn forward_rows(&self, mut pass: Forward<'_, F>) {
        let (has_step_flags, units) = (self.traversal.has_step_flags(), self.matrices.hidden_size);
        let rows = pass.rows;
        let mut state = pass.initial.to_owned();
        let mut after = state.clone();
        let count = state.hidden.nrows();
        for t in self.traversal.order(self.steps) {
            let now = Axis(0);
            let mut gates = pass.gates.index_axis_mut(now, t);
            let mut saved = pass.saved.as_mut().map(|saved| saved.index_axis_mut(now, t));
            if has_step_flags {
                self.begin(t, rows, pass.initial, &mut state);
            }
            let mut target = StepTarget {
                gates: gates.view_mut(),
                saved: saved.as_mut().map(|saved| saved.view_mut()),
                after: &mut after,
            };
            cells::forward(self.matrices, state.view(), rows, &mut target);
            let step = self.traversal.first + t;
            if let Some(keeps) = zoneout::keeps(&self.matrices.equations, &[step], rows, (count, units)) {
                zoneout::hold(&self.matrices.equations, &keeps, state.view(), &mut target);
            }
            let mut output = pass.output.index_axis_mut(now, t);
            output.assign(&after.hidden);
            if has_step_flags {
                // Padded rows keep their final state, and their arrays are zero.
                for row in self.padding(t, rows, count) {
                    gates.row_mut(row).fill(F::zero());
                    output.row_mut(row).fill(F::zero());
                    if let Some(saved) = &mut saved {
                        saved.row_mut(row).fill(F::zero());
                    }
                    after.take(row, state.view());
                }
            }
            std::mem::swap(&mut state, &mut after);
        }
        pass.last.hidden.assign(&state.hidden);
        pass.last.cell.assign(&state.cell);
    }

    pub(crate) fn backward(&self, pass: Backward<'_, F>) {
        let count = pass.saved_steps.rows.all;
        in_parts(cut(pass, count, self.batch_range(count)), |part| self.backward_rows(part));
    }

    fn backward_rows(&self, mut pass: Backward<'_, F>) {
        let saved_steps = pass.saved_steps;
        // The carried gradient of each row's state, after and before a step.
        let mut d_state = pass.d_last.to_owned();
        let mut d_before = d_state.clone();
        let mut d_hidden = d_state.hidden.clone();
        for t in self.traversal.order(self.steps).into_iter().rev() {
            let previous = saved_steps.previous(self, t);
            self.remember(t, &saved_steps, &previous, pass.gates.index_axis(Axis(0), t), &mut pass.arrays);
            d_hidden.assign(&pass.d_output.index_axis(Axis(0), t));
            d_hidden += &d_state.hidden;
            let gradients = StepGradients {
                gates: pass.gates.index_axis_mut(Axis(0), t),
                d_apart: pass.arrays.d_apart.as_mut().map(|d_apart| d_apart.index_axis_mut(Axis(0), t)),
                d_before: &mut d_before,
            };
            let d_after = CellStateView { hidden: d_hidden.view(), cell: d_state.cell.view() };
            self.step_back(&saved_steps.step(t, &previous), d_after, gradients, &[self.traversal.first + t]);
            if let Some(all) = &mut pass.arrays.d_hidden {
                all.index_axis_mut(Axis(0), t).assign(&d_hidden);
            }
            if self.traversal.has_step_flags() {
                self.end_rows(t, &mut pass, &mut d_state, &d_before);
            } else {
                std::mem::swap(&mut d_state, &mut d_before);
            }
        }
        if !self.traversal.has_step_flags() {
            pass.d_initial.hidden.assign(&d_state.hidden);
            pass.d_initial.cell.assign(&d_state.cell);
        }
        self.pass_empty_rows(&mut pass);
    }

    /// A row without steps passes the gradient of its final state to the initial state.
    pub(crate) fn pass_empty_rows(&self, pass: &mut Backward<'_, F>) {
        let first = pass.saved_steps.rows.first;
        let is_empty = |row: &usize| self.traversal.length(first + row, self.steps) == 0;
        for row in (0..pass.d_last.hidden.nrows()).filter(is_empty) {
            pass.d_initial.hidden.row_mut(row).assign(&pass.d_last.hidden.row(row));
            pass.d_initial.cell.row_mut(row).assign(&pass.d_last.cell.row(row));
        }
    }

    /// The gradients where rows differ: zero in the padding and past the points where gradients stop; stored
    /// at initial states.
    fn end_rows(
        &self,
        t: usize,
        pass: &mut Backward<'_, F>,
        d_state: &mut CellState<F>,
        d_before: &CellState<F>,
    ) {
        let Backward { saved_steps: SavedSteps { rows, .. }, gates, arrays, d_initial, .. } = pass;
        for row in 0..d_state.hidden.nrows() {
            let before = self.before(t, row, *rows);
            if before == Before::Padding {
                let padded = [Some(&mut *gates), arrays.d_apart.as_mut(), arrays.d_hidden.as_mut()];
                for array in padded.into_iter().flatten() {
                    array.slice_mut(ndarray::s![t, row, ..]).fill(F::zero());
                }
            } else if !self.traversal.flows(t, rows.first + row, self.steps, rows.all) {
                d_state.clear(row);
            } else {
                d_state.take(row, d_before.view());
                if before == Before::Initial {
                    d_initial.hidden.row_mut(row).assign(&d_before.hidden.row(row));
                    d_initial.cell.row_mut(row).assign(&d_before.cell.row(row));
                }
            }
        }
    }

    /// Computes one backward step: the gradients of the gates, and of the states before the step, clipped
    /// where there is a bound.
    pub(crate) fn step_back(
        &self,
        step: &Step<'_, F>,
        d_after: CellStateView<'_, F>,
        mut gradients: StepGradients<'_, F>,
        steps: &[usize],
    ) {
        let size = d_after.cell.dim();
        let keeps = zoneout::keeps(&self.matrices.equations, steps, step.rows, size);
        match keeps {
            Some(keeps) => zoneout::backward(self.matrices, step, d_after, &keeps, &mut gradients),
            None => cells::backward(self.matrices, step, d_after, &mut gradients),
        }
        if let Some(bound) = self.matrices.equations.options.clip_gradient.map(F::from_f32) {
            let clamp = |d: F| super::gates::clamped(d, Some(bound));
            gradients.d_before.hidden.mapv_inplace(clamp);
            gradients.d_before.cell.mapv_inplace(clamp);
        }
    }

    /// Stores the values of step `t` that weight gradients need, besides gradients.
    fn remember(
        &self,
        t: usize,
        saved_steps: &SavedSteps<'_, F>,
        previous: &Previous<'_, F>,
        gates: ArrayView2<'_, F>,
        arrays: &mut GradientArrays<'_, F>,
    ) {
        let padding: Vec<usize> = match self.traversal.lengths {
            Some(_) => self.padding(t, saved_steps.rows, saved_steps.initial.hidden.nrows()).collect(),
            None => Vec::new(),
        };
        let keep = |mut target: ArrayViewMut2<'_, F>, result: ArrayView2<'_, F>| {
            target.assign(&result);
            for &row in &padding {
                target.row_mut(row).fill(F::zero());
            }
        };
        keep(arrays.previous.index_axis_mut(Axis(0), t), previous.hidden.view());
        if let Some(cells) = &mut arrays.cells {
            keep(cells.index_axis_mut(Axis(0), t), previous.cell.view());
        }
        if let Some(unprojected) = &mut arrays.unprojected {
            let step = saved_steps.step(t, previous);
            let own: Array2<F> = cells::unprojected(self.matrices, gates, &step);
            keep(unprojected.index_axis_mut(Axis(0), t), own.view());
        }
    }

    /// As [`Self::remember`], for all steps.
    pub(crate) fn remember_all(&self, pass: &mut Backward<'_, F>) {
        let saved_steps = pass.saved_steps;
        for t in 0..self.steps {
            let previous = saved_steps.previous(self, t);
            self.remember(t, &saved_steps, &previous, pass.gates.index_axis(Axis(0), t), &mut pass.arrays);
        }
    }
}

//! Truncated back-propagation through time with overlapping windows, on the CPU: BPTT(h; h') of Williams &
//! Peng (1990). For each lag, one backward step computes all windows together.

use ndarray::{Array2, Array3, ArrayView3, ArrayViewMut3, Axis, s};

use super::cells::{Step, StepGradients};
use super::time_loop::{Backward, SavedSteps, TimeLoop};
use crate::ops::recurrent::SlidingWindows;
use crate::ops::recurrent::traversal::{Before, Traversal};
use crate::ops::recurrent::{CellState, CellStateView};
use crate::tensor::Real;

/// The entries `steps` of [T, B, width], concatenated [steps * B, width].
fn gather<F: Real>(all: ArrayView3<'_, F>, steps: &[usize]) -> Array2<F> {
    let (_, rows, width) = all.dim();
    let chosen = all.select(Axis(0), steps);
    match chosen.into_shape_with_order((steps.len() * rows, width)) {
        Ok(matrix) => matrix,
        Err(error) => unreachable!("a selection is contiguous: {error}"),
    }
}

/// The positions of the windows after `lag` backward steps: the first window that has not passed the first
/// step, and the step of each window from there on.
pub(crate) fn places(windows: SlidingWindows, steps: usize, lag: usize) -> (usize, Vec<usize>) {
    let ends = windows.ends(steps);
    let first = ends.iter().position(|&end| end >= lag).unwrap_or(ends.len());
    (first, ends[first..].iter().map(|end| end - lag).collect())
}

/// The backward pass with windows, see [`SlidingWindows`]. For each lag, one backward step computes all
/// windows as rows of one large batch.
pub(crate) fn backward<F: Real>(
    all: &TimeLoop<'_, '_, F>,
    mut pass: Backward<'_, F>,
    windows: SlidingWindows,
) {
    all.remember_all(&mut pass);
    let (steps, traversal, rows) = (all.steps, all.traversal, pass.saved_steps.rows.all);
    let mut d_gates = Array3::zeros(pass.gates.raw_dim());
    for summed in [&mut pass.arrays.d_apart, &mut pass.arrays.d_hidden].into_iter().flatten() {
        summed.fill(F::zero());
    }
    // The carried gradient of each window's state [windows * B, ..].
    let mut d_state = first_state(pass.d_last, traversal, windows, steps);
    for lag in 0..windows.depth.min(steps) {
        let (first, places) = places(windows, steps, lag);
        let at = |place: usize, row: usize| place * rows + row;
        let mut d_after = CellState {
            hidden: d_state.hidden.slice(s![first * rows.., ..]).to_owned(),
            cell: d_state.cell.slice(s![first * rows.., ..]).to_owned(),
        };
        for (place, &t) in places.iter().enumerate().filter(|&(place, &t)| windows.owns(first + place, t)) {
            for row in 0..rows {
                let mut d_hidden = d_after.hidden.row_mut(at(place, row));
                d_hidden += &pass.d_output.slice(s![t, row, ..]);
            }
        }
        let result = step_back(all, &pass, &places, d_after.view());
        for (place, &t) in places.iter().enumerate() {
            for row in (0..rows).filter(|&row| traversal.before(t, row, steps, rows) != Before::Padding) {
                let from = at(place, row);
                add(&mut d_gates.view_mut(), [t, row], &result.d_gates, from);
                if let (Some(target), Some(d_apart)) = (&mut pass.arrays.d_apart, &result.d_apart) {
                    add(target, [t, row], d_apart, from);
                }
                if let Some(target) = &mut pass.arrays.d_hidden {
                    add(target, [t, row], &d_after.hidden, from);
                }
                let to = at(first + place, row);
                if !traversal.flows(t, row, steps, rows) {
                    d_state.clear(to);
                    continue;
                }
                d_state.hidden.row_mut(to).assign(&result.d_before.hidden.row(from));
                d_state.cell.row_mut(to).assign(&result.d_before.cell.row(from));
                if traversal.before(t, row, steps, rows) == Before::Initial {
                    let mut d_initial = pass.d_initial.hidden.row_mut(row);
                    d_initial += &d_state.hidden.row(to);
                    let mut d_initial = pass.d_initial.cell.row_mut(row);
                    d_initial += &d_state.cell.row(to);
                }
            }
        }
    }
    pass.gates.assign(&d_gates);
    all.pass_empty_rows(&mut pass);
}

/// Adds row `from` of `source` to a row of a step.
fn add<F: Real>(target: &mut ArrayViewMut3<'_, F>, [t, row]: [usize; 2], source: &Array2<F>, from: usize) {
    let mut target = target.slice_mut(s![t, row, ..]);
    target += &source.row(from);
}

/// The gradients that a backward step of several steps' rows computes.
struct WindowGradients<F> {
    d_gates: Array2<F>,
    d_apart: Option<Array2<F>>,
    d_before: CellState<F>,
}

/// Computes one backward step of all rows of the steps `places`.
fn step_back<F: Real>(
    all: &TimeLoop<'_, '_, F>,
    pass: &Backward<'_, F>,
    places: &[usize],
    d_after: CellStateView<'_, F>,
) -> WindowGradients<F> {
    let SavedSteps { saved, output, initial, rows } = pass.saved_steps;
    let (count, units) = d_after.cell.dim();
    let mut result = WindowGradients {
        d_gates: gather(pass.gates.view(), places),
        d_apart: pass.arrays.d_apart.is_some().then(|| Array2::zeros((count, units))),
        d_before: d_after.to_owned(),
    };
    let previous = gather(pass.arrays.previous.view(), places);
    let cells = match &pass.arrays.cells {
        Some(cells) => gather(cells.view(), places),
        None => Array2::zeros((count, initial.cell.ncols())),
    };
    let saved = saved.map(|saved| gather(saved, places));
    let hidden = gather(output, places);
    let step = Step {
        saved: saved.as_ref().map(|saved| saved.view()),
        before: CellStateView { hidden: previous.view(), cell: cells.view() },
        hidden: hidden.view(),
        rows,
    };
    let gradients = StepGradients {
        gates: result.d_gates.view_mut(),
        d_apart: result.d_apart.as_mut().map(|d_apart| d_apart.view_mut()),
        d_before: &mut result.d_before,
    };
    all.step_back(&step, d_after, gradients, places);
    result
}

/// The gradient of each row's final state, in the window that contains its last step. Rows without steps are
/// in no window.
fn first_state<F: Real>(
    d_last: CellStateView<'_, F>,
    traversal: &Traversal<'_>,
    windows: SlidingWindows,
    steps: usize,
) -> CellState<F> {
    let rows = d_last.hidden.nrows();
    let count = windows.ends(steps).len();
    let mut state = CellState::zeros(count * rows, d_last.hidden.ncols(), d_last.cell.ncols());
    for row in 0..rows {
        let Some(last) = traversal.length(row, steps).checked_sub(1) else { continue };
        let place = windows.owner(last) * rows + row;
        state.hidden.row_mut(place).assign(&d_last.hidden.row(row));
        state.cell.row_mut(place).assign(&d_last.cell.row(row));
    }
    state
}

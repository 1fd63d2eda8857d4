//! The twin of truncated back-propagation in windows that overlap, all windows side by side.

use ndarray::{Array2, Array3, ArrayView3, Axis};

use super::cells::{Matrices, Memory, Step};
use super::cpu::{Backward, History, Kept, Upstream, step_back};
use super::walk::{Before, Walk};
use super::{Equations, Windows};
use crate::tensor::Real;

/// The entries `steps` of [T, B, width], one below the other [steps * B, width].
fn gather<F: Real>(all: ArrayView3<'_, F>, steps: &[usize]) -> Array2<F> {
    let (_, rows, width) = all.dim();
    let chosen = all.select(Axis(0), steps);
    match chosen.into_shape_with_order((steps.len() * rows, width)) {
        Ok(matrix) => matrix,
        Err(error) => unreachable!("a selection is contiguous: {error}"),
    }
}

/// Where the windows stand after `lag` steps back: the number of the first that has not reached the beginning, and
/// the step of each from there on.
pub(super) fn places(windows: Windows, steps: usize, lag: usize) -> (usize, Vec<usize>) {
    let ends = windows.ends(steps);
    let first = ends.iter().position(|&end| end >= lag).unwrap_or(ends.len());
    (first, ends[first..].iter().map(|end| end - lag).collect())
}

/// Back-propagation in windows, see [`Windows`]: at each lag one backward step of all windows together, which are
/// rows of one large batch.
pub(super) fn backward<F: Real>(
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    kept: &Kept<'_, F>,
    history: &History<F>,
    upstream: &Upstream<'_, F>,
    walk: &Walk<'_>,
    windows: Windows,
) -> Backward<F> {
    let (steps, rows, _) = kept.output.dim();
    let mut made = Backward::nothing(kept, upstream.d_last);
    // The gradient at each window's state, on its way back: [windows * B, ..].
    let mut d_state = first_state(upstream.d_last, walk, windows, steps);
    for lag in 0..windows.depth.min(steps) {
        let (first, places) = places(windows, steps, lag);
        let at = |place: usize, row: usize| place * rows + row;
        let before = Memory {
            hidden: gather(history.hidden.view(), &places),
            cell: gather(history.cell.view(), &places),
        };
        let active = first * rows..;
        let mut d_after = Memory {
            hidden: d_state.hidden.slice(ndarray::s![active.clone(), ..]).to_owned(),
            cell: d_state.cell.slice(ndarray::s![active, ..]).to_owned(),
        };
        for (place, &t) in places.iter().enumerate().filter(|&(place, &t)| windows.owns(first + place, t)) {
            for row in 0..rows {
                let mut d_hidden = d_after.hidden.row_mut(at(place, row));
                d_hidden += &upstream.d_output.slice(ndarray::s![t, row, ..]);
            }
        }
        let gates = gather(kept.gates, &places);
        let saved = kept.saved.map(|saved| gather(saved, &places));
        let hidden = gather(kept.output, &places);
        let step = Step {
            gates: gates.view(),
            saved: saved.as_ref().map(|saved| saved.view()),
            before: &before,
            hidden: hidden.view(),
        };
        let slopes = step_back(equations, matrices, &step, &d_after, &places);
        for (place, &t) in places.iter().enumerate() {
            for row in (0..rows).filter(|&row| walk.before(t, row, steps, rows) != Before::Padding) {
                let from = at(place, row);
                let add = |target: &mut Array3<F>, source: &Array2<F>| {
                    let mut target = target.slice_mut(ndarray::s![t, row, ..]);
                    target += &source.row(from);
                };
                add(&mut made.d_projected, &slopes.d_projected);
                add(&mut made.d_recurrent, &slopes.d_recurrent);
                add(&mut made.d_hidden, &d_after.hidden);
                let to = at(first + place, row);
                let (mut hidden, mut cell) = (d_state.hidden.row_mut(to), d_state.cell.row_mut(to));
                if !walk.flows(t, row, steps, rows) {
                    hidden.fill(F::zero());
                    cell.fill(F::zero());
                    continue;
                }
                hidden.assign(&slopes.d_memory.hidden.row(from));
                cell.assign(&slopes.d_memory.cell.row(from));
                if walk.before(t, row, steps, rows) == Before::Initial {
                    let mut d_initial = made.d_initial.hidden.row_mut(row);
                    d_initial += &hidden;
                    let mut d_initial = made.d_initial.cell.row_mut(row);
                    d_initial += &cell;
                }
            }
        }
    }
    made
}

/// The gradient at each row's final state, in the window that its last step belongs to.
fn first_state<F: Real>(d_last: &Memory<F>, walk: &Walk<'_>, windows: Windows, steps: usize) -> Memory<F> {
    let rows = d_last.hidden.nrows();
    let count = windows.ends(steps).len();
    let mut state = Memory {
        hidden: Array2::zeros((count * rows, d_last.hidden.ncols())),
        cell: Array2::zeros((count * rows, d_last.cell.ncols())),
    };
    for row in 0..rows {
        let place = windows.owner(walk.length(row, steps) - 1) * rows + row;
        state.hidden.row_mut(place).assign(&d_last.hidden.row(row));
        state.cell.row_mut(place).assign(&d_last.cell.row(row));
    }
    state
}

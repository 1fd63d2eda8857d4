//! The twin of the recurrent shaders: back-propagation through time as Werbos (1990, "Backpropagation through time:
//! what it does and how to do it") writes it, one step after another, row by row where rows differ.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};

use super::cells::{self, Memory};
use super::walk::{Before, Walk};
use super::{Cell, Weights};
use crate::tensor::Real;

/// What the forward pass makes.
pub(super) struct Forward<F> {
    /// What backward needs of the gates [T, B, G·H].
    pub(super) gates: Array3<F>,
    /// What backward needs beside them [T, B, H].
    pub(super) saved: Option<Array3<F>>,
    /// The state after each row's last step.
    pub(super) last: Memory<F>,
}

/// Copies what a step made of its rows; what it made of padding is left out.
fn keep<F: Real>(
    walk: &Walk<'_>,
    t: usize,
    steps: usize,
    made: ArrayView2<'_, F>,
    mut target: ArrayViewMut2<'_, F>,
) {
    if !walk.is_marked() {
        return target.assign(&made);
    }
    let rows = made.nrows();
    for row in (0..rows).filter(|&row| walk.before(t, row, steps, rows) != Before::Padding) {
        target.row_mut(row).assign(&made.row(row));
    }
}

/// The state of the rows before step `t`: `previous`, but initial or zero where the walk says so.
fn begin<F: Real>(walk: &Walk<'_>, t: usize, steps: usize, initial: &Memory<F>, state: &mut Memory<F>) {
    let rows = initial.hidden.nrows();
    for row in 0..rows {
        match walk.before(t, row, steps, rows) {
            Before::Padding | Before::Previous => {}
            Before::Initial => {
                state.hidden.row_mut(row).assign(&initial.hidden.row(row));
                state.cell.row_mut(row).assign(&initial.cell.row(row));
            }
            Before::Zero => {
                state.hidden.row_mut(row).fill(F::zero());
                state.cell.row_mut(row).fill(F::zero());
            }
        }
    }
}

/// Writes the states of all steps to `output`, the column block of this direction [T, B, H].
pub(super) fn forward<F: Real>(
    cell: Cell,
    projected: ArrayView3<'_, F>,
    weights: Weights<'_>,
    initial: &Memory<F>,
    walk: &Walk<'_>,
    mut output: ArrayViewMut3<'_, F>,
) -> Forward<F> {
    let (steps, rows, _) = projected.dim();
    let hidden = initial.hidden.ncols();
    let weight_hh = weights.weight_hh.array2::<F>();
    let bias_hh = weights.bias_hh.map(|bias| bias.array1::<F>());

    let mut gates = Array3::zeros(projected.raw_dim());
    let mut saved = None;
    let mut state = initial.clone();
    for t in walk.order(steps) {
        begin(walk, t, steps, initial, &mut state);
        let mut recurrent = state.hidden.dot(&weight_hh.t());
        if let Some(bias) = bias_hh {
            recurrent += &bias;
        }
        let made = cells::forward(cell, projected.index_axis(Axis(0), t), &recurrent, &state);
        let keep = |made: &Array2<F>, target: ArrayViewMut2<'_, F>| keep(walk, t, steps, made.view(), target);
        keep(&made.gates, gates.index_axis_mut(Axis(0), t));
        if let Some(made) = &made.saved {
            let saved = saved.get_or_insert_with(|| Array3::zeros((steps, rows, hidden)));
            keep(made, saved.index_axis_mut(Axis(0), t));
        }
        keep(&made.memory.hidden, output.index_axis_mut(Axis(0), t));
        // Rows in their padding keep the state they ended with.
        keep(&made.memory.hidden, state.hidden.view_mut());
        keep(&made.memory.cell, state.cell.view_mut());
    }
    Forward { gates, saved, last: state }
}

/// What the backward pass makes.
pub(super) struct Backward<F> {
    /// At W_ih x + b_ih [T, B, G·H].
    pub(super) d_projected: Array3<F>,
    /// At W_hh h' + b_hh [T, B, G·H].
    pub(super) d_recurrent: Array3<F>,
    pub(super) d_initial: Memory<F>,
}

/// What the forward pass left, for one direction.
pub(super) struct Kept<'a, F> {
    pub(super) gates: ArrayView3<'a, F>,
    pub(super) saved: Option<ArrayView3<'a, F>>,
    pub(super) output: ArrayView3<'a, F>,
    pub(super) initial: &'a Memory<F>,
}

/// The states that step `t` started from.
fn previous<F: Real>(cell: Cell, kept: &Kept<'_, F>, walk: &Walk<'_>, t: usize) -> Memory<F> {
    let steps = kept.output.dim().0;
    let mut state = kept.initial.clone();
    if let Some(neighbour) = walk.neighbour(t, steps) {
        state.hidden.assign(&kept.output.index_axis(Axis(0), neighbour));
        if let (true, Some(saved)) = (cell.has_cell_state(), kept.saved) {
            state.cell.assign(&saved.index_axis(Axis(0), neighbour));
        }
    }
    begin(walk, t, steps, kept.initial, &mut state);
    state
}

/// The states that every step started from, h only [T, B, H].
pub(super) fn all_previous<F: Real>(cell: Cell, kept: &Kept<'_, F>, walk: &Walk<'_>) -> Array3<F> {
    let mut all = Array3::zeros(kept.output.raw_dim());
    let steps = all.dim().0;
    for t in 0..steps {
        let state = previous(cell, kept, walk, t);
        keep(walk, t, steps, state.hidden.view(), all.index_axis_mut(Axis(0), t));
    }
    all
}

/// `d_last` is the gradient at the state after each row's last step.
pub(super) fn backward<F: Real>(
    cell: Cell,
    kept: &Kept<'_, F>,
    weight_hh: ArrayView2<'_, F>,
    d_output: ArrayView3<'_, F>,
    d_last: &Memory<F>,
    walk: &Walk<'_>,
) -> Backward<F> {
    let (steps, rows, _) = kept.output.dim();
    let at = Axis(0);
    let mut d_projected = Array3::zeros(kept.gates.raw_dim());
    let mut d_recurrent = Array3::zeros(kept.gates.raw_dim());
    let mut d_initial =
        Memory { hidden: Array2::zeros(d_last.hidden.raw_dim()), cell: Array2::zeros(d_last.cell.raw_dim()) };
    // The gradient at each row's state, on its way back.
    let mut d_state = d_last.clone();
    for t in walk.order(steps).into_iter().rev() {
        let before = previous(cell, kept, walk, t);
        let d_after =
            Memory { hidden: &d_state.hidden + &d_output.index_axis(at, t), cell: d_state.cell.clone() };
        let saved = kept.saved.map(|saved| saved.index_axis_move(at, t));
        let hidden = kept.output.index_axis(at, t);
        let slopes = cells::backward(cell, kept.gates.index_axis(at, t), saved, &before, hidden, &d_after);
        let d_hidden = &slopes.d_memory.hidden + &slopes.d_recurrent.dot(&weight_hh);
        keep(walk, t, steps, slopes.d_projected.view(), d_projected.index_axis_mut(at, t));
        keep(walk, t, steps, slopes.d_recurrent.view(), d_recurrent.index_axis_mut(at, t));
        for row in (0..rows).filter(|&row| walk.before(t, row, steps, rows) != Before::Padding) {
            if !walk.flows(t, row, steps, rows) {
                d_state.hidden.row_mut(row).fill(F::zero());
                d_state.cell.row_mut(row).fill(F::zero());
                continue;
            }
            d_state.hidden.row_mut(row).assign(&d_hidden.row(row));
            d_state.cell.row_mut(row).assign(&slopes.d_memory.cell.row(row));
            if walk.before(t, row, steps, rows) == Before::Initial {
                d_initial.hidden.row_mut(row).assign(&d_state.hidden.row(row));
                d_initial.cell.row_mut(row).assign(&d_state.cell.row(row));
            }
        }
    }
    Backward { d_projected, d_recurrent, d_initial }
}

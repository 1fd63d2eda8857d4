//! The twin of the recurrent shaders: back-propagation through time as Werbos (1990, "Backpropagation through time:
//! what it does and how to do it") writes it, one step after another, row by row where rows differ.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};

use super::cells::{self, Matrices, Memory, Step};
use super::walk::{Before, Walk};
use super::{Equations, zoneout};
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
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    projected: ArrayView3<'_, F>,
    initial: &Memory<F>,
    walk: &Walk<'_>,
    mut output: ArrayViewMut3<'_, F>,
) -> Forward<F> {
    let (steps, rows, _) = projected.dim();
    let units = initial.cell.ncols();
    let mut gates = Array3::zeros(projected.raw_dim());
    let mut saved = None;
    let mut state = initial.clone();
    for t in walk.order(steps) {
        begin(walk, t, steps, initial, &mut state);
        let made = cells::forward(equations, matrices, projected.index_axis(Axis(0), t), &state);
        let keeps = zoneout::keeps(equations, &[t], rows, units);
        let made = zoneout::hold(equations, keeps.as_ref(), &state, made);
        let keep = |made: &Array2<F>, target: ArrayViewMut2<'_, F>| keep(walk, t, steps, made.view(), target);
        keep(&made.gates, gates.index_axis_mut(Axis(0), t));
        if let Some(made) = &made.saved {
            let saved = saved.get_or_insert_with(|| Array3::zeros((steps, rows, units)));
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
    /// At h [T, B, P], whole: what the projection's gradient is made of.
    pub(super) d_hidden: Array3<F>,
}

impl<F: Real> Backward<F> {
    /// Zeros.
    pub(super) fn nothing(kept: &Kept<'_, F>, d_last: &Memory<F>) -> Self {
        Self {
            d_projected: Array3::zeros(kept.gates.raw_dim()),
            d_recurrent: Array3::zeros(kept.gates.raw_dim()),
            d_initial: Memory {
                hidden: Array2::zeros(d_last.hidden.raw_dim()),
                cell: Array2::zeros(d_last.cell.raw_dim()),
            },
            d_hidden: Array3::zeros(kept.output.raw_dim()),
        }
    }
}

/// What the forward pass left, for one direction.
pub(super) struct Kept<'a, F> {
    pub(super) gates: ArrayView3<'a, F>,
    pub(super) saved: Option<ArrayView3<'a, F>>,
    pub(super) output: ArrayView3<'a, F>,
    pub(super) initial: &'a Memory<F>,
}

/// Arrays over all steps that the gradients of the weights are made of.
pub(super) struct History<F> {
    /// The hidden state that each step started from [T, B, P].
    pub(super) hidden: Array3<F>,
    /// The cell state that each step started from [T, B, H]; zeros where the cell has none.
    pub(super) cell: Array3<F>,
    /// What each step made of h before its projection [T, B, H], where there is one.
    pub(super) unprojected: Option<Array3<F>>,
}

impl<'a, F: Real> Kept<'a, F> {
    /// The states that step `t` started from.
    fn previous(&self, equations: &Equations, walk: &Walk<'_>, t: usize) -> Memory<F> {
        let steps = self.output.dim().0;
        let mut state = self.initial.clone();
        if let Some(neighbour) = walk.neighbour(t, steps) {
            state.hidden.assign(&self.output.index_axis(Axis(0), neighbour));
            if let (true, Some(saved)) = (equations.has_cell_state(), self.saved) {
                state.cell.assign(&saved.index_axis(Axis(0), neighbour));
            }
        }
        begin(walk, t, steps, self.initial, &mut state);
        state
    }

    fn step<'s>(&'s self, t: usize, before: &'s Memory<F>) -> Step<'s, F> {
        Step {
            gates: self.gates.index_axis(Axis(0), t),
            saved: self.saved.map(|saved| saved.index_axis_move(Axis(0), t)),
            before,
            hidden: self.output.index_axis(Axis(0), t),
        }
    }

    pub(super) fn history(
        &self,
        equations: &Equations,
        matrices: &Matrices<'_, F>,
        walk: &Walk<'_>,
    ) -> History<F> {
        let (steps, rows, _) = self.output.dim();
        let units = self.initial.cell.ncols();
        let mut history = History {
            hidden: Array3::zeros(self.output.raw_dim()),
            cell: Array3::zeros((steps, rows, units)),
            unprojected: matrices.is_projected().then(|| Array3::zeros((steps, rows, units))),
        };
        for t in 0..steps {
            let before = self.previous(equations, walk, t);
            let keep = |made: &Array2<F>, target: &mut Array3<F>| {
                keep(walk, t, steps, made.view(), target.index_axis_mut(Axis(0), t));
            };
            keep(&before.hidden, &mut history.hidden);
            keep(&before.cell, &mut history.cell);
            if let Some(unprojected) = &mut history.unprojected {
                keep(&cells::unprojected(equations, &self.step(t, &before)), unprojected);
            }
        }
        history
    }
}

/// What a backward pass starts from.
pub(super) struct Upstream<'a, F> {
    /// The gradient at the outputs [T, B, P].
    pub(super) d_output: ArrayView3<'a, F>,
    /// The gradient at the state after each row's last step.
    pub(super) d_last: &'a Memory<F>,
}

/// One step back of the rows of these steps: the gradients of the gates, and at the states that the steps started from,
/// within the bound.
pub(super) fn step_back<F: Real>(
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: &Memory<F>,
    steps: &[usize],
) -> cells::Slopes<F> {
    let (rows, units) = d_after.cell.dim();
    let keeps = zoneout::keeps(equations, steps, rows / steps.len(), units);
    let mut slopes = zoneout::backward(equations, matrices, step, d_after, keeps.as_ref());
    if let Some(bound) = equations.options.clip_gradient.map(F::from_f32) {
        let clamp = |d: F| {
            if d > bound {
                bound
            } else if d < -bound {
                -bound
            } else {
                d
            }
        };
        slopes.d_memory.hidden.mapv_inplace(clamp);
        slopes.d_memory.cell.mapv_inplace(clamp);
    }
    slopes
}

pub(super) fn backward<F: Real>(
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    kept: &Kept<'_, F>,
    upstream: &Upstream<'_, F>,
    walk: &Walk<'_>,
) -> Backward<F> {
    let (steps, rows, _) = kept.output.dim();
    let at = Axis(0);
    let mut made = Backward::nothing(kept, upstream.d_last);
    // The gradient at each row's state, on its way back.
    let mut d_state = upstream.d_last.clone();
    for t in walk.order(steps).into_iter().rev() {
        let before = kept.previous(equations, walk, t);
        let d_after = Memory {
            hidden: &d_state.hidden + &upstream.d_output.index_axis(at, t),
            cell: d_state.cell.clone(),
        };
        let slopes = step_back(equations, matrices, &kept.step(t, &before), &d_after, &[t]);
        let keep = |from: &Array2<F>, target: &mut Array3<F>| {
            keep(walk, t, steps, from.view(), target.index_axis_mut(at, t));
        };
        keep(&slopes.d_projected, &mut made.d_projected);
        keep(&slopes.d_recurrent, &mut made.d_recurrent);
        keep(&d_after.hidden, &mut made.d_hidden);
        for row in (0..rows).filter(|&row| walk.before(t, row, steps, rows) != Before::Padding) {
            if !walk.flows(t, row, steps, rows) {
                d_state.hidden.row_mut(row).fill(F::zero());
                d_state.cell.row_mut(row).fill(F::zero());
                continue;
            }
            d_state.hidden.row_mut(row).assign(&slopes.d_memory.hidden.row(row));
            d_state.cell.row_mut(row).assign(&slopes.d_memory.cell.row(row));
            if walk.before(t, row, steps, rows) == Before::Initial {
                made.d_initial.hidden.row_mut(row).assign(&d_state.hidden.row(row));
                made.d_initial.cell.row_mut(row).assign(&d_state.cell.row(row));
            }
        }
    }
    made
}

//! The equations of each cell and their derivatives on the CPU, over a batch, row by row and in place: the
//! reference for `shaders/recurrent/cells/`.

mod custom;
mod gru;
pub(crate) mod layer_norm;
mod lstm;
mod vanilla;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, concatenate, s};

use super::weights::{Matrices, Rows};
use crate::ops::recurrent::{Cell, CellState, CellStateView};
use crate::tensor::Real;

/// Where a step writes its results.
pub(crate) struct StepTarget<'a, F> {
    /// W_ih x + b_ih; overwritten with the gates as the backward pass reads them [B, G·H].
    pub(crate) gates: ArrayViewMut2<'a, F>,
    /// Other values that the backward pass reads [B, H].
    pub(crate) saved: Option<ArrayViewMut2<'a, F>>,
    /// The new state.
    pub(crate) after: &'a mut CellState<F>,
}

/// The operands of a backward step besides the gates.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a, F> {
    /// What [`forward`] saved besides the gates.
    pub(crate) saved: Option<ArrayView2<'a, F>>,
    pub(crate) before: CellStateView<'a, F>,
    /// The hidden state after the step.
    pub(crate) hidden: ArrayView2<'a, F>,
    pub(crate) rows: Rows,
}

/// Where a backward step writes its gradients.
pub(crate) struct StepGradients<'a, F> {
    /// The gates that the forward pass saved [B, G·H]; overwritten with the gradient of W_ih x + b_ih.
    pub(crate) gates: ArrayViewMut2<'a, F>,
    /// The gradient of the last gate's part of W_hh h' + b_hh [B, H], where it differs.
    pub(crate) d_apart: Option<ArrayViewMut2<'a, F>>,
    /// The gradient of the previous state.
    pub(crate) d_before: &'a mut CellState<F>,
}

/// The gates of a row, `units` elements each.
pub(crate) fn blocks<const GATES: usize, F: Real>(row: &mut [F], units: usize) -> [&mut [F]; GATES] {
    let mut blocks = row.chunks_exact_mut(units);
    std::array::from_fn(|_| blocks.next().unwrap_or_default())
}

pub(crate) fn forward<F: Real>(
    matrices: &Matrices<'_, F>,
    before: CellStateView<'_, F>,
    rows: Rows,
    target: &mut StepTarget<'_, F>,
) {
    if let Some(gains) = &matrices.gains {
        return layer_norm::forward(gains, matrices, target.gates.view(), before).put(target);
    }
    let seen = matrices.seen(before.hidden, rows);
    match matrices.equations.cell {
        Cell::Vanilla(function) => vanilla::forward(*function, matrices, seen.view(), target),
        Cell::Lstm => lstm::forward(matrices, before, seen.view(), target),
        Cell::Gru => gru::forward(matrices, before, seen.view(), target),
        Cell::Custom(cell) => {
            let mut recurrent = Array2::zeros(target.gates.raw_dim());
            matrices.add_product(0, seen.view(), recurrent.view_mut());
            custom::forward(cell, target.gates.view(), &recurrent, before).put(target);
        }
    }
}

/// Recomputes h of a step before its projection.
pub(crate) fn unprojected<F: Real>(
    matrices: &Matrices<'_, F>,
    gates: ArrayView2<'_, F>,
    step: &Step<'_, F>,
) -> Array2<F> {
    lstm::hidden(matrices, gates, step.saved.unwrap_or(step.before.cell))
}

/// Recomputes the state of a step before zoneout from its gates; h only for cells whose backward pass reads
/// it.
pub(crate) fn candidate<F: Real>(
    matrices: &Matrices<'_, F>,
    gates: ArrayView2<'_, F>,
    step: &Step<'_, F>,
) -> CellState<F> {
    let mut result = CellStateView { hidden: step.hidden, cell: step.before.cell }.to_owned();
    match matrices.equations.cell {
        Cell::Vanilla(function) => vanilla::apply(*function, matrices, gates, &mut result.hidden),
        Cell::Lstm => result.cell = lstm::state(matrices, gates.to_owned(), step.before),
        Cell::Gru | Cell::Custom(_) => {}
    }
    result
}

/// Computes the backward pass of a step from the gradient of the state after it.
pub(crate) fn backward<F: Real>(
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
    gradients: &mut StepGradients<'_, F>,
) {
    if let Some(gains) = &matrices.gains {
        let result = layer_norm::backward(gains, matrices, gradients.gates.view(), step, d_after);
        return result.put(gradients);
    }
    match matrices.equations.cell {
        Cell::Vanilla(function) => vanilla::backward(*function, matrices, step, d_after, gradients),
        Cell::Lstm => lstm::backward(matrices, step, d_after, gradients),
        Cell::Gru => gru::backward(matrices, step, d_after, gradients),
        Cell::Custom(cell) => {
            let mut result = custom::backward(cell, gradients.gates.view(), step, d_after);
            matrices.add_back(0, result.d_recurrent.view(), step.rows, &mut result.d_state.hidden);
            result.put(gradients);
        }
    }
}

/// The results of a forward step: gates, other saved values, the new state.
pub(crate) struct CellOutput<F> {
    pub(crate) gates: Array2<F>,
    pub(crate) saved: Option<Array2<F>>,
    pub(crate) state: CellState<F>,
}

impl<F: Real> CellOutput<F> {
    fn put(self, target: &mut StepTarget<'_, F>) {
        target.gates.assign(&self.gates);
        if let (Some(place), Some(saved)) = (&mut target.saved, &self.saved) {
            place.assign(saved);
        }
        *target.after = self.state;
    }
}

/// The results of a backward step: gradients of W_ih x + b_ih and W_hh h' + b_hh [B, G·H], and of the
/// previous state.
pub(crate) struct CellGradients<F> {
    pub(crate) d_projected: Array2<F>,
    pub(crate) d_recurrent: Array2<F>,
    pub(crate) d_state: CellState<F>,
}

impl<F: Real> CellGradients<F> {
    fn put(self, gradients: &mut StepGradients<'_, F>) {
        gradients.gates.assign(&self.d_projected);
        if let Some(d_apart) = &mut gradients.d_apart {
            let last = self.d_recurrent.ncols() - d_apart.ncols();
            d_apart.assign(&self.d_recurrent.slice(s![.., last..]));
        }
        *gradients.d_before = self.d_state;
    }
}

/// Gate `gate` of the columns.
pub(crate) fn block<F: Real>(gates: ArrayView2<'_, F>, gate: usize, units: usize) -> Array2<F> {
    gates.slice(s![.., gate * units..(gate + 1) * units]).to_owned()
}

pub(crate) fn joined<F: Real>(blocks: &[&Array2<F>]) -> Array2<F> {
    let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
    match concatenate(Axis(1), &views) {
        Ok(joined) => joined,
        Err(error) => unreachable!("all blocks are [B, H]: {error}"),
    }
}

pub(crate) fn one_minus<F: Real>(x: &Array2<F>) -> Array2<F> {
    x.mapv(|x| F::one() - x)
}

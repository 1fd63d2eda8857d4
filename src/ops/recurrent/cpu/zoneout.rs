//! Zoneout on the CPU (Krueger et al. 2017, "Zoneout: Regularizing RNNs by randomly preserving hidden
//! activations"): h = k h' + (1 − k) h̃ and, with its own random numbers, c = k c' + (1 − k) c̃. In training
//! k is 1 with the probability of the rate, else 0; in evaluation it is the rate.

use ndarray::{Array2, ArrayView2, Zip};

use super::cells::{self, Step, StepGradients, StepTarget};
use super::weights::{Matrices, Rows};
use crate::ops::recurrent::Equations;
use crate::ops::recurrent::{CellState, CellStateView};
use crate::tensor::Real;

/// k for some rows of some steps, concatenated.
pub(crate) fn keeps<F: Real>(
    equations: &Equations,
    steps: &[usize],
    rows: Rows,
    size: (usize, usize),
) -> Option<CellState<F>> {
    equations.options.zoneout?;
    let (count, units) = size;
    let own = count / steps.len().max(1);
    let mut result = CellState::zeros(count, units, units);
    for row in 0..count {
        for unit in 0..units {
            let place = (steps[row / own] * rows.all + rows.first + row % own) * units + unit;
            let [hidden, cell] = equations.keeps(place)?;
            result.hidden[[row, unit]] = F::from_f64(hidden);
            result.cell[[row, unit]] = F::from_f64(cell);
        }
    }
    Some(result)
}

/// new ← k old + (1 − k) new. Where k is 0 or 1, a NaN in the value with weight 0 does not propagate.
fn mix<F: Real>(keep: &Array2<F>, old: ArrayView2<'_, F>, new: &mut Array2<F>) {
    Zip::from(new).and(keep).and(old).for_each(|new, &keep, &old| {
        if keep == F::one() {
            *new = old;
        } else if keep != F::zero() {
            *new = keep * old + (F::one() - keep) * *new;
        }
    });
}

/// The gradients of old and of new from that of k old + (1 − k) new.
fn split_gradient<F: Real>(keep: &Array2<F>, d: ArrayView2<'_, F>) -> [Array2<F>; 2] {
    let (zero, one) = (F::zero(), F::one());
    let old = Zip::from(keep).and(d).map_collect(|&keep, &d| match keep {
        keep if keep == zero => zero,
        keep if keep == one => d,
        keep => keep * d,
    });
    let new = Zip::from(keep).and(d).and(&old).map_collect(|&keep, &d, &old| match keep {
        keep if keep == zero => d,
        keep if keep == one => zero,
        _ => d - old,
    });
    [old, new]
}

/// Applies zoneout to the result of a step.
pub(crate) fn hold<F: Real>(
    equations: &Equations,
    keeps: &CellState<F>,
    before: CellStateView<'_, F>,
    target: &mut StepTarget<'_, F>,
) {
    mix(&keeps.hidden, before.hidden, &mut target.after.hidden);
    if !equations.has_cell_state() {
        return;
    }
    mix(&keeps.cell, before.cell, &mut target.after.cell);
    if let Some(saved) = &mut target.saved {
        saved.assign(&target.after.cell);
    }
}

/// The backward pass of a cell with zoneout.
pub(crate) fn backward<F: Real>(
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
    keeps: &CellState<F>,
    gradients: &mut StepGradients<'_, F>,
) {
    let [direct_hidden, made_hidden] = split_gradient(&keeps.hidden, d_after.hidden);
    let [direct_cell, made_cell] = split_gradient(&keeps.cell, d_after.cell);
    let d_made = CellState { hidden: made_hidden, cell: made_cell };
    // The derivatives of the cell are those at its result before zoneout, which is recomputed.
    let result = cells::candidate(matrices, gradients.gates.view(), step);
    let step = Step {
        saved: match &step.saved {
            Some(_) if matrices.equations.has_cell_state() => Some(result.cell.view()),
            saved => saved.as_ref().map(|saved| saved.view()),
        },
        hidden: result.hidden.view(),
        before: CellStateView { hidden: step.before.hidden.view(), cell: step.before.cell.view() },
        rows: step.rows,
    };
    cells::backward(matrices, &step, d_made.view(), gradients);
    gradients.d_before.hidden += &direct_hidden;
    gradients.d_before.cell += &direct_cell;
}

//! The twin of zoneout: units that keep their old state (Krueger et al. 2017, "Zoneout: Regularizing RNNs by randomly
//! preserving hidden activations"): h = k h' + (1 − k) h̃ and, with numbers of its own, c = k c' + (1 − k) c̃; k is 1 with
//! the rate's probability, and the rate itself in evaluation.

use ndarray::Array2;

use super::Equations;
use super::cells::{self, Made, Matrices, Memory, Slopes, Step};
use crate::tensor::Real;

/// k for the rows of some steps, one step below the other.
pub(super) fn keeps<F: Real>(
    equations: &Equations,
    steps: &[usize],
    rows: usize,
    units: usize,
) -> Option<Memory<F>> {
    equations.options.zoneout?;
    let size = (steps.len() * rows, units);
    let mut made = Memory { hidden: Array2::zeros(size), cell: Array2::zeros(size) };
    for row in 0..size.0 {
        for unit in 0..units {
            let place = (steps[row / rows] * rows + row % rows) * units + unit;
            let [hidden, cell] = equations.keeps(place)?;
            made.hidden[[row, unit]] = F::from_f64(hidden);
            made.cell[[row, unit]] = F::from_f64(cell);
        }
    }
    Some(made)
}

fn mixed<F: Real>(keep: &Array2<F>, old: &Array2<F>, new: &Array2<F>) -> Array2<F> {
    keep * old + keep.mapv(|keep| F::one() - keep) * new
}

/// What the step made, with what units keep.
pub(super) fn hold<F: Real>(
    equations: &Equations,
    keeps: Option<&Memory<F>>,
    before: &Memory<F>,
    made: Made<F>,
) -> Made<F> {
    let Some(keeps) = keeps else { return made };
    let hidden = mixed(&keeps.hidden, &before.hidden, &made.memory.hidden);
    if !equations.has_cell_state() {
        return Made { memory: Memory { hidden, ..made.memory }, ..made };
    }
    let cell = mixed(&keeps.cell, &before.cell, &made.memory.cell);
    Made { saved: Some(cell.clone()), memory: Memory { hidden, cell }, ..made }
}

/// A step back through a cell whose units keep old states.
pub(super) fn backward<F: Real>(
    equations: &Equations,
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: &Memory<F>,
    keeps: Option<&Memory<F>>,
) -> Slopes<F> {
    let Some(keeps) = keeps else { return cells::backward(equations, matrices, step, d_after) };
    let direct = Memory { hidden: &keeps.hidden * &d_after.hidden, cell: &keeps.cell * &d_after.cell };
    let d_made = Memory { hidden: &d_after.hidden - &direct.hidden, cell: &d_after.cell - &direct.cell };
    // The cell's derivatives are those at what it made, before anything was kept.
    let made = cells::candidate(equations, step);
    let step = Step {
        saved: if equations.has_cell_state() { Some(made.cell.view()) } else { step.saved },
        hidden: made.hidden.view(),
        ..*step
    };
    let mut slopes = cells::backward(equations, matrices, &step, &d_made);
    slopes.d_memory.hidden += &direct.hidden;
    slopes.d_memory.cell += &direct.cell;
    slopes
}

//! User-defined cells: calls the equations unit by unit, in 64-bit floats.

use ndarray::{Array2, ArrayView2};

use super::{CellGradients, CellOutput, Step};
use crate::ops::recurrent::custom_cell::{CustomCell, Properties, UnitState, UnitStep};
use crate::ops::recurrent::{CellState, CellStateView};
use crate::tensor::Real;

/// Block by block, the numbers of one unit.
fn unit<F: Real>(blocks: ArrayView2<'_, F>, row: usize, unit: usize, units: usize) -> Vec<f64> {
    let count = blocks.ncols() / units;
    (0..count).map(|gate| wide(blocks[[row, gate * units + unit]])).collect()
}

fn wide<F: Real>(value: F) -> f64 {
    // Both of the types there are convert without loss.
    value.to_f64().unwrap_or(f64::NAN)
}

pub(crate) fn forward<F: Real>(
    cell: &CustomCell,
    projected: ArrayView2<'_, F>,
    recurrent: &Array2<F>,
    before: CellStateView<'_, F>,
) -> CellOutput<F> {
    let (equations, properties) = (cell.equations(), cell.properties());
    let &Properties { gates: count, has_cell_state, saves, .. } = properties;
    let (rows, units) = before.hidden.dim();
    let mut gates = Array2::zeros(projected.raw_dim());
    let (mut hidden, mut saved) = (Array2::zeros((rows, units)), Array2::zeros((rows, units)));
    for row in 0..rows {
        for place in 0..units {
            let previous = unit_state(has_cell_state, before, row, place);
            let sums = [unit(projected, row, place, units), unit(recurrent.view(), row, place, units)];
            // What the cell does not write must not look like a result.
            let mut result = vec![f64::NAN; count];
            let out = equations.forward(&sums[0], &sums[1], previous, &mut result);
            for (gate, value) in result.into_iter().enumerate() {
                gates[[row, gate * units + place]] = F::from_f64(value);
            }
            hidden[[row, place]] = F::from_f64(out.hidden);
            saved[[row, place]] = F::from_f64(out.saved);
        }
    }
    let state = if has_cell_state { saved.clone() } else { before.cell.to_owned() };
    CellOutput { gates, saved: saves.then_some(saved), state: CellState { hidden, cell: state } }
}

/// The state of one unit; the arrays of a cell without a cell state have no c.
fn unit_state<F: Real>(
    has_cell_state: bool,
    state: CellStateView<'_, F>,
    row: usize,
    place: usize,
) -> UnitState {
    let cell = if has_cell_state { wide(state.cell[[row, place]]) } else { 0.0 };
    UnitState { hidden: wide(state.hidden[[row, place]]), cell }
}

/// The state's gradient is without what flows through the gates' sums.
pub(crate) fn backward<F: Real>(
    cell: &CustomCell,
    gates: ArrayView2<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
) -> CellGradients<F> {
    let (equations, properties) = (cell.equations(), cell.properties());
    let &Properties { gates: count, has_cell_state, last_gate_apart, .. } = properties;
    let Step { saved, before, hidden, .. } = *step;
    let (rows, units) = before.hidden.dim();
    let mut d_projected: Array2<F> = Array2::zeros(gates.raw_dim());
    let mut d_recurrent = d_projected.clone();
    let mut d_state =
        CellState { hidden: Array2::zeros((rows, units)), cell: Array2::zeros(before.cell.raw_dim()) };
    for row in 0..rows {
        for place in 0..units {
            let own = unit(gates, row, place, units);
            let step = UnitStep {
                gates: &own,
                saved: saved.map_or(0.0, |saved| wide(saved[[row, place]])),
                previous: unit_state(has_cell_state, before, row, place),
                hidden: wide(hidden[[row, place]]),
            };
            let mut d_gates = vec![f64::NAN; count];
            let result =
                equations.backward(&step, unit_state(has_cell_state, d_after, row, place), &mut d_gates);
            let last = d_gates.len() - 1;
            for (gate, value) in d_gates.into_iter().enumerate() {
                let column = gate * units + place;
                d_projected[[row, column]] = F::from_f64(value);
                let apart = last_gate_apart && gate == last;
                d_recurrent[[row, column]] = F::from_f64(if apart { result.d_apart } else { value });
            }
            d_state.hidden[[row, place]] = F::from_f64(result.d_hidden);
            if has_cell_state {
                d_state.cell[[row, place]] = F::from_f64(result.d_cell);
            }
        }
    }
    CellGradients { d_projected, d_recurrent, d_state }
}

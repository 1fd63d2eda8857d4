//! The twin of `shaders/recurrent_{forward,backward}.wgsl` and `shaders/cells/`: back-propagation through time as
//! Werbos (1990, "Backpropagation through time: what it does and how to do it") writes it, one step after another.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, Zip};

use super::{Cell, Weights};
use crate::ops::elementwise::cpu::{derivative, value};
use crate::tensor::Real;

/// h from the gates before their activation [B, G·H].
fn cell_forward<F: Real>(cell: Cell, gates: ArrayView2<'_, F>) -> Array2<F> {
    match cell {
        Cell::Vanilla(activation) => gates.mapv(|gate| value(activation, gate)),
    }
}

/// The gradient at the gates [B, G·H] from that at h.
fn cell_backward<F: Real>(
    cell: Cell,
    gates: ArrayView2<'_, F>,
    hidden: ArrayView2<'_, F>,
    d_hidden: &Array2<F>,
) -> Array2<F> {
    match cell {
        Cell::Vanilla(activation) => Zip::from(gates)
            .and(hidden)
            .and(d_hidden)
            .map_collect(|&gate, &hidden, &d_hidden| d_hidden * derivative(activation, gate, hidden)),
    }
}

/// Returns the gates before their activation [T, B, G·H] and the states [T, B, H].
pub(super) fn forward<F: Real>(
    cell: Cell,
    projected: ArrayView3<'_, F>,
    weights: Weights<'_>,
    initial: ArrayView2<'_, F>,
) -> (Array3<F>, Array3<F>) {
    let (steps, rows, _) = projected.dim();
    let weight_hh = weights.weight_hh.array2::<F>();
    let bias_hh = weights.bias_hh.map(|bias| bias.array1::<F>());

    let mut gates = projected.to_owned();
    let mut output = Array3::zeros((steps, rows, initial.ncols()));
    let mut hidden = initial.to_owned();
    for t in 0..steps {
        let mut gates_t = gates.index_axis_mut(Axis(0), t);
        gates_t += &hidden.dot(&weight_hh.t());
        if let Some(bias) = bias_hh {
            gates_t += &bias;
        }
        hidden = cell_forward(cell, gates_t.view());
        output.index_axis_mut(Axis(0), t).assign(&hidden);
    }
    (gates, output)
}

/// Returns the gradients at the gates [T, B, G·H] and at the initial state [B, H].
pub(super) fn backward<F: Real>(
    cell: Cell,
    (gates, output): (ArrayView3<'_, F>, ArrayView3<'_, F>),
    weights: Weights<'_>,
    d_output: ArrayView3<'_, F>,
    d_last: Option<ArrayView2<'_, F>>,
) -> (Array3<F>, Array2<F>) {
    let (steps, rows, hidden) = output.dim();
    let weight_hh = weights.weight_hh.array2::<F>();

    let mut d_gates = Array3::zeros(gates.raw_dim());
    let mut from_future = d_last.map_or_else(|| Array2::zeros((rows, hidden)), |d_last| d_last.to_owned());
    for t in (0..steps).rev() {
        let at = Axis(0);
        let d_hidden = &d_output.index_axis(at, t) + &from_future;
        let d_gates_t = cell_backward(cell, gates.index_axis(at, t), output.index_axis(at, t), &d_hidden);
        from_future = d_gates_t.dot(&weight_hh);
        d_gates.index_axis_mut(at, t).assign(&d_gates_t);
    }
    (d_gates, from_future)
}

//! Layer normalisation in a step on the CPU (Ba, Kiros & Hinton 2016, supplementary material): the reference
//! for `shaders/recurrent/layer_norm/`.

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis, concatenate, s};

use super::super::gates::units_mut;
use super::super::weights::{Gains, Matrices};
use super::{CellGradients, CellOutput, Step, block, joined, one_minus};
use crate::ops::Activation;
use crate::ops::elementwise::cpu::derivative_at_output;
use crate::ops::layer_norm::cpu as layer_norm;
use crate::ops::recurrent::{CellState, CellStateView};
use crate::tensor::Real;

fn sigmoid<F: Real>(mut a: Array2<F>) -> Array2<F> {
    for row in a.outer_iter_mut() {
        F::sigmoid_each(units_mut(row));
    }
    a
}

fn tanh<F: Real>(mut a: Array2<F>) -> Array2<F> {
    for row in a.outer_iter_mut() {
        F::tanh_each(units_mut(row));
    }
    a
}

/// σ'(a), where y = σ(a).
fn sigmoid_derivative<F: Real>(y: &Array2<F>) -> Array2<F> {
    y.mapv(|y| derivative_at_output(Activation::Sigmoid, y))
}

/// tanh'(a), where y = tanh(a).
fn tanh_derivative<F: Real>(y: &Array2<F>) -> Array2<F> {
    y.mapv(|y| derivative_at_output(Activation::Tanh, y))
}

/// LN(c; g_c, s_c), where `state` is g_c, s_c.
fn normalised_state<F: Real>(state: ArrayView2<'_, F>, c: &Array2<F>) -> Array2<F> {
    layer_norm::forward(c.view(), state.row(0), Some(state.row(1)), &[c.ncols()])
}

/// W_hh h'.
fn product<F: Real>(matrices: &Matrices<'_, F>, hidden: ArrayView2<'_, F>) -> Array2<F> {
    hidden.dot(&matrices.weight.t())
}

pub(crate) fn forward<F: Real>(
    gains: &Gains<'_, F>,
    matrices: &Matrices<'_, F>,
    projected: ArrayView2<'_, F>,
    before: CellStateView<'_, F>,
) -> CellOutput<F> {
    let product = product(matrices, before.hidden);
    let recurrent = layer_norm::forward(product.view(), gains.product, matrices.bias, &gains.groups);
    let sum = &projected + &recurrent;
    let at = |gate| block(sum.view(), gate, matrices.hidden_size);
    match gains.state {
        Some(state) => {
            let (i, f, g, o) = (sigmoid(at(0)), sigmoid(at(1)), tanh(at(2)), sigmoid(at(3)));
            let c = &f * &before.cell + &i * &g;
            let hidden = &o * &tanh(normalised_state(state, &c));
            let state = CellState { hidden, cell: c.clone() };
            CellOutput { gates: joined(&[&i, &f, &g, &o]), saved: Some(c), state }
        }
        None => {
            let (r, z) = (sigmoid(at(0)), sigmoid(at(1)));
            let q = block(recurrent.view(), 2, matrices.hidden_size);
            let n = tanh(block(projected, 2, matrices.hidden_size) + &r * &q);
            let hidden = one_minus(&z) * &n + &z * &before.hidden;
            let state = CellState { hidden, cell: before.cell.to_owned() };
            CellOutput { gates: joined(&[&r, &z, &n]), saved: Some(q), state }
        }
    }
}

pub(crate) fn backward<F: Real>(
    gains: &Gains<'_, F>,
    matrices: &Matrices<'_, F>,
    gates: ArrayView2<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
) -> CellGradients<F> {
    let at = |gate| block(gates, gate, matrices.hidden_size);
    let kept = || step.saved.unwrap_or(step.before.cell).to_owned();
    let d_h = &d_after.hidden;
    let (d_projected, d_recurrent, past, d_cell) = match gains.state {
        Some(state) => {
            let (i, f, g, o) = (at(0), at(1), at(2), at(3));
            let c = kept();
            let y = tanh(normalised_state(state, &c));
            let d_o = d_h * &y * sigmoid_derivative(&o);
            let d_normalised = d_h * &o * tanh_derivative(&y);
            let (d_c, _) =
                layer_norm::backward(c.view(), state.row(0), d_normalised.view(), &[matrices.hidden_size]);
            let d_c = &d_after.cell + &d_c;
            let d_i = &d_c * &g * sigmoid_derivative(&i);
            let d_f = &d_c * &step.before.cell * sigmoid_derivative(&f);
            let d_g = &d_c * &i * tanh_derivative(&g);
            let d_a = joined(&[&d_i, &d_f, &d_g, &d_o]);
            (d_a.clone(), d_a, Array2::zeros(d_h.raw_dim()), &d_c * &f)
        }
        None => {
            let (r, z, n) = (at(0), at(1), at(2));
            let d_n = d_h * &one_minus(&z) * tanh_derivative(&n);
            let d_z = d_h * &(&step.before.hidden - &n) * sigmoid_derivative(&z);
            let d_r = &d_n * &kept() * sigmoid_derivative(&r);
            let d_q = &d_n * &r;
            let none = Array2::zeros(d_after.cell.raw_dim());
            (joined(&[&d_r, &d_z, &d_n]), joined(&[&d_r, &d_z, &d_q]), d_h * &z, none)
        }
    };
    let product = product(matrices, step.before.hidden);
    let (d_product, _) =
        layer_norm::backward(product.view(), gains.product, d_recurrent.view(), &gains.groups);
    let hidden = past + d_product.dot(&matrices.weight);
    CellGradients { d_projected, d_recurrent, d_state: CellState { hidden, cell: d_cell } }
}

/// [T, B, width] as [T·B, width].
fn matrix<F: Real>(all: ArrayView3<'_, F>) -> ArrayView2<'_, F> {
    let (steps, rows, width) = all.dim();
    match all.into_shape_with_order((steps * rows, width)) {
        Ok(matrix) => matrix,
        Err(error) => unreachable!("arrays over time are contiguous: {error}"),
    }
}

/// The operands of [`over_time`], for all steps.
pub(crate) struct OverTime<'a, F> {
    /// The hidden state before each step [T, B, H].
    pub(crate) previous: ArrayView3<'a, F>,
    /// The gradient of the gates' sums [T, B, G·H].
    pub(crate) d_gates: ArrayView3<'a, F>,
    /// The gradient of the last gate's recurrent part [T, B, H], where it differs.
    pub(crate) d_apart: Option<ArrayView3<'a, F>>,
    /// For an LSTM: c, the gate o and the gradient of h [T, B, H].
    pub(crate) state: Option<[ArrayView3<'a, F>; 3]>,
}

/// Computes the gradient of W_hh h' for all steps [T, B, G·H], and the gradients of norm_hh and norm_c,
/// concatenated.
pub(crate) fn all_steps<F: Real>(
    gains: &Gains<'_, F>,
    matrices: &Matrices<'_, F>,
    over: &OverTime<'_, F>,
) -> (Array3<F>, Array1<F>) {
    let product = product(matrices, matrix(over.previous));
    let mut d_recurrent = over.d_gates.to_owned();
    if let Some(d_apart) = over.d_apart {
        let last = d_recurrent.dim().2 - matrices.hidden_size;
        d_recurrent.slice_mut(s![.., .., last..]).assign(&d_apart);
    }
    let (d_product, d_gain) =
        layer_norm::backward(product.view(), gains.product, matrix(d_recurrent.view()), &gains.groups);
    let d_product = match d_product.into_shape_with_order(over.d_gates.raw_dim()) {
        Ok(d_product) => d_product,
        Err(error) => unreachable!("as many elements as before: {error}"),
    };
    let (Some(state), Some(all)) = (gains.state, over.state) else { return (d_product, d_gain) };
    let [c, o, d_hidden] = all.map(|array| matrix(array).to_owned());
    let y = tanh(normalised_state(state, &c));
    let d_normalised = d_hidden * o * tanh_derivative(&y);
    let (_, d_state_gain) =
        layer_norm::backward(c.view(), state.row(0), d_normalised.view(), &[matrices.hidden_size]);
    let d_shift = d_normalised.sum_axis(Axis(0));
    match concatenate(Axis(0), &[d_gain.view(), d_state_gain.view(), d_shift.view()]) {
        Ok(all) => (d_product, all),
        Err(error) => unreachable!("all are vectors: {error}"),
    }
}

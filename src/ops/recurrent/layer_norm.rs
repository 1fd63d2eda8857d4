//! Layer normalisation inside an LSTM or a GRU (Ba, Kiros & Hinton 2016, "Layer normalization", supplementary
//! material). With LN as in [`layer_norm()`], and gates in the order of [`Cell`]:
//!
//! - LSTM: a = LN(W_ih x; g_ih) + b_ih + LN(W_hh h'; g_hh) + b_hh, where LN normalises all 4·H entries; i, f,
//!   g, o and c as usual; h = o tanh(LN(c; g_c, s_c)).
//! - GRU: with u = LN(W_ih x; g_ih) + b_ih and q = LN(W_hh h'; g_hh) + b_hh, where LN normalises the 2·H
//!   entries of r and z together, and the H of n: r = σ(u_r + q_r), z = σ(u_z + q_z), n = tanh(u_n + r q_n);
//!   h = (1 − z) n + z h'.
//!
//! The input part is computed for all steps before the time loop; the recurrent part is computed in each
//! step.

use crate::Result;
use crate::ops::recurrent::weight_gradients::InputNormGradients;
use crate::ops::recurrent::{Call, Cell, Norms, PassGradients};
use crate::ops::{layer_norm, layer_norm_backward, sum_rows};
use crate::tensor::Tensor;

/// The widths of the groups of gates that are normalised together.
pub(crate) fn groups(cell: &Cell, units: usize) -> Vec<usize> {
    let gates = cell.gates();
    match cell {
        Cell::Gru => vec![(gates - 1) * units, units],
        _ => vec![gates * units],
    }
}

/// The input part of the gates \[T, B, G·H\]: LN(W_ih x; g_ih) + b_ih.
pub(crate) fn enter(call: &Call<'_>, norms: &Norms<'_>, projected: &Tensor) -> Result<Tensor> {
    let units = projected.shape().last() / call.equations.gates();
    layer_norm(projected, norms.input, norms.bias_ih, &groups(call.equations.cell, units))
}

/// The backward pass of [`enter`]: its gradients from the gradient of its result.
pub(crate) fn leave(
    call: &Call<'_>,
    norms: &Norms<'_>,
    projected: &Tensor,
    after: PassGradients,
) -> Result<PassGradients> {
    let units = projected.shape().last() / call.equations.gates();
    let d_bias = sum_rows(&after.d_projected)?;
    let groups = groups(call.equations.cell, units);
    let (d_projected, d_gain) = layer_norm_backward(projected, norms.input, &after.d_projected, &groups)?;
    Ok(PassGradients { d_projected, entry: Some(InputNormGradients { d_bias, d_gain }), ..after })
}

//! Layer normalisation inside an LSTM or a GRU (Ba, Kiros & Hinton 2016, "Layer normalization", supplementary
//! material). With LN as in [`layer_norm()`], and gate rows in the order of [`Cell`]:
//!
//! - LSTM: a = LN(W_ih x; g_ih) + b_ih + LN(W_hh h'; g_hh) + b_hh, where LN goes over all 4·H entries; i, f, g, o and c
//!   are as usual; h = o tanh(LN(c; g_c, s_c)).
//! - GRU: with u = LN(W_ih x; g_ih) + b_ih and q = LN(W_hh h'; g_hh) + b_hh, where LN goes over the 2·H entries of r and z
//!   and over the H of n: r = σ(u_r + q_r), z = σ(u_z + q_z), n = tanh(u_n + r q_n); h = (1 − z) n + z h'.
//!
//! The input's side is an operation over all steps, before the time loop; the recurrent side is part of a step.

use crate::Result;
use crate::ops::recurrent::{Call, Cell, Gradients};
use crate::ops::{layer_norm, layer_norm_backward, sum_rows};
use crate::tensor::{Tensor, View};

/// The gains of one layer in one direction, and the bias that comes after that of the input.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    /// norm_ih \[G·H\].
    pub(crate) input: View<'a>,
    /// bias_ih \[G·H\].
    pub(crate) bias_ih: Option<View<'a>>,
    /// norm_hh \[G·H\].
    pub(crate) recurrent: View<'a>,
    /// norm_c \[2, H\]: gain and shift of an LSTM's cell state.
    pub(crate) cell: Option<View<'a>>,
}

/// The widths of the gates that have a mean and a variance in common.
pub(crate) fn groups(cell: Cell, units: usize) -> Vec<usize> {
    let gates = cell.gates();
    match cell {
        Cell::Gru => vec![(gates - 1) * units, units],
        _ => vec![gates * units],
    }
}

/// Gradients that reach the product of the recurrent weights with the state through its normalisation.
pub(crate) struct Product {
    /// At W_hh h' \[T, B, G·H\].
    pub(crate) d_product: Tensor,
    /// Of norm_hh and, for an LSTM, of norm_c, one after the other.
    pub(crate) d_norms: Tensor,
}

/// Gradients of what stands between the product with the input and the gates.
pub(crate) struct Entry {
    /// Of bias_ih \[G·H\].
    pub(crate) d_bias: Tensor,
    /// Of norm_ih \[G·H\].
    pub(crate) d_gain: Tensor,
}

/// What the gates see of W_ih x \[T, B, G·H\]: LN(W_ih x; g_ih) + b_ih.
pub(crate) fn enter(call: &Call<'_>, norms: &Norms<'_>, projected: &Tensor) -> Result<Tensor> {
    let units = projected.shape().last() / call.equations.gates();
    layer_norm(projected, norms.input, norms.bias_ih, &groups(call.equations.cell, units))
}

/// The gradients at and before [`enter`], from those after it.
pub(crate) fn leave(
    call: &Call<'_>,
    norms: &Norms<'_>,
    projected: &Tensor,
    after: Gradients,
) -> Result<Gradients> {
    let units = projected.shape().last() / call.equations.gates();
    let d_bias = sum_rows(&after.d_projected)?;
    let groups = groups(call.equations.cell, units);
    let (d_projected, d_gain) = layer_norm_backward(projected, norms.input, &after.d_projected, &groups)?;
    Ok(Gradients { d_projected, entry: Some(Entry { d_bias, d_gain }), ..after })
}

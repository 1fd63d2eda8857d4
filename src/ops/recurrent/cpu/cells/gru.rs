//! The equations of a GRU (Cho et al. 2014) and their derivatives, one row of the batch at a time. With the state
//! h' before the step, a = W_ih x + b_ih + W_hh h' + b_hh for r and z, and q = W_hn h' + b_hn:
//!
//! ```text
//! r = σ(a_r)    z = σ(a_z)    n = tanh(W_in x + b_in + r q)    h = (1 − z) n + z h'
//! ```
//!
//! Backward, from the gradient dh at h:
//!
//! ```text
//! dn = dh (1 − z)             da_n = dn (1 − n²)
//! dz = dh (h' − n)            da_z = dz z (1 − z)
//! dr = da_n q                 da_r = dr r (1 − r)
//! dh' = dh z + W_hrᵀ da_r + W_hzᵀ da_z + W_hnᵀ (r da_n)
//! ```
//!
//! With the reset before the product, n = tanh(W_in x + b_in + W_hn (r h') + b_hn), and with s = W_hnᵀ da_n:
//! dr = s h', and r s replaces W_hnᵀ (r da_n) in dh'.
//!
//! The same equations on GPUs: `shaders/recurrent/cells/gru.wgsl` and `gru_reset_before.wgsl`.

use ndarray::{Array2, ArrayView2, s};

use super::super::gates::{units, units_mut};
use super::super::weights::Matrices;
use super::{Step, StepGradients, StepTarget, blocks};
use crate::ops::recurrent::CellStateView;
use crate::tensor::Real;

/// Groups of gates with one product each: r and z, and n.
const BOTH: usize = 0;
const CANDIDATE: usize = 1;

pub(crate) fn forward<F: Real>(
    matrices: &Matrices<'_, F>,
    before: CellStateView<'_, F>,
    seen: ArrayView2<'_, F>,
    target: &mut StepTarget<'_, F>,
) {
    let StepTarget { gates, saved, after } = target;
    let Some(saved) = saved else { unreachable!("a GRU saves what its last gate's product is or is of") };
    let (width, equations) = (matrices.hidden_size, &matrices.equations);
    let [gate, candidate, _] = equations.functions();
    matrices.add_product(BOTH, seen, gates.slice_mut(s![.., ..2 * width]));
    if !equations.resets_before() {
        saved.fill(F::zero());
        matrices.add_product(CANDIDATE, seen, saved.view_mut());
    }
    for (row, saved) in saved.outer_iter_mut().enumerate() {
        let [r, z, n] = blocks(units_mut(gates.row_mut(row)), width);
        let saved = &mut units_mut(saved)[..r.len()];
        gate.apply(r);
        gate.apply(z);
        if equations.resets_before() {
            let state = &units(seen.row(row))[..r.len()];
            for u in 0..r.len() {
                saved[u] = r[u] * state[u];
            }
        } else {
            let n = &mut n[..r.len()];
            for u in 0..r.len() {
                n[u] += r[u] * saved[u];
            }
        }
    }
    if equations.resets_before() {
        matrices.add_product(CANDIDATE, saved.view(), gates.slice_mut(s![.., 2 * width..]));
    }
    for (row, h) in after.hidden.outer_iter_mut().enumerate() {
        let [_, z, n] = blocks(units_mut(gates.row_mut(row)), width);
        candidate.apply(n);
        let h = units_mut(h);
        let (z, n, h_before) = (&z[..h.len()], &n[..h.len()], &units(before.hidden.row(row))[..h.len()]);
        for u in 0..h.len() {
            h[u] = (F::one() - z[u]) * n[u] + z[u] * h_before[u];
        }
    }
}

pub(crate) fn backward<F: Real>(
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
    gradients: &mut StepGradients<'_, F>,
) {
    let StepGradients { gates, d_apart, d_before } = gradients;
    let (width, equations) = (matrices.hidden_size, &matrices.equations);
    let [gate, candidate, _] = equations.functions();
    let mut scratch = vec![F::zero(); width];
    for (row, past) in d_before.hidden.outer_iter_mut().enumerate() {
        let [_, z, n] = blocks(units_mut(gates.row_mut(row)), width);
        let (past, old_n) = (units_mut(past), &mut scratch[..z.len()]);
        let (past, n) = (&mut past[..z.len()], &mut n[..z.len()]);
        let d_h = &units(d_after.hidden.row(row))[..z.len()];
        let h_before = &units(step.before.hidden.row(row))[..z.len()];
        old_n.copy_from_slice(n);
        candidate.back(n, |u| d_h[u] * (F::one() - z[u]));
        for u in 0..z.len() {
            past[u] = d_h[u] * z[u];
        }
        gate.back(z, |u| d_h[u] * (h_before[u] - old_n[u]));
    }
    // The gradient of the factor of r, and that factor.
    let (d_reset, factor) = if equations.resets_before() {
        let mut d_source = Array2::zeros((gates.nrows(), width));
        matrices.add_product(CANDIDATE, gates.slice(s![.., 2 * width..]), d_source.view_mut());
        (d_source, matrices.seen(step.before.hidden, step.rows))
    } else {
        let Some(product) = step.saved else { unreachable!("a GRU saves its last gate's product") };
        (gates.slice(s![.., 2 * width..]).to_owned(), product.into())
    };
    // r times that gradient: the gradient of h', or of the product's operand.
    let mut d_on = d_reset.clone();
    for (row, d_on) in d_on.outer_iter_mut().enumerate() {
        let [r, ..] = blocks::<3, F>(units_mut(gates.row_mut(row)), width);
        let d_on = &mut units_mut(d_on)[..r.len()];
        let (d_reset, factor) = (&units(d_reset.row(row))[..r.len()], &units(factor.row(row))[..r.len()]);
        for u in 0..r.len() {
            d_on[u] *= r[u];
        }
        gate.back(r, |u| d_reset[u] * factor[u]);
    }
    if equations.resets_before() {
        d_before.hidden += &matrices.seen(d_on.view(), step.rows);
    } else {
        if let Some(d_apart) = d_apart {
            d_apart.assign(&d_on);
        }
        matrices.add_back(CANDIDATE, d_on.view(), step.rows, &mut d_before.hidden);
    }
    matrices.add_back(BOTH, gates.slice(s![.., ..2 * width]), step.rows, &mut d_before.hidden);
}

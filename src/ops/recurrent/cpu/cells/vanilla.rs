//! The vanilla cell (Elman 1990): a = W_ih x + b_ih + W_hh h' + b_hh, h = f(a). Backward, da = dh f'(a) and
//! dh' = da W_hh. GPU: `shaders/recurrent/cells/vanilla.wgsl`.

use ndarray::{Array2, ArrayView2, Zip};

use super::super::gates::{Gate, units, units_mut};
use super::super::weights::Matrices;
use super::{Step, StepGradients, StepTarget};
use crate::ops::Activation;
use crate::ops::elementwise::cpu::derivative;
use crate::ops::recurrent::CellStateView;
use crate::tensor::Real;

pub(crate) fn forward<F: Real>(
    function: Activation,
    matrices: &Matrices<'_, F>,
    seen: ArrayView2<'_, F>,
    target: &mut StepTarget<'_, F>,
) {
    let StepTarget { gates, after, .. } = target;
    matrices.add_product(0, seen, gates.view_mut());
    apply(function, matrices, gates.view(), &mut after.hidden);
}

/// h = f(a), within the bound of the gates.
pub(crate) fn apply<F: Real>(
    function: Activation,
    matrices: &Matrices<'_, F>,
    gates: ArrayView2<'_, F>,
    hidden: &mut Array2<F>,
) {
    let [gate, ..] = matrices.equations.functions();
    for (a, h) in gates.outer_iter().zip(hidden.outer_iter_mut()) {
        let h = units_mut(h);
        h.copy_from_slice(units(a));
        Gate { function, ..gate }.apply(h);
    }
}

pub(crate) fn backward<F: Real>(
    function: Activation,
    matrices: &Matrices<'_, F>,
    step: &Step<'_, F>,
    d_after: CellStateView<'_, F>,
    gradients: &mut StepGradients<'_, F>,
) {
    let StepGradients { gates, d_before, .. } = gradients;
    match (function, matrices.equations.options.clip_gates.map(F::from_f32)) {
        (Activation::Tanh, None) => {
            Zip::from(gates.rows_mut()).and(step.hidden.rows()).and(d_after.hidden.rows()).for_each(
                |a, h, d_h| {
                    for ((a, &h), &d_h) in units_mut(a).iter_mut().zip(units(h)).zip(units(d_h)) {
                        *a = d_h * (F::one() - h * h);
                    }
                },
            );
        }
        (_, bound) => Zip::from(&mut *gates).and(step.hidden).and(d_after.hidden).for_each(|a, &h, &d_h| {
            let outside = bound.is_some_and(|bound| *a >= bound || *a <= -bound);
            *a = if outside { F::zero() } else { d_h * derivative(function, *a, h) };
        }),
    }
    d_before.hidden.fill(F::zero());
    d_before.cell.fill(F::zero());
    matrices.add_back(0, gates.view(), step.rows, &mut d_before.hidden);
}

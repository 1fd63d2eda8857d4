//! The activations of gates, over rows of units.

use ndarray::{ArrayView1, ArrayViewMut1};

use crate::ops::Activation;
use crate::ops::elementwise::cpu::{apply, derivative_at_output};
use crate::ops::recurrent::Equations;
use crate::tensor::Real;

/// A row as a slice. Rows of states and gates are contiguous.
pub(crate) fn units<'a, F: Real>(row: ArrayView1<'a, F>) -> &'a [F] {
    match row.to_slice() {
        Some(units) => units,
        None => unreachable!("rows of states and gates are contiguous"),
    }
}

/// As [`units`], mutable.
pub(crate) fn units_mut<'a, F: Real>(row: ArrayViewMut1<'a, F>) -> &'a mut [F] {
    match row.into_slice() {
        Some(units) => units,
        None => unreachable!("rows of states and gates are contiguous"),
    }
}

pub(crate) fn clamped<F: Real>(x: F, bound: Option<F>) -> F {
    match bound {
        Some(bound) if x > bound => bound,
        Some(bound) if x < -bound => -bound,
        _ => x,
    }
}

/// The activation of a gate, with the bound that clips its argument.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    pub(crate) function: Activation,
    pub(crate) bound: Option<f32>,
}

impl Gate {
    /// a ← f(a).
    pub(crate) fn apply<F: Real>(self, a: &mut [F]) {
        if let Some(bound) = self.bound.map(F::from_f32) {
            for a in &mut *a {
                *a = clamped(*a, Some(bound));
            }
        }
        apply(self.function, a);
    }

    /// y ← d f'(a), given y = f(a) and the gradient d at y.
    pub(crate) fn back<F: Real>(self, y: &mut [F], d: impl Fn(usize) -> F) {
        let gradients = y.iter_mut().enumerate();
        match (self.bound, self.function) {
            (None, Activation::Sigmoid) => {
                gradients.for_each(|(unit, y)| *y = d(unit) * (*y * (F::one() - *y)));
            }
            (None, Activation::Tanh) => gradients.for_each(|(unit, y)| *y = d(unit) * (F::one() - *y * *y)),
            (None, function) => {
                gradients.for_each(|(unit, y)| *y = d(unit) * derivative_at_output(function, *y))
            }
            (Some(bound), function) => {
                // The argument was within the bound if its value lies between the values at the bounds.
                let mut ends = [-bound, bound].map(F::from_f32);
                apply(function, &mut ends);
                let [low, high] = if ends[0] < ends[1] { ends } else { [ends[1], ends[0]] };
                gradients.for_each(|(unit, y)| {
                    let outside = *y <= low || *y >= high;
                    *y = if outside { F::zero() } else { d(unit) * derivative_at_output(function, *y) };
                });
            }
        }
    }
}

impl Equations<'_> {
    /// The activations of gates, candidate and output. The bound applies to sums of products only, not to c.
    pub(crate) fn functions(&self) -> [Gate; 3] {
        let [gate, candidate, output] = self.activations();
        let bound = self.options.clip_gates;
        [
            Gate { function: gate, bound },
            Gate { function: candidate, bound },
            Gate { function: output, bound: None },
        ]
    }
}

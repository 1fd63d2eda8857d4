//! CPU reference of the element-wise kernels: the functions from their textbook definitions.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::{Activation, Binary};
use crate::tensor::Real;

/// Klambauer et al. 2017, equation 2.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

/// min(high, max(low, x)); NaN at NaN.
fn within<F: Real>(x: F, low: F, high: F) -> F {
    let above = if x <= low { low } else { x };
    if above >= high { high } else { above }
}

/// f(x).
pub(crate) fn value<F: Real>(function: Activation, x: F) -> F {
    let (zero, one) = (F::zero(), F::one());
    // In this order NaN passes through.
    let or_left = |left: F| if x <= zero { left } else { x };
    match function {
        Activation::Identity => x,
        Activation::Tanh => x.tanh(),
        Activation::Relu => or_left(zero),
        Activation::Sigmoid => one / (one + (-x).exp()),
        Activation::LeakyRelu { slope } => or_left(F::from_f32(slope) * x),
        Activation::Elu { alpha } => or_left(F::from_f32(alpha) * x.exp_m1()),
        Activation::Selu => F::from_f64(SELU_SCALE) * or_left(F::from_f64(SELU_ALPHA) * x.exp_m1()),
        Activation::Softplus => or_left(zero) + (-x.abs()).exp().ln_1p(),
        Activation::HardSigmoid { alpha, beta } => {
            within(F::from_f32(alpha) * x + F::from_f32(beta), zero, one)
        }
        Activation::Softsign => x / (one + x.abs()),
        Activation::Tan => x.tan(),
        Activation::Affine { alpha, beta } => F::from_f32(alpha) * x + F::from_f32(beta),
        Activation::ThresholdedRelu { alpha } if x < F::from_f32(alpha) => zero,
        Activation::ThresholdedRelu { .. } => x,
        Activation::ScaledTanh { alpha, beta } => F::from_f32(alpha) * (F::from_f32(beta) * x).tanh(),
        Activation::HardTanh { low, high } => within(x, F::from_f32(low), F::from_f32(high)),
    }
}

/// Whether f' is constant, so that it is defined even at NaN.
fn is_linear(function: Activation) -> bool {
    matches!(function, Activation::Identity | Activation::Affine { .. })
}

/// f'(x), where y = f(x); NaN at NaN. Reads x only if y does not determine f'(x), because layers do not save x.
pub(crate) fn derivative<F: Real>(function: Activation, x: F, y: F) -> F {
    let (zero, one) = (F::zero(), F::one());
    let right_of = |kink: F, left: F| if x <= kink { left } else { one };
    let local = match function {
        Activation::LeakyRelu { slope } => right_of(zero, F::from_f32(slope)),
        Activation::Elu { alpha } => right_of(zero, F::from_f32(alpha) * x.exp()),
        Activation::Selu => F::from_f64(SELU_SCALE) * right_of(zero, F::from_f64(SELU_ALPHA) * x.exp()),
        Activation::Softplus => one / (one + (-x).exp()),
        Activation::HardSigmoid { alpha, beta } => {
            let line = F::from_f32(alpha) * x + F::from_f32(beta);
            if line > zero && line < one { F::from_f32(alpha) } else { zero }
        }
        Activation::Softsign => one / ((one + x.abs()) * (one + x.abs())),
        Activation::ThresholdedRelu { alpha } => right_of(F::from_f32(alpha), zero),
        Activation::ScaledTanh { alpha, beta } => {
            let tanh = (F::from_f32(beta) * x).tanh();
            F::from_f32(alpha) * F::from_f32(beta) * (one - tanh * tanh)
        }
        Activation::Identity
        | Activation::Tanh
        | Activation::Relu
        | Activation::Sigmoid
        | Activation::Tan
        | Activation::Affine { .. }
        | Activation::HardTanh { .. } => return derivative_at_output(function, y),
    };
    if x.is_nan() { x } else { local }
}

/// f'(x) computed from y = f(x) alone. Gated cells need it because they save their gates after the activation. α must not
/// be negative: otherwise leaky relu, elu and thresholded relu would map two values of x to one y. NaN at NaN.
pub(crate) fn derivative_at_output<F: Real>(function: Activation, y: F) -> F {
    if y.is_nan() && !is_linear(function) {
        return y;
    }
    let (zero, one) = (F::zero(), F::one());
    let right_of = |kink: F, left: F| if y <= kink { left } else { one };
    match function {
        Activation::Identity => one,
        Activation::Tanh => one - y * y,
        Activation::Relu => right_of(zero, zero),
        Activation::Sigmoid => y * (one - y),
        Activation::LeakyRelu { slope } => right_of(zero, F::from_f32(slope)),
        Activation::Elu { alpha } => right_of(zero, y + F::from_f32(alpha)),
        Activation::Selu => {
            let scale = F::from_f64(SELU_SCALE);
            if y <= zero { y + scale * F::from_f64(SELU_ALPHA) } else { scale }
        }
        // 1 − e⁻ʸ = eˣ / (1 + eˣ).
        Activation::Softplus => -(-y).exp_m1(),
        Activation::HardSigmoid { alpha, .. } if y > zero && y < one => F::from_f32(alpha),
        Activation::HardSigmoid { .. } => zero,
        // 1 − |y| = 1 / (1 + |x|).
        Activation::Softsign => (one - y.abs()) * (one - y.abs()),
        Activation::Tan => one + y * y,
        Activation::Affine { alpha, .. } => F::from_f32(alpha),
        Activation::ThresholdedRelu { alpha } => right_of(F::from_f32(alpha), zero),
        Activation::ScaledTanh { alpha: 0.0, .. } => zero,
        Activation::ScaledTanh { alpha, beta } => {
            let alpha = F::from_f32(alpha);
            F::from_f32(beta) * (alpha - y * y / alpha)
        }
        Activation::HardTanh { low, high } if y > F::from_f32(low) && y < F::from_f32(high) => one,
        Activation::HardTanh { .. } => zero,
    }
}

/// x ← f(x).
pub(crate) fn apply<F: Real>(function: Activation, values: &mut [F]) {
    match function {
        Activation::Identity => {}
        Activation::Tanh => F::tanh_each(values),
        Activation::Sigmoid => F::sigmoid_each(values),
        _ => values.iter_mut().for_each(|x| *x = value(function, *x)),
    }
}

pub(super) fn unary<F: Real>(x: ArrayViewD<'_, F>, function: Activation) -> ArrayD<F> {
    let mut y = x.as_standard_layout().into_owned();
    match y.as_slice_mut() {
        Some(values) => apply(function, values),
        None => unreachable!("an array in standard layout is contiguous"),
    }
    y
}

pub(super) fn unary_backward<F: Real>(
    x: ArrayViewD<'_, F>,
    y: ArrayViewD<'_, F>,
    d_y: ArrayViewD<'_, F>,
    function: Activation,
) -> ArrayD<F> {
    Zip::from(x).and(y).and(d_y).map_collect(|&x, &y, &d_y| d_y * derivative(function, x, y))
}

pub(super) fn binary<F: Real>(a: ArrayViewD<'_, F>, b: ArrayViewD<'_, F>, function: Binary) -> ArrayD<F> {
    match function {
        Binary::Add => &a + &b,
        Binary::Sub => &a - &b,
        Binary::Mul => &a * &b,
        Binary::Axpy(factor) => a.mapv(|a| a * F::from_f32(factor)) + b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_at_a_value_is_that_where_it_is_taken() {
        let mut functions = Activation::ALL.to_vec();
        functions.push(Activation::ScaledTanh { alpha: 0.0, beta: 1.0 });
        functions.push(Activation::LeakyRelu { slope: 0.0 });
        for function in functions {
            for place in -60..=60 {
                let x = f64::from(place) * 0.1;
                let y = value(function, x);
                let (expected, found) = (derivative(function, x, y), derivative_at_output(function, y));
                // The rounding of a hard sigmoid's line, and of a tangent near its pole, loses a few digits.
                let allowed = 1e-12 * expected.abs().max(1.0);
                assert!((expected - found).abs() <= allowed, "{function:?} at {x}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_thresholded_relu_passes_its_threshold() {
        let function = Activation::ThresholdedRelu { alpha: 1.0 };
        assert_eq!([0.999, 1.0, 1.5].map(|x| value(function, x)), [0.0, 1.0, 1.5]);
        assert!(value(function, f64::NAN).is_nan());
    }
}

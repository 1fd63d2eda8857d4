//! The twins of the element-wise kernels: the functions as textbooks define them.

use ndarray::{ArrayD, ArrayView1, ArrayViewD, ArrayViewMut1, Zip};

use super::{Activation, Binary};
use crate::tensor::Real;

/// Klambauer et al. 2017, equation 2.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

/// f(x).
pub(crate) fn value<F: Real>(function: Activation, x: F) -> F {
    let (zero, one) = (F::zero(), F::one());
    match function {
        Activation::Identity => x,
        Activation::Tanh => x.tanh(),
        // Written so that NaN passes through.
        Activation::Relu => {
            if x <= zero {
                zero
            } else {
                x
            }
        }
        Activation::Sigmoid => one / (one + (-x).exp()),
        Activation::LeakyRelu { slope } => {
            if x <= zero {
                F::from_f32(slope) * x
            } else {
                x
            }
        }
        Activation::Elu { alpha } => {
            if x <= zero {
                F::from_f32(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Activation::Selu => {
            let alpha = F::from_f64(SELU_ALPHA);
            F::from_f64(SELU_SCALE) * if x <= zero { alpha * x.exp_m1() } else { x }
        }
        Activation::Softplus => (if x <= zero { zero } else { x }) + (-x.abs()).exp().ln_1p(),
        Activation::HardSigmoid { alpha, beta } => {
            let line = F::from_f32(alpha) * x + F::from_f32(beta);
            if line <= zero {
                zero
            } else if line >= one {
                one
            } else {
                line
            }
        }
        Activation::Softsign => x / (one + x.abs()),
    }
}

/// f'(x), where y = f(x) is known.
pub(crate) fn derivative<F: Real>(function: Activation, x: F, y: F) -> F {
    let (zero, one) = (F::zero(), F::one());
    match function {
        Activation::Identity => one,
        Activation::Tanh => one - y * y,
        Activation::Relu => {
            if x <= zero {
                zero
            } else {
                one
            }
        }
        Activation::Sigmoid => y * (one - y),
        Activation::LeakyRelu { slope } => {
            if x <= zero {
                F::from_f32(slope)
            } else {
                one
            }
        }
        Activation::Elu { alpha } => {
            if x <= zero {
                F::from_f32(alpha) * x.exp()
            } else {
                one
            }
        }
        Activation::Selu => {
            let alpha = F::from_f64(SELU_ALPHA);
            F::from_f64(SELU_SCALE) * if x <= zero { alpha * x.exp() } else { one }
        }
        Activation::Softplus => one / (one + (-x).exp()),
        Activation::HardSigmoid { alpha, beta } => {
            let line = F::from_f32(alpha) * x + F::from_f32(beta);
            if line > zero && line < one { F::from_f32(alpha) } else { zero }
        }
        Activation::Softsign => one / ((one + x.abs()) * (one + x.abs())),
    }
}

pub(super) fn unary<F: Real>(x: ArrayViewD<'_, F>, function: Activation) -> ArrayD<F> {
    x.mapv(|x| value(function, x))
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

pub(super) fn add_into<F: Real>(mut target: ArrayViewMut1<'_, F>, x: ArrayView1<'_, F>) {
    target += &x;
}

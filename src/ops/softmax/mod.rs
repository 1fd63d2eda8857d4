//! Softmax and log softmax over the last dimension.

pub(crate) mod cpu;
pub(crate) mod gpu;

use super::elementwise::expect_alike;
use crate::Result;
use crate::device::on_device;
use crate::tensor::{Tensor, View, expect_capacity};

/// Softmax or log softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SoftmaxKind {
    Softmax,
    LogSoftmax,
}

/// y_j = e^{x_j} / Σ_k e^{x_k} over the last dimension, computed without overflow. Any shape. An entry of −∞ yields 0; a row
/// that contains NaN or +∞, or only −∞, yields NaN.
///
/// # Errors
/// Out of memory.
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// let x = Tensor::from_slice(&Device::cpu(), &[1, 2], &[1000.0, 1000.0])?;
/// assert_eq!(ops::softmax(&x)?.download()?, [0.5, 0.5]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn softmax<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    forward(x.into(), SoftmaxKind::Softmax)
}

/// y_j = x_j − ln Σ_k e^{x_k} over the last dimension. Any shape.
///
/// # Errors
/// Out of memory.
pub fn log_softmax<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    forward(x.into(), SoftmaxKind::LogSoftmax)
}

/// dx_j = y_j (dy_j − Σ_k dy_k y_k), where y = softmax(x).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch).
pub fn softmax_backward<'a>(y: impl Into<View<'a>>, d_y: impl Into<View<'a>>) -> Result<Tensor> {
    backward(y.into(), d_y.into(), SoftmaxKind::Softmax)
}

/// dx_j = dy_j − e^{y_j} Σ_k dy_k, where y = log_softmax(x).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch).
pub fn log_softmax_backward<'a>(y: impl Into<View<'a>>, d_y: impl Into<View<'a>>) -> Result<Tensor> {
    backward(y.into(), d_y.into(), SoftmaxKind::LogSoftmax)
}

fn forward(x: View<'_>, kind: SoftmaxKind) -> Result<Tensor> {
    on_device!(x.device(),
        F => {
            // Besides the result: one row of exponentials.
            expect_capacity(x.device(), x.shape().elements() + x.shape().last(), "a softmax")?;
            Tensor::from_array(x.device(), cpu::forward(x.array2::<F>(), kind))?.reshape(x.shape().dimensions())
        },
        context => {
            let y = Tensor::uninitialized(context, x.device(), *x.shape())?;
            gpu::forward(context, [x.span(), y.view().span()], x.shape().last(), kind)?;
            Ok(y)
        },
    )
}

fn backward(y: View<'_>, d_y: View<'_>, kind: SoftmaxKind) -> Result<Tensor> {
    expect_alike(y, "d_y", d_y)?;
    on_device!(y.device(),
        F => {
            expect_capacity(y.device(), y.shape().elements(), "the gradient of a softmax")?;
            Tensor::from_array(y.device(), cpu::backward(y.array2::<F>(), d_y.array2(), kind))?
                .reshape(y.shape().dimensions())
        },
        context => {
            let d_x = Tensor::uninitialized(context, y.device(), *y.shape())?;
            let spans = [y.span(), d_y.span(), d_x.view().span()];
            gpu::backward(context, spans, y.shape().last(), kind)?;
            Ok(d_x)
        },
    )
}

//! Element-wise functions of one or two arrays.

pub(crate) mod cpu;
pub(crate) mod gpu;

use std::mem::discriminant;

use serde::{Deserialize, Serialize};

use crate::device::on_device;
use crate::math::Onto;
use crate::tensor::{Real, Tensor, View, ViewMut, expect_capacity};
use crate::{Error, Result};

/// A function applied to each element, with its standard name.
///
/// | name | f(x) |
/// |---|---|
/// | identity | x |
/// | tanh | tanh x |
/// | relu | max(0, x) |
/// | sigmoid | 1 / (1 + e⁻ˣ) |
/// | leaky relu | x for x > 0, slope · x elsewhere |
/// | elu (Clevert et al. 2016) | x for x > 0, α (eˣ − 1) elsewhere |
/// | selu (Klambauer et al. 2017) | 1.0507 · elu(x) with α = 1.6733 |
/// | softplus | ln(1 + eˣ) |
/// | hard sigmoid | min(1, max(0, α x + β)) |
/// | softsign | x / (1 + abs(x)) |
/// | tan | tan x |
/// | affine | α x + β |
/// | thresholded relu | x for x ≥ α, 0 elsewhere |
/// | scaled tanh | α tanh(β x) |
///
/// f(NaN) is NaN, and so is f'(NaN), except for identity and affine, whose derivative is constant. At a kink the derivative
/// is the left one, as in PyTorch. The thresholded relu is the one of ONNX's recurrent operators, where f(α) = α; PyTorch's
/// `nn.Threshold` has f(α) = 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// x.
    Identity,
    /// tanh x.
    Tanh,
    /// max(0, x).
    Relu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// x for x > 0, `slope` · x elsewhere.
    LeakyRelu {
        /// Factor for negative x.
        slope: f32,
    },
    /// x for x > 0, `alpha` (eˣ − 1) elsewhere.
    Elu {
        /// Limit for x → −∞ is −`alpha`.
        alpha: f32,
    },
    /// The self-normalising elu.
    Selu,
    /// ln(1 + eˣ).
    Softplus,
    /// min(1, max(0, `alpha` x + `beta`)).
    HardSigmoid {
        /// Slope between the kinks: 1/6 in PyTorch, 0.2 in ONNX.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// x / (1 + |x|).
    Softsign,
    /// tan x. On a GPU it is accurate for |x| up to 12,000; beyond that, f32 is too coarse for the range reduction.
    Tan,
    /// `alpha` x + `beta`.
    Affine {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// x for x ≥ `alpha`, 0 elsewhere.
    ThresholdedRelu {
        /// The smallest x with f(x) = x.
        alpha: f32,
    },
    /// `alpha` tanh(`beta` x).
    ScaledTanh {
        /// The limit for x → ∞; LeCun et al. 1998 use 1.7159.
        alpha: f32,
        /// The scale of the argument; LeCun et al. 1998 use 2/3.
        beta: f32,
    },
    /// min(`high`, max(`low`, x)).
    HardTanh {
        /// The smallest value.
        low: f32,
        /// The largest value.
        high: f32,
    },
}

impl Activation {
    /// Every function, with its usual constants.
    pub const ALL: [Self; 15] = [
        Self::Identity,
        Self::Tanh,
        Self::Relu,
        Self::Sigmoid,
        Self::LeakyRelu { slope: 0.01 },
        Self::Elu { alpha: 1.0 },
        Self::Selu,
        Self::Softplus,
        Self::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Self::Softsign,
        Self::Tan,
        Self::Affine { alpha: 0.5, beta: 0.25 },
        Self::ThresholdedRelu { alpha: 1.0 },
        Self::ScaledTanh { alpha: 1.7159, beta: 2.0 / 3.0 },
        Self::HardTanh { low: -1.0, high: 1.0 },
    ];

    /// The number of the function in shaders: its place in [`Activation::ALL`].
    pub(crate) fn code(self) -> u32 {
        let same = |other: &Self| discriminant(other) == discriminant(&self);
        match Self::ALL.iter().position(same) {
            Some(place) => place as u32,
            None => unreachable!("`ALL` has every function"),
        }
    }

    /// The constants (α, β) of a function that has any; β is zero if there is one constant.
    fn own_constants(self) -> Option<(f32, f32)> {
        match self {
            Self::LeakyRelu { slope } => Some((slope, 0.0)),
            Self::Elu { alpha } | Self::ThresholdedRelu { alpha } => Some((alpha, 0.0)),
            Self::HardSigmoid { alpha, beta }
            | Self::Affine { alpha, beta }
            | Self::ScaledTanh { alpha, beta } => Some((alpha, beta)),
            Self::HardTanh { low, high } => Some((low, high)),
            _ => None,
        }
    }

    /// The constants (α, β) of the function; zero if it has none.
    pub(crate) fn constants(self) -> (f32, f32) {
        self.own_constants().unwrap_or_default()
    }

    /// Whether the function has constants.
    pub(crate) fn has_constants(self) -> bool {
        self.own_constants().is_some()
    }

    /// The standard name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Tanh => "tanh",
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Elu { .. } => "elu",
            Self::Selu => "selu",
            Self::Softplus => "softplus",
            Self::HardSigmoid { .. } => "hard_sigmoid",
            Self::Softsign => "softsign",
            Self::Tan => "tan",
            Self::Affine { .. } => "affine",
            Self::ThresholdedRelu { .. } => "thresholded_relu",
            Self::ScaledTanh { .. } => "scaled_tanh",
            Self::HardTanh { .. } => "hard_tanh",
        }
    }

    /// Fails if constants are not finite or out of order.
    pub(crate) fn validate(self) -> Result<()> {
        let (alpha, beta) = self.constants();
        if !(alpha.is_finite() && beta.is_finite()) {
            let message = format!("needs finite constants, not {alpha} and {beta}");
            return Err(Error::config(self.name(), message));
        }
        match self {
            Self::HardTanh { low, high } if low >= high => {
                Err(Error::config(self.name(), format!("needs low below high, not {low} and {high}")))
            }
            _ => Ok(()),
        }
    }
}

/// y = f(x), element by element; any shape.
///
/// # Errors
/// [`Error::Config`] for constants that are not finite.
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// let x = Tensor::from_slice(&Device::cpu(), &[3], &[-1.0, 0.0, 2.0])?;
/// assert_eq!(ops::unary(&x, ops::Activation::Relu)?.download()?, [0.0, 0.0, 2.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn unary<'a>(x: impl Into<View<'a>>, function: Activation) -> Result<Tensor> {
    let x = x.into();
    function.validate()?;
    on_device!(x.device(),
        F => {
            expect_capacity(x.device(), x.shape().elements(), "a function of a tensor")?;
            Tensor::from_array(x.device(), cpu::unary(x.array::<F>(), function))
        },
        context => {
            let y = Tensor::uninitialized(context, x.device(), *x.shape())?;
            gpu::unary(context, x.span(), function, y.view().span())?;
            Ok(y)
        },
    )
}

/// dx = dy · f'(x), element by element, where y = f(x); all of one shape.
///
/// # Errors
/// [`Error::Shape`], [`Error::DeviceMismatch`], and as [`unary`].
pub fn unary_backward<'a>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'a>>,
    d_y: impl Into<View<'a>>,
    function: Activation,
) -> Result<Tensor> {
    let (x, y, d_y) = (x.into(), y.into(), d_y.into());
    function.validate()?;
    expect_alike(x, "y", y)?;
    expect_alike(x, "d_y", d_y)?;
    on_device!(x.device(),
        F => {
            expect_capacity(x.device(), x.shape().elements(), "the gradient of a function")?;
            let d_x = cpu::unary_backward(x.array::<F>(), y.array(), d_y.array(), function);
            Tensor::from_array(x.device(), d_x)
        },
        context => {
            let d_x = Tensor::uninitialized(context, x.device(), *x.shape())?;
            gpu::unary_backward(context, [x.span(), y.span(), d_y.span(), d_x.view().span()], function)?;
            Ok(d_x)
        },
    )
}

/// An element-wise function of two arrays of the same shape.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Binary {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a · b.
    Mul,
    /// factor · a + b (BLAS axpy).
    Axpy(f32),
}

/// z = a ∘ b, element by element; all of one shape.
///
/// # Errors
/// [`Error::Shape`], [`Error::DeviceMismatch`].
pub fn binary<'a>(a: impl Into<View<'a>>, b: impl Into<View<'a>>, function: Binary) -> Result<Tensor> {
    let (a, b) = (a.into(), b.into());
    expect_alike(a, "the second operand", b)?;
    on_device!(a.device(),
        F => {
            expect_capacity(a.device(), a.shape().elements(), "a function of two tensors")?;
            Tensor::from_array(a.device(), cpu::binary(a.array::<F>(), b.array(), function))
        },
        context => {
            let z = Tensor::uninitialized(context, a.device(), *a.shape())?;
            gpu::binary(context, [a.span(), b.span(), z.view().span()], function)?;
            Ok(z)
        },
    )
}

/// y = factor · x, element by element.
///
/// # Errors
/// Out of memory.
pub fn scale<'a>(x: impl Into<View<'a>>, factor: f32) -> Result<Tensor> {
    let x = x.into();
    on_device!(x.device(),
        F => {
            expect_capacity(x.device(), x.shape().elements(), "a scaled tensor")?;
            Tensor::from_array(x.device(), x.array::<F>().mapv(|value| value * F::from_f32(factor)))
        },
        context => {
            let y = Tensor::uninitialized(context, x.device(), *x.shape())?;
            gpu::accumulate(context, x.span(), y.view().span(), factor, Onto::Nothing)?;
            Ok(y)
        },
    )
}

/// target += x; x has as many elements as `target`, in any shape.
pub(crate) fn add_into(mut target: ViewMut<'_>, x: View<'_>) -> Result<()> {
    expect_as_many(&target, "the summand", x)?;
    on_device!(x.device(),
        F => {
            target.array1::<F>().scaled_add(1.0, &x.array1());
            Ok(())
        },
        context => gpu::accumulate(context, x.span(), target.span(), 1.0, Onto::Previous),
    )
}

/// target = x; x has as many elements as `target`, in any shape.
pub(crate) fn copy_into(mut target: ViewMut<'_>, x: View<'_>) -> Result<()> {
    expect_as_many(&target, "the source of the copy", x)?;
    on_device!(x.device(),
        F => {
            target.array1::<F>().assign(&x.array1());
            Ok(())
        },
        // A kernel instead of a copy command, so that the compute pass stays open.
        context => gpu::accumulate(context, x.span(), target.span(), 1.0, Onto::Nothing),
    )
}

/// Fails unless `x` is on the device of `target` and has as many elements: otherwise a CPU loop would skip elements and a
/// kernel would read out of bounds.
pub(crate) fn expect_as_many(target: &ViewMut<'_>, what: &str, x: View<'_>) -> Result<()> {
    target.device().expect_same(what, x.device())?;
    let (expected, found) = (target.shape().elements(), x.shape().elements());
    if expected == found {
        return Ok(());
    }
    Err(Error::shape(what, format!("{expected} values"), format!("{found} values")))
}

/// Fails unless `other` has the shape and the device of `one`.
pub(crate) fn expect_alike(one: View<'_>, what: &str, other: View<'_>) -> Result<()> {
    one.device().expect_same(what, other.device())?;
    other.shape().expect(what, one.shape().dimensions())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn flat_buffers_of_other_sizes_are_refused() -> Result<()> {
        let device = Device::cpu();
        let (mut long, short) = (Tensor::zeros(&device, &[6])?, Tensor::zeros(&device, &[4])?);
        let message = |result: Result<()>| result.map_err(|error| error.to_string()).unwrap_err();
        let added = add_into(long.view_mut()?, short.view());
        assert_eq!(message(added), "the summand: expected 6 values, found 4 values");
        let copied = copy_into(long.view_mut()?, short.view());
        assert_eq!(message(copied), "the source of the copy: expected 6 values, found 4 values");
        add_into(long.view_mut()?, Tensor::zeros(&device, &[2, 3])?.view())?;
        assert!(short.view().reshaped(&[2, 3]).is_err());
        assert!(short.view().outer(2..5).is_err());
        assert!(long.view_mut()?.entry(6).is_err());
        Ok(())
    }
}

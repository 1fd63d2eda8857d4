//! Merges the outputs of two directions into one.

pub(crate) mod cpu;
pub(crate) mod gpu;

use serde::{Deserialize, Serialize};

use super::elementwise::{copy_into, expect_alike};
use crate::device::on_device;
use crate::tensor::{Tensor, View, expect_capacity};
use crate::{Error, Result};

/// How the outputs f of the forward and r of the reverse direction are merged (Keras' `merge_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// Concatenated: 2·H features.
    #[default]
    Concat,
    /// f + r: H features.
    Sum,
    /// (f + r) / 2: H features.
    Mean,
    /// f · r, element-wise: H features.
    Product,
}

impl Merge {
    /// All four modes.
    pub const ALL: [Self; 4] = [Self::Concat, Self::Sum, Self::Mean, Self::Product];
}

/// y = merge(f, r), where f and r are the two halves of the last dimension. both \[..., 2·H\] → y \[..., H\]; for
/// [`Merge::Concat`] y \[..., 2·H\] is a copy.
///
/// # Errors
/// [`Error::Shape`] for an odd last size.
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// let both = Tensor::from_slice(&Device::cpu(), &[1, 4], &[1.0, 2.0, 3.0, 5.0])?;
/// assert_eq!(ops::merge(&both, ops::Merge::Product)?.download()?, [3.0, 10.0]);
/// assert_eq!(ops::merge(&both, ops::Merge::Mean)?.download()?, [2.0, 3.5]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn merge<'a>(both: impl Into<View<'a>>, mode: Merge) -> Result<Tensor> {
    let both = both.into();
    if mode == Merge::Concat {
        return copy(both);
    }
    let columns = half(both)?;
    let shape = both.shape().with_last(columns)?;
    on_device!(both.device(),
        F => {
            expect_capacity(both.device(), shape.elements(), "merged outputs")?;
            Tensor::from_array(both.device(), cpu::merge(both.array2::<F>(), mode))?.reshape(shape.dimensions())
        },
        context => {
            let y = Tensor::uninitialized(context, both.device(), shape)?;
            gpu::merge(context, both.span(), columns, mode, y.view().span())?;
            Ok(y)
        },
    )
}

/// The gradient with respect to both halves, from dy = dL/dy with y = [`merge`]\(both\): df = dr = dy for the sum, dy / 2
/// for the mean; df = dy · r and dr = dy · f for the product. d_both \[..., 2·H\].
///
/// # Errors
/// [`Error::Shape`], [`Error::DeviceMismatch`].
pub fn merge_backward<'a>(
    both: impl Into<View<'a>>,
    d_y: impl Into<View<'a>>,
    mode: Merge,
) -> Result<Tensor> {
    let (both, d_y) = (both.into(), d_y.into());
    if mode == Merge::Concat {
        expect_alike(both, "d_y", d_y)?;
        return copy(d_y);
    }
    let columns = half(both)?;
    both.device().expect_same("d_y", d_y.device())?;
    d_y.shape().expect("d_y", both.shape().with_last(columns)?.dimensions())?;
    on_device!(both.device(),
        F => {
            // Both halves, and their concatenation.
            expect_capacity(both.device(), 2 * both.shape().elements(), "the gradient of merged outputs")?;
            Tensor::from_array(both.device(), cpu::backward(both.array2::<F>(), d_y.array2(), mode))?
                .reshape(both.shape().dimensions())
        },
        context => {
            let d_both = Tensor::uninitialized(context, both.device(), *both.shape())?;
            gpu::backward(context, [both.span(), d_y.span(), d_both.view().span()], columns, mode)?;
            Ok(d_both)
        },
    )
}

fn half(both: View<'_>) -> Result<usize> {
    let width = both.shape().last();
    if width.is_multiple_of(2) {
        return Ok(width / 2);
    }
    Err(Error::shape("both", "an even last size: the outputs of two directions", both.shape()))
}

fn copy(x: View<'_>) -> Result<Tensor> {
    let mut y = Tensor::unwritten(x.device(), x.shape().dimensions())?;
    copy_into(y.view_mut()?, x)?;
    Ok(y)
}

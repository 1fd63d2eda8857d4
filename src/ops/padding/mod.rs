//! Zeroes the padding of a ragged batch.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::Result;
use crate::device::on_device;
use crate::tensor::{Indices, Tensor, View, expect_capacity};

/// y_tb = x_tb for t < lengths_b, else 0, even where x is NaN. x \[T, B, F\], lengths \[B\] → y \[T, B, F\].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape), [`Error::DeviceMismatch`](crate::Error::DeviceMismatch).
///
/// ```
/// use refrain::{Device, Indices, Tensor, ops};
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[2, 2, 1], &[1.0, 2.0, f32::NAN, 4.0])?;
/// let lengths = Indices::from_slice(&device, &[2], &[1, 2])?;
/// assert_eq!(ops::zero_padding(&x, &lengths)?.download()?, [1.0, 2.0, 0.0, 4.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn zero_padding<'a>(x: impl Into<View<'a>>, lengths: &Indices) -> Result<Tensor> {
    let x = x.into();
    let [_, rows, features] = x.shape().exactly("x", "[time, batch, features]")?;
    x.device().expect_same("lengths", lengths.device())?;
    lengths.shape().expect("lengths", &[rows])?;
    on_device!(x.device(),
        F => {
            expect_capacity(x.device(), x.shape().elements(), "a padded tensor")?;
            Tensor::from_array(x.device(), cpu::zero_padding(x.array3::<F>(), lengths.values()))
        },
        context => {
            let y = Tensor::uninitialized(context, x.device(), *x.shape())?;
            gpu::zero_padding(context, x.span(), lengths.span(), [rows, features], y.view().span())?;
            Ok(y)
        },
    )
}

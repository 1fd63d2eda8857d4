//! Permutation of dimensions, for example between batch-major and time-major data.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::on_device;
use crate::shape::Shape;
use crate::tensor::{Tensor, View, expect_capacity};
use crate::{Error, Result};

/// Returns y, whose dimension d is dimension `axes[d]` of x, as NumPy's `transpose`.
///
/// # Errors
/// [`Error::Shape`] unless `axes` names every dimension of x exactly once.
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// // Batch-major [batch, time, features] to this crate's [time, batch, features].
/// let x = Tensor::from_slice(&Device::cpu(), &[2, 3, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let y = ops::permute(&x, &[1, 0, 2])?;
/// assert_eq!(y.shape().dimensions(), [3, 2, 1]);
/// assert_eq!(y.download()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn permute<'a>(x: impl Into<View<'a>>, axes: &[usize]) -> Result<Tensor> {
    let x = x.into();
    let dimensions = x.shape().dimensions();
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..dimensions.len()) {
        let expected = format!("each of 0 to {} once", dimensions.len() - 1);
        return Err(Error::shape("axes", expected, format!("{axes:?}")));
    }
    let permuted: Vec<usize> = axes.iter().map(|&axis| dimensions[axis]).collect();
    on_device!(x.device(),
        F => {
            expect_capacity(x.device(), x.shape().elements(), "a permuted tensor")?;
            Tensor::from_array(x.device(), cpu::permute(x.array::<F>(), axes))
        },
        context => {
            let y = Tensor::uninitialized(context, x.device(), Shape::new(&permuted)?)?;
            gpu::permute(context, x, y.view(), axes)?;
            Ok(y)
        },
    )
}

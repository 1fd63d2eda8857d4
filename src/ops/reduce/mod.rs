//! Sums over rows and norms, each in a fixed order: the same input gives the same bits.

pub(crate) mod cpu;
pub(crate) mod gpu;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::device::on_device;
use crate::shape::Shape;
use crate::tensor::{Tensor, View};

/// s_c = Σ_r x_rc: the sum over all but the last dimension. x \[..., C\] → s \[C\].
///
/// # Errors
/// Out of memory.
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// let x = Tensor::from_slice(&Device::cpu(), &[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
/// assert_eq!(ops::sum_rows(&x)?.download()?, [4.0, 6.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn sum_rows<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    let x = x.into();
    on_device!(x.device(),
        F => Tensor::from_array(x.device(), cpu::sum_rows(x.array2::<F>())),
        context => gpu::sum_rows(context, x),
    )
}

/// Which norm of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Norm {
    /// Σ |x|.
    L1,
    /// √Σ x².
    L2,
    /// max |x|.
    Infinity,
}

/// What to reduce all elements to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Squares,
    Norm(Norm),
}

/// ‖x‖ over all elements, as a tensor of one.
///
/// # Errors
/// Out of memory.
pub fn norm<'a>(x: impl Into<View<'a>>, norm: Norm) -> Result<Tensor> {
    reduce(x.into(), Reduction::Norm(norm))
}

/// Σ x² over all elements, as a tensor of one.
///
/// # Errors
/// Out of memory.
pub fn squared_norm<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    reduce(x.into(), Reduction::Squares)
}

/// Σ x over all elements, as a tensor of one.
///
/// # Errors
/// Out of memory.
pub fn sum<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    reduce(x.into(), Reduction::Sum)
}

fn reduce(x: View<'_>, reduction: Reduction) -> Result<Tensor> {
    on_device!(x.device(),
        F => {
            let value = cpu::reduce(x.array1::<F>(), reduction);
            Tensor::from_array(x.device(), ndarray::arr1(&[value]))
        },
        context => gpu::reduce(context, x, reduction),
    )
}

fn vector(device: &crate::Device, context: &crate::gpu::Context, dimensions: &[usize]) -> Result<Tensor> {
    Tensor::uninitialized(context, device, Shape::new(dimensions)?)
}

//! Sums over rows, and norms. The order of each sum is fixed, so equal inputs give equal bits.

pub(crate) mod cpu;
pub(crate) mod gpu;

use serde::{Deserialize, Serialize};

use crate::device::on_device;
use crate::math::threads;
use crate::shape::Shape;
use crate::tensor::{Tensor, View, ViewMut, expect_capacity};
use crate::{Error, Result};

/// s_c = Σ_r x_rc: sums over all dimensions but the last. x \[..., C\] → s \[C\].
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
        F => {
            // The total, and the sum of one block of rows.
            expect_capacity(x.device(), 2 * x.shape().last(), "a sum of rows")?;
            Tensor::from_array(x.device(), cpu::sum_rows(x.array2::<F>()))
        },
        context => gpu::sum_rows(context, x),
    )
}

/// s_g = Σ_r x_r over each block g of `block` rows; the last block may be shorter. x \[..., C\] → s \[G, C\].
///
/// The bits of a block's sum do not depend on the block's position or on the number of blocks.
pub(crate) fn block_sums(x: View<'_>, block: usize) -> Result<Tensor> {
    on_device!(x.device(),
        F => {
            // The sums, the list of blocks, and the temporary values of the threads.
            let blocks = x.shape().rows().div_ceil(block);
            let scratch = 32 * blocks + 2 * x.shape().last() * threads();
            expect_capacity(x.device(), blocks * x.shape().last() + scratch, "sums of blocks")?;
            Tensor::from_array(x.device(), cpu::block_sums(x.array2::<F>(), block))
        },
        context => gpu::block_sums(context, x, block),
    )
}

/// target += x_g for each row g of x \[G, C\], from the last to the first.
pub(crate) fn add_rows_into(mut target: ViewMut<'_>, x: View<'_>) -> Result<()> {
    Error::expect(target.shape().elements() == x.shape().last(), || {
        format!("rows of {} to be added to {}", x.shape(), target.shape())
    })?;
    on_device!(x.device(),
        F => {
            cpu::add_rows(x.array2::<F>(), target.array1());
            Ok(())
        },
        context => gpu::add_rows(context, x, target.span()),
    )
}

/// A norm of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Norm {
    /// Σ |x|.
    L1,
    /// √Σ x².
    L2,
    /// max |x|.
    Infinity,
}

/// A reduction of all elements to one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReductionKind {
    Sum,
    Squares,
    Norm(Norm),
}

/// ‖x‖ over all elements, as a tensor with one element.
///
/// # Errors
/// Out of memory.
pub fn norm<'a>(x: impl Into<View<'a>>, norm: Norm) -> Result<Tensor> {
    reduce(x.into(), ReductionKind::Norm(norm))
}

/// Σ x² over all elements, as a tensor with one element.
///
/// # Errors
/// Out of memory.
pub fn squared_norm<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    reduce(x.into(), ReductionKind::Squares)
}

/// Σ x over all elements, as a tensor with one element.
///
/// # Errors
/// Out of memory.
pub fn sum<'a>(x: impl Into<View<'a>>) -> Result<Tensor> {
    reduce(x.into(), ReductionKind::Sum)
}

fn reduce(x: View<'_>, reduction: ReductionKind) -> Result<Tensor> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn sums_of_blocks_do_not_depend_on_what_comes_before() {
        let device = Device::cpu();
        let values: Vec<f32> = (0..3000).map(|index| (index as f32 * 0.37).sin()).collect();
        let x = Tensor::from_slice(&device, &[1000, 3], &values).unwrap();
        let all = block_sums(x.view(), 300).unwrap();
        assert_eq!(all.shape().dimensions(), [4, 3]);
        let later = block_sums(x.view().outer(600..1000).unwrap(), 300).unwrap();
        assert_eq!(all.download().unwrap()[6..], later.download().unwrap());
        let (mut once, mut twice) =
            (Tensor::zeros(&device, &[3]).unwrap(), Tensor::zeros(&device, &[3]).unwrap());
        add_rows_into(once.view_mut().unwrap(), all.view()).unwrap();
        for part in [2..4, 0..2] {
            add_rows_into(twice.view_mut().unwrap(), all.view().outer(part).unwrap()).unwrap();
        }
        assert_eq!(once.download().unwrap(), twice.download().unwrap());
        let plain = sum_rows(&x).unwrap().download().unwrap();
        for (blocks, plain) in once.download().unwrap().into_iter().zip(plain) {
            assert!((blocks - plain).abs() < 1e-4, "{blocks} {plain}");
        }
    }
}

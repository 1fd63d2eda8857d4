//! Copies of column blocks between matrices.

pub(crate) mod gpu;

use std::ops::Range;

use crate::device::on_device;
use crate::tensor::{Tensor, View, ViewMut};
use crate::{Error, Result};

/// Returns a copy of the columns `range` of x: x \[.., columns\] → y \[.., range\].
pub(crate) fn columns(x: View<'_>, range: Range<usize>) -> Result<Tensor> {
    let shape = x.shape().with_last(range.len())?;
    let mut y = Tensor::unwritten(x.device(), shape.dimensions())?;
    copy_columns(y.view_mut()?, 0, x, range)?;
    Ok(y)
}

/// Copies the columns `range` of x \[R, columns\] to `target` \[R, width\], starting at column `first`.
pub(crate) fn copy_columns(
    mut target: ViewMut<'_>,
    first: usize,
    x: View<'_>,
    range: Range<usize>,
) -> Result<()> {
    let fits = target.shape().rows() == x.shape().rows()
        && range.end <= x.shape().last()
        && first + range.len() <= target.shape().last();
    Error::expect(fits, || {
        format!("columns {range:?} of {} to column {first} of {}", x.shape(), target.shape())
    })?;
    on_device!(x.device(),
        F => {
            let columns = first..first + range.len();
            let mut target = target.array2::<F>().slice_move(ndarray::s![.., columns]);
            target.assign(&x.array2().slice(ndarray::s![.., range]));
            Ok(())
        },
        context => {
            let widths = [x.shape().last(), target.shape().last()];
            gpu::copy_columns(context, [x.span(), target.span()], widths, [range.start, first], range.len())
        },
    )
}

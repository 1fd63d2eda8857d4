//! CPU reference of `shaders/elementwise/permute.wgsl`: `ndarray`'s permutation.

use ndarray::{ArrayD, ArrayViewD};

use crate::tensor::Real;

pub(super) fn permute<F: Real>(x: ArrayViewD<'_, F>, axes: &[usize]) -> ArrayD<F> {
    x.permuted_axes(axes).as_standard_layout().into_owned()
}

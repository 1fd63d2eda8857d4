//! CPU reference of `shaders/elementwise/zero_padding.wgsl`.

use ndarray::{Array3, ArrayView3, s};

use crate::tensor::Real;

pub(super) fn zero_padding<F: Real>(x: ArrayView3<'_, F>, lengths: &[u32]) -> Array3<F> {
    let mut y = x.to_owned();
    for (row, &length) in lengths.iter().enumerate() {
        let steps = y.dim().0;
        y.slice_mut(s![steps.min(length as usize).., row, ..]).fill(F::zero());
    }
    y
}

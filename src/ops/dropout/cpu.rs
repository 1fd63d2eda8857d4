//! CPU reference of `shaders/elementwise/dropout.wgsl`.

use ndarray::{ArrayView1, ArrayViewMut1};

use super::Mask;
use crate::math::Onto;
use crate::tensor::Real;

pub(super) fn dropout<F: Real>(x: ArrayView1<'_, F>, mask: Mask, y: ArrayViewMut1<'_, F>, onto: Onto) {
    let kept = F::one() - F::from_f32(mask.rate());
    for ((&x, y), keeps) in x.iter().zip(y).zip(mask.all()) {
        let value = if keeps { x / kept } else { F::zero() };
        *y = if onto == Onto::Previous { *y + value } else { value };
    }
}

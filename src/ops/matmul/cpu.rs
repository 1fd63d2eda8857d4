//! CPU reference of `shaders/matmul/matmul.wgsl`: `ndarray`'s product in f64, `math`'s product in f32.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};

use super::{Add, Form};
use crate::math::Onto;
use crate::tensor::Real;

pub(super) fn matmul<F: Real>(
    c: ArrayViewMut2<'_, F>,
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    form: Form,
    add: Add<ArrayView1<'_, F>>,
) {
    let a = if form.left() { a.reversed_axes() } else { a };
    let b = if form.right() { b.reversed_axes() } else { b };
    match add {
        Add::Bias(bias) => F::large_product(a, b, bias, c, Onto::Nothing),
        Add::Previous => F::large_product(a, b, None, c, Onto::Previous),
    }
}

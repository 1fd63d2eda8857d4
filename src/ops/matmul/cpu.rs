//! The twin of `shaders/matmul.wgsl`: `ndarray`'s product.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2};

use super::Form;
use crate::tensor::Real;

fn oriented<'a, F: Real>(
    a: ArrayView2<'a, F>,
    b: ArrayView2<'a, F>,
    form: Form,
) -> (ArrayView2<'a, F>, ArrayView2<'a, F>) {
    let a = if form.left() { a.reversed_axes() } else { a };
    let b = if form.right() { b.reversed_axes() } else { b };
    (a, b)
}

pub(super) fn matmul<F: Real>(
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    form: Form,
    bias: Option<ArrayView1<'_, F>>,
) -> Array2<F> {
    let (a, b) = oriented(a, b, form);
    let product = a.dot(&b);
    match bias {
        Some(bias) => product + bias,
        None => product,
    }
}

pub(super) fn matmul_into<F: Real>(
    mut c: ArrayViewMut2<'_, F>,
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    form: Form,
) {
    let (a, b) = oriented(a, b, form);
    general_mat_mul(F::one(), &a, &b, F::one(), &mut c);
}

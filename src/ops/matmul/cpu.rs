//! CPU reference of `shaders/matmul/matmul.wgsl`: `ndarray`'s product in f64, `math`'s product in f32.

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Ix2};

use super::Form;
use crate::Result;
use crate::device::Host;
use crate::math::Onto;
use crate::tensor::{Real, unwritten};

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
    host: &Host,
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    form: Form,
    bias: Option<ArrayView1<'_, F>>,
) -> Result<Array2<F>> {
    let (a, b) = oriented(a, b, form);
    let mut product = unwritten(host, Ix2(a.nrows(), b.ncols()), "a matrix product")?;
    F::large_product(a, b, bias, product.view_mut(), Onto::Nothing);
    Ok(product)
}

pub(super) fn matmul_to<F: Real>(
    c: ArrayViewMut2<'_, F>,
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    form: Form,
    bias: Option<ArrayView1<'_, F>>,
) {
    let (a, b) = oriented(a, b, form);
    F::large_product(a, b, bias, c, Onto::Nothing);
}

pub(super) fn matmul_into<F: Real>(
    c: ArrayViewMut2<'_, F>,
    a: ArrayView2<'_, F>,
    b: ArrayView2<'_, F>,
    form: Form,
) {
    let (a, b) = oriented(a, b, form);
    F::large_product(a, b, None, c, Onto::Previous);
}

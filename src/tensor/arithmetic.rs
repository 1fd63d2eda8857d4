//! The arithmetic of the CPU reference in either number type: `ndarray` and the standard library in f64, to be exact;
//! [`math`] in f32, to be fast.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Zip};

use crate::math::{self, Onto};

/// Matrix products and functions of slices.
pub(crate) trait Arithmetic: Sized {
    /// A right operand B \[K, N\] packed for many products, with the bias that is added to each row.
    type Right<'a>: Sync;

    fn right<'a>(b: ArrayView2<'a, Self>, bias: Option<ArrayView1<'a, Self>>) -> Self::Right<'a>;

    /// C += A·B + bias. The bits of a row depend on no other row of A.
    fn add_product(a: ArrayView2<'_, Self>, b: &Self::Right<'_>, c: ArrayViewMut2<'_, Self>);

    /// C = A·B + bias or C += A·B + bias, for a B that is used once; large products run on several threads.
    fn large_product(
        a: ArrayView2<'_, Self>,
        b: ArrayView2<'_, Self>,
        bias: Option<ArrayView1<'_, Self>>,
        c: ArrayViewMut2<'_, Self>,
        onto: Onto,
    );

    /// x ← eˣ.
    fn exp_each(values: &mut [Self]);
    /// x ← tanh x.
    fn tanh_each(values: &mut [Self]);
    /// x ← 1 / (1 + e⁻ˣ).
    fn sigmoid_each(values: &mut [Self]);
}

impl Arithmetic for f64 {
    type Right<'a> = (ArrayView2<'a, f64>, Option<ArrayView1<'a, f64>>);

    fn right<'a>(b: ArrayView2<'a, f64>, bias: Option<ArrayView1<'a, f64>>) -> Self::Right<'a> {
        (b, bias)
    }

    fn add_product(a: ArrayView2<'_, f64>, (b, bias): &Self::Right<'_>, mut c: ArrayViewMut2<'_, f64>) {
        general_mat_mul(1.0, &a, b, 1.0, &mut c);
        if let Some(bias) = bias {
            Zip::from(c.rows_mut()).for_each(|mut row| row += bias);
        }
    }

    fn large_product(
        a: ArrayView2<'_, f64>,
        b: ArrayView2<'_, f64>,
        bias: Option<ArrayView1<'_, f64>>,
        mut c: ArrayViewMut2<'_, f64>,
        onto: Onto,
    ) {
        if onto == Onto::Nothing {
            c.fill(0.0);
        }
        Self::add_product(a, &(b, bias), c);
    }

    fn exp_each(values: &mut [f64]) {
        values.iter_mut().for_each(|x| *x = x.exp());
    }

    fn tanh_each(values: &mut [f64]) {
        values.iter_mut().for_each(|x| *x = x.tanh());
    }

    fn sigmoid_each(values: &mut [f64]) {
        values.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
    }
}

impl Arithmetic for f32 {
    type Right<'a> = math::Packed;

    fn right<'a>(b: ArrayView2<'a, f32>, bias: Option<ArrayView1<'a, f32>>) -> Self::Right<'a> {
        math::Packed::new(b, bias)
    }

    fn add_product(a: ArrayView2<'_, f32>, b: &Self::Right<'_>, c: ArrayViewMut2<'_, f32>) {
        math::product(a, b, c, Onto::Previous);
    }

    fn large_product(
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
        bias: Option<ArrayView1<'_, f32>>,
        c: ArrayViewMut2<'_, f32>,
        onto: Onto,
    ) {
        math::product_in_parts(a, b, bias, c, onto);
    }

    fn exp_each(values: &mut [f32]) {
        math::exp(values);
    }

    fn tanh_each(values: &mut [f32]) {
        math::tanh(values);
    }

    fn sigmoid_each(values: &mut [f32]) {
        math::sigmoid(values);
    }
}

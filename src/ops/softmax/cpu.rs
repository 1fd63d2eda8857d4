//! The twins of `shaders/{softmax,softmax_backward}.wgsl`, row by row from the definition.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};

use super::Kind;
use crate::tensor::Real;

/// x − max x, and ln Σ e^(x − max x): neither overflows nor loses digits to a large common offset.
pub(crate) fn shifted<F: Real>(row: ArrayView1<'_, F>) -> (Array1<F>, F) {
    let largest = row.iter().copied().fold(F::neg_infinity(), F::max);
    let shifted = row.mapv(|x| x - largest);
    let log_sum = shifted.mapv(F::exp).sum().ln();
    (shifted, log_sum)
}

pub(super) fn forward<F: Real>(x: ArrayView2<'_, F>, kind: Kind) -> Array2<F> {
    let mut y = x.to_owned();
    for mut row in y.axis_iter_mut(Axis(0)) {
        let (shifted, log_sum) = shifted(row.view());
        row.assign(&shifted.mapv(|x| match kind {
            Kind::Softmax => (x - log_sum).exp(),
            Kind::LogSoftmax => x - log_sum,
        }));
    }
    y
}

pub(super) fn backward<F: Real>(y: ArrayView2<'_, F>, d_y: ArrayView2<'_, F>, kind: Kind) -> Array2<F> {
    let mut d_x = d_y.to_owned();
    Zip::from(d_x.rows_mut()).and(y.rows()).and(d_y.rows()).for_each(|mut d_x, y, d_y| match kind {
        Kind::Softmax => {
            let mean = y.dot(&d_y);
            Zip::from(&mut d_x).and(y).for_each(|d_x, &y| *d_x = y * (*d_x - mean));
        }
        Kind::LogSoftmax => {
            let sum = d_y.sum();
            Zip::from(&mut d_x).and(y).for_each(|d_x, &y| *d_x -= y.exp() * sum);
        }
    });
    d_x
}

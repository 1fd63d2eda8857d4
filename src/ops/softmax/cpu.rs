//! CPU reference of `shaders/softmax/{softmax,softmax_backward}.wgsl`, row by row from the definition.

use ndarray::{Array2, ArrayView2, Axis, Zip, aview1};

use super::SoftmaxKind;
use crate::tensor::Real;

/// max x, computed in several independent lanes.
fn largest<F: Real>(row: &[F]) -> F {
    let mut lanes = [F::neg_infinity(); 8];
    for part in row.chunks(8) {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.into_iter().fold(F::neg_infinity(), F::max)
}

/// x ← x − max x − ln Σ e^(x − max x), which neither overflows nor loses digits to a large common offset.
pub(crate) fn log_softmax<F: Real>(row: &mut [F]) {
    let largest = largest(row);
    for x in &mut *row {
        *x -= largest;
    }
    let mut powers = row.to_vec();
    F::exp_each(&mut powers);
    let log_sum = aview1(&powers).sum().ln();
    for x in row {
        *x -= log_sum;
    }
}

pub(super) fn forward<F: Real>(x: ArrayView2<'_, F>, kind: SoftmaxKind) -> Array2<F> {
    let mut y = x.to_owned();
    for mut row in y.axis_iter_mut(Axis(0)) {
        let Some(row) = row.as_slice_mut() else { unreachable!("rows of an owned array are contiguous") };
        log_softmax(row);
        if kind == SoftmaxKind::Softmax {
            F::exp_each(row);
        }
    }
    y
}

pub(super) fn backward<F: Real>(
    y: ArrayView2<'_, F>,
    d_y: ArrayView2<'_, F>,
    kind: SoftmaxKind,
) -> Array2<F> {
    let mut d_x = d_y.to_owned();
    Zip::from(d_x.rows_mut()).and(y.rows()).and(d_y.rows()).for_each(|mut d_x, y, d_y| match kind {
        SoftmaxKind::Softmax => {
            let mean = y.dot(&d_y);
            Zip::from(&mut d_x).and(y).for_each(|d_x, &y| *d_x = y * (*d_x - mean));
        }
        SoftmaxKind::LogSoftmax => {
            let sum = d_y.sum();
            Zip::from(&mut d_x).and(y).for_each(|d_x, &y| *d_x -= y.exp() * sum);
        }
    });
    d_x
}

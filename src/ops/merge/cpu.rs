//! CPU reference of `shaders/elementwise/merge.wgsl`.

use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::Merge;
use crate::tensor::Real;

pub(super) fn merge<F: Real>(both: ArrayView2<'_, F>, mode: Merge) -> Array2<F> {
    let (forward, reverse) = both.split_at(Axis(1), both.ncols() / 2);
    match mode {
        Merge::Concat => both.to_owned(),
        Merge::Sum => &forward + &reverse,
        Merge::Mean => (&forward + &reverse) / F::from_f64(2.0),
        Merge::Product => &forward * &reverse,
    }
}

pub(super) fn backward<F: Real>(both: ArrayView2<'_, F>, d_y: ArrayView2<'_, F>, mode: Merge) -> Array2<F> {
    let (forward, reverse) = both.split_at(Axis(1), both.ncols() / 2);
    let halves = match mode {
        Merge::Concat => return d_y.to_owned(),
        Merge::Sum => [d_y.to_owned(), d_y.to_owned()],
        Merge::Mean => [&d_y / F::from_f64(2.0), &d_y / F::from_f64(2.0)],
        Merge::Product => [&d_y * &reverse, &d_y * &forward],
    };
    match concatenate(Axis(1), &[halves[0].view(), halves[1].view()]) {
        Ok(d_both) => d_both,
        Err(error) => unreachable!("both halves have the rows of d_y: {error}"),
    }
}

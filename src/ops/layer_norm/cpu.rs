//! CPU reference of `shaders/norm/{layer_norm,layer_norm_backward}.wgsl`, row by row from the definition.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::LAYER_NORM_EPSILON;
use crate::tensor::Real;

fn mean<F: Real>(x: &Array1<F>) -> F {
    x.sum() / F::from_f64(x.len() as f64)
}

/// Returns x̂ = (x − μ) / √(σ² + ε) and √(σ² + ε).
fn standardised<F: Real>(x: ArrayView1<'_, F>) -> (Array1<F>, F) {
    let centre = mean(&x.to_owned());
    let centred = x.mapv(|value| value - centre);
    let variance = mean(&centred.mapv(|value| value * value));
    let deviation = (variance + F::from_f32(LAYER_NORM_EPSILON)).sqrt();
    (centred / deviation, deviation)
}

pub(crate) fn forward<F: Real>(
    x: ArrayView2<'_, F>,
    gain: ArrayView1<'_, F>,
    shift: Option<ArrayView1<'_, F>>,
    groups: &[usize],
) -> Array2<F> {
    let mut y = x.to_owned();
    for mut row in y.axis_iter_mut(Axis(0)) {
        let mut first = 0;
        for &width in groups {
            let mut group = row.slice_mut(s![first..first + width]);
            let (standard, _) = standardised(group.view());
            group.assign(&standard);
            first += width;
        }
    }
    let y = y * gain;
    match shift {
        Some(shift) => y + shift,
        None => y,
    }
}

/// Returns dx and the gradient of the gain.
pub(crate) fn backward<F: Real>(
    x: ArrayView2<'_, F>,
    gain: ArrayView1<'_, F>,
    d_y: ArrayView2<'_, F>,
    groups: &[usize],
) -> (Array2<F>, Array1<F>) {
    let mut d_x = Array2::zeros(x.raw_dim());
    let mut d_gain = Array1::zeros(gain.raw_dim());
    for (row, mut d_row) in d_x.axis_iter_mut(Axis(0)).enumerate() {
        let mut first = 0;
        for &width in groups {
            let columns = s![first..first + width];
            let (standard, deviation) = standardised(x.row(row).slice_move(columns));
            let d_group = d_y.row(row).slice_move(columns);
            let mut d_gain = d_gain.slice_mut(columns);
            d_gain += &(&d_group * &standard);
            let d_standard = &d_group * &gain.slice(columns);
            let common = mean(&d_standard);
            let along = mean(&(&d_standard * &standard));
            let moved = d_standard - standard.mapv(|value| common + value * along);
            d_row.slice_mut(columns).assign(&(moved / deviation));
            first += width;
        }
    }
    (d_x, d_gain)
}

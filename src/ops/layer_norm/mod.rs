//! Layer normalisation: shifts and scales each row, or each group of columns of a row, to mean 0 and variance 1 (Ba, Kiros &
//! Hinton 2016, "Layer normalization").

pub(crate) mod cpu;
pub(crate) mod gpu;

use super::elementwise::expect_alike;
use super::sum_rows;
use crate::device::on_device;
use crate::tensor::{Tensor, View, expect_capacity};
use crate::{Error, Result};

/// ε, which is added to the variance so that rows of equal entries do not divide by zero.
pub const LAYER_NORM_EPSILON: f32 = 1e-5;

/// y = g (x − μ) / √(σ² + ε) + s over the last dimension, where μ and σ² are the mean and the variance of a row's
/// entries and ε is [`LAYER_NORM_EPSILON`]. `groups` are the widths of the groups of consecutive columns that are
/// normalised separately; one group of width C normalises whole rows.
///
/// x \[.., C\], gain g \[C\], shift s \[C\] → y \[.., C\].
///
/// # Errors
/// [`Error::Shape`], [`Error::DeviceMismatch`]; [`Error::Config`] for widths that are zero or do not add up to C;
/// [`Error::ExceedsLimit`] for a row that is longer than a binding.
///
/// ```
/// use refrain::{Device, Tensor, ops};
/// let device = Device::reference();
/// let x = Tensor::from_slice(&device, &[1, 4], &[1.0, 3.0, 10.0, 30.0])?;
/// let gain = Tensor::from_slice(&device, &[4], &[1.0; 4])?;
/// let y = ops::layer_norm(&x, &gain, None, &[2, 2])?.download()?;
/// for (y, expected) in y.iter().zip([-1.0, 1.0, -1.0, 1.0]) {
///     assert!((y - expected).abs() < 1e-4);
/// }
/// # Ok::<(), refrain::Error>(())
/// ```
pub fn layer_norm<'a>(
    x: impl Into<View<'a>>,
    gain: impl Into<View<'a>>,
    shift: Option<View<'a>>,
    groups: &[usize],
) -> Result<Tensor> {
    let (x, gain) = (x.into(), gain.into());
    check(x, gain, groups)?;
    if let Some(shift) = shift {
        x.device().expect_same("shift", shift.device())?;
        shift.shape().expect("shift", &[x.shape().last()])?;
    }
    on_device!(x.device(),
        F => {
            // Besides the result: the temporary rows of mean and variance.
            expect_capacity(x.device(), x.shape().elements() + 4 * x.shape().last(), "a layer norm")?;
            let shift = shift.map(|shift| shift.array1::<F>());
            let y = cpu::forward(x.array2(), gain.array1(), shift, groups);
            Tensor::from_array(x.device(), y)?.reshape(x.shape().dimensions())
        },
        context => {
            let y = Tensor::uninitialized(context, x.device(), *x.shape())?;
            let shift = shift.map(|shift| shift.span());
            gpu::forward(context, [x.span(), gain.span(), y.view().span()], shift, groups)?;
            Ok(y)
        },
    )
}

/// The gradients with respect to x and the gain, from the gradient d_y with respect to y = [`layer_norm`]`(x, gain, shift,
/// groups)`; the gradient of the shift is [`sum_rows`]`(d_y)`. With x̂ = (x − μ) / √(σ² + ε) and means over a group:
/// dx = (g dy − mean(g dy) − x̂ mean(g dy x̂)) / √(σ² + ε); dg = Σ dy x̂ over the rows.
///
/// x and d_y \[.., C\], gain \[C\] → dx \[.., C\], dg \[C\].
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_backward<'a>(
    x: impl Into<View<'a>>,
    gain: impl Into<View<'a>>,
    d_y: impl Into<View<'a>>,
    groups: &[usize],
) -> Result<(Tensor, Tensor)> {
    let (x, gain, d_y) = (x.into(), gain.into(), d_y.into());
    check(x, gain, groups)?;
    expect_alike(x, "d_y", d_y)?;
    on_device!(x.device(),
        F => {
            let room = x.shape().elements() + 12 * x.shape().last();
            expect_capacity(x.device(), room, "the gradient of a layer norm")?;
            let (d_x, d_gain) = cpu::backward(x.array2::<F>(), gain.array1(), d_y.array2(), groups);
            let d_x = Tensor::from_array(x.device(), d_x)?.reshape(x.shape().dimensions())?;
            Ok((d_x, Tensor::from_array(x.device(), d_gain)?))
        },
        context => {
            let d_x = Tensor::uninitialized(context, x.device(), *x.shape())?;
            let terms = Tensor::uninitialized(context, x.device(), *x.shape())?;
            let result = [d_x.view().span(), terms.view().span()];
            gpu::backward(context, [x.span(), gain.span(), d_y.span()], result, groups)?;
            Ok((d_x, sum_rows(&terms)?))
        },
    )
}

fn check(x: View<'_>, gain: View<'_>, groups: &[usize]) -> Result<()> {
    let columns = x.shape().last();
    x.device().expect_same("gain", gain.device())?;
    gain.shape().expect("gain", &[columns])?;
    let total = groups.iter().try_fold(0usize, |total, &width| total.checked_add(width));
    if groups.contains(&0) || total != Some(columns) {
        let message =
            format!("must be widths of at least 1 that add up to the {columns} columns, not {groups:?}");
        return Err(Error::config("groups", message));
    }
    Ok(())
}

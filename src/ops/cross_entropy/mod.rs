//! Softmax cross-entropy against labels, fused with its gradient.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::on_device;
use crate::math::threads;
use crate::tensor::{Indices, Tensor, View, expect_capacity};
use crate::{Error, Result};

/// How the losses of the rows are reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum divided by the sum of their labels' weights, as in PyTorch; without weights, their mean.
    Mean,
    /// Their sum.
    Sum,
}

/// Options of the loss.
#[derive(Clone, Copy)]
pub(crate) struct LossOptions<'a> {
    pub(crate) weights: Option<View<'a>>,
    pub(crate) smoothing: f32,
}

/// The factor by which a row's loss and gradient are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Scale<'a> {
    /// The same factor for all rows.
    Same(f32),
    /// 1 / Σ w_label over all rows.
    MeanWeight,
    /// One factor per row: the upstream gradient of its loss.
    Rows(View<'a>),
}

/// The scaled losses \[R\] and gradients \[R, C\] of all rows.
pub(crate) struct LossRows {
    pub(crate) losses: Tensor,
    pub(crate) d_logits: Tensor,
}

/// Checks the arguments; returns the number of rows and classes.
fn check(logits: View<'_>, labels: &Indices, options: LossOptions<'_>) -> Result<(usize, usize)> {
    let (rows, classes) = (logits.shape().rows(), logits.shape().last());
    let dimensions = logits.shape().dimensions();
    if logits.shape().rank() < 2 {
        return Err(Error::shape(
            "logits",
            "[..., classes] with at least one leading dimension",
            logits.shape(),
        ));
    }
    logits.device().expect_same("labels", labels.device())?;
    labels.shape().expect_time_first("labels", &dimensions[..dimensions.len() - 1])?;
    labels.expect_labels("labels", classes)?;
    if let Some(weights) = options.weights {
        logits.device().expect_same("class weights", weights.device())?;
        weights.shape().expect("class weights", &[classes])?;
    }
    if !(0.0..=1.0).contains(&options.smoothing) {
        return Err(Error::config(
            "label smoothing",
            format!("must be within 0 to 1, not {}", options.smoothing),
        ));
    }
    Ok((rows, classes))
}

/// Computes losses and gradients of all rows; see [`CrossEntropy`](crate::loss::CrossEntropy) for the equations.
pub(crate) fn rows(
    logits: View<'_>,
    labels: &Indices,
    options: LossOptions<'_>,
    scale: Scale<'_>,
) -> Result<LossRows> {
    let (rows, _) = check(logits, labels, options)?;
    if let Scale::Rows(scales) = scale {
        logits.device().expect_same("d_losses", scales.device())?;
        scales.shape().expect("d_losses", labels.shape().dimensions())?;
    }
    let device = logits.device();
    on_device!(device,
        F, host => {
            // Besides the gradient: a few numbers per row, and the targets and exponentials of the threads.
            let (rows, classes) = (logits.shape().rows(), logits.shape().last());
            let scratch = 2 * rows + 4 * classes * threads();
            expect_capacity(device, logits.shape().elements() + scratch, "a cross-entropy")?;
            let (losses, d_logits) = cpu::rows::<F>(host, logits.array2(), labels.values(), options, scale)?;
            Ok(LossRows {
                losses: Tensor::from_array(device, losses)?.reshape(labels.shape().dimensions())?,
                d_logits: Tensor::from_array(device, d_logits)?.reshape(logits.shape().dimensions())?,
            })
        },
        context => {
            let result = LossRows {
                losses: Tensor::uninitialized(context, device, *labels.shape())?,
                d_logits: Tensor::uninitialized(context, device, *logits.shape())?,
            };
            gpu::rows(context, gpu::LossCall { logits, labels, options, scale, result: &result, rows })?;
            Ok(result)
        },
    )
}

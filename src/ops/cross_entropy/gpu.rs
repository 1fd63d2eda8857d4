//! Dispatch of `shaders/loss/cross_entropy.wgsl`.

use super::{Options, Rows, Scale};
use crate::Result;
use crate::gpu::{Context, Dispatch, kernels, parameters, pieces};
use crate::ops::softmax::gpu::row_reduction;
use crate::ops::{embedding, reduce};
use crate::tensor::{Indices, Tensor, View};

parameters!(CrossEntropyParameters {
    rows: u32,
    classes: u32,
    logits_base: u32,
    labels_base: u32,
    weights_base: u32,
    scales_base: u32,
    losses_base: u32,
    d_logits_base: u32,
    scale: f32,
    smoothing: f32,
});

kernels! {
    CROSS_ENTROPY: "loss/cross_entropy" {
        uses: ["lib/math", "lib/row_reduction"],
        parameters: CrossEntropyParameters,
        constants: [("LANE_BITS", 9), ("SCALE", 3), ("WEIGHTED", 2)],
        bindings: [Read, Read, Read, Read, Write, Write],
    }
}

pub(super) struct Call<'a> {
    pub(super) logits: View<'a>,
    pub(super) labels: &'a Indices,
    pub(super) options: Options<'a>,
    pub(super) scale: Scale<'a>,
    pub(super) result: &'a Rows,
    pub(super) rows: usize,
}

pub(super) fn rows(context: &Context, call: Call<'_>) -> Result<()> {
    let classes = call.logits.shape().last();
    let total_weight = match (call.scale, call.options.weights) {
        (Scale::MeanWeight, Some(weights)) => Some(total_weight(context, call.labels, weights)?),
        _ => None,
    };
    let (mode, factor) = match call.scale {
        Scale::Same(factor) => (0, factor),
        Scale::MeanWeight if total_weight.is_some() => (1, 0.0),
        Scale::MeanWeight => (0, (1.0 / call.labels.counted() as f64) as f32),
        Scale::Rows(_) => (2, 0.0),
    };
    let reduction = row_reduction(context, classes)?;
    for piece in pieces(call.rows, reduction.rows_at_once(context)) {
        let elements = piece.start * classes..piece.end * classes;
        let logits = context.bind(call.logits.span().slice(elements.clone()))?;
        let labels = context.bind(call.labels.span().slice(piece.clone()))?;
        // Bindings that the options do not use must be bound too; the shader does not read them.
        let weights = match call.options.weights {
            Some(weights) => context.bind(weights.span())?,
            None => logits,
        };
        let scales = match (&total_weight, call.scale) {
            (Some(total), _) => context.bind(total.view().span())?,
            (None, Scale::Rows(scales)) => context.bind(scales.span().slice(piece.clone()))?,
            (None, _) => logits,
        };
        let losses = context.bind(call.result.losses.view().span().slice(piece.clone()))?;
        let d_logits = context.bind(call.result.d_logits.view().span().slice(elements))?;
        context.dispatch(Dispatch {
            kernel: &CROSS_ENTROPY,
            constants: &[reduction.constant(), mode, call.options.weights.is_some().into()],
            parameters: CrossEntropyParameters {
                rows: piece.len() as u32,
                classes: classes as u32,
                logits_base: logits.base,
                labels_base: labels.base,
                weights_base: weights.base,
                scales_base: scales.base,
                losses_base: losses.base,
                d_logits_base: d_logits.base,
                scale: factor,
                smoothing: call.options.smoothing,
            },
            bindings: &[logits, labels, weights, scales, losses, d_logits],
            grid: reduction.grid(piece.len()),
        })?;
    }
    Ok(())
}

/// Returns Σ w_label over the rows that have a label.
fn total_weight(context: &Context, labels: &Indices, weights: View<'_>) -> Result<Tensor> {
    // Rows without a label are not written and stay zero.
    let of_rows = Tensor::zeros(labels.device(), &[labels.shape().elements()])?;
    let table = weights.reshaped(&[weights.shape().elements(), 1])?;
    embedding::gpu::gather(context, labels.span(), table, of_rows.view().span())?;
    reduce::sum(&of_rows)
}

//! Dispatch of `shaders/loss/cross_entropy.wgsl`.

use super::{LossOptions, LossRows, Scale};
use crate::Result;
use crate::gpu::{Context, RowOperand, kernels, parameters};
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

pub(super) struct LossCall<'a> {
    pub(super) logits: View<'a>,
    pub(super) labels: &'a Indices,
    pub(super) options: LossOptions<'a>,
    pub(super) scale: Scale<'a>,
    pub(super) result: &'a LossRows,
    pub(super) rows: usize,
}

pub(super) fn rows(context: &Context, call: LossCall<'_>) -> Result<()> {
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
    let [logits, d_logits] =
        [call.logits.span(), call.result.d_logits.view().span()].map(|span| RowOperand::Each(span, classes));
    // Bindings that the options do not use must be bound too; the shader does not read them.
    let weights = match call.options.weights {
        Some(weights) => RowOperand::All(context.bind(weights.span())?),
        None => logits,
    };
    let scales = match (&total_weight, call.scale) {
        (Some(total), _) => RowOperand::All(context.bind(total.view().span())?),
        (None, Scale::Rows(scales)) => RowOperand::Each(scales.span(), 1),
        (None, _) => logits,
    };
    let [labels, losses] =
        [call.labels.span(), call.result.losses.view().span()].map(|span| RowOperand::Each(span, 1));
    let operands = [logits, labels, weights, scales, losses, d_logits];
    let constants = [mode, call.options.weights.is_some().into()];
    reduction.dispatch(context, &CROSS_ENTROPY, &constants, call.rows, operands, |piece, bases| {
        let [logits_base, labels_base, weights_base, scales_base, losses_base, d_logits_base] = bases;
        CrossEntropyParameters {
            rows: piece.len() as u32,
            classes: classes as u32,
            logits_base,
            labels_base,
            weights_base,
            scales_base,
            losses_base,
            d_logits_base,
            scale: factor,
            smoothing: call.options.smoothing,
        }
    })
}

/// Returns Σ w_label over the rows that have a label.
fn total_weight(context: &Context, labels: &Indices, weights: View<'_>) -> Result<Tensor> {
    // Rows without a label are not written and stay zero.
    let of_rows = Tensor::zeros(labels.device(), &[labels.shape().elements()])?;
    let table = weights.reshaped(&[weights.shape().elements(), 1])?;
    embedding::gpu::gather(context, labels.span(), table, of_rows.view().span())?;
    reduce::sum(&of_rows)
}

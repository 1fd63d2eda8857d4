//! The twin of `shaders/cross_entropy.wgsl`, from the definition: −Σ_j q_j ln p_j with the smoothed target q.

use ndarray::{Array1, Array2, ArrayView2};

use super::{Options, Scale};
use crate::ops::softmax::cpu::shifted;
use crate::tensor::{IGNORED, Real};

pub(super) fn rows<F: Real>(
    logits: ArrayView2<'_, F>,
    labels: &[u32],
    options: Options<'_>,
    scale: Scale<'_>,
) -> (Array1<F>, Array2<F>) {
    let classes = logits.ncols();
    let weights = match options.weights {
        Some(weights) => weights.array1::<F>().to_owned(),
        None => Array1::ones(classes),
    };
    let smoothing = F::from_f32(options.smoothing);
    let labelled = || labels.iter().filter(|&&label| label != IGNORED);
    let total_weight: F = labelled().map(|&label| weights[label as usize]).sum();

    let mut losses = Array1::zeros(labels.len());
    let mut d_logits = Array2::zeros(logits.raw_dim());
    for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label != IGNORED) {
        let factor = match scale {
            Scale::Same(factor) => F::from_f32(factor),
            Scale::MeanWeight => F::one() / total_weight,
            Scale::Rows(factors) => factors.array1::<F>()[row],
        };
        // q_j: the label's weight, of which `smoothing` is spread over all classes by their weights.
        let mut target = weights.mapv(|weight| smoothing * weight / F::from_f64(classes as f64));
        target[label as usize] += (F::one() - smoothing) * weights[label as usize];
        let (shifted, log_sum) = shifted(logits.row(row));
        let log_probabilities = shifted - log_sum;
        losses[row] = -(&target * &log_probabilities).sum() * factor;
        // d/dx_j of −Σ_k q_k ln p_k is p_j Σ_k q_k − q_j.
        let gradient = log_probabilities.mapv(F::exp) * target.sum() - target;
        d_logits.row_mut(row).assign(&(gradient * factor));
    }
    (losses, d_logits)
}

//! CPU reference of `shaders/loss/cross_entropy.wgsl`, from the definition: −Σ_j q_j ln p_j with the smoothed target q.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, aview1};

use super::{LossOptions, Scale};
use crate::Result;
use crate::device::Host;
use crate::math::{in_parts, part_rows};
use crate::ops::softmax::cpu::log_softmax;
use crate::tensor::{IGNORED, Real, unwritten};

/// The cost of one element in multiplications; the two exponentials are most of it.
const COST: usize = 40;

/// The quantities shared by the losses of all rows.
struct Loss<'a, F> {
    weights: Array1<F>,
    smoothing: F,
    scale: Scale<'a>,
    /// Σ w over the rows that have labels.
    total_weight: F,
}

/// A range of rows that starts at row `first`.
struct RowBlock<'a, F> {
    first: usize,
    logits: ArrayView2<'a, F>,
    labels: &'a [u32],
    losses: ArrayViewMut1<'a, F>,
    d_logits: ArrayViewMut2<'a, F>,
}

pub(super) fn rows<F: Real>(
    host: &Host,
    logits: ArrayView2<'_, F>,
    labels: &[u32],
    options: LossOptions<'_>,
    scale: Scale<'_>,
) -> Result<(Array1<F>, Array2<F>)> {
    let (rows, classes) = logits.dim();
    let weights = match options.weights {
        Some(weights) => weights.array1::<F>().to_owned(),
        None => Array1::ones(classes),
    };
    let labelled = labels.iter().filter(|&&label| label != IGNORED);
    let total_weight: F = labelled.map(|&label| weights[label as usize]).sum();
    let loss = Loss { weights, smoothing: F::from_f32(options.smoothing), scale, total_weight };

    let mut losses = Array1::zeros(rows);
    let mut d_logits = unwritten(host, logits.raw_dim(), "the gradient of a cross-entropy")?;
    // Rows without a label keep this value.
    d_logits.fill(F::zero());
    let part = part_rows(rows, COST * logits.len(), 1);
    let arrays = losses
        .axis_chunks_iter_mut(Axis(0), part)
        .zip(d_logits.axis_chunks_iter_mut(Axis(0), part))
        .zip(logits.axis_chunks_iter(Axis(0), part).zip(labels.chunks(part)));
    let parts = arrays.enumerate().map(|(number, ((losses, d_logits), (logits, labels)))| RowBlock {
        first: number * part,
        logits,
        labels,
        losses,
        d_logits,
    });
    in_parts(parts.collect(), |part| loss.of_rows(part));
    Ok((losses, d_logits))
}

/// The target distribution of a row: q_j = spread_j, plus `hard` at the label.
struct RowTarget<'a, F> {
    label: usize,
    hard: F,
    spread: &'a [F],
}

impl<F: Real> Loss<'_, F> {
    fn of_rows(&self, part: RowBlock<'_, F>) {
        let RowBlock { first, logits, labels, mut losses, mut d_logits } = part;
        // `smoothing` of each label's weight is spread over all classes in proportion to their weights.
        let share = self.smoothing / F::from_f64(logits.ncols() as f64);
        let spread: Vec<F> = match self.smooths() {
            true => self.weights.iter().map(|&weight| share * weight).collect(),
            false => vec![F::zero(); logits.ncols()],
        };
        for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label != IGNORED) {
            let label = label as usize;
            let factor = match self.scale {
                Scale::Same(factor) => F::from_f32(factor),
                Scale::MeanWeight => F::one() / self.total_weight,
                Scale::Rows(factors) => factors.array1::<F>()[first + row],
            };
            let hard = (F::one() - self.smoothing) * self.weights[label];
            let target = RowTarget { label, hard, spread: &spread };
            let mut d_row = d_logits.row_mut(row);
            losses[row] = self.of_row(logits.row(row), &target, &mut d_row) * factor;
            d_row *= factor;
        }
    }

    fn smooths(&self) -> bool {
        self.smoothing > F::zero()
    }

    /// Returns the loss of one row and writes its gradient with respect to the logits to `d_x`.
    fn of_row(&self, x: ArrayView1<'_, F>, target: &RowTarget<'_, F>, d_x: &mut ArrayViewMut1<'_, F>) -> F {
        let Some(d_x) = d_x.as_slice_mut() else { unreachable!("rows of new arrays are contiguous") };
        let RowTarget { label, hard, spread } = *target;
        d_x.iter_mut().zip(x).for_each(|(d_x, &x)| *d_x = x);
        log_softmax(d_x);
        // Without smoothing, a class whose logit is −∞ has no term: 0 · ∞ would be NaN.
        let mut loss = -hard * d_x[label];
        if self.smooths() {
            loss -= d_x.iter().zip(spread).map(|(&log_p, &q)| q * log_p).sum::<F>();
        }
        // d/dx_j of −Σ_k q_k ln p_k is p_j Σ_k q_k − q_j.
        let total = aview1(spread).sum() + hard;
        F::exp_each(d_x);
        for (d_x, &q) in d_x.iter_mut().zip(spread) {
            *d_x = *d_x * total - q;
        }
        d_x[label] -= hard;
        loss
    }
}

//! Cross-entropy with its gradient: every reduction and option, one class and a thousand, large logits.

use std::ops::Range;

use super::{Operation, Output};
use crate::Result;
use crate::check::sampler::{CENTRED, POSITIVE, Sampler};
use crate::check::tolerance::{EVALUATION, sum};
use crate::loss::CrossEntropy;
use crate::ops::Reduction;
use crate::tensor::{IGNORED, Indices, Tensor};

/// Leading sizes, and the number of classes.
const SHAPES: [(&[usize], usize); 7] =
    [(&[1], 1), (&[5], 1), (&[1], 33), (&[7, 3], 17), (&[65], 64), (&[37], 1000), (&[5000], 3)];

/// The options, and how logits and labels are sampled.
#[derive(Clone)]
struct Variant {
    name: &'static str,
    logits: Range<f64>,
    /// The fraction of labels that are ignored.
    ignored: f32,
    weighted: bool,
    smoothing: f32,
}

const PLAIN: Variant =
    Variant { name: "plain", logits: -3.0..3.0, ignored: 0.0, weighted: false, smoothing: 0.0 };

fn variants() -> Vec<Variant> {
    vec![
        PLAIN,
        Variant { name: "large logits", logits: -1e4..1e4, ..PLAIN },
        Variant { name: "a third ignored", ignored: 0.33, ..PLAIN },
        Variant { name: "smoothed", smoothing: 0.1, ..PLAIN },
        Variant {
            name: "weighted, ignored and smoothed",
            ignored: 0.33,
            weighted: true,
            smoothing: 0.15,
            ..PLAIN
        },
    ]
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        operation("cross_entropy mean", |inputs, _| reduced(inputs, Reduction::Mean)),
        operation("cross_entropy sum", |inputs, _| reduced(inputs, Reduction::Sum)),
        operation("cross_entropy rows", rows),
    ]
}

struct LossInputs {
    loss: CrossEntropy,
    logits: Tensor,
    labels: Indices,
    classes: usize,
}

fn operation(name: &'static str, run: fn(&LossInputs, &Sampler) -> Result<Vec<Output>>) -> Operation {
    let all =
        SHAPES.into_iter().flat_map(|shape| variants().into_iter().map(move |variant| (shape, variant)));
    let label = |((leading, classes), variant): &((&[usize], usize), Variant)| {
        format!("{leading:?} labels, {classes} classes, {}", variant.name)
    };
    Operation::over(name, 900, all, label, move |sampler, &((leading, classes), ref variant)| {
        run(&variant.sampler(sampler, leading, classes)?, sampler)
    })
}

impl Variant {
    fn sampler(&self, sampler: &Sampler, leading: &[usize], classes: usize) -> Result<LossInputs> {
        let count: usize = leading.iter().product();
        let shape: Vec<usize> = leading.iter().copied().chain([classes]).collect();
        let logits = sampler.tensor(&shape, self.logits.clone())?;
        let mut labels = sampler.integers(count, classes);
        let chance = sampler.values(count, 0.0..1.0);
        // The first label is never ignored: a mean over no labels is undefined.
        for (label, _) in labels.iter_mut().zip(chance).skip(1).filter(|(_, chance)| *chance < self.ignored) {
            *label = IGNORED;
        }
        let labels = Indices::from_slice(sampler.device(), leading, &labels)?;
        let mut loss = CrossEntropy::default().smoothing(self.smoothing);
        if self.weighted {
            loss = loss.weights(sampler.tensor(&[classes], POSITIVE)?);
        }
        Ok(LossInputs { loss, logits, labels, classes })
    }
}

impl LossInputs {
    /// The roundings of −Σ_j q_j ln p_j: the sums over classes in ln p and over q, an exponential and a logarithm.
    fn roundings(&self) -> f64 {
        2.0 * sum(self.classes) + 2.0 * EVALUATION
    }
}

fn reduced(inputs: &LossInputs, reduction: Reduction) -> Result<Vec<Output>> {
    let (loss, d_logits) = inputs.loss.reduced(&inputs.logits, &inputs.labels, reduction)?;
    let count = inputs.labels.values().len();
    let rows = sum(count);
    // p - q cancels where there is one class: the errors are relative to p, which is 1, as the sum or the mean has it.
    let scale = if reduction == Reduction::Mean { 1.0 / count as f64 } else { 1.0 };
    Ok(vec![
        Output::new("loss", loss, inputs.roundings() + 2.0 * rows),
        Output::new("d_logits", d_logits, inputs.roundings() + rows).relative_to(scale),
    ])
}

fn rows(inputs: &LossInputs, sampler: &Sampler) -> Result<Vec<Output>> {
    let LossInputs { loss, logits, labels, .. } = inputs;
    let d_losses = sampler.tensor(labels.shape().dimensions(), CENTRED)?;
    let d_logits = loss.rows_backward(logits, labels, &d_losses)?;
    Ok(vec![
        Output::new("losses", loss.rows(logits, labels)?, inputs.roundings()),
        // As above, relative to p times a loss's gradient, which is below 1.
        Output::new("d_logits", d_logits, inputs.roundings()).relative_to(1.0),
    ])
}

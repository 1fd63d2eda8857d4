//! Softmax and log softmax: one class, a thousand, logits so large that e^x overflows.

use std::ops::Range;

use super::{Case, Operation, Output};
use crate::Result;
use crate::check::sampler::{CENTRED, Sampler};
use crate::check::tolerance::{EVALUATION, sum};
use crate::ops::{log_softmax, log_softmax_backward, softmax, softmax_backward};
use crate::tensor::Tensor;

const SHAPES: [&[usize]; 8] =
    [&[1, 1], &[5, 1], &[3, 33], &[4, 2, 17], &[2, 1000], &[65, 7], &[1, 64], &[3, 5000]];

/// Ordinary logits, a large common offset, and differences that leave one class with probability 1.
const LOGITS: [Range<f64>; 3] = [-3.0..3.0, 9_997.0..10_003.0, -1e4..1e4];

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation::new("softmax", cases(of_softmax)), Operation::new("log_softmax", cases(of_log_softmax))]
}

fn cases(run: impl Fn(&Sampler, &Tensor, usize) -> Result<Vec<Output>> + Copy + 'static) -> Vec<Case> {
    let all = SHAPES.into_iter().flat_map(|shape| LOGITS.into_iter().map(move |range| (shape, range)));
    let case = move |((shape, range), seed): ((&'static [usize], Range<f64>), u64)| {
        Case::new(format!("{shape:?}, logits in {range:?}"), seed, move |sampler| {
            let x = sampler.tensor(shape, range.clone())?;
            run(sampler, &x, shape[shape.len() - 1])
        })
    };
    all.zip(700..).map(case).collect()
}

fn of_softmax(sampler: &Sampler, x: &Tensor, classes: usize) -> Result<Vec<Output>> {
    let d_y = sampler.tensor(x.shape().dimensions(), CENTRED)?;
    let y = softmax(x)?;
    let d_x = softmax_backward(&y, &d_y)?;
    let roundings = sum(classes) + 2.0 * EVALUATION;
    // dy - Σ dy y cancels where one class has probability 1: errors are relative to the largest y dy, which is below 1.
    let scale = largest(&y)?;
    Ok(vec![Output::new("y", y, roundings), Output::new("d_x", d_x, 2.0 * roundings).relative_to(scale)])
}

fn of_log_softmax(sampler: &Sampler, x: &Tensor, classes: usize) -> Result<Vec<Output>> {
    let d_y = sampler.tensor(x.shape().dimensions(), CENTRED)?;
    let y = log_softmax(x)?;
    let d_x = log_softmax_backward(&y, &d_y)?;
    let roundings = sum(classes) + 2.0 * EVALUATION;
    Ok(vec![Output::new("y", y, roundings), Output::new("d_x", d_x, 2.0 * roundings).relative_to(1.0)])
}

fn largest(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.download_f64()?.into_iter().fold(0.0, |most, value| value.abs().max(most)))
}

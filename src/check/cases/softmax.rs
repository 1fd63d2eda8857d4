//! Softmax and log softmax: one class, a thousand, logits so large that e^x overflows.

use std::ops::Range;

use super::{Operation, Output};
use crate::Result;
use crate::check::sampler::CENTRED;
use crate::check::tolerance::{EVALUATION, sum};
use crate::ops::{log_softmax, log_softmax_backward, softmax, softmax_backward};
use crate::tensor::Tensor;

const SHAPES: [&[usize]; 8] =
    [&[1, 1], &[5, 1], &[3, 33], &[4, 2, 17], &[2, 1000], &[65, 7], &[1, 64], &[3, 5000]];

/// Ordinary logits, a large common offset, and differences that leave one class with probability 1.
const LOGITS: [Range<f64>; 3] = [-3.0..3.0, 9_997.0..10_003.0, -1e4..1e4];

pub(super) fn operations() -> Vec<Operation> {
    vec![
        operation("softmax", |x| softmax(x), |y, d_y| softmax_backward(y, d_y), largest),
        operation("log_softmax", |x| log_softmax(x), |y, d_y| log_softmax_backward(y, d_y), |_| Ok(1.0)),
    ]
}

/// `scale` is the magnitude that the roundings of dx are relative to. Where one class has probability 1, dy - Σ dy y of a
/// softmax cancels: there it is the largest y dy, which is below 1.
fn operation(
    name: &'static str,
    forward: fn(&Tensor) -> Result<Tensor>,
    backward: fn(&Tensor, &Tensor) -> Result<Tensor>,
    scale: fn(&Tensor) -> Result<f64>,
) -> Operation {
    let all = SHAPES.into_iter().flat_map(|shape| LOGITS.map(move |range| (shape, range)));
    let label = |(shape, range): &(&[usize], Range<f64>)| format!("{shape:?}, logits in {range:?}");
    Operation::over(name, 700, all, label, move |sampler, (shape, range)| {
        let x = sampler.tensor(shape, range.clone())?;
        let d_y = sampler.tensor(shape, CENTRED)?;
        let y = forward(&x)?;
        let d_x = backward(&y, &d_y)?;
        let roundings = sum(x.shape().last()) + 2.0 * EVALUATION;
        let d_x = Output::new("d_x", d_x, 2.0 * roundings).relative_to(scale(&y)?);
        Ok(vec![Output::new("y", y, roundings), d_x])
    })
}

fn largest(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.download_f64()?.into_iter().fold(0.0, |most, value| value.abs().max(most)))
}

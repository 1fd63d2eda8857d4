//! PyTorch's linear, embedding and softmax.

use super::case::{Outcome, Trouble};
use super::replay::Replay;
use crate::check::tolerance::{EVALUATION, sum};
use crate::nn::{Embedding, Linear, Model};
use crate::ops::{self, permute};
use crate::tensor::Tensor;

/// y = x Wᵀ + b.
pub(super) fn linear(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "linear")?;
    let ([outputs, inputs], weight) = case.floats::<2>("weight")?;
    let bias = case.value_or("bias", false)?;
    let description = Linear::new(inputs, outputs);
    let mut model = Model::new(0);
    let layer = model.add("linear", if bias { description } else { description.without_bias() })?;
    let mut parameters = replay.initialize(&model)?;
    parameters.set("linear.weight", &[outputs, inputs], weight)?;
    if bias {
        let (shape, values) = case.floats::<1>("bias")?;
        parameters.set("linear.bias", &shape, values)?;
    }
    let x = case.tensor("x", device)?;
    let rows = x.shape().rows();
    let mut gradients = parameters.zero_gradients()?;
    let (y, trace) = layer.forward(&parameters, &x)?;
    let d_x = trace.backward(&case.tensor("dy", device)?, &mut gradients)?;
    replay.check("y", &y, sum(inputs))?;
    replay.check("dx", &d_x, sum(outputs))?;
    replay.check("d_weight", gradients.view("linear.weight")?, sum(rows))?;
    if bias {
        replay.check("d_bias", gradients.view("linear.bias")?, sum(rows))?;
    }
    Ok(())
}

/// Embedding lookup. `padding_idx`, whose row gets no gradient, is not supported.
pub(super) fn embedding(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_kind(replay, "embedding")?;
    if let Some(index) = case.text("padding_idx").filter(|text| !matches!(*text, "" | "null")) {
        return Err(Trouble::unsupported(format!("padding_idx = {index} is not supported")));
    }
    let ([vocabulary, features], weight) = case.floats::<2>("weight")?;
    let mut model = Model::new(0);
    let layer = model.add("embedding", Embedding::new(vocabulary, features))?;
    let mut parameters = replay.initialize(&model)?;
    parameters.set("embedding.weight", &[vocabulary, features], weight)?;
    let tokens = case.tokens("indices", device)?;
    let mut gradients = parameters.zero_gradients()?;
    let (y, trace) = layer.forward(&parameters, &tokens)?;
    trace.backward(&case.tensor("dy", device)?, &mut gradients)?;
    replay.check("y", &y, 1.0)?;
    replay.check("d_weight", gradients.view("embedding.weight")?, sum(tokens.values().len()))
}

/// Softmax or log softmax along any dimension, which is moved to the end and back.
pub(super) fn softmax(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    type Forward = fn(&Tensor) -> crate::Result<Tensor>;
    type Backward = fn(&Tensor, &Tensor) -> crate::Result<Tensor>;
    let (forward, backward): (Forward, Backward) = match case.required("kind")? {
        "softmax" => (|x| ops::softmax(x), |y, d_y| ops::softmax_backward(y, d_y)),
        "log_softmax" => (|x| ops::log_softmax(x), |y, d_y| ops::log_softmax_backward(y, d_y)),
        other => return Err(Trouble::unsupported(format!("`{other}` is not supported"))),
    };
    let x = case.tensor("x", device)?;
    let axes = exchanged(case.value_or::<f64>("dim", -1.0)?, x.shape().rank())?;
    let x = permute(&x, &axes)?;
    let d_y = permute(&case.tensor("dy", device)?, &axes)?;
    let y = forward(&x)?;
    let d_x = backward(&y, &d_y)?;
    let roundings = sum(x.shape().last()) + 2.0 * EVALUATION;
    replay.check("y", &permute(&y, &axes)?, roundings)?;
    replay.check("dx", &permute(&d_x, &axes)?, roundings)
}

/// The permutation that exchanges `dimension` and the last dimension; it is its own inverse.
fn exchanged(dimension: f64, rank: usize) -> Outcome<Vec<usize>> {
    let counted = if dimension < 0.0 { dimension + rank as f64 } else { dimension };
    let place = (0..rank)
        .find(|&place| place as f64 == counted)
        .ok_or_else(|| Trouble::malformed(format!("dim = {dimension} is not one of {rank} dimensions")))?;
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(place, rank - 1);
    Ok(axes)
}

pub(super) fn expect_kind(replay: &Replay<'_>, kind: &str) -> Outcome {
    match replay.case.required("kind")? {
        found if found == kind => Ok(()),
        other => Err(Trouble::unsupported(format!("cases of the kind `{other}` are not supported"))),
    }
}

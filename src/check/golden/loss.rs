//! PyTorch's losses: input, target → loss, d_input.

use super::case::{Outcome, Trouble, unsigned};
use super::layers::expect_kind;
use super::replay::Replay;
use crate::check::tolerance::{EVALUATION, sum};
use crate::loss::CrossEntropy;
use crate::ops::Reduction;
use crate::tensor::{IGNORED, Indices};

pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    expect_kind(replay, "loss")?;
    match replay.case.required("loss")? {
        "cross_entropy" => cross_entropy(replay),
        other => Err(Trouble::unsupported(format!("the loss `{other}` is not supported"))),
    }
}

fn cross_entropy(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    expect_classes_last(replay)?;
    let mut loss = CrossEntropy::default().smoothing(case.value_or::<f64>("label_smoothing", 0.0)? as f32);
    if case.value_or("class_weights", false)? || case.has("weight") {
        loss = loss.weights(case.tensor("weight", device)?);
    }
    let logits = case.tensor("input", device)?;
    let labels = labels(replay)?;
    let roundings = sum(logits.shape().last()) + sum(labels.values().len()) + 2.0 * EVALUATION;
    let (value, d_logits) = match case.required("reduction")? {
        "mean" => loss.reduced(&logits, &labels, Reduction::Mean)?,
        "sum" => loss.reduced(&logits, &labels, Reduction::Sum)?,
        "none" => {
            let d_losses = case.tensor("dloss", device)?;
            (loss.rows(&logits, &labels)?, loss.rows_backward(&logits, &labels, &d_losses)?)
        }
        other => return Err(Trouble::unsupported(format!("reduction = {other} is not supported"))),
    };
    replay.check("loss", &value, roundings)?;
    replay.check("d_input", &d_logits, roundings)
}

/// Class labels, with ignored ones replaced by [`IGNORED`](crate::IGNORED).
fn labels(replay: &Replay<'_>) -> Outcome<Indices> {
    let (shape, values) = replay.case.integers("target")?;
    let ignored = replay.case.value_or::<f64>("ignore_index", -100.0)?;
    let counted: Vec<i64> = values.iter().copied().filter(|&value| value as f64 != ignored).collect();
    let mut counted = unsigned("target", &counted)?.into_iter();
    let marked =
        values.iter().map(|&value| if value as f64 == ignored { Some(IGNORED) } else { counted.next() });
    // There is one label per kept position, so none is missing.
    let labels: Vec<u32> = marked.flatten().collect();
    Ok(Indices::from_slice(replay.device, shape, &labels)?)
}

/// Fails for a layout in which the classes are not the last dimension.
fn expect_classes_last(replay: &Replay<'_>) -> Outcome {
    let layout = replay.case.text("input_layout").unwrap_or("[N,C]");
    if matches!(layout, "[N,C]" | "[T,B,C]" | "[B,T,C]") {
        return Ok(());
    }
    Err(Trouble::unsupported(format!("input_layout = {layout} is not supported")))
}

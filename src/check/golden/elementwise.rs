//! PyTorch's element-wise functions: x, dy → y, dx.

use super::case::{GoldenCase, Outcome, Trouble};
use super::replay::Replay;
use crate::check::tolerance::EVALUATION;
use crate::ops::{Activation, unary, unary_backward};

pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    let function = activation(case, case.required("kind")?)?;
    let x = case.tensor("x", device)?;
    let d_y = case.tensor("dy", device)?;
    let y = unary(&x, function)?;
    let d_x = unary_backward(&x, &y, &d_y, function)?;
    replay.check("y", &y, EVALUATION)?;
    replay.check("dx", &d_x, EVALUATION)
}

/// The PyTorch function `name`, with its attributes or their defaults.
pub(super) fn activation(case: &GoldenCase, name: &str) -> Outcome<Activation> {
    let number = |keys: &[&str], default: f64| -> Outcome<f32> {
        for key in keys {
            if case.text(key).is_some() {
                return Ok(case.value::<f64>(key)? as f32);
            }
        }
        Ok(default as f32)
    };
    Ok(match name {
        "identity" | "linear" => Activation::Identity,
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "sigmoid" => Activation::Sigmoid,
        "leaky_relu" | "leakyrelu" => {
            Activation::LeakyRelu { slope: number(&["negative_slope", "slope", "alpha"], 0.01)? }
        }
        "elu" => Activation::Elu { alpha: number(&["alpha"], 1.0)? },
        "selu" => Activation::Selu,
        "softplus" => {
            // Above the threshold PyTorch returns x for ln(1 + e^x): at 20 they differ by 2e-9.
            if number(&["beta"], 1.0)? != 1.0 || number(&["threshold"], 20.0)? < 20.0 {
                return Err(Trouble::unsupported("softplus with a beta or a low threshold is not supported"));
            }
            Activation::Softplus
        }
        "hardsigmoid" | "hard_sigmoid" => {
            Activation::HardSigmoid { alpha: number(&["alpha"], 1.0 / 6.0)?, beta: number(&["beta"], 0.5)? }
        }
        "softsign" => Activation::Softsign,
        "tan" => Activation::Tan,
        other => return Err(Trouble::unsupported(format!("the function `{other}` is not supported"))),
    })
}

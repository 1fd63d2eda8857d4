//! ONNX's RNN node: X, W, R, B, initial_h → Y, Y_h.

use serde::Deserialize;

use super::case::{Case, Outcome, Trouble, parse};
use super::replay::Replay;
use super::rnn::expect_plain;
use crate::check::tolerance::Recurrence;
use crate::nn::{Cell, Model, Rnn, State};
use crate::ops::{Activation, permute};

/// The node's attributes. One that is not listed is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    hidden_size: usize,
    #[serde(default)]
    activations: Vec<String>,
    #[serde(default)]
    activation_alpha: Vec<f32>,
    #[serde(default)]
    activation_beta: Vec<f32>,
    #[serde(default)]
    direction: Option<String>,
    #[serde(default)]
    layout: u32,
}

impl Attributes {
    fn from_case(case: &Case) -> Outcome<Self> {
        let text = case.required("attributes")?;
        // First as anything, so that broken text is an error and an unknown attribute is not.
        let _: serde_json::Value = parse("attributes", text)?;
        let attributes: Self = serde_json::from_str(text)
            .map_err(|error| Trouble::unsupported(format!("attributes = {text}: {error}")))?;
        match attributes.direction.as_deref() {
            None | Some("forward") => {}
            Some(other) => return Err(Trouble::unsupported(format!("direction = {other} is not built yet"))),
        }
        match attributes.layout {
            0 | 1 => Ok(attributes),
            other => Err(Trouble::malformed(format!("layout = {other} must be 0 or 1"))),
        }
    }

    /// The one activation of a forward RNN, with its constants or ONNX's defaults.
    fn activation(&self) -> Outcome<Activation> {
        let constant = |list: &[f32], default| list.first().copied().unwrap_or(default);
        let (alpha, beta) = (&self.activation_alpha, &self.activation_beta);
        if self.activations.len() > 1 {
            return Err(Trouble::malformed(format!(
                "{:?}: a forward RNN has one activation",
                self.activations
            )));
        }
        Ok(match self.activations.first().map_or("tanh", |name| name.as_str()).to_lowercase().as_str() {
            "tanh" => Activation::Tanh,
            "relu" => Activation::Relu,
            "sigmoid" => Activation::Sigmoid,
            "softsign" => Activation::Softsign,
            "softplus" => Activation::Softplus,
            "leakyrelu" => Activation::LeakyRelu { slope: constant(alpha, 0.01) },
            "elu" => Activation::Elu { alpha: constant(alpha, 1.0) },
            "hardsigmoid" => {
                Activation::HardSigmoid { alpha: constant(alpha, 0.2), beta: constant(beta, 0.5) }
            }
            other => return Err(Trouble::unsupported(format!("the activation {other} is not built yet"))),
        })
    }
}

pub(super) fn run(replay: &mut Replay<'_>) -> Outcome {
    let (case, device) = (replay.case, replay.device);
    if case.required("op")? != "RNN" {
        return Err(Trouble::unsupported(format!("the node {} is not built yet", case.required("op")?)));
    }
    expect_plain(case)?;
    for (key, value) in [("kind", "rnn"), ("layers", "1"), ("truncation", ""), ("linear_before_reset", "0")] {
        case.expect(key, value)?;
    }
    let attributes = Attributes::from_case(case)?;
    // These repeat what the node's attributes say.
    for key in ["bias", "layout", "onnx_layout", "nonlinearity"] {
        case.text(key);
    }
    let batch_major = attributes.layout == 1;
    let x = case.tensor("X", device)?;
    let x = if batch_major { permute(&x, &[1, 0, 2])? } else { x };
    let [steps, batch, inputs] = x.shape().exactly("X", "three dimensions")?;
    let hidden = attributes.hidden_size;

    let description = Rnn::new(Cell::Vanilla(attributes.activation()?), inputs, hidden);
    let mut model = Model::new(0);
    let layer = model.add("rnn", if case.has("B") { description } else { description.without_bias() })?;
    let mut parameters = model.initialize(device)?;
    parameters.set("rnn.weight_ih_l0", case.floats::<3>("W")?.1)?;
    parameters.set("rnn.weight_hh_l0", case.floats::<3>("R")?.1)?;
    if case.has("B") {
        // [1, 2H]: the bias of the input, then that of the recurrence.
        let both = case.floats::<2>("B")?.1;
        parameters.set("rnn.bias_ih_l0", &both[..hidden.min(both.len())])?;
        parameters.set("rnn.bias_hh_l0", &both[hidden.min(both.len())..])?;
    }
    let state = match case.has("initial_h") {
        true => {
            let initial = case.tensor("initial_h", device)?;
            State::from_hidden(if batch_major { permute(&initial, &[1, 0, 2])? } else { initial })
        }
        false => layer.zero_state(device, batch)?,
    };
    let (y, last) = layer.infer(&parameters, &x, &state)?;

    let roundings = Recurrence { steps, batch, layers: 1, terms: inputs + hidden, slope: 1.0 }.forward();
    // [T, D, B, H], or [B, T, D, H]: with one direction only the order of T and B differs.
    let y = if batch_major { permute(&y, &[1, 0, 2])? } else { y };
    let y_shape = if batch_major { [batch, steps, 1, hidden] } else { [steps, 1, batch, hidden] };
    let last = if batch_major { permute(last.hidden(), &[1, 0, 2])? } else { last.hidden().clone() };
    for output in parse::<Vec<String>>("outputs", case.required("outputs")?)? {
        match output.as_str() {
            "Y" => replay.check("Y", &y.reshape(&y_shape)?, roundings)?,
            "Y_h" => replay.check("Y_h", &last, roundings)?,
            other => return Err(Trouble::unsupported(format!("the output {other} is not known"))),
        }
    }
    Ok(())
}

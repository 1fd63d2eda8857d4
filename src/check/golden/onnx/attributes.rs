//! What an ONNX node says of itself: sizes, directions, activations.

use serde::Deserialize;

use super::super::case::{Case, Outcome, Trouble, parse};
use crate::nn::Cell;
use crate::ops::Activation;

/// The node's attributes. One that is not listed is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attributes {
    pub(super) hidden_size: usize,
    #[serde(default)]
    activations: Vec<String>,
    #[serde(default)]
    activation_alpha: Vec<f32>,
    #[serde(default)]
    activation_beta: Vec<f32>,
    #[serde(default)]
    clip: Option<f32>,
    #[serde(default)]
    direction: Option<String>,
    #[serde(default)]
    input_forget: u32,
    #[serde(default)]
    layout: u32,
    #[serde(default)]
    linear_before_reset: u32,
}

/// Which way a node runs through time; `direction` in ONNX.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    Forward,
    Reverse,
}

/// Which dimension of the node's arrays is outermost; `layout` in ONNX.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layout {
    /// X \[T, B, I\], Y \[T, D, B, H\], states \[D, B, H\].
    TimeMajor,
    /// X \[B, T, I\], Y \[B, T, D, H\], states \[B, D, H\].
    BatchMajor,
}

impl Attributes {
    pub(super) fn from_case(case: &Case) -> Outcome<Self> {
        let text = case.required("attributes")?;
        // First as anything, so that broken text is an error and an unknown attribute is not.
        let _: serde_json::Value = parse("attributes", text)?;
        let attributes: Self = serde_json::from_str(text)
            .map_err(|error| Trouble::unsupported(format!("attributes = {text}: {error}")))?;
        if let Some(clip) = attributes.clip {
            return Err(Trouble::unsupported(format!("clip = {clip}: gates are not clipped here")));
        }
        if attributes.input_forget != 0 {
            return Err(Trouble::unsupported("input_forget couples two gates, which no cell here does"));
        }
        Ok(attributes)
    }

    pub(super) fn layout(&self) -> Outcome<Layout> {
        match self.layout {
            0 => Ok(Layout::TimeMajor),
            1 => Ok(Layout::BatchMajor),
            other => Err(Trouble::malformed(format!("layout = {other} must be 0 or 1"))),
        }
    }

    /// The node's directions, in the order of its arrays.
    pub(super) fn ways(&self) -> Outcome<&'static [Way]> {
        match self.direction.as_deref() {
            None | Some("forward") => Ok(&[Way::Forward]),
            Some("reverse") => Ok(&[Way::Reverse]),
            Some("bidirectional") => Ok(&[Way::Forward, Way::Reverse]),
            Some(other) => Err(Trouble::malformed(format!("direction = {other} is none of ONNX's"))),
        }
    }

    /// The cell of each direction of the node `op`.
    pub(super) fn cells(&self, op: &str) -> Outcome<Vec<Cell>> {
        let usual: &[Activation] = match op {
            "RNN" => &[Activation::Tanh],
            "GRU" => &[Activation::Sigmoid, Activation::Tanh],
            "LSTM" => &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
            other => return Err(Trouble::unsupported(format!("the node {other} is not built yet"))),
        };
        if op == "GRU" && self.linear_before_reset == 0 {
            let message = "linear_before_reset = 0: the GRU here resets after the product, not before it";
            return Err(Trouble::unsupported(message));
        }
        let activations = self.activations(usual.len(), usual)?;
        let cell = |own: &[Activation]| match (op, own) {
            ("RNN", &[activation]) => Ok(Cell::Vanilla(activation)),
            _ if own == usual => Ok(if op == "GRU" { Cell::Gru } else { Cell::Lstm }),
            _ => {
                let names = &self.activations;
                Err(Trouble::unsupported(format!("activations = {names:?}: a gated cell has its own")))
            }
        };
        activations.chunks(usual.len()).map(cell).collect()
    }

    /// `count` activations of each direction, `usual` where the node names none.
    fn activations(&self, count: usize, usual: &[Activation]) -> Outcome<Vec<Activation>> {
        let directions = self.ways()?.len();
        let names = &self.activations;
        if !names.is_empty() && names.len() != count * directions {
            let expected = count * directions;
            return Err(Trouble::malformed(format!("activations = {names:?} must be {expected}")));
        }
        let mut alphas = self.activation_alpha.iter().copied();
        let mut betas = self.activation_beta.iter().copied();
        let all = match names.is_empty() {
            true => usual.repeat(directions),
            false => {
                let named = names.iter().map(|name| activation(name, &mut alphas, &mut betas));
                named.collect::<Outcome<_>>()?
            }
        };
        match alphas.chain(betas).next() {
            None => Ok(all),
            Some(left) => {
                let message = format!("activation_alpha or _beta: no activation is left to take {left}");
                Err(Trouble::unsupported(message))
            }
        }
    }
}

/// The activation that ONNX calls `name`. One that has constants takes the next of each, or ONNX's defaults.
fn activation(
    name: &str,
    alphas: &mut impl Iterator<Item = f32>,
    betas: &mut impl Iterator<Item = f32>,
) -> Outcome<Activation> {
    Ok(match name.to_lowercase().as_str() {
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "sigmoid" => Activation::Sigmoid,
        "softsign" => Activation::Softsign,
        "softplus" => Activation::Softplus,
        "leakyrelu" => Activation::LeakyRelu { slope: alphas.next().unwrap_or(0.01) },
        "elu" => Activation::Elu { alpha: alphas.next().unwrap_or(1.0) },
        "hardsigmoid" => {
            Activation::HardSigmoid { alpha: alphas.next().unwrap_or(0.2), beta: betas.next().unwrap_or(0.5) }
        }
        _ => return Err(Trouble::unsupported(format!("the activation {name} is not built yet"))),
    })
}

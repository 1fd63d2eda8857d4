//! The operator and the attributes of a recurrent node, including its activations.

use serde::Deserialize;

use crate::ops::Activation;
use crate::{Error, Result};

/// The operator of a recurrent node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Rnn,
    Gru,
    Lstm,
}

impl Operator {
    /// The operator with this ONNX name.
    pub(super) fn new(name: &str) -> Result<Self> {
        match name {
            "RNN" => Ok(Self::Rnn),
            "GRU" => Ok(Self::Gru),
            "LSTM" => Ok(Self::Lstm),
            other => {
                let message = format!("`{other}` is not a recurrent operator of ONNX (RNN, GRU or LSTM)");
                Err(Error::Unsupported { what: "ONNX operator".to_owned(), message })
            }
        }
    }

    /// The number of gates.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// ONNX's default activations of one direction.
    pub(super) fn functions(self) -> &'static [Activation] {
        match self {
            Self::Rnn => &[Activation::Tanh],
            Self::Gru => &[Activation::Sigmoid, Activation::Tanh],
            Self::Lstm => &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
        }
    }
}

/// The direction in which a node processes the sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnnxDirection {
    /// From the first step to the last.
    #[default]
    Forward,
    /// From the last step to the first.
    Reverse,
    /// Both directions, forward first.
    Bidirectional,
}

impl OnnxDirection {
    /// The number of directions.
    pub fn count(self) -> usize {
        if self == Self::Bidirectional { 2 } else { 1 }
    }
}

/// The attributes of an ONNX node RNN, GRU or LSTM, by their ONNX names. Absent attributes have ONNX's defaults.
///
/// Deserializes from a JSON object of attributes and rejects unknown ones. Switches are integers 0 and 1, as in ONNX.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnnxAttributes {
    /// H; required.
    pub hidden_size: usize,
    /// The names of the activations, direction by direction; empty: the defaults.
    pub activations: Vec<String>,
    /// α of those activations that have it, in order.
    pub activation_alpha: Vec<f32>,
    /// β of those activations that have it, in order.
    pub activation_beta: Vec<f32>,
    /// The bound of the gates' pre-activations; `None`: no clipping.
    pub clip: Option<f32>,
    /// The direction.
    pub direction: OnnxDirection,
    /// 1: the forget gate of an LSTM is one minus its input gate.
    pub input_forget: i64,
    /// 0: X is \[T, B, I\]; 1: X is \[B, T, I\].
    pub layout: i64,
    /// GRU: 1 to apply the reset gate after the product, 0 before it.
    pub linear_before_reset: i64,
}

impl OnnxAttributes {
    /// The names of all attributes.
    pub const NAMES: [&str; 9] = [
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "hidden_size",
        "input_forget",
        "layout",
        "linear_before_reset",
    ];

    /// Parses the JSON object `text`.
    ///
    /// # Errors
    /// [`Error::Config`] for text that is not such an object, or for an unknown attribute.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::config("ONNX attributes", error.to_string()))
    }

    /// Parses the switch `value` of the attribute `name`.
    pub(super) fn switch(name: &str, value: i64) -> Result<bool> {
        match value {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::config(name, format!("must be 0 or 1, not {other}"))),
        }
    }

    /// The activations of all directions, direction by direction; `usual` for each direction if the node names none.
    pub(super) fn functions(&self, usual: &[Activation]) -> Result<Vec<Activation>> {
        let (directions, names) = (self.direction.count(), &self.activations);
        let expected = usual.len() * directions;
        if !names.is_empty() && names.len() != expected {
            let message =
                format!("must name {expected} functions, {} per direction, not {names:?}", usual.len());
            return Err(Error::config("activations", message));
        }
        let mut constants =
            Constants { alphas: self.activation_alpha.iter(), betas: self.activation_beta.iter() };
        let functions = match names.is_empty() {
            true => usual.repeat(directions),
            false => names.iter().map(|name| constants.function(name)).collect::<Result<_>>()?,
        };
        let Constants { alphas, betas } = constants;
        for (attribute, mut left) in [("activation_alpha", alphas), ("activation_beta", betas)] {
            if let Some(value) = left.next() {
                let message = format!("has more values than the activations use: {value} is left over");
                return Err(Error::config(attribute, message));
            }
        }
        Ok(functions)
    }
}

/// The values of α and β that no function has consumed yet.
struct Constants<'a> {
    alphas: std::slice::Iter<'a, f32>,
    betas: std::slice::Iter<'a, f32>,
}

impl Constants<'_> {
    fn alpha(&mut self, default: f32) -> f32 {
        self.alphas.next().copied().unwrap_or(default)
    }

    fn beta(&mut self, default: f32) -> f32 {
        self.betas.next().copied().unwrap_or(default)
    }

    /// α and β of a function without defaults in ONNX.
    fn required(&mut self, name: &str) -> Result<(f32, f32)> {
        match (self.alphas.next(), self.betas.next()) {
            (Some(&alpha), Some(&beta)) => Ok((alpha, beta)),
            _ => {
                let message =
                    format!("{name} has no defaults: it needs activation_alpha and activation_beta");
                Err(Error::config("activations", message))
            }
        }
    }

    /// The activation with the ONNX name `name`, ignoring case. A function with constants consumes the next α or β, or uses
    /// the defaults of the ONNX operator of that name.
    fn function(&mut self, name: &str) -> Result<Activation> {
        Ok(match name.to_lowercase().as_str() {
            "tanh" => Activation::Tanh,
            "relu" => Activation::Relu,
            "sigmoid" => Activation::Sigmoid,
            "softsign" => Activation::Softsign,
            "softplus" => Activation::Softplus,
            "leakyrelu" => Activation::LeakyRelu { slope: self.alpha(0.01) },
            "thresholdedrelu" => Activation::ThresholdedRelu { alpha: self.alpha(1.0) },
            "elu" => Activation::Elu { alpha: self.alpha(1.0) },
            "hardsigmoid" => Activation::HardSigmoid { alpha: self.alpha(0.2), beta: self.beta(0.5) },
            "affine" => {
                let (alpha, beta) = self.required(name)?;
                Activation::Affine { alpha, beta }
            }
            "scaledtanh" => {
                let (alpha, beta) = self.required(name)?;
                Activation::ScaledTanh { alpha, beta }
            }
            _ => {
                let message = format!(
                    "`{name}` is not one of ONNX's activations: Tanh, Relu, Sigmoid, Affine, LeakyRelu, ThresholdedRelu, \
                     ScaledTanh, HardSigmoid, Elu, Softsign, Softplus"
                );
                return Err(Error::config("activations", message));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str], alphas: &[f32], betas: &[f32]) -> OnnxAttributes {
        OnnxAttributes {
            hidden_size: 2,
            activations: names.iter().map(|&name| name.to_owned()).collect(),
            activation_alpha: alphas.to_vec(),
            activation_beta: betas.to_vec(),
            ..OnnxAttributes::default()
        }
    }

    #[test]
    fn constants_go_to_the_functions_that_take_them_in_order() {
        let usual = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh];
        let node = named(&["HardSigmoid", "Tanh", "ScaledTanh"], &[0.3, 1.5], &[0.4, 0.7]);
        let expected = [
            Activation::HardSigmoid { alpha: 0.3, beta: 0.4 },
            Activation::Tanh,
            Activation::ScaledTanh { alpha: 1.5, beta: 0.7 },
        ];
        assert_eq!(node.functions(&usual).unwrap(), expected);
        let node = named(&["leakyrelu", "elu", "ThresholdedRelu"], &[0.2], &[]);
        let expected = [
            Activation::LeakyRelu { slope: 0.2 },
            Activation::Elu { alpha: 1.0 },
            Activation::ThresholdedRelu { alpha: 1.0 },
        ];
        assert_eq!(node.functions(&usual).unwrap(), expected);
        assert_eq!(named(&[], &[], &[]).functions(&usual).unwrap(), usual);
    }

    #[test]
    fn functions_and_constants_that_do_not_fit_are_refused() {
        let usual = [Activation::Tanh];
        for (node, part) in [
            (named(&["Tanh", "Tanh"], &[], &[]), "1 functions"),
            (named(&["Swish"], &[], &[]), "Swish"),
            (named(&["Affine"], &[0.5], &[]), "activation_beta"),
            (named(&["Tanh"], &[0.5], &[]), "0.5"),
            (named(&["Elu"], &[0.5], &[0.25]), "0.25"),
        ] {
            let message = node.functions(&usual).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn unknown_attributes_are_refused() {
        assert!(OnnxAttributes::from_json(r#"{"hidden_size": 3, "output_sequence": 1}"#).is_err());
        assert!(OnnxAttributes::from_json(r#"{"hidden_size": 3, "direction": "sideways"}"#).is_err());
        let read = OnnxAttributes::from_json(r#"{"hidden_size": 3, "direction": "bidirectional"}"#).unwrap();
        assert_eq!((read.hidden_size, read.direction), (3, OnnxDirection::Bidirectional));
    }
}

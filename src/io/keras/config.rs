//! The configuration of a Keras recurrent layer.

use serde_json::{Map, Value};

use crate::ops::Activation;
use crate::{Error, Result};

/// The class of a Keras recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KerasClass {
    /// `SimpleRNN`.
    SimpleRnn,
    /// `LSTM`.
    Lstm,
    /// `GRU`.
    Gru,
}

impl KerasClass {
    /// The name of the class in Keras.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SimpleRnn => "SimpleRNN",
            Self::Lstm => "LSTM",
            Self::Gru => "GRU",
        }
    }
}

/// The version of Keras that created a layer. Defaults differ between versions, and so does the definition of
/// `hard_sigmoid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KerasVersion {
    /// Keras before 2.3, and `tf.keras` of TensorFlow 1. Defaults: `recurrent_activation="hard_sigmoid"`,
    /// which is min(1, max(0, 0.2 x + 0.5)), and `reset_after=False`.
    V1,
    /// `tf.keras` of TensorFlow 2 up to 2.15, and `tf-keras`. Defaults: `recurrent_activation="sigmoid"`,
    /// `reset_after=True`; `hard_sigmoid` is that of [`KerasVersion::V1`]. Keras 2.3 has these activations, but
    /// `reset_after=False`.
    V2,
    /// Keras 3. As [`KerasVersion::V2`], but `hard_sigmoid` is min(1, max(0, x/6 + 0.5)).
    V3,
}

impl KerasVersion {
    /// The activation with this name in this version.
    fn activation(self, key: &str, name: &str) -> Result<Activation> {
        Ok(match (name, self) {
            ("linear", _) => Activation::Identity,
            ("tanh", _) => Activation::Tanh,
            ("sigmoid", _) => Activation::Sigmoid,
            ("relu", _) => Activation::Relu,
            ("softplus", _) => Activation::Softplus,
            ("softsign", _) => Activation::Softsign,
            ("elu", _) => Activation::Elu { alpha: 1.0 },
            ("selu", _) => Activation::Selu,
            ("hard_sigmoid", Self::V1 | Self::V2) => Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            ("hard_sigmoid", Self::V3) => Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
            ("leaky_relu", Self::V3) => Activation::LeakyRelu { slope: 0.2 },
            (other, _) => {
                let message = format!(
                    "`{other}` is not one of this version's linear, tanh, sigmoid, hard_sigmoid, relu, elu, selu, \
                     softplus, softsign and, in Keras 3, leaky_relu; pass any other function as an argument"
                );
                return Err(Error::Unsupported { what: format!("Keras {key}"), message });
            }
        })
    }
}

/// The configuration of a Keras recurrent layer: its class, activations and form. Parsed from the layer's `get_config()` or
/// built with the methods below.
///
/// ```
/// use refrain::io::{KerasClass, KerasConfig, KerasVersion};
/// use refrain::ops::Activation;
/// // json.dumps(layer.get_config()) of a Keras 3 layer.
/// let json = r#"{"units": 8, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": true}"#;
/// let read = KerasConfig::from_json(KerasClass::Lstm, json, KerasVersion::V3)?;
/// // The same without the JSON.
/// let hard = Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
/// let made = KerasConfig::new(KerasClass::Lstm, KerasVersion::V3).recurrent_activation(hard);
/// assert_eq!(read.activations(), made.activations());
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KerasConfig {
    pub(super) class: KerasClass,
    pub(super) activation: Activation,
    /// `None` for a `SimpleRNN`.
    pub(super) recurrent_activation: Option<Activation>,
    /// Only for a `GRU`.
    pub(super) reset_after: bool,
    pub(super) go_backwards: bool,
    /// H and whether there is a bias, if the configuration contains them; the weights must agree.
    pub(super) units: Option<usize>,
    pub(super) use_bias: Option<bool>,
    pub(super) dropout: f32,
    pub(super) recurrent_dropout: f32,
}

impl KerasConfig {
    /// A layer with the defaults of this version of Keras.
    pub fn new(class: KerasClass, version: KerasVersion) -> Self {
        let gates = match version {
            KerasVersion::V1 => Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            KerasVersion::V2 | KerasVersion::V3 => Activation::Sigmoid,
        };
        Self {
            class,
            activation: Activation::Tanh,
            recurrent_activation: (class != KerasClass::SimpleRnn).then_some(gates),
            reset_after: version != KerasVersion::V1,
            go_backwards: false,
            units: None,
            use_bias: None,
            dropout: 0.0,
            recurrent_dropout: 0.0,
        }
    }

    /// Parses the JSON object `text`, a layer's `get_config()`. Absent keys have the defaults of this version of Keras.
    ///
    /// `units` and `use_bias` must agree with the weights. `dropout` and `recurrent_dropout` become
    /// [`input_dropout`](crate::nn::Rnn::input_dropout) and [`recurrent_dropout`](crate::nn::Rnn::recurrent_dropout), with
    /// masks shared by all gates. These keys do not affect what a loaded layer computes and may have any value:
    ///
    /// - names and types: `name`, `trainable`, `dtype`, `batch_shape`, `batch_input_shape`, `batch_size`, `input_shape`,
    ///   `input_dim`, `input_length`, `ragged`, `sparse`;
    /// - how Keras runs the layer: `return_sequences`, `return_state`, `stateful`, `unroll`, `time_major` (this crate's
    ///   data is always time-major), `implementation`, `zero_output_for_mask`, `use_cudnn`, `seed`;
    /// - how Keras trains it: all initializers, regularizers and constraints, `unit_forget_bias`.
    ///
    /// # Errors
    /// [`Error::Config`] for text that is not a JSON object, a value of the wrong type, or a key that this class does
    /// not have; [`Error::Unsupported`] for an activation that this crate does not implement.
    pub fn from_json(class: KerasClass, text: &str, version: KerasVersion) -> Result<Self> {
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| Error::config("Keras config", error.to_string()))?;
        let mut config = Self::new(class, version);
        for (key, value) in &object {
            config.set(key, value, version)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &Value, version: KerasVersion) -> Result<()> {
        let (is_gated, is_gru) = (self.class != KerasClass::SimpleRnn, self.class == KerasClass::Gru);
        match key {
            "units" => {
                let units = value.as_u64().and_then(|units| usize::try_from(units).ok());
                self.units = Some(units.ok_or_else(|| unexpected(key, "a whole number", value))?);
            }
            "activation" => self.activation = activation(key, value, version)?,
            "recurrent_activation" if is_gated => {
                self.recurrent_activation = Some(activation(key, value, version)?);
            }
            "use_bias" => self.use_bias = Some(switch(key, value)?),
            "reset_after" if is_gru => self.reset_after = switch(key, value)?,
            "go_backwards" => self.go_backwards = switch(key, value)?,
            "dropout" => self.dropout = rate(key, value)?,
            "recurrent_dropout" => self.recurrent_dropout = rate(key, value)?,
            "unit_forget_bias" if self.class == KerasClass::Lstm => {}
            "name"
            | "trainable"
            | "dtype"
            | "batch_shape"
            | "batch_input_shape"
            | "batch_size"
            | "input_shape"
            | "input_dim"
            | "input_length"
            | "ragged"
            | "sparse"
            | "return_sequences"
            | "return_state"
            | "stateful"
            | "unroll"
            | "time_major"
            | "implementation"
            | "zero_output_for_mask"
            | "use_cudnn"
            | "seed"
            | "kernel_initializer"
            | "recurrent_initializer"
            | "bias_initializer"
            | "kernel_regularizer"
            | "recurrent_regularizer"
            | "bias_regularizer"
            | "activity_regularizer"
            | "kernel_constraint"
            | "recurrent_constraint"
            | "bias_constraint" => {}
            _ => {
                let shown: String = key.chars().take(40).collect();
                let message = format!("`{shown}` is not a known key of a {}", self.class.name());
                return Err(Error::config("Keras config", message));
            }
        }
        Ok(())
    }

    /// Sets `activation`, the function of the candidate; in an LSTM also the function applied to the cell state in h.
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Sets `recurrent_activation`, the function of the gates. A `SimpleRNN` has no gates, so
    /// [`KerasLayer`](super::KerasLayer) refuses it.
    pub fn recurrent_activation(self, activation: Activation) -> Self {
        Self { recurrent_activation: Some(activation), ..self }
    }

    /// Sets `reset_after=True` of a `GRU`: the reset gate is applied after the product, and there are two biases.
    pub fn reset_after(self) -> Self {
        Self { reset_after: true, ..self }
    }

    /// Sets `reset_after=False` of a `GRU`: the original form of Cho et al. 2014.
    pub fn reset_before(self) -> Self {
        Self { reset_after: false, ..self }
    }

    /// Sets `go_backwards=True`.
    pub fn go_backwards(self) -> Self {
        Self { go_backwards: true, ..self }
    }

    /// Returns `activation` and, for an LSTM or GRU, `recurrent_activation`.
    pub fn activations(&self) -> (Activation, Option<Activation>) {
        (self.activation, self.recurrent_activation)
    }
}

fn unexpected(key: &str, expected: &str, value: &Value) -> Error {
    let shown: String = value.to_string().chars().take(60).collect();
    Error::config(format!("Keras {key}"), format!("must be {expected}, not {shown}"))
}

fn switch(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| unexpected(key, "true or false", value))
}

fn rate(key: &str, value: &Value) -> Result<f32> {
    let rate = value.as_f64().filter(|rate| (0.0..1.0).contains(rate));
    Ok(rate.ok_or_else(|| unexpected(key, "a number from 0 to below 1", value))? as f32)
}

/// Keras serializes its own functions by name, an absent function as null, and a user's function as an object.
fn activation(key: &str, value: &Value, version: KerasVersion) -> Result<Activation> {
    match value {
        Value::Null => Ok(Activation::Identity),
        Value::String(name) => version.activation(key, &name.chars().take(60).collect::<String>()),
        other => Err(unexpected(key, "the name of a function", other)),
    }
}

//! Keras' recurrent layers `SimpleRNN`, `LSTM` and `GRU`: converts the arrays of `get_weights()` to layers with weights.
//!
//! Keras stores its kernels transposed, \[inputs, gates\], with the gates in the order i, f, c, o for an LSTM and z, r,
//! h for a GRU. Every layer has one bias, except a `GRU` with `reset_after=True`, the default, which has two.

mod config;

pub use config::{KerasClass, KerasConfig, KerasVersion};

use super::section::{HostArray, Named, reordered, set_layer, transposed};
use crate::nn::{Cell, Parameters, Rnn};
use crate::ops::Activation;
use crate::shape::product;
use crate::{Error, Result};

impl KerasConfig {
    /// For each gate in this crate's order, its index in Keras' order.
    fn gate_order(&self) -> &'static [usize] {
        match self.class {
            KerasClass::SimpleRnn => &[0],
            // Both use i, f, g (called c in Keras), o.
            KerasClass::Lstm => &[0, 1, 2, 3],
            // r, z, n from z, r, h.
            KerasClass::Gru => &[1, 0, 2],
        }
    }

    /// The number of biases per gate.
    fn biases(&self) -> usize {
        if self.class == KerasClass::Gru && self.reset_after { 2 } else { 1 }
    }

    /// The forward layer with weights of these sizes.
    fn describe(&self, inputs: usize, hidden: usize, has_bias: bool) -> Result<Rnn> {
        let cell = match self.class {
            KerasClass::SimpleRnn => Cell::Vanilla(self.activation),
            KerasClass::Lstm => Cell::Lstm,
            KerasClass::Gru => Cell::Gru,
        };
        let mut description = Rnn::new(cell, inputs, hidden);
        match (self.class, self.recurrent_activation) {
            (KerasClass::SimpleRnn, Some(_)) => {
                return Err(Error::config("recurrent_activation", "a SimpleRNN has no gates to apply it to"));
            }
            (KerasClass::Lstm | KerasClass::Gru, Some(gates))
                if (gates, self.activation) != (Activation::Sigmoid, Activation::Tanh) =>
            {
                description = description.gate_activations(gates, self.activation, self.activation);
            }
            _ => {}
        }
        if self.class == KerasClass::Gru && !self.reset_after {
            description = description.reset_before();
        }
        if !has_bias {
            description = description.without_bias();
        }
        Ok(description.input_dropout(self.dropout).recurrent_dropout(self.recurrent_dropout))
    }
}

/// The arrays of one direction: `kernel` \[I, G·H\], `recurrent_kernel` \[H, G·H\] and, unless `use_bias=False`, `bias`
/// \[G·H\], or \[2, G·H\] for a `GRU` with `reset_after=True`.
#[derive(Clone, Copy, Debug)]
pub struct KerasWeights<'a> {
    kernel: HostArray<'a>,
    recurrent_kernel: HostArray<'a>,
    bias: Option<HostArray<'a>>,
}

impl<'a> KerasWeights<'a> {
    /// The kernels without a bias, as with `use_bias=False`.
    pub fn new(kernel: HostArray<'a>, recurrent_kernel: HostArray<'a>) -> Self {
        Self { kernel, recurrent_kernel, bias: None }
    }

    /// Adds the layer's `bias`.
    pub fn bias(self, bias: HostArray<'a>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Checks the kernels' shapes and returns I and H.
    fn sizes(&self, config: &KerasConfig) -> Result<(usize, usize)> {
        let gates = config.gate_order().len();
        let wanted = format!("[inputs, {gates} x units]");
        let [inputs, _] = self.kernel.sizes("kernel", &wanted)?;
        let [hidden, _] = self.recurrent_kernel.sizes("recurrent_kernel", "[units, units of all gates]")?;
        let columns = product("recurrent_kernel", &[gates, hidden])?;
        self.recurrent_kernel.expect("recurrent_kernel", &[hidden, columns])?;
        self.kernel.expect("kernel", &[inputs, columns])?;
        if let Some(bias) = self.bias {
            let (one, both) = ([columns], [2, columns]);
            bias.expect("bias", if config.biases() == 2 { &both } else { &one })?;
        }
        if let Some(units) = config.units.filter(|&units| units != hidden) {
            let found = format!("kernels of {hidden} units");
            return Err(Error::shape("units", format!("{units}, as in the configuration"), found));
        }
        if let Some(use_bias) = config.use_bias.filter(|&use_bias| use_bias != self.bias.is_some()) {
            let given = if use_bias { "no bias was passed" } else { "a bias was passed" };
            return Err(Error::config(
                "bias",
                format!("the configuration has use_bias={use_bias}, but {given}"),
            ));
        }
        Ok((inputs, hidden))
    }

    /// The parameters of one direction, whose names end in `suffix`. The sizes must have been checked.
    fn parameters(&self, config: &KerasConfig, hidden: usize, suffix: &str) -> Vec<Named> {
        let order = config.gate_order();
        let rows = order.len() * hidden;
        let matrix = |stem: &str, array: HostArray<'a>| {
            let inputs = array.shape()[0];
            let by_rows = transposed(array.values(), inputs, rows);
            Named::new(format!("{stem}_l0{suffix}"), &[rows, inputs], reordered(&by_rows, order.len(), order))
        };
        let mut parameters =
            vec![matrix("weight_ih", self.kernel), matrix("weight_hh", self.recurrent_kernel)];
        if let Some(bias) = self.bias {
            let (input, recurrent) = bias.values().split_at(rows);
            let ordered = |values: &[f32]| reordered(values, order.len(), order);
            // A single bias becomes the input bias; the recurrent bias is zero.
            let recurrent = if recurrent.is_empty() { vec![0.0; rows] } else { ordered(recurrent) };
            parameters.push(Named::new(format!("bias_ih_l0{suffix}"), &[rows], ordered(input)));
            parameters.push(Named::new(format!("bias_hh_l0{suffix}"), &[rows], recurrent));
        }
        parameters
    }
}

/// A Keras recurrent layer with its weights, in one direction or wrapped in `Bidirectional`.
///
/// ```
/// use refrain::io::{HostArray, KerasClass, KerasConfig, KerasLayer, KerasVersion, KerasWeights};
/// use refrain::nn::Model;
/// use refrain::Device;
///
/// let kernel = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 3 inputs, 2 units
/// let recurrent = [0.1, 0.2, 0.3, 0.4];
/// let weights = KerasWeights::new(HostArray::new(&[3, 2], &kernel), HostArray::new(&[2, 2], &recurrent));
/// let config = KerasConfig::new(KerasClass::SimpleRnn, KerasVersion::V3);
/// let layer = KerasLayer::new(&config, &weights)?;
///
/// let mut model = Model::new(0);
/// model.add("rnn", layer.description().clone())?;
/// let mut parameters = model.initialize(&Device::cpu())?;
/// layer.load("rnn", &mut parameters)?;
/// assert_eq!(parameters.view("rnn.weight_ih_l0")?.download()?, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KerasLayer {
    description: Rnn,
    parameters: Vec<Named>,
}

impl KerasLayer {
    /// A layer in one direction.
    ///
    /// With `go_backwards=True` it runs from the last step to the first, as [`Rnn::reverse`]. Here the output of step t
    /// is at index t; Keras returns the outputs in the order of their computation, the last step's first. So Keras'
    /// sequence is this one reversed over time; the final state and, with `return_sequences=False`, the output are the
    /// same.
    ///
    /// # Errors
    /// [`Error::Shape`] for an array whose shape is not that of the class; [`Error::Config`] for weights that disagree
    /// with the configuration.
    pub fn new(config: &KerasConfig, weights: &KerasWeights<'_>) -> Result<Self> {
        let (inputs, hidden) = weights.sizes(config)?;
        let description = config.describe(inputs, hidden, weights.bias.is_some())?;
        let (description, suffix) =
            if config.go_backwards { (description.reverse(), "_reverse") } else { (description, "") };
        Ok(Self { description, parameters: weights.parameters(config, hidden, suffix) })
    }

    /// A bidirectional layer with concatenated outputs: `Bidirectional` with its default `merge_mode`. `config` is that
    /// of the wrapped layer, `layer.forward_layer.get_config()`; the backward layer's differs only in `go_backwards`.
    ///
    /// # Errors
    /// As [`KerasLayer::new`], for each direction; [`Error::Config`] if only one direction has a bias, or for a `config`
    /// with `go_backwards=True`.
    pub fn bidirectional(
        config: &KerasConfig,
        forward: &KerasWeights<'_>,
        backward: &KerasWeights<'_>,
    ) -> Result<Self> {
        let (sizes, other) = (forward.sizes(config)?, backward.sizes(config)?);
        if sizes != other {
            let of = |(inputs, hidden): (usize, usize)| format!("{inputs} inputs and {hidden} units");
            return Err(Error::shape("the backward layer's kernels", of(sizes), of(other)));
        }
        if forward.bias.is_some() != backward.bias.is_some() {
            return Err(Error::config("bias", "one direction has a bias and the other has none"));
        }
        if config.go_backwards {
            let message =
                "Bidirectional reverses its second layer itself: pass the forward layer's configuration";
            return Err(Error::config("go_backwards", message));
        }
        let (inputs, hidden) = sizes;
        let mut parameters = forward.parameters(config, hidden, "");
        parameters.extend(backward.parameters(config, hidden, "_reverse"));
        let description = config.describe(inputs, hidden, forward.bias.is_some())?;
        Ok(Self { description: description.bidirectional(), parameters })
    }

    /// The layer to add to a model.
    pub fn description(&self) -> &Rnn {
        &self.description
    }

    /// Copies the weights to the layer `layer` of a model, which must have this description. On error nothing changes.
    /// **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::Config`] if no layer has this name or its parameters differ; [`Error::Shape`] for a parameter of another
    /// shape.
    pub fn load(&self, layer: &str, parameters: &mut Parameters) -> Result<()> {
        set_layer(parameters, layer, &self.parameters)
    }
}

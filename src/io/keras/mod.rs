//! Keras' recurrent layers: `SimpleRNN`, `LSTM` and `GRU`, from the arrays of `get_weights()` to layers with weights.
//!
//! Keras holds its kernels transposed, inputs first, and its gates side by side: i, f, c, o of an LSTM, z, r, h of a
//! GRU. All have one bias, but a `GRU` with `reset_after=True`, the default, has two.

mod config;

pub use config::{KerasClass, KerasConfig, KerasVersion};

use super::section::{HostArray, Named, reordered, set_layer, transposed};
use crate::nn::{Cell, Parameters, Rnn};
use crate::ops::Activation;
use crate::shape::product;
use crate::{Error, Result};

impl KerasConfig {
    /// For each gate in this crate's order, its place in Keras'.
    fn gate_order(&self) -> &'static [usize] {
        match self.class {
            KerasClass::SimpleRnn => &[0],
            // Both have i, f, g (c there), o.
            KerasClass::Lstm => &[0, 1, 2, 3],
            // r, z, n from z, r, h.
            KerasClass::Gru => &[1, 0, 2],
        }
    }

    /// How many biases there are for each gate.
    fn biases(&self) -> usize {
        if self.class == KerasClass::Gru && self.reset_after { 2 } else { 1 }
    }

    /// The layer with weights of these sizes, in the forward direction.
    fn describe(&self, inputs: usize, hidden: usize, has_bias: bool) -> Result<Rnn> {
        let cell = match self.class {
            KerasClass::SimpleRnn => Cell::Vanilla(self.activation),
            KerasClass::Lstm => Cell::Lstm,
            KerasClass::Gru => Cell::Gru,
        };
        let mut description = Rnn::new(cell, inputs, hidden);
        match (self.class, self.recurrent_activation) {
            (KerasClass::SimpleRnn, Some(_)) => {
                return Err(Error::config(
                    "recurrent_activation",
                    "a SimpleRNN has no gates that could use it",
                ));
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

/// The arrays of one direction: `kernel` \[I, G·H\], `recurrent_kernel` \[H, G·H\], and unless `use_bias=False` `bias`,
/// \[G·H\] or for a `GRU` with `reset_after=True` \[2, G·H\].
#[derive(Clone, Copy, Debug)]
pub struct KerasWeights<'a> {
    kernel: HostArray<'a>,
    recurrent_kernel: HostArray<'a>,
    bias: Option<HostArray<'a>>,
}

impl<'a> KerasWeights<'a> {
    /// Kernels alone, as with `use_bias=False`.
    pub fn new(kernel: HostArray<'a>, recurrent_kernel: HostArray<'a>) -> Self {
        Self { kernel, recurrent_kernel, bias: None }
    }

    /// With the layer's `bias`.
    pub fn bias(self, bias: HostArray<'a>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// I and H, from the kernels' shapes, checked.
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
            return Err(Error::shape("units", format!("{units}, as the configuration says"), found));
        }
        if let Some(use_bias) = config.use_bias.filter(|&use_bias| use_bias != self.bias.is_some()) {
            let given = if use_bias { "none is given" } else { "one is given" };
            return Err(Error::config(
                "bias",
                format!("the configuration says use_bias={use_bias}, and {given}"),
            ));
        }
        Ok((inputs, hidden))
    }

    /// The parameters of one direction, whose names end in `suffix`; sizes are checked.
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
            // One bias is that of the input; the other adds nothing.
            let recurrent = if recurrent.is_empty() { vec![0.0; rows] } else { ordered(recurrent) };
            parameters.push(Named::new(format!("bias_ih_l0{suffix}"), &[rows], ordered(input)));
            parameters.push(Named::new(format!("bias_hh_l0{suffix}"), &[rows], recurrent));
        }
        parameters
    }
}

/// A recurrent layer of Keras with its weights: in one direction, or in both as `Bidirectional` wraps it.
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
    /// With `go_backwards=True` it runs from the last step to the first, as [`Rnn::reverse`]. Its output of a step is in the
    /// place of that step; Keras returns the outputs in the order in which they were computed, the last step's first. So
    /// Keras' sequence is this one reversed over time; the last state, and with `return_sequences=False` the output, are
    /// the same.
    ///
    /// # Errors
    /// [`Error::Shape`] for an array of another shape than the class has; [`Error::Config`] for weights that disagree with
    /// the configuration.
    pub fn new(config: &KerasConfig, weights: &KerasWeights<'_>) -> Result<Self> {
        let (inputs, hidden) = weights.sizes(config)?;
        let description = config.describe(inputs, hidden, weights.bias.is_some())?;
        let (description, suffix) =
            if config.go_backwards { (description.reverse(), "_reverse") } else { (description, "") };
        Ok(Self { description, parameters: weights.parameters(config, hidden, suffix) })
    }

    /// A layer in both directions whose outputs are concatenated: `Bidirectional` with its default `merge_mode`. `config` is
    /// that of the wrapped layer, `layer.forward_layer.get_config()`; the backward layer's differs in `go_backwards` only.
    ///
    /// # Errors
    /// As [`KerasLayer::new`], for each; [`Error::Config`] for a bias in only one of them, and for a `config` with
    /// `go_backwards=True`.
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
            let message = "Bidirectional runs its second layer backwards by itself: give the forward layer's configuration";
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

    /// Puts the weights in the layer `layer` of a model, which has this description. Nothing changes if anything does
    /// not fit. **Waits** for the GPU.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that no layer has, or a layer with other parameters; [`Error::Shape`] for one of
    /// another shape.
    pub fn load(&self, layer: &str, parameters: &mut Parameters) -> Result<()> {
        set_layer(parameters, layer, &self.parameters)
    }
}

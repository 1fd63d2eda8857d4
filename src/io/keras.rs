//! Keras' recurrent layers: `SimpleRNN`, `LSTM` and `GRU`, from the arrays of `get_weights()` to layers with weights.
//!
//! Keras holds its kernels transposed, inputs first, and its gates side by side: i, f, c, o of an LSTM, z, r, h of a
//! GRU. All have one bias, but a `GRU` with `reset_after=True`, the default, has two.

use super::section::{HostArray, Named, reordered, set_layer, transposed};
use crate::nn::{Cell, Parameters, Rnn};
use crate::ops::Activation;
use crate::{Error, Result};

/// A recurrent layer of Keras, by its class and what decides the shapes of its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum KerasCell {
    /// `SimpleRNN` with this activation; Keras' default is tanh.
    SimpleRnn(Activation),
    /// `LSTM`.
    Lstm,
    /// `GRU` with `reset_after=True`, the default.
    Gru,
    /// `GRU` with `reset_after=False`: the older form, of Cho et al. 2014.
    GruResetBefore,
}

impl KerasCell {
    fn cell(self) -> Cell {
        match self {
            Self::SimpleRnn(activation) => Cell::Vanilla(activation),
            Self::Lstm => Cell::Lstm,
            Self::Gru | Self::GruResetBefore => Cell::Gru,
        }
    }

    /// For each gate in this crate's order, its place in Keras'.
    fn gate_order(self) -> &'static [usize] {
        match self {
            Self::SimpleRnn(_) => &[0],
            // Both have i, f, g (c there), o.
            Self::Lstm => &[0, 1, 2, 3],
            // r, z, n from z, r, h.
            Self::Gru | Self::GruResetBefore => &[1, 0, 2],
        }
    }

    /// How many biases there are for each gate.
    fn biases(self) -> usize {
        if self == Self::Gru { 2 } else { 1 }
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
    fn sizes(&self, cell: KerasCell) -> Result<(usize, usize)> {
        let gates = cell.gate_order().len();
        let wanted = format!("[inputs, {gates} x units]");
        let [inputs, _] = self.kernel.sizes("kernel", &wanted)?;
        let [hidden, _] = self.recurrent_kernel.sizes("recurrent_kernel", "[units, units of all gates]")?;
        self.recurrent_kernel.expect("recurrent_kernel", &[hidden, gates * hidden])?;
        self.kernel.expect("kernel", &[inputs, gates * hidden])?;
        if let Some(bias) = self.bias {
            let (one, both) = ([gates * hidden], [2, gates * hidden]);
            bias.expect("bias", if cell.biases() == 2 { &both } else { &one })?;
        }
        Ok((inputs, hidden))
    }

    /// The parameters of one direction, whose names end in `suffix`; sizes are checked.
    fn parameters(&self, cell: KerasCell, hidden: usize, suffix: &str) -> Vec<Named> {
        let order = cell.gate_order();
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
/// use refrain::io::{HostArray, KerasCell, KerasLayer, KerasWeights};
/// use refrain::nn::Model;
/// use refrain::ops::Activation;
/// use refrain::Device;
///
/// let kernel = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 3 inputs, 2 units
/// let recurrent = [0.1, 0.2, 0.3, 0.4];
/// let weights = KerasWeights::new(HostArray::new(&[3, 2], &kernel), HostArray::new(&[2, 2], &recurrent));
/// let layer = KerasLayer::new(KerasCell::SimpleRnn(Activation::Tanh), &weights)?;
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
    /// A layer in one direction, from the first step to the last; with `go_backwards=True` Keras also returns outputs
    /// in the order in which they were made, so such data is reversed outside.
    ///
    /// # Errors
    /// [`Error::Shape`] for an array of another shape than the class has.
    pub fn new(cell: KerasCell, weights: &KerasWeights<'_>) -> Result<Self> {
        let (inputs, hidden) = weights.sizes(cell)?;
        let description = describe(cell, weights, inputs, hidden);
        Ok(Self { description, parameters: weights.parameters(cell, hidden, "") })
    }

    /// A layer in both directions whose outputs are concatenated: `Bidirectional` with its default `merge_mode`.
    ///
    /// # Errors
    /// As [`KerasLayer::new`], for each; [`Error::Config`] for a bias in only one of them.
    pub fn bidirectional(
        cell: KerasCell,
        forward: &KerasWeights<'_>,
        backward: &KerasWeights<'_>,
    ) -> Result<Self> {
        let (sizes, other) = (forward.sizes(cell)?, backward.sizes(cell)?);
        if sizes != other {
            let of = |(inputs, hidden): (usize, usize)| format!("{inputs} inputs and {hidden} units");
            return Err(Error::shape("the backward layer's kernels", of(sizes), of(other)));
        }
        if forward.bias.is_some() != backward.bias.is_some() {
            return Err(Error::config("bias", "one direction has a bias and the other has none"));
        }
        let (inputs, hidden) = sizes;
        let mut parameters = forward.parameters(cell, hidden, "");
        parameters.extend(backward.parameters(cell, hidden, "_reverse"));
        Ok(Self { description: describe(cell, forward, inputs, hidden).bidirectional(), parameters })
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

fn describe(cell: KerasCell, weights: &KerasWeights<'_>, inputs: usize, hidden: usize) -> Rnn {
    let description = Rnn::new(cell.cell(), inputs, hidden);
    let description =
        if cell == KerasCell::GruResetBefore { description.reset_before() } else { description };
    if weights.bias.is_some() { description } else { description.without_bias() }
}

//! The stack of recurrent layers: burn's modules, one a layer, with the peers' common weights.

use burn::module::{Module, Param};
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::{GateController, Linear, LinearConfig, Lstm, LstmConfig, Rnn, RnnConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::shape::{Cell, Shape};
use crate::values::{self, LayerValues};

/// One layer.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a stack has one or two of them")]
pub(crate) enum Layer {
    /// Its own cell.
    Tanh(Rnn),
    /// Its own cell.
    Gru(Gru),
    /// Its own cell.
    Lstm(Lstm),
}

/// Layers, the first first.
#[derive(Module, Debug)]
pub(crate) struct Stack {
    layers: Vec<Layer>,
}

/// A stack with a linear head.
#[derive(Module, Debug)]
pub(crate) struct Classifier {
    stack: Stack,
    head: Linear,
}

impl Stack {
    /// The stack of a shape, with the common weights.
    pub(crate) fn new(shape: &Shape, device: &Device) -> Self {
        let layers = (0..shape.layers).map(|number| layer(shape, number, device)).collect();
        Self { layers }
    }

    /// x `[B, T, I]` to outputs `[B, T, H]`, burn's own layout, from states of zero.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(x, |x, layer| match layer {
            Layer::Tanh(rnn) => rnn.forward(x, None).0,
            Layer::Gru(gru) => gru.forward(x, None),
            Layer::Lstm(lstm) => lstm.forward(x, None).0,
        })
    }
}

impl Classifier {
    /// Stack and head of a shape, with the common weights.
    pub(crate) fn new(shape: &Shape, device: &Device) -> Self {
        let (weight, bias) = values::head(shape);
        let mut head = LinearConfig::new(shape.hidden, shape.classes).init(device);
        head.weight = matrix(&weight, shape.hidden, device);
        head.bias = Some(vector(&bias, device));
        Self { stack: Stack::new(shape, device), head }
    }

    /// x `[B, T, I]` to logits `[B·T, C]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let outputs = self.stack.forward(x);
        let [batch, sequence, hidden] = outputs.dims();
        self.head.forward(outputs.reshape([batch * sequence, hidden]))
    }
}

fn layer(shape: &Shape, number: usize, device: &Device) -> Layer {
    let (inputs, hidden) = (shape.features(number), shape.hidden);
    let values = values::layer(shape, number);
    let fill = |gate: &mut GateController, place: usize| set(gate, &values, place, (inputs, hidden), device);
    match shape.cell {
        Cell::Tanh => {
            let mut rnn = RnnConfig::new(inputs, hidden, true).init(device);
            fill(&mut rnn.gate, 0);
            Layer::Tanh(rnn)
        }
        Cell::Gru => {
            let mut gru = GruConfig::new(inputs, hidden, true).init(device);
            fill(&mut gru.reset_gate, 0);
            fill(&mut gru.update_gate, 1);
            fill(&mut gru.new_gate, 2);
            Layer::Gru(gru)
        }
        Cell::Lstm => {
            let mut lstm = LstmConfig::new(inputs, hidden, true).init(device);
            fill(&mut lstm.input_gate, 0);
            if let Some(forget_gate) = &mut lstm.forget_gate {
                fill(forget_gate, 1);
            }
            fill(&mut lstm.cell_gate, 2);
            fill(&mut lstm.output_gate, 3);
            Layer::Lstm(lstm)
        }
    }
}

/// Gives a gate its block of the layer's numbers.
fn set(
    gate: &mut GateController,
    values: &LayerValues,
    place: usize,
    (inputs, hidden): (usize, usize),
    device: &Device,
) {
    let block = |numbers: &[f32], columns: usize| {
        numbers[place * hidden * columns..(place + 1) * hidden * columns].to_vec()
    };
    gate.input_transform.weight = matrix(&block(&values.weight_ih, inputs), inputs, device);
    gate.input_transform.bias = Some(vector(&block(&values.bias_ih, 1), device));
    gate.hidden_transform.weight = matrix(&block(&values.weight_hh, hidden), hidden, device);
    gate.hidden_transform.bias = Some(vector(&block(&values.bias_hh, 1), device));
}

/// A matrix `[outputs, inputs]`, row by row, as a parameter `[inputs, outputs]`: burn multiplies x by W, not by its transpose.
fn matrix(numbers: &[f32], inputs: usize, device: &Device) -> Param<Tensor<2>> {
    let outputs = numbers.len() / inputs;
    let transposed: Vec<f32> =
        (0..inputs).flat_map(|column| (0..outputs).map(move |row| numbers[row * inputs + column])).collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(transposed, [inputs, outputs]), device))
}

fn vector(numbers: &[f32], device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(numbers.to_vec(), [numbers.len()]), device))
}

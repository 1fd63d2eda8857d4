//! Converts a recurrent node to one or two layers.

use std::ops::Range;

use super::attributes::{OnnxAttributes, OnnxDirection, Operator};
use super::tensors::{ActivationOrder, OnnxTensors};
use crate::io::section::{Named, set_layer};
use crate::nn::{Cell, Parameters, Rnn};
use crate::ops::Activation;
use crate::{Error, Result};

/// The order of the dimensions of a node's X, Y and states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnnxLayout {
    /// X \[T, B, I\], Y \[T, D, B, H\], states \[D, B, H\].
    TimeMajor,
    /// X \[B, T, I\], Y \[B, T, D, H\], states \[B, D, H\].
    BatchMajor,
}

/// A node RNN, GRU or LSTM of an ONNX graph.
///
/// ```
/// use refrain::io::{HostArray, OnnxAttributes, OnnxNode, OnnxTensors};
/// use refrain::nn::Model;
/// use refrain::Device;
///
/// let attributes = OnnxAttributes::from_json(r#"{"hidden_size": 1, "linear_before_reset": 1}"#)?;
/// let node = OnnxNode::new("GRU", attributes)?;
/// let (w, r) = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]); // gate rows z, r, h
/// let tensors = OnnxTensors::new(HostArray::new(&[1, 3, 1], &w), HostArray::new(&[1, 3, 1], &r));
/// let layer = node.layer(&tensors)?;
///
/// let mut model = Model::new(0);
/// model.add("rnn", layer.description().clone())?;
/// let mut parameters = model.initialize(&Device::cpu())?;
/// layer.load("rnn", &mut parameters)?;
/// assert_eq!(parameters.view("rnn.weight_hh_l0")?.download()?, [0.5, 0.4, 0.6]); // gate rows r, z, n
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxNode {
    operator: Operator,
    attributes: OnnxAttributes,
    /// The activations, direction by direction.
    functions: Vec<Activation>,
}

impl OnnxNode {
    /// The node of the operator `RNN`, `GRU` or `LSTM` with these attributes.
    ///
    /// # Errors
    /// [`Error::Config`] for attributes that ONNX does not allow, naming the attribute; [`Error::Unsupported`] for any other
    /// operator.
    pub fn new(operator: &str, attributes: OnnxAttributes) -> Result<Self> {
        let operator = Operator::new(operator)?;
        if attributes.hidden_size == 0 {
            return Err(Error::config("hidden_size", "is required and must be at least 1"));
        }
        OnnxAttributes::switch("layout", attributes.layout)?;
        let coupled = OnnxAttributes::switch("input_forget", attributes.input_forget)?;
        let after = OnnxAttributes::switch("linear_before_reset", attributes.linear_before_reset)?;
        for (attribute, given, owner) in
            [("input_forget", coupled, Operator::Lstm), ("linear_before_reset", after, Operator::Gru)]
        {
            if given && operator != owner {
                let message = format!("is an attribute of {owner:?}, but the node is {operator:?}");
                return Err(Error::config(attribute, message));
            }
        }
        let functions = attributes.functions(operator.functions())?;
        Ok(Self { operator, attributes, functions })
    }

    /// H.
    pub fn hidden(&self) -> usize {
        self.attributes.hidden_size
    }

    /// D, 1 or 2.
    pub fn directions(&self) -> usize {
        self.attributes.direction.count()
    }

    /// The layout of X, Y and the states.
    pub fn layout(&self) -> OnnxLayout {
        if self.attributes.layout == 0 { OnnxLayout::TimeMajor } else { OnnxLayout::BatchMajor }
    }

    /// Returns the node as one layer with the weights of `tensors`.
    ///
    /// # Errors
    /// As [`OnnxNode::layers`]; [`Error::Unsupported`] for two directions with different activations, which need two layers.
    pub fn layer(&self, tensors: &OnnxTensors<'_>) -> Result<OnnxLayer> {
        let mut layers = self.layers(tensors)?;
        match (layers.pop(), layers.is_empty()) {
            (Some(layer), true) => Ok(layer),
            _ => {
                let message =
                    "differ between the directions: use `layers`, which returns one layer per direction"
                        .to_owned();
                Err(Error::Unsupported { what: "activations".to_owned(), message })
            }
        }
    }

    /// Returns the node as layers with the weights of `tensors`: one, or one per direction if the two directions have
    /// different activations. Each layer reads the node's X; Y is the concatenation of their outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor whose shape does not match the node; [`Error::Config`] for P at a node that is not an
    /// LSTM.
    pub fn layers(&self, tensors: &OnnxTensors<'_>) -> Result<Vec<OnnxLayer>> {
        let inputs = tensors.validate(self.operator, self.directions(), self.hidden())?;
        let count = self.operator.functions().len();
        let (first, second) = self.functions.split_at(count);
        let direction = self.attributes.direction;
        if second.is_empty() || first == second {
            let places = 0..self.directions();
            return Ok(vec![self.run(inputs, first, direction, places, tensors)]);
        }
        Ok(vec![
            self.run(inputs, first, OnnxDirection::Forward, 0..1, tensors),
            self.run(inputs, second, OnnxDirection::Reverse, 1..2, tensors),
        ])
    }

    fn run(
        &self,
        inputs: usize,
        functions: &[Activation],
        direction: OnnxDirection,
        places: Range<usize>,
        tensors: &OnnxTensors<'_>,
    ) -> OnnxLayer {
        let description = self.description(inputs, functions, tensors);
        let (description, ways): (Rnn, &[ActivationOrder]) = match direction {
            OnnxDirection::Forward => (description, &[ActivationOrder::Forward]),
            OnnxDirection::Reverse => (description.reverse(), &[ActivationOrder::Reverse]),
            OnnxDirection::Bidirectional => {
                (description.bidirectional(), &[ActivationOrder::Forward, ActivationOrder::Reverse])
            }
        };
        let coupled = self.attributes.input_forget == 1;
        let parameters = places.clone().zip(ways);
        let parameters =
            parameters.flat_map(|(place, &way)| tensors.parameters(self.operator, coupled, place, way));
        OnnxLayer { description, directions: places, parameters: parameters.collect() }
    }

    /// The layer in the forward direction.
    fn description(&self, inputs: usize, functions: &[Activation], tensors: &OnnxTensors<'_>) -> Rnn {
        let cell = match (self.operator, functions) {
            (Operator::Rnn, &[function]) => Cell::Vanilla(function),
            (Operator::Gru, _) => Cell::Gru,
            _ => Cell::Lstm,
        };
        let mut description = Rnn::new(cell, inputs, self.hidden());
        if !tensors.has_bias() {
            description = description.without_bias();
        }
        if self.operator != Operator::Rnn && functions != self.operator.functions() {
            description = match *functions {
                [gates, candidate, output] => description.gate_activations(gates, candidate, output),
                // A GRU applies no function to a cell state.
                [gates, candidate] => description.gate_activations(gates, candidate, candidate),
                _ => description,
            };
        }
        if let Some(clip) = self.attributes.clip {
            description = description.clip_gates(clip);
        }
        if self.attributes.input_forget == 1 {
            description = description.coupled();
        }
        if self.operator == Operator::Gru && self.attributes.linear_before_reset == 0 {
            description = description.reset_before();
        }
        if tensors.has_peepholes() {
            description = description.peepholes();
        }
        description
    }
}

/// A layer of a node: its description, and its weights with PyTorch's names and gate order.
#[derive(Clone, Debug)]
pub struct OnnxLayer {
    description: Rnn,
    directions: Range<usize>,
    parameters: Vec<Named>,
}

impl OnnxLayer {
    /// The layer to add to a model.
    pub fn description(&self) -> &Rnn {
        &self.description
    }

    /// The directions of the node that this layer runs, as indices into the node's tensors.
    pub fn directions(&self) -> Range<usize> {
        self.directions.clone()
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

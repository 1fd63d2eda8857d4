//! ONNX's recurrent operators RNN, GRU and LSTM: from a node's attributes and tensors to layers with weights.
//!
//! [`OnnxNode`] is what a node says of itself; with [`OnnxTensors`], its inputs W, R, B and P, it gives
//! [`OnnxLayer`]s, which describe an [`Rnn`](crate::nn::Rnn) each and load its weights. The equations, the tensors'
//! shapes and the attributes are those of <https://onnx.ai/onnx/operators/onnx__LSTM.html> and its neighbours.

mod attributes;
mod node;
mod tensors;

pub use attributes::{OnnxAttributes, OnnxDirection};
pub use node::{OnnxLayer, OnnxLayout, OnnxNode};
pub use tensors::OnnxTensors;

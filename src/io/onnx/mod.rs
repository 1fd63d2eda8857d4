//! ONNX's recurrent operators RNN, GRU and LSTM: converts a node's attributes and tensors to layers with weights.
//!
//! [`OnnxNode`] holds the attributes of a node. With [`OnnxTensors`], its inputs W, R, B and P, it returns
//! [`OnnxLayer`]s, each of which describes an [`Rnn`](crate::nn::Rnn) and loads its weights. For the equations, the
//! shapes of the tensors and the attributes see <https://onnx.ai/onnx/operators/onnx__LSTM.html> and the pages of RNN
//! and GRU.
//!
//! `sequence_lens` corresponds to the lengths of [`Sequences::ragged`](crate::nn::Sequences::ragged). ONNX does not
//! specify the final state of a row of length 0: ONNX Runtime writes zeros to Y_h and Y_c; here the final state is the
//! initial state, and [`State::reset`](crate::nn::State::reset) sets it to zero.

mod attributes;
mod node;
mod tensors;

pub use attributes::{OnnxAttributes, OnnxDirection};
pub use node::{OnnxLayer, OnnxLayout, OnnxNode};
pub use tensors::OnnxTensors;

//! ONNX's recurrent operators RNN, GRU and LSTM: from a node's attributes and tensors to layers with weights.
//!
//! [`OnnxNode`] is what a node says of itself; with [`OnnxTensors`], its inputs W, R, B and P, it gives
//! [`OnnxLayer`]s, which describe an [`Rnn`](crate::nn::Rnn) each and load its weights. The equations, the tensors'
//! shapes and the attributes are those of <https://onnx.ai/onnx/operators/onnx__LSTM.html> and its neighbours.
//!
//! `sequence_lens` are the lengths of [`Sequences::ragged`](crate::nn::Sequences::ragged). Of a row of length 0, which ONNX says
//! nothing of, ONNX Runtime gives zeros as Y_h and Y_c; here its final state is the initial one, and
//! [`State::reset`](crate::nn::State::reset) makes it zero.

mod attributes;
mod node;
mod tensors;

pub use attributes::{OnnxAttributes, OnnxDirection};
pub use node::{OnnxLayer, OnnxLayout, OnnxNode};
pub use tensors::OnnxTensors;

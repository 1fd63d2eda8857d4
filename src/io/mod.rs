//! Files and other packages' weights: parameters and whole models in safetensors, with PyTorch's parameter names;
//! recurrent weights as ONNX and Keras hold them.

mod checkpoint;
mod file;
mod keras;
mod onnx;
mod section;
mod tuning;
mod weights;

pub use checkpoint::{Checkpoint, Metadata};
pub use file::write_atomically;
pub use keras::{KerasCell, KerasLayer, KerasWeights};
pub use onnx::{OnnxAttributes, OnnxDirection, OnnxLayer, OnnxLayout, OnnxNode, OnnxTensors};
pub use section::HostArray;
pub use tuning::save_tuning;
pub use weights::{load_layer_weights, load_weights, save_layer_weights, save_weights};

//! Files and weights of other packages: parameters and whole models in safetensors with PyTorch's parameter names, and
//! recurrent weights in the layouts of ONNX and Keras.

mod checkpoint;
mod keras;
mod onnx;
mod section;
pub(crate) mod sniff;
mod tensor_file;
mod tuning;
mod weights;

pub use crate::file::{expect_replaceable, read_file, write_atomically};
pub use checkpoint::{Checkpoint, Metadata};
pub use keras::{KerasClass, KerasConfig, KerasLayer, KerasVersion, KerasWeights};
pub use onnx::{OnnxAttributes, OnnxDirection, OnnxLayer, OnnxLayout, OnnxNode, OnnxTensors};
pub use section::HostArray;
#[cfg(feature = "check")]
pub(crate) use tensor_file::TensorFile;
pub use tuning::save_tuning;
pub use weights::{load_layer_weights, load_weights, save_layer_weights, save_weights};

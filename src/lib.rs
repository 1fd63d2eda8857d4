//! Recurrent neural networks trained on any GPU.
pub mod check;
pub mod data;
mod device;
mod error;
mod gpu;
pub mod io;
pub mod loss;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod random;
mod shape;
mod tensor;

pub use device::{DEVICE_VARIABLE, Device, DeviceCounters, GpuOptions, ParameterPath, ShaderBuild};
pub use error::{Error, Result};
pub use gpu::{AdapterKind, AdapterSummary};
pub use shape::{MAX_RANK, Shape};
pub use tensor::{IGNORED, Indices, Tensor, View};

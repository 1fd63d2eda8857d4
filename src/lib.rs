//! Recurrent neural networks trained on any GPU: back-propagation through time in WGSL compute shaders on `wgpu`. Each
//! operation is tested against a CPU reference in plain `ndarray`.
//!
//! - [`Device`] stores tensors and runs operations: [`Device::auto`], [`Device::cpu`], [`Device::gpu`], and
//!   [`Device::reference`], the CPU in 64-bit floats.
//! - [`Tensor`] holds floats, [`Indices`] tokens and labels. Sequences are \[time, batch, features\].
//! - [`nn`] contains the layers and [`nn::Model`], which runs them in order; [`loss`] computes losses and their gradients,
//!   [`optim`] updates parameters.
//! - [`data`] converts text to batches, [`io`] reads and writes models as safetensors files, [`ops`] contains the
//!   operations.
//! - [`prelude`] contains the names that most training programs use, [`tuning`] the choice between implementations and
//!   its measurement, [`testing`] what only tests and diagnosis use.
//! - `check` compares a device, or a custom cell, with the reference. It is the cargo feature `check`, which is on by
//!   default.
//!
//! Work is recorded and submitted without waiting. Only functions that copy values to the host wait for the GPU (`download`,
//! `read`, and functions documented to call them), and those that synchronise, such as [`Device::synchronize`]. Errors are
//! values of [`Error`]; no input panics.
//!
//! ```
//! use refrain::prelude::*;
//!
//! let device = Device::cpu();
//! let mut model = Model::new(1);
//! model.add("rnn", Rnn::new(Cell::tanh(), 3, 8).layers(2))?;
//! model.add("head", Linear::new(8, 2))?;
//! let parameters = model.initialize(&device)?;
//! let x = Tensor::zeros(&device, &[5, 4, 3])?; // 5 time steps, a batch of 4, 3 features
//! let (y, _state) = model.infer(&parameters, &x, &model.zero_state(&device, 4)?)?;
//! assert_eq!(y.shape().dimensions(), [5, 4, 2]);
//! # Ok::<(), refrain::Error>(())
//! ```

#[cfg(feature = "check")]
pub mod check;
pub mod data;
mod device;
mod error;
mod file;
mod gpu;
pub mod io;
pub mod loss;
mod math;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod prelude;
pub mod random;
mod shape;
mod tensor;
pub mod testing;
pub mod tuning;

pub use device::{DEVICE_VARIABLE, Device};
pub use error::{Error, Result};
pub use gpu::{AdapterKind, AdapterSummary, GpuOptions};
pub use shape::{MAX_RANK, Shape};
pub use tensor::{IGNORED, Indices, Tensor, View};

/// The README's example, compiled and run with the doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! The names that most training programs use, for `use refrain::prelude::*`.
//!
//! ```
//! use refrain::prelude::*;
//!
//! let device = Device::cpu();
//! let mut model = Model::new(1);
//! model.add("rnn", Rnn::new(Cell::Lstm, 3, 8))?;
//! let mut parameters = model.initialize(&device)?;
//! let mut adam = Adam::new(&parameters, AdamConfig::new(1e-3))?;
//! let mut gradients = parameters.zero_gradients()?;
//! let x = Tensor::zeros(&device, &[5, 4, 3])?; // 5 time steps, a batch of 4, 3 features
//! let (y, _state, trace) = model.forward(&parameters, &x, &model.zero_state(&device, 4)?)?;
//! trace.backward(&y, &mut gradients)?; // the gradient of the loss |y|² / 2 at y is y
//! adam.step(&mut parameters, &gradients)?;
//! # Ok::<(), Error>(())
//! ```

pub use crate::nn::{
    Cell, Embedding, Gradients, Linear, Model, ModelState, OneHot, Parameters, RandomKey, Rnn, Sequences,
    State,
};
pub use crate::optim::{Adam, AdamConfig, Sgd, SgdConfig};
pub use crate::{Device, Error, Indices, Result, Tensor, loss};

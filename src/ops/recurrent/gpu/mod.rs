//! The time loop on the GPU.

mod backward;
pub(crate) mod bidirectional;
pub(crate) mod boundary_states;
mod forward;
pub(crate) mod kernels;
pub(crate) mod layer_norm;
mod operands;
mod parameters;
mod per_step;
mod persistent;
pub(crate) mod projection;
pub(crate) mod real_options;
mod sequence;
mod sliding_windows;
pub(crate) mod split_k;
mod strategy;
mod time_chunks;

pub(crate) use backward::backward;
pub(crate) use forward::{ForwardOutput, forward};

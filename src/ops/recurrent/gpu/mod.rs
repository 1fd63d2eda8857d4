//! The time loop on the GPU: it selects a strategy (`strategy`), fills parameters and bindings (`parameters`)
//! and dispatches the shaders of `shaders/recurrent/`. `forward` and `backward` hold the passes, `kernels`
//! the shaders of each cell. CPU reference: `src/ops/recurrent/cpu/`.

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
pub(crate) mod step_flags;
mod strategy;
mod time_chunks;

pub(crate) use backward::backward;
pub(crate) use forward::{ForwardOutput, forward};

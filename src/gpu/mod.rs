//! The only module that uses `wgpu`.
//!
//! [`Context`] is one opened device. It consists of a [`Pool`](pool::Pool) of buffers, the cache of kernels and the
//! other parts of its [`Recorder`](recorder::Recorder), none of which knows it. Operations describe their shader as a
//! [`Kernel`], borrow device memory as [`Span`]s and call [`Context::dispatch`]. Nothing runs until the recorder is
//! flushed. The host waits only in a readback, for the bound on submissions in flight (see [`recorder`]), and in an
//! allocation that ran out of memory.

mod adapters;
mod broken;
mod choices;
mod context;
mod driver;
mod elementwise;
pub(crate) mod exchange;
mod faults;
mod groups;
mod hasher;
mod inspect;
mod kernel;
mod limits;
mod options;
mod persistent;
mod pool;
mod profile;
mod recorder;
mod row_reduction;
pub(crate) mod self_test;
mod span;
mod stack;
mod tuning;

#[cfg(test)]
mod tests;

pub use adapters::{AdapterKind, AdapterSummary};
pub(crate) use adapters::{AdapterRequest, choose, summaries};
pub(crate) use context::Context;
pub(crate) use elementwise::Operand;
pub(crate) use inspect::{Rules, inspect};
pub(crate) use kernel::{Access, IMMEDIATE_BYTES, Kernel, Origin, kernel, kernels, parameters};
pub(crate) use limits::{ELEMENTWISE_GROUP, pieces};
pub use options::{GpuOptions, Journal, ParameterPath, ShaderBuild, TuningSource};
pub(crate) use persistent::WEIGHT_CLASSES;
pub use persistent::{PERSISTENT_VARIABLE, Persistent, PersistentLimits, PersistentReport};
pub(crate) use pool::Buffer;
pub use profile::{KernelCall, Profiling};
pub(crate) use recorder::Dispatch;
pub(crate) use row_reduction::{RowOperand, RowReduction};
pub(crate) use span::{Bound, Span};
pub use tuning::{
    Form, MatmulTile, MatmulVariant, ProductShape, RecurrentShape, RecurrentStrategy, TUNING_VARIABLE, Tuning,
};

//! The only module that uses `wgpu`.
//!
//! [`Context`] owns one device: its [`Pool`] of buffers, its kernel cache and its recorder. Operations
//! describe their shader as a [`Kernel`], borrow device memory as [`Span`]s and call [`Context::dispatch`].
//! Nothing runs until the recorder is flushed. The host waits only in [`readback`], in [`Context::profile`],
//! for the bound on submissions in flight (see [`recorder`]), and in an allocation that ran out of memory.

mod adapters;
mod broken;
mod choices;
mod context;
mod elementwise;
mod faults;
mod groups;
mod inspect;
mod kernel;
mod limits;
mod persistent;
mod pool;
mod products;
mod profile;
mod readback;
mod recorder;
mod row_reduction;
mod span;
mod stack;

#[cfg(test)]
mod tests;

pub use adapters::{AdapterKind, AdapterSummary};
pub(crate) use adapters::{Wanted, choose, summaries};
pub use choices::{Journal, TuningSource};
pub use context::RecurrentStrategy;
pub(crate) use context::{Context, ContextOptions, IMMEDIATE_BYTES};
pub(crate) use elementwise::ELEMENTWISE_GROUP;
pub(crate) use inspect::{Rules, inspect};
pub(crate) use kernel::{Access, Kernel, Origin, kernel, parameters};
pub(crate) use limits::pieces;
#[cfg(test)]
pub(crate) use persistent::KERNELS as PERSISTENT_KERNELS;
pub(crate) use persistent::WEIGHT_CLASSES;
pub use persistent::{PERSISTENT_VARIABLE, Persistent, PersistentLimits, PersistentReport};
pub(crate) use pool::Buffer;
pub use products::{Form, MatmulTile, MatmulVariant};
pub use profile::{KernelCall, Profiling};
pub(crate) use recorder::Dispatch;
pub(crate) use row_reduction::RowReduction;
pub(crate) use span::{Bound, Span};

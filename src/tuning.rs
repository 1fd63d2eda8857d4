//! Choices between several implementations of the same operation, measured on a device.
//!
//! A choice depends on the shape, never on measured time at run time: the same table gives the same bits. A table may
//! contain less than what can be computed. Only sums over rows (products with A transposed) may be split along K,
//! because in all other products a row's bits must not depend on the number of rows; and the strategy of a recurrent
//! layer must not depend on the number of steps. Checkpoints rely on both.

pub use crate::gpu::{
    Journal, KernelCall, MatmulTile, MatmulVariant, PERSISTENT_VARIABLE, Persistent, ProductShape, Profiling,
    RecurrentShape, RecurrentStrategy, TUNING_VARIABLE, Tuning, TuningSource,
};

//! The implementations of matrix products and recurrent layers on a GPU. `ops` selects one, unless the options
//! of the device do.

use serde::{Deserialize, Serialize};

/// Which operands are stored transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A \[M,K\], B \[K,N\].
    Plain,
    /// A \[M,K\], B \[N,K\]: a linear layer's x·Wᵀ.
    RightTransposed,
    /// A \[K,M\], B \[K,N\]: a weight gradient's dYᵀ·X.
    LeftTransposed,
    /// A \[K,M\], B \[N,K\].
    BothTransposed,
}

impl Form {
    /// All four.
    pub const ALL: [Self; 4] =
        [Self::Plain, Self::RightTransposed, Self::LeftTransposed, Self::BothTransposed];

    pub(crate) fn left(self) -> bool {
        matches!(self, Self::LeftTransposed | Self::BothTransposed)
    }

    pub(crate) fn right(self) -> bool {
        matches!(self, Self::RightTransposed | Self::BothTransposed)
    }
}

/// The square of outputs that one workgroup computes.
///
/// Every tile adds the terms of each output in the same order: tiles differ in speed, not in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatmulTile {
    /// 16 × 16: for few rows or columns, or too few outputs to fill a GPU otherwise.
    Narrow,
    /// 32 × 32, with 8 × 8 per invocation, each of which reads its operands directly: for software adapters,
    /// whose workgroup memory is ordinary memory.
    Direct,
    /// 64 × 64, with 4 × 4 per invocation.
    Medium,
    /// 128 × 128, with 8 × 8 per invocation: the fastest for many outputs.
    Large,
}

impl MatmulTile {
    /// All tiles, the smallest first.
    pub const ALL: [Self; 4] = [Self::Narrow, Self::Direct, Self::Medium, Self::Large];

    /// Outputs along each side.
    pub fn side(self) -> usize {
        match self {
            Self::Narrow => 16,
            Self::Direct => 32,
            Self::Medium => 64,
            Self::Large => 128,
        }
    }
}

/// How a GPU computes a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatmulVariant {
    /// The tile of a workgroup.
    pub tile: MatmulTile,
    /// The number of split-K slices of the sum over K, at least 1. They are computed at once, and a second
    /// pass adds them from the last to the first.
    pub parts: usize,
}

/// The strategy of recurrent layers on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecurrentStrategy {
    /// Selects by the size of the layer and the kind of adapter.
    #[default]
    Auto,
    /// One dispatch for each time step.
    PerStep,
    /// Many steps per dispatch, for every layer whose step is one dispatch and whose values per row and step
    /// fit workgroup memory.
    Sequence,
    /// Many steps per dispatch, by workgroups that keep W_hh in workgroup memory and wait for each other at
    /// every step; for every layer whose step is one dispatch and whose W_hh fits the workgroups that run at
    /// once. `Auto` does not select it unless [`Persistent`](crate::tuning::Persistent) is on.
    Persistent,
}

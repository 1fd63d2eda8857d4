//! The ways in which a GPU can compute a matrix product. Which one is taken is decided by `ops::matmul`, unless whoever
//! opened the device did.

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
/// Every tile adds up each output in the same order: they differ in speed, not in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatmulTile {
    /// 16 by 16: few rows, few columns, or too few outputs to keep a GPU busy otherwise.
    Narrow,
    /// 32 by 32, 8 by 8 an invocation, each reading its operands on its own: for software adapters, which have no workgroup
    /// memory apart from any other.
    Direct,
    /// 64 by 64, 4 by 4 an invocation.
    Medium,
    /// 128 by 128, 8 by 8 an invocation: the fastest where there are outputs enough.
    Large,
}

impl MatmulTile {
    /// All of them, the smallest first.
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
    /// What a workgroup computes.
    pub tile: MatmulTile,
    /// In how many parts the sum over K is taken, at least 1. Parts are computed at once and added up in a second pass,
    /// from the last to the first.
    pub parts: usize,
}

//! Initial values of parameters.

use crate::random::Stream;

/// The distribution of a parameter's initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform between −bound and bound.
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Normal with mean 0 and variance 1.
    Normal,
    /// Zero.
    Zero,
    /// One for the first `count` values and zero for the rest: gains, followed by shifts in the same
    /// parameter.
    Ones {
        /// The number of ones.
        count: usize,
    },
}

impl Init {
    /// U(±1/√n), as PyTorch initializes recurrent layers (n hidden units) and linear layers (n inputs).
    pub fn inverse_root(n: usize) -> Self {
        Self::Uniform { bound: 1.0 / (n as f64).sqrt() }
    }

    /// Returns value `index` of a parameter whose random stream is `stream`.
    pub(crate) fn sample(self, stream: &Stream, index: u64) -> f64 {
        match self {
            Self::Uniform { bound } => stream.uniform_between(index, -bound, bound),
            Self::Normal => stream.normal(index),
            Self::Zero => 0.0,
            Self::Ones { count } => f64::from(u8::from(index < count as u64)),
        }
    }
}

//! Initial values of parameters.

use crate::random::Stream;

/// The distribution that a parameter is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform between −bound and bound.
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Normal with mean 0 and variance 1.
    Normal,
    /// Zero, always.
    Zero,
    /// One for the first `count` values, zero for those after: gains and, where they are in one parameter, shifts.
    Ones {
        /// How many are one.
        count: usize,
    },
}

impl Init {
    /// U(±1/√n): what PyTorch uses for recurrent layers (n hidden units) and linear ones (n inputs).
    pub fn inverse_root(n: usize) -> Self {
        Self::Uniform { bound: 1.0 / (n as f64).sqrt() }
    }

    /// Value `index` of a parameter whose random stream is `stream`.
    pub(crate) fn random_key(self, stream: &Stream, index: u64) -> f64 {
        match self {
            Self::Uniform { bound } => stream.uniform_between(index, -bound, bound),
            Self::Normal => stream.normal(index),
            Self::Zero => 0.0,
            Self::Ones { count } => f64::from(u8::from(index < count as u64)),
        }
    }
}

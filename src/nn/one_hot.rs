//! The one-hot layer: an embedding without parameters.

use serde::{Deserialize, Serialize};

use super::Layer;
use super::layer::expect_size;
use crate::Result;
use crate::ops;
use crate::tensor::{Indices, Tensor};

/// One-hot encoding: y_iv = 1 if v = token_i, else 0. It has no parameters and no backward pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneHot {
    vocabulary: usize,
}

impl OneHot {
    /// Creates a layer with `vocabulary` output features.
    pub fn new(vocabulary: usize) -> Self {
        Self { vocabulary }
    }

    /// Features of the output.
    pub(super) fn features(&self) -> usize {
        self.vocabulary
    }

    pub(super) fn validate(&self, name: &str) -> Result<()> {
        expect_size(name, "vocabulary", self.vocabulary)
    }
}

impl Layer<OneHot> {
    /// tokens \[...\] → y \[..., vocabulary\].
    ///
    /// # Errors
    /// [`Error::Index`](crate::Error::Index) for a token outside the vocabulary.
    pub fn infer(&self, tokens: &Indices) -> Result<Tensor> {
        self.named(ops::one_hot(tokens, self.description.vocabulary))
    }
}

//! [`Layer`], what all kinds of layers have in common.

use std::sync::Arc;

use super::parameters::ModelId;
use crate::{Error, Result};

/// A layer of a model: its description, and the index of its first parameter.
#[derive(Clone, Debug)]
pub struct Layer<D> {
    pub(super) name: Arc<str>,
    pub(super) description: D,
    pub(super) model: ModelId,
    pub(super) first: usize,
}

impl<D> Layer<D> {
    /// The sizes and options of the layer.
    pub fn description(&self) -> &D {
        &self.description
    }

    /// Adds the layer's name to the error of `result`.
    pub(super) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.in_layer(&self.name))
    }
}

/// Checks that a size is neither zero nor too large for any memory.
pub(super) fn expect_size(layer: &str, what: &str, size: usize) -> Result<()> {
    const LARGEST: usize = 1 << 24;
    if (1..=LARGEST).contains(&size) {
        return Ok(());
    }
    Err(Error::config(format!("{layer}: {what}"), format!("must be between 1 and {LARGEST}, not {size}")))
}

//! Optimizers: one update of the whole flat buffer a step.
//!
//! A step is submitted to the device when it is complete; nobody waits for it.

mod adam;
mod sgd;

pub use adam::{Adam, AdamConfig, WeightDecay};
pub use sgd::{Sgd, SgdConfig};

use std::sync::Arc;

use crate::nn::{Gradients, Layout, Parameters};
use crate::{Error, Result};

/// Fails unless parameters and gradients are those of the optimizer's model.
fn expect_own(layout: &Arc<Layout>, parameters: &Parameters, gradients: &Gradients) -> Result<()> {
    if !Arc::ptr_eq(layout, parameters.layout()) {
        return Err(Error::ModelMismatch { what: "parameters".to_owned() });
    }
    gradients.expect(layout.model, parameters.device())
}

/// Fails unless `value` is finite and at least zero.
fn expect_not_negative(what: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::config(what, format!("must be finite and at least 0, not {value}")))
}

/// Fails unless `value` is at least zero and below one.
fn expect_fraction(what: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::config(what, format!("must be at least 0 and below 1, not {value}")))
}

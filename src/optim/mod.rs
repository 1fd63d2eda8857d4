//! Optimizers: one update of the whole flat buffer a step.
//!
//! A step is submitted to the device when it is complete; nobody waits for it.

mod adam;
mod sgd;

pub use adam::{Adam, AdamConfig, WeightDecay};
pub use sgd::{Sgd, SgdConfig};

use crate::nn::{Gradients, Layout, Parameters};
use crate::{Error, Result};

/// Fails unless `parameters` are those that the optimizer was created for, and `gradients` are theirs.
fn expect_own(own: &Layout, parameters: &Parameters, gradients: &Gradients) -> Result<()> {
    parameters.layout().expect_id("parameters", own.id())?;
    gradients.expect_of(parameters)
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

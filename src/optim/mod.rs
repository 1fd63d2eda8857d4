//! Optimizers. Each step updates the whole flat buffer of parameters.
//!
//! A step is submitted to the device when it has been recorded; the host does not wait for it.

mod adam;
mod sgd;

pub use adam::{Adam, AdamConfig, WeightDecay};
pub use sgd::{Sgd, SgdConfig};

use crate::device::Device;
use crate::nn::{Gradients, Layout, Parameters};
use crate::{Error, Result};

/// Fails unless the optimizer was created for `parameters`, and `gradients` belong to them.
fn expect_own(own: &Layout, parameters: &Parameters, gradients: &Gradients) -> Result<()> {
    parameters.layout().expect_id("parameters", own.id())?;
    gradients.expect_of(parameters)
}

/// Fails unless `value` is finite and non-negative in the floats of `device`.
fn expect_not_negative(device: &Device, what: &str, value: f64) -> Result<()> {
    if !(value.is_finite() && value >= 0.0) {
        return Err(Error::config(what, format!("must be finite and at least 0, not {value}")));
    }
    expect_within(device, what, value)
}

/// Fails unless `value` is at most the largest float of `device`.
fn expect_within(device: &Device, what: &str, value: f64) -> Result<()> {
    let largest = device.largest_float();
    if value <= largest {
        return Ok(());
    }
    Err(Error::config(
        what,
        format!("must be at most {largest:e}, the largest float of {device}, not {value:e}"),
    ))
}

/// Fails unless 0 ≤ `value` < 1 in the floats of `device`.
fn expect_fraction(device: &Device, what: &str, value: f64) -> Result<()> {
    if !(0.0..1.0).contains(&value) {
        return Err(Error::config(what, format!("must be at least 0 and below 1, not {value}")));
    }
    let largest = device.largest_fraction();
    if value <= largest {
        return Ok(());
    }
    let message = format!("must be at most {largest}, the largest float of {device} below 1, not {value}");
    Err(Error::config(what, message))
}

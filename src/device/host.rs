//! The CPU device, and the float format of any device.

use std::sync::Arc;

use super::store::Store;
use super::{Backend, Device};
use crate::{Error, Result};

/// The CPU device: its number type, and its cache of free memory.
#[derive(Clone)]
pub(crate) struct Host {
    precision: Precision,
    store: Arc<Store>,
}

impl Host {
    pub(super) fn new(precision: Precision) -> Self {
        Self { precision, store: Arc::default() }
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// The number type of CPU storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    F64,
}

impl Device {
    /// The largest finite float of the device.
    pub(crate) fn largest_float(&self) -> f64 {
        match &self.0 {
            Backend::Cpu(Host { precision: Precision::F64, .. }) => f64::MAX,
            _ => f32::MAX.into(),
        }
    }

    /// The largest float of the device below one.
    pub(crate) fn largest_fraction(&self) -> f64 {
        match &self.0 {
            Backend::Cpu(Host { precision: Precision::F64, .. }) => 1f64.next_down(),
            _ => 1f32.next_down().into(),
        }
    }

    /// `value` rounded to a float of the device.
    pub(crate) fn rounded(&self, value: f64) -> f64 {
        match &self.0 {
            Backend::Cpu(Host { precision: Precision::F64, .. }) => value,
            _ => (value as f32).into(),
        }
    }

    /// Fails if `value` is finite but out of range for the device's floats.
    pub(crate) fn expect_representable(&self, value: f64, what: impl FnOnce() -> String) -> Result<()> {
        if value.is_finite() && value.abs() > self.largest_float() {
            return Err(Error::NonFinite { what: format!("{} ({value:e}) in 32-bit floats", what()) });
        }
        Ok(())
    }
}

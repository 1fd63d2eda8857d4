//! Errors of the driver: those of one call, returned by it, and those that end the device.
//!
//! `wgpu` reports an error outside of the call that caused it. Calls that may fail for a reason of their own (a buffer, a
//! shader, a bind group) run in [`scoped`], which turns the report into that call's error; nothing of the call was recorded
//! then. What is reported elsewhere has cost recorded work, of one thread or of several: [`Faults`] remembers it for good, and
//! from then on each call on the device returns [`Error::DeviceLost`]. A buffer whose content was lost can so never be read.

use std::sync::OnceLock;

use crate::{Error, Result};

/// Why the device is lost, if it is. Filled by `wgpu`'s callbacks and by submissions that failed.
#[derive(Default)]
pub(super) struct Faults {
    lost: OnceLock<String>,
}

impl Faults {
    /// Ends the device. The first reason stays.
    pub(super) fn lose(&self, reason: String) {
        self.lost.set(reason).ok();
    }

    /// Fails if the device is lost.
    pub(super) fn check(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
        }
    }

    /// As [`Faults::check`], where the device is lost if it was not before.
    pub(super) fn lost(&self, reason: impl Into<String>) -> Error {
        let reason = self.lost.get_or_init(|| reason.into());
        Error::DeviceLost { reason: reason.clone() }
    }
}

/// Runs `call`, and returns the first error that the driver reports of it on this thread.
pub(super) fn scoped<T>(device: &wgpu::Device, call: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let scopes = [OutOfMemory, Internal, Validation].map(|filter| device.push_error_scope(filter));
    let outcome = call();
    // The scope that was pushed last is popped first.
    let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    match errors.fold(None, |first: Option<wgpu::Error>, error| first.or(error)) {
        None => Ok(outcome),
        Some(error) => Err(error),
    }
}

/// The error of a call that made `what` for a kernel or a transfer.
pub(super) fn refused(what: &str, error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.to_owned(), bytes: 0 },
        _ => Error::Gpu { message: format!("{what}: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_stays_lost_for_the_first_reason() {
        let faults = Faults::default();
        assert!(faults.check().is_ok());
        faults.lose("unplugged".into());
        faults.lose("later".into());
        let reason = |error| match error {
            Error::DeviceLost { reason } => reason,
            other => panic!("{other}"),
        };
        for _ in 0..2 {
            assert_eq!(reason(faults.check().expect_err("the device is lost")), "unplugged");
        }
        assert_eq!(reason(faults.lost("even later")), "unplugged");
    }
}

//! Driver errors: those of one call, which it returns, and those that make the device unusable.
//!
//! `wgpu` reports an error outside of the call that caused it. Calls that may fail on their own (a buffer, a
//! shader, a bind group) run in [`scoped`], which returns the report as that call's error; nothing of the
//! call has been recorded. Any other report means that recorded work of one or several threads was lost:
//! [`Faults`] stores it, and from then on each call on the device returns [`Error::DeviceLost`]. So a buffer
//! whose content was lost is never read.

use std::sync::OnceLock;

use crate::{Error, Result};

/// Why the device is lost, if it is. Set by `wgpu`'s callbacks and by submissions that failed.
#[derive(Default)]
pub(super) struct Faults {
    lost: OnceLock<String>,
}

impl Faults {
    /// Marks the device as lost. The first reason is kept.
    pub(super) fn lose(&self, reason: String) {
        self.lost.set(reason).ok();
    }

    /// Returns an error if the device is lost.
    pub(super) fn check(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
        }
    }

    /// Marks the device as lost, if it is not, and returns the error of [`Faults::check`].
    pub(super) fn lost(&self, reason: impl Into<String>) -> Error {
        let reason = self.lost.get_or_init(|| reason.into());
        Error::DeviceLost { reason: reason.clone() }
    }
}

/// Runs `call` and returns the first error that the driver reports for it on this thread.
pub(super) fn scoped<T>(device: &wgpu::Device, call: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let scopes = [OutOfMemory, Internal, Validation].map(|filter| device.push_error_scope(filter));
    let outcome = call();
    // Scopes are popped in reverse order.
    let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    match errors.fold(None, |first: Option<wgpu::Error>, error| first.or(error)) {
        None => Ok(outcome),
        Some(error) => Err(error),
    }
}

/// The error of a call that created `what` for a kernel or a transfer.
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

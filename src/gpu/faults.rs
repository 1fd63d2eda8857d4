//! The first error that the driver reported outside a call, kept until someone can return it.

use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// Filled by `wgpu`'s callbacks, emptied by [`Faults::check`]. A lost device stays lost.
#[derive(Default)]
pub(super) struct Faults {
    first: Mutex<Option<Fault>>,
}

enum Fault {
    Lost(String),
    OutOfMemory(String),
    Other(String),
}

impl Faults {
    fn record(&self, fault: Fault) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device explains all that follows; otherwise the first report explains most.
        if first.is_none() || matches!(fault, Fault::Lost(_)) {
            *first = Some(fault);
        }
    }

    pub(super) fn lost(&self, reason: String) {
        self.record(Fault::Lost(reason));
    }

    pub(super) fn uncaptured(&self, error: &wgpu::Error) {
        self.record(match error {
            wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory(error.to_string()),
            _ => Fault::Other(error.to_string()),
        });
    }

    /// Returns and forgets what was reported since the last call.
    pub(super) fn check(&self) -> Result<()> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            None => Ok(()),
            Some(Fault::Lost(reason)) => Err(Error::DeviceLost { reason: reason.clone() }),
            Some(_) => match first.take() {
                Some(Fault::OutOfMemory(what)) => Err(Error::OutOfMemory { what, bytes: 0 }),
                Some(Fault::Other(message)) => Err(Error::Gpu { message }),
                Some(Fault::Lost(reason)) => Err(Error::DeviceLost { reason }),
                None => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_stays_lost_and_outranks_what_follows() {
        let faults = Faults::default();
        faults.record(Fault::Other("first".into()));
        faults.lost("unplugged".into());
        faults.record(Fault::Other("later".into()));
        for _ in 0..2 {
            assert!(matches!(faults.check(), Err(Error::DeviceLost { reason }) if reason == "unplugged"));
        }
    }

    #[test]
    fn other_faults_are_reported_once() {
        let faults = Faults::default();
        faults.record(Fault::OutOfMemory("buffer".into()));
        assert!(matches!(faults.check(), Err(Error::OutOfMemory { .. })));
        assert!(faults.check().is_ok());
    }
}

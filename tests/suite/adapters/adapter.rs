//! An adapter in the hands of a claim: the devices that it opens, lent or anew, and the cases that it takes.

use refrain::tuning::{Journal, RecurrentStrategy, TuningSource};
use refrain::{AdapterKind, AdapterSummary, Device, GpuOptions, Result};

use crate::lending::borrow;

/// An adapter under test.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    pub(super) summary: AdapterSummary,
    /// Its name without the driver's details.
    pub(super) label: String,
    /// How recurrent layers run on it, unless a test says otherwise.
    pub(super) recurrent: RecurrentStrategy,
    pub(super) turn: DeviceShare,
}

/// The index of an adapter among those that share the cases.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceShare {
    pub(super) place: usize,
    pub(super) of: usize,
}

impl Adapter {
    /// What its driver says of it.
    pub(crate) fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// A device that no other test uses at the same time, but that others may have used before: its memory is released, its
    /// peak reset, and its counters are what they are. The same device each time that a test asks for it.
    pub(crate) fn open(&self) -> Result<Device> {
        self.open_with(&GpuOptions::default())
    }

    /// As [`Adapter::open`], with options.
    pub(crate) fn open_with(&self, options: &GpuOptions) -> Result<Device> {
        let options = self.options(options);
        borrow((self.summary.index, format!("{options:?}")), || self.really_open(&options))
    }

    /// A device opened anew, for claims about what a device does first or counts from its beginning, or that leave it
    /// unusable.
    pub(crate) fn open_anew(&self) -> Result<Device> {
        self.open_anew_with(&GpuOptions::default())
    }

    /// As [`Adapter::open_anew`], with options.
    pub(crate) fn open_anew_with(&self, options: &GpuOptions) -> Result<Device> {
        self.really_open(&self.options(options))
    }

    /// Whether this adapter runs the case of this number. With several adapters, each case runs on one.
    pub(crate) fn takes(&self, case: usize) -> bool {
        case % self.turn.of == self.turn.place
    }

    fn really_open(&self, options: &GpuOptions) -> Result<Device> {
        Device::gpu_with(&format!("gpu:{}", self.summary.index), options)
    }

    fn options(&self, options: &GpuOptions) -> GpuOptions {
        // What this machine's owner has measured and stored is no part of any claim.
        let tuning = match &options.tuning {
            TuningSource::Environment | TuningSource::Stored => TuningSource::Off,
            given => given.clone(),
        };
        let chosen = !matches!(tuning, TuningSource::Off) || options.journal != Journal::Off;
        let recurrent = match (options.recurrent, self.recurrent) {
            // By the name of what that is here, so that claims about either borrow the same devices.
            (RecurrentStrategy::Auto, RecurrentStrategy::Auto)
                if self.summary.kind == AdapterKind::Software && !chosen =>
            {
                RecurrentStrategy::Sequence
            }
            (RecurrentStrategy::Auto, own) => own,
            (wanted, _) => wanted,
        };
        GpuOptions { recurrent, tuning, ..options.clone() }
    }

    /// What the log of a run says of it.
    pub(super) fn describe(&self) -> String {
        let AdapterSummary { name, kind, backend, driver, .. } = &self.summary;
        format!("adapter: {name}, {kind}, {backend} ({driver})")
    }
}

//! Who decides between several ways to compute the same: whoever opened the device, or what was measured on it, or else a
//! heuristic.

use std::sync::{Mutex, PoisonError};

use super::adapters::AdapterSummary;
use super::context::{ContextOptions, RecurrentStrategy};
use super::products::MatmulVariant;
use crate::tuning::{ProductShape, RecurrentShape, Tuning};
use crate::{Error, Result};

/// Where a device takes measured choices from.
///
/// What they say of the shapes that were measured is done; every other shape is left to heuristics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TuningSource {
    /// What [`TUNING_VARIABLE`](crate::TUNING_VARIABLE) asks for: `on` or a folder are [`TuningSource::Stored`], and
    /// without it heuristics decide.
    #[default]
    Environment,
    /// What `refrain tune` stored for this adapter, driver and version of the crate: [`Tuning::stored`]. Nothing where
    /// it never ran, and where the variable is `0`. A file that cannot be read or understood is ignored, and
    /// [`Device::tuning_warning`](crate::Device::tuning_warning) says so.
    Stored,
    /// Nowhere: heuristics decide.
    Off,
    /// These.
    Given(Tuning),
}

/// Whether a device notes the choices that its work meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// It does not.
    #[default]
    Off,
    /// Each shape once, with how it was computed last.
    Choices,
}

/// The choices of one device.
pub(crate) struct Choices {
    matmul: Option<MatmulVariant>,
    recurrent: RecurrentStrategy,
    tuning: Option<Tuning>,
    /// Why what is stored is not obeyed.
    warning: Option<String>,
    journal: Option<Mutex<Tuning>>,
}

impl Choices {
    /// Those that `options` ask for on `adapter`.
    pub(super) fn of(adapter: &AdapterSummary, options: &ContextOptions) -> Self {
        let found = match &options.tuning {
            TuningSource::Environment if !Tuning::is_asked_for() => Ok(None),
            TuningSource::Environment | TuningSource::Stored => Tuning::stored(adapter),
            TuningSource::Off => Ok(None),
            TuningSource::Given(tuning) => Ok(Some(tuning.clone())),
        };
        let (tuning, warning) = match found {
            Ok(tuning) => (tuning, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let journal = match options.journal {
            Journal::Off => None,
            Journal::Choices => Some(Mutex::new(Tuning::new())),
        };
        Self { matmul: options.matmul, recurrent: options.recurrent, tuning, warning, journal }
    }

    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    pub(crate) fn tuning(&self) -> Option<&Tuning> {
        self.tuning.as_ref()
    }

    /// How to compute a product.
    pub(crate) fn product(
        &self,
        shape: ProductShape,
        heuristics: impl FnOnce() -> MatmulVariant,
    ) -> MatmulVariant {
        let measured = || self.tuning.as_ref().and_then(|tuning| tuning.product(shape));
        let variant = self.matmul.or_else(measured).unwrap_or_else(heuristics);
        self.note(|journal| journal.note_product(shape, variant));
        variant
    }

    /// What is wanted of a layer's loop over time.
    pub(crate) fn recurrent(&self, shape: RecurrentShape) -> RecurrentStrategy {
        match self.recurrent {
            RecurrentStrategy::Auto => {
                let measured = self.tuning.as_ref().and_then(|tuning| tuning.recurrent(shape));
                measured.unwrap_or_default()
            }
            forced => forced,
        }
    }

    /// Whether what is chosen is noted.
    pub(crate) fn notes(&self) -> bool {
        self.journal.is_some()
    }

    /// Notes which way a layer went.
    pub(crate) fn note_recurrent(&self, shape: RecurrentShape, taken: RecurrentStrategy) {
        self.note(|journal| journal.note_recurrent(shape, taken));
    }

    fn note(&self, note: impl FnOnce(&mut Tuning)) {
        if let Some(journal) = &self.journal {
            note(&mut journal.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What has been noted.
    ///
    /// # Errors
    /// [`Error::Config`] without a journal.
    pub(crate) fn noted(&self) -> Result<Tuning> {
        match &self.journal {
            Some(journal) => Ok(journal.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            None => {
                let message =
                    "this device was opened without: open it by `Device::gpu_with` and `Journal::Choices`";
                Err(Error::config("choices", message))
            }
        }
    }
}

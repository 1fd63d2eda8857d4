//! Who decides between several ways to compute the same: whoever opened the device, or what was measured on it, or else a
//! heuristic.

use std::sync::{Mutex, PoisonError};

use super::adapters::AdapterSummary;
use super::context::{ContextOptions, RecurrentTier};
use super::products::MatmulVariant;
use crate::tuning::{ProductShape, RecurrentShape, Tuning};
use crate::{Error, Result};

/// Where a device takes measured choices from.
///
/// What they say of the shapes that were measured is done; every other shape is left to heuristics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TuningSource {
    /// What `refrain tune` stored for this adapter, driver and version of the crate: [`Tuning::stored`]. Nothing where
    /// it never ran, and where [`TUNING_VARIABLE`](crate::TUNING_VARIABLE) is `0`.
    #[default]
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
    recurrent: RecurrentTier,
    tuning: Option<Tuning>,
    journal: Option<Mutex<Tuning>>,
}

impl Choices {
    /// Those that `options` ask for on `adapter`.
    ///
    /// # Errors
    /// Those of [`Tuning::stored`].
    pub(super) fn of(adapter: &AdapterSummary, options: &ContextOptions) -> Result<Self> {
        let tuning = match &options.tuning {
            TuningSource::Stored => Tuning::stored(adapter)?,
            TuningSource::Off => None,
            TuningSource::Given(tuning) => Some(tuning.clone()),
        };
        let journal = match options.journal {
            Journal::Off => None,
            Journal::Choices => Some(Mutex::new(Tuning::new())),
        };
        Ok(Self { matmul: options.matmul, recurrent: options.recurrent, tuning, journal })
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
    pub(crate) fn recurrent(&self, shape: RecurrentShape) -> RecurrentTier {
        match self.recurrent {
            RecurrentTier::Auto => {
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
    pub(crate) fn note_recurrent(&self, shape: RecurrentShape, taken: RecurrentTier) {
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

//! [`Choices`]: how a device selects between several implementations of the same operation. The options of
//! the device take precedence over measured choices, and these over heuristics.

use std::sync::{Mutex, PoisonError};

use super::adapters::AdapterSummary;
use super::options::{GpuOptions, Journal, TuningSource};
use super::tuning::{MatmulVariant, ProductShape, RecurrentShape, RecurrentStrategy, Tuning};
use crate::{Error, Result};

/// The choices of one device.
#[derive(Default)]
pub(crate) struct Choices {
    matmul: Option<MatmulVariant>,
    recurrent: RecurrentStrategy,
    tuning: Option<Tuning>,
    /// Why the stored choices are ignored.
    warning: Option<String>,
    journal: Option<Mutex<Tuning>>,
}

impl Choices {
    /// The choices that `options` select on `adapter`.
    pub(super) fn of(adapter: &AdapterSummary, options: &GpuOptions) -> Self {
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

    /// The requested strategy of a recurrent layer.
    pub(crate) fn recurrent(&self, shape: RecurrentShape) -> RecurrentStrategy {
        match self.recurrent {
            RecurrentStrategy::Auto => {
                let measured = self.tuning.as_ref().and_then(|tuning| tuning.recurrent(shape));
                measured.unwrap_or_default()
            }
            forced => forced,
        }
    }

    /// Whether choices are recorded.
    pub(crate) fn notes(&self) -> bool {
        self.journal.is_some()
    }

    /// Records the strategy of a layer.
    pub(crate) fn note_recurrent(&self, shape: RecurrentShape, taken: RecurrentStrategy) {
        self.note(|journal| journal.note_recurrent(shape, taken));
    }

    fn note(&self, note: impl FnOnce(&mut Tuning)) {
        if let Some(journal) = &self.journal {
            note(&mut journal.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Returns the recorded choices.
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

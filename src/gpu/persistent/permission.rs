//! Whether persistent kernels are enabled.

use std::ffi::OsStr;

use crate::gpu::tuning::RecurrentStrategy;
use crate::{Error, Result};

/// The environment variable that enables persistent kernels on every device, if `1` or `on`, or disables
/// them, if `0` or `off`: [`Persistent`].
pub const PERSISTENT_VARIABLE: &str = "REFRAIN_PERSISTENT";

/// Whether `Auto` may select the strategy [`RecurrentStrategy::Persistent`]. It has not been confirmed on any
/// GPU yet, so it is off by default.
///
/// If it is on, layers select it only by size, on GPUs of NVIDIA, AMD and Intel through Vulkan, and after a
/// self-test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistent {
    /// As [`PERSISTENT_VARIABLE`] says; off if it is not set. A device whose
    /// [`GpuOptions::recurrent`](crate::GpuOptions::recurrent) is [`RecurrentStrategy::Persistent`] enables
    /// it too, unless the variable disables it.
    #[default]
    Environment,
    /// Off, for choices of [`Tuning`](crate::tuning::Tuning) as well.
    Off,
    /// On, regardless of the variable.
    On,
}

impl Persistent {
    /// Resolves [`Persistent::Environment`] by the variable, if it is set.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown value of the variable.
    fn asked(self) -> Result<Self> {
        match self {
            Self::Environment => Self::said(std::env::var_os(PERSISTENT_VARIABLE).as_deref()),
            given => Ok(given),
        }
    }

    fn said(value: Option<&OsStr>) -> Result<Self> {
        let Some(value) = value else { return Ok(Self::Environment) };
        match value.to_str().map(str::trim) {
            Some("") => Ok(Self::Environment),
            Some("1" | "on") => Ok(Self::On),
            Some("0" | "off") => Ok(Self::Off),
            _ => {
                let message = format!(
                    "must be 1 or on, 0 or off, or not be set; it is `{}`",
                    value.to_string_lossy().escape_debug()
                );
                Err(Error::config(PERSISTENT_VARIABLE, message))
            }
        }
    }

    /// Whether a device opened with `recurrent` may use persistent kernels at all.
    pub(in crate::gpu) fn is_allowed(self, recurrent: RecurrentStrategy) -> Result<bool> {
        Ok(match self.asked()? {
            Self::Environment => recurrent == RecurrentStrategy::Persistent,
            asked => asked == Self::On,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_persistent_strategy_is_off_by_default() {
        let allowed = |value: Option<&str>, recurrent| {
            let said = Persistent::said(value.map(OsStr::new)).expect("a value that means something");
            // `said` replaces the variable: tests do not set variables of this process.
            match said {
                Persistent::Environment => recurrent == RecurrentStrategy::Persistent,
                asked => asked.is_allowed(recurrent).expect("not from the environment"),
            }
        };
        for recurrent in [RecurrentStrategy::Auto, RecurrentStrategy::PerStep, RecurrentStrategy::Sequence] {
            assert!(!allowed(None, recurrent) && !allowed(Some(" "), recurrent));
            assert!(allowed(Some("1"), recurrent) && allowed(Some(" on "), recurrent));
            assert!(!allowed(Some("0"), recurrent) && !allowed(Some("off"), recurrent));
        }
        assert!(
            allowed(None, RecurrentStrategy::Persistent)
                && !allowed(Some("0"), RecurrentStrategy::Persistent)
        );
    }

    #[test]
    fn an_unknown_value_is_an_error_that_lists_the_known_ones() {
        for value in ["true", "2", "On"] {
            let error = Persistent::said(Some(OsStr::new(value))).expect_err("means nothing");
            let message = error.to_string();
            assert!(matches!(error, Error::Config { .. }), "{message}");
            for part in [PERSISTENT_VARIABLE, "1 or on, 0 or off", value] {
                assert!(message.contains(part), "{part} in {message}");
            }
        }
    }
}

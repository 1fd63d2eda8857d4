//! Options for opening a GPU.

use std::time::Duration;

use super::persistent::{Persistent, PersistentLimits};
use super::profile::Profiling;
use super::tuning::{MatmulVariant, RecurrentStrategy, Tuning};
use crate::{Error, Result};

/// The smallest accepted limit of a binding: enough for a few elements after any alignment.
const LEAST_BINDING_BYTES: u64 = 1024;

/// Whether shaders contain naga's run-time checks of indices and loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShaderBuild {
    /// With checks; the default of debug builds of this crate.
    Checked,
    /// Without checks: faster, same results; the default of release builds.
    Trusted,
}

/// How kernel parameters are passed to the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterPath {
    /// As immediates (push constants) if the adapter supports them, else in a uniform buffer.
    Fastest,
    /// In a uniform buffer with dynamic offsets, which every adapter supports.
    Uniforms,
}

/// Where a device reads measured choices from.
///
/// They apply to the shapes that were measured; heuristics select for all other shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TuningSource {
    /// As [`TUNING_VARIABLE`](crate::tuning::TUNING_VARIABLE) says: [`TuningSource::Stored`] for `on` or a folder,
    /// and heuristics without it.
    #[default]
    Environment,
    /// What `refrain tune` stored for this adapter, driver and version of the crate: [`Tuning::stored`].
    /// Heuristics apply where it never ran, and where the variable is `0`. A file that cannot be read or
    /// parsed is ignored, and [`Device::tuning_warning`](crate::Device::tuning_warning) reports it.
    Stored,
    /// Heuristics only.
    Off,
    /// These choices.
    Given(Tuning),
}

/// Whether a device records the choices that it makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// It does not.
    #[default]
    Off,
    /// Records each shape with its last choice.
    Choices,
}

/// Options of [`Device::gpu_with`](crate::Device::gpu_with). The limits exist to test the splitting of large work on any
/// machine.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Whether shaders contain run-time checks.
    pub build: ShaderBuild,
    /// How kernel parameters are passed.
    pub parameters: ParameterPath,
    /// An upper limit for the size of a storage binding in bytes, below the adapter's own; at least 1024.
    pub binding_bytes: Option<u64>,
    /// An upper limit for the number of workgroups along one axis of a dispatch, below the adapter's own.
    pub workgroups: Option<u32>,
    /// The most compiled pipelines that the device caches; 512 if `None`, and at least 1. A new pipeline replaces the least
    /// recently used one, which is compiled again when needed.
    pub pipelines: Option<usize>,
    /// Whether to time each kernel.
    pub profiling: Profiling,
    /// The variant of all matrix products; if `None`, it is chosen by each product's shape.
    pub matmul: Option<MatmulVariant>,
    /// The strategy of recurrent layers.
    pub recurrent: RecurrentStrategy,
    /// Whether layers may choose the persistent strategy.
    pub persistent: Persistent,
    /// The limits of the persistent strategy, whose workgroups wait for each other.
    pub persistent_limits: PersistentLimits,
    /// The source of measured choices, for what `matmul` and `recurrent` leave open.
    pub tuning: TuningSource,
    /// Whether to record the choices made, for [`Device::choices`](crate::Device::choices).
    pub journal: Journal,
    /// How long the host waits for one submission before it reports the device as lost: without a watchdog in the driver, a
    /// kernel that does not end would hang the program. Default: ten minutes.
    pub wait_limit: Duration,
}

/// The default of [`GpuOptions::wait_limit`]: much longer than any submission, also on software adapters.
const WAIT_LIMIT: Duration = Duration::from_secs(600);

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            build: if cfg!(debug_assertions) { ShaderBuild::Checked } else { ShaderBuild::Trusted },
            parameters: ParameterPath::Fastest,
            binding_bytes: None,
            workgroups: None,
            pipelines: None,
            profiling: Profiling::Off,
            matmul: None,
            recurrent: RecurrentStrategy::Auto,
            persistent: Persistent::Environment,
            persistent_limits: PersistentLimits::default(),
            tuning: TuningSource::Environment,
            journal: Journal::Off,
            wait_limit: WAIT_LIMIT,
        }
    }
}

impl GpuOptions {
    /// Fails for limits that are too low and for options that exclude each other.
    pub(crate) fn expect_sensible(&self) -> Result<()> {
        let refused = |message: String| Err(Error::config("GPU options", message));
        if let Some(bytes) = self.binding_bytes.filter(|&bytes| bytes < LEAST_BINDING_BYTES) {
            return refused(format!("`binding_bytes` must be at least {LEAST_BINDING_BYTES}, not {bytes}"));
        }
        for (option, is_zero) in [
            ("workgroups", self.workgroups == Some(0)),
            ("pipelines", self.pipelines == Some(0)),
            ("matmul.parts", self.matmul.is_some_and(|variant| variant.parts == 0)),
        ] {
            if is_zero {
                return refused(format!("`{option}` must be at least 1, not 0"));
            }
        }
        const LARGEST: u32 = PersistentLimits::LARGEST_SPIN_LIMIT;
        if let Some(limit) = self.persistent_limits.spin_limit.filter(|&limit| limit > LARGEST) {
            return refused(format!("`persistent_limits.spin_limit` must be at most {LARGEST}, not {limit}"));
        }
        if self.persistent == Persistent::Off && self.recurrent == RecurrentStrategy::Persistent {
            let message = "`persistent` is off but `recurrent` requests it: leave one of them at its default";
            return refused(message.to_owned());
        }
        if self.journal == Journal::Choices && self.matmul.is_some() {
            let message =
                "`journal` records choices, but `matmul` forces a variant: leave `matmul` at `None`";
            return refused(message.to_owned());
        }
        Ok(())
    }
}

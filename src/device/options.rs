//! How a GPU is opened.

use std::time::Duration;

use crate::gpu::{
    ContextOptions, Journal, MatmulVariant, Persistent, PersistentLimits, Profiling, RecurrentStrategy,
    TuningSource, Wanted,
};
use crate::{Error, Result};

/// The least ceiling of a binding that operations can work with: room for some elements after any alignment.
const LEAST_BINDING_BYTES: u64 = 1024;

/// Whether shaders keep naga's run-time checks of indexes and loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShaderBuild {
    /// With checks: what a debug build of this crate uses.
    Checked,
    /// Without: faster, the same results; what a release build uses.
    Trusted,
}

/// How kernel parameters reach the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterPath {
    /// Immediates (push constants) where the adapter has them, uniforms elsewhere.
    Fastest,
    /// A uniform buffer with dynamic offsets, which every adapter has.
    Uniforms,
}

/// How [`Device::gpu_with`](crate::Device::gpu_with) opens an adapter. The limits exist to test the cutting of large work on any machine.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Which shaders to build.
    pub build: ShaderBuild,
    /// How kernel parameters travel.
    pub parameters: ParameterPath,
    /// A ceiling for one storage binding, in bytes, below the adapter's own; at least 1024.
    pub binding_bytes: Option<u64>,
    /// A ceiling for workgroups along one axis of a dispatch, below the adapter's own.
    pub workgroups: Option<u32>,
    /// The most compiled pipelines that the device keeps, instead of 512; at least 1. The one that was not used for the longest time
    /// is let go for a new one, and compiled again when it is needed again.
    pub pipelines: Option<usize>,
    /// Whether to note when each kernel ran.
    pub profiling: Profiling,
    /// One way to compute all matrix products; without it each product's shape decides.
    pub matmul: Option<MatmulVariant>,
    /// How recurrent layers run over time.
    pub recurrent: RecurrentStrategy,
    /// Whether layers may choose the persistent strategy by themselves.
    pub persistent: Persistent,
    /// How workgroups may wait for each other, for layers that keep weights on chip.
    pub persistent_limits: PersistentLimits,
    /// Where measured choices come from, for what `matmul` and `recurrent` leave open.
    pub tuning: TuningSource,
    /// Whether to note the choices that work meets, for [`Device::choices`](crate::Device::choices).
    pub journal: Journal,
    /// How long the host waits for one submission before it calls the device lost: a driver without a watchdog of its own
    /// would let a kernel that does not end hang the program. Ten minutes unless set.
    pub wait_limit: Duration,
}

/// [`GpuOptions::wait_limit`] unless set: far more than a submission takes, on software adapters too.
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
    /// Fails for options that leave nothing to work with, or exclude each other.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(super) fn expect_sensible(&self) -> Result<()> {
        if let Some(bytes) = self.binding_bytes.filter(|&bytes| bytes < LEAST_BINDING_BYTES) {
            let message = format!("`binding_bytes` must be at least {LEAST_BINDING_BYTES}, not {bytes}");
            return Err(Error::config("GPU options", message));
        }
        if self.workgroups == Some(0) {
            return Err(Error::config("GPU options", "`workgroups` must be at least 1, not 0"));
        }
        if self.pipelines == Some(0) {
            return Err(Error::config("GPU options", "`pipelines` must be at least 1, not 0"));
        }
        if self.matmul.is_some_and(|variant| variant.parts == 0) {
            return Err(Error::config("GPU options", "`matmul.parts` must be at least 1, not 0"));
        }
        if let Some(limit) =
            self.persistent_limits.spin_limit.filter(|&limit| limit > PersistentLimits::LARGEST_SPIN_LIMIT)
        {
            let message = format!(
                "`persistent_limits.spin_limit` must be at most {}, not {limit}",
                PersistentLimits::LARGEST_SPIN_LIMIT
            );
            return Err(Error::config("GPU options", message));
        }
        if self.persistent == Persistent::Off && self.recurrent == RecurrentStrategy::Persistent {
            let message = "`persistent` is off and `recurrent` asks for it: leave one at its default";
            return Err(Error::config("GPU options", message));
        }
        if self.journal == Journal::Choices && self.matmul.is_some() {
            let message = "`journal` notes choices between ways: leave `matmul` at `None`, which forces one";
            return Err(Error::config("GPU options", message));
        }
        Ok(())
    }

    /// The same in the words of the GPU's room.
    pub(super) fn context(&self, wanted: Wanted) -> ContextOptions {
        ContextOptions {
            wanted,
            checked: self.build == ShaderBuild::Checked,
            allow_immediates: self.parameters == ParameterPath::Fastest,
            binding_bytes: self.binding_bytes,
            workgroups: self.workgroups,
            pipelines: self.pipelines,
            profiling: self.profiling,
            matmul: self.matmul,
            recurrent: self.recurrent,
            persistent: self.persistent,
            persistent_limits: self.persistent_limits,
            tuning: self.tuning.clone(),
            journal: self.journal,
            wait_limit: self.wait_limit,
        }
    }
}

//! Where tensors live and work runs: the CPU, or one GPU; discovery and selection.

mod host;
mod options;

use std::fmt;
use std::sync::Arc;

use crate::gpu::{self, AdapterKind, AdapterSummary, Context, KernelCall, PersistentReport};
use crate::tuning::Tuning;
use crate::{Error, Result};

pub(crate) use host::{Host, Precision};
pub use options::{GpuOptions, ParameterPath, ShaderBuild};

/// The environment variable that [`Device::auto`] obeys: `auto`, `cpu`, `reference`, `gpu`, `gpu:N` or a part of an
/// adapter's name.
pub const DEVICE_VARIABLE: &str = "REFRAIN_DEVICE";

/// A place to compute. Cheap to clone; clones are the same device.
///
/// ```
/// let device = refrain::Device::cpu();
/// assert_eq!(device.to_string(), "cpu");
/// ```
#[derive(Clone)]
pub struct Device(Backend);

/// The executors behind the one contract of each operation: the twin in either precision, or the kernels.
#[derive(Clone)]
pub(crate) enum Backend {
    Cpu(Host),
    Gpu(Arc<Context>),
}

/// Counters of a device, for those who measure or test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// GPU buffers ever allocated: constant in a steady training loop.
    pub allocations: u64,
    /// Bytes of all GPU buffers that exist, in use or waiting for reuse.
    pub bytes: u64,
    /// Bytes of the GPU buffers in use: those of tensors that exist, and of transfers under way.
    pub bytes_in_use: u64,
    /// The most bytes that were in use at once, since the device was opened or [`Device::reset_peak`] was called.
    pub peak_bytes_in_use: u64,
    /// Kernel calls ever recorded.
    pub dispatches: u64,
    /// Submissions ever made.
    pub submissions: u64,
    /// How often the host waited for the GPU: for a value, because it was asked to, or because too many submissions
    /// were in flight.
    pub waits: u64,
    /// Bind groups ever made: constant in a steady training loop, as soon as it has met every combination of its buffers.
    pub bind_groups: u64,
    /// Pipelines ever compiled: constant as soon as a loop has called each of its kernels.
    pub pipelines: u64,
}

impl Device {
    /// The CPU, in 32-bit floats.
    ///
    /// All values of this are the same device: tensors of one work with those of another. Clones share the memory that is
    /// kept for reuse, which goes with the last of them and of their tensors.
    pub fn cpu() -> Self {
        Self(Backend::Cpu(Host::new(Precision::F32)))
    }

    /// The CPU in 64-bit floats: the oracle that every other device is checked against.
    pub fn reference() -> Self {
        Self(Backend::Cpu(Host::new(Precision::F64)))
    }

    /// The GPU that `name` asks for: `gpu` (the best hardware adapter), `gpu:N` (the N-th of [`Device::list`]) or
    /// a part of an adapter's name, ignoring case. Only the last two can yield a software adapter.
    ///
    /// Each call opens the adapter anew, as a device of its own: clone a device to share it.
    ///
    /// Two environment variables turn on what is off by default: [`TUNING_VARIABLE`](crate::TUNING_VARIABLE) the choices that
    /// `refrain tune` has stored for the adapter, [`PERSISTENT_VARIABLE`](crate::PERSISTENT_VARIABLE) the persistent strategy
    /// of recurrent layers.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] and, for `gpu`, [`Error::NoHardware`], listing what is there; whatever the driver says when it
    /// cannot be opened; [`Error::Config`] for a value of [`PERSISTENT_VARIABLE`](crate::PERSISTENT_VARIABLE) that means nothing.
    pub fn gpu(name: &str) -> Result<Self> {
        Self::gpu_with(name, &GpuOptions::default())
    }

    /// As [`Device::gpu`], with options.
    ///
    /// # Errors
    /// As [`Device::gpu`]; [`Error::Config`] for a limit that leaves nothing to work with, and for options that exclude each
    /// other; [`Error::Unsupported`] for
    /// profiling where the adapter has no timestamps (`timestamps` is not among its [`AdapterSummary::features`]).
    pub fn gpu_with(name: &str, options: &GpuOptions) -> Result<Self> {
        options.expect_sensible()?;
        // Every name contains the empty one: it would take whatever comes first.
        if name.trim().is_empty() {
            return Err(Self::not_found(name));
        }
        match Context::open(&options.context(gpu::choose(name)))? {
            Some(context) => Ok(Self(Backend::Gpu(context))),
            None => Err(Self::not_found(name)),
        }
    }

    /// The error for a `name` that no adapter answers to.
    fn not_found(name: &str) -> Error {
        match gpu::choose(name) {
            // All that there are, for none is hardware.
            gpu::Wanted::Hardware => {
                Error::NoHardware { software: Self::list().into_iter().map(|found| found.name).collect() }
            }
            _ => Error::NoAdapter { wanted: name.to_owned(), available: Self::available() },
        }
    }

    /// The device that `name` asks for: `cpu`, `reference` (the CPU in 64-bit floats), or what [`Device::gpu`] takes.
    ///
    /// # Errors
    /// As [`Device::gpu`].
    pub fn named(name: &str) -> Result<Self> {
        match name.trim().to_lowercase().as_str() {
            "cpu" => Ok(Self::cpu()),
            "reference" => Ok(Self::reference()),
            _ => Self::gpu(name.trim()),
        }
    }

    /// What [`DEVICE_VARIABLE`] asks for; without it the best hardware GPU, or the CPU where there is none. A
    /// software adapter is never taken: the CPU is faster.
    ///
    /// # Errors
    /// As [`Device::gpu`], if the variable is set or the GPU that is there cannot be opened.
    pub fn auto() -> Result<Self> {
        let wanted = std::env::var_os(DEVICE_VARIABLE).unwrap_or_default();
        // A name that is not Unicode is no adapter's, and the error shows it.
        match wanted.to_string_lossy().trim() {
            "" | "auto" => match Self::gpu("gpu") {
                Err(Error::NoHardware { .. }) => Ok(Self::cpu()),
                found => found,
            },
            name => Self::named(name),
        }
    }

    /// All GPU adapters, in the order of preference: discrete, integrated, virtual, other, software. Empty on a
    /// machine without a graphics driver.
    pub fn list() -> Vec<AdapterSummary> {
        gpu::summaries()
    }

    /// Everything that [`Device::named`] would accept here, for messages.
    fn available() -> Vec<String> {
        let adapters = Self::list().into_iter();
        let described = adapters.map(|found| format!("gpu:{} ({}, {})", found.index, found.name, found.kind));
        ["cpu", "reference"].map(str::to_owned).into_iter().chain(described).collect()
    }

    /// Whether this is a GPU, software adapters included.
    pub fn is_gpu(&self) -> bool {
        matches!(self.0, Backend::Gpu(_))
    }

    /// What sort of hardware the GPU is; `None` for the CPU.
    pub fn adapter_kind(&self) -> Option<AdapterKind> {
        match &self.0 {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => Some(context.kind()),
        }
    }

    /// What the driver says of the GPU; `None` for the CPU.
    pub fn adapter(&self) -> Option<&AdapterSummary> {
        match &self.0 {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => Some(context.adapter()),
        }
    }

    /// The measured choices that this device obeys; `None` where heuristics decide alone, and on the CPU.
    pub fn tuning(&self) -> Option<&Tuning> {
        match &self.0 {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => context.choices().tuning(),
        }
    }

    /// Why this device does not obey the stored choices that it was asked to: their file cannot be read or understood, and
    /// heuristics decide. `None` where all is well.
    pub fn tuning_warning(&self) -> Option<&str> {
        match &self.0 {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => context.choices().warning(),
        }
    }

    /// The choices that this device's work has met since it was opened, and how they were made: a device that is given
    /// them does the same in the same ways.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the CPU; [`Error::Config`] for a device that was opened without
    /// [`Journal::Choices`](crate::Journal::Choices).
    pub fn choices(&self) -> Result<Tuning> {
        match &self.0 {
            Backend::Cpu(_) => Err(Error::Unsupported {
                what: "choices".into(),
                message: "the CPU has one way to compute each operation; a GPU has several".into(),
            }),
            Backend::Gpu(context) => context.choices().noted(),
        }
    }

    /// Submits recorded work without waiting for it. Optimizers do this at the end of each step.
    ///
    /// # Errors
    /// Whatever the device reported since the last call.
    pub fn flush(&self) -> Result<()> {
        match &self.0 {
            Backend::Cpu(_) => Ok(()),
            Backend::Gpu(context) => context.flush(),
        }
    }

    /// Submits recorded work and **waits** until all of it is done. On the CPU, where work is done when a call returns,
    /// this does nothing.
    ///
    /// # Errors
    /// Whatever the device reported since the last call.
    pub fn synchronize(&self) -> Result<()> {
        match &self.0 {
            Backend::Cpu(_) => Ok(()),
            Backend::Gpu(context) => context.synchronize(),
        }
    }

    /// Gives the memory that is kept for reuse back to the system or the driver; **waits** for the GPU. Before work of quite
    /// other sizes, it makes room.
    ///
    /// # Errors
    /// Whatever the device reported since the last call.
    pub fn release_unused(&self) -> Result<()> {
        match &self.0 {
            Backend::Cpu(host) => {
                host.store().release();
                Ok(())
            }
            Backend::Gpu(context) => context.release_unused(),
        }
    }

    /// When each kernel ran, in the order of the calls recorded since the last time that this was asked. Uploads,
    /// copies and clears are not among them. **Waits** for the GPU.
    ///
    /// ```no_run
    /// use refrain::{Device, GpuOptions, Profiling, Tensor, ops};
    /// let options = GpuOptions { profiling: Profiling::Kernels, ..GpuOptions::default() };
    /// let device = Device::gpu_with("gpu", &options)?;
    /// let x = Tensor::zeros(&device, &[512, 512])?;
    /// ops::matmul(&x, &x, ops::Form::Plain, None)?;
    /// for call in device.profile()? {
    ///     println!("{} took {} ns", call.kernel, call.nanoseconds);
    /// }
    /// # Ok::<(), refrain::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the CPU; [`Error::Config`] for a device that was opened without
    /// [`Profiling::Kernels`](crate::Profiling::Kernels); whatever the device reported since the last call.
    pub fn profile(&self) -> Result<Vec<KernelCall>> {
        match &self.0 {
            Backend::Cpu(_) => Err(Error::Unsupported {
                what: "profile".into(),
                message: "the CPU runs no kernels; kernels are timed on a GPU".into(),
            }),
            Backend::Gpu(context) => context.profile(),
        }
    }

    /// What this device has seen of workgroups that wait for each other, as those of [`RecurrentStrategy::Persistent`](crate::RecurrentStrategy::Persistent) do;
    /// `None` for the CPU.
    pub fn persistent_report(&self) -> Option<PersistentReport> {
        match &self.0 {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => Some(context.waiting_report()),
        }
    }

    /// Begins to look for [`DeviceCounters::peak_bytes_in_use`] anew, from what is in use now.
    pub fn reset_peak(&self) {
        if let Backend::Gpu(context) = &self.0 {
            context.pool().reset_peak();
        }
    }

    /// What the device has counted so far; zeros for the CPU.
    pub fn counters(&self) -> DeviceCounters {
        match &self.0 {
            Backend::Cpu(_) => DeviceCounters::default(),
            Backend::Gpu(context) => {
                let (pool, counted) = (context.pool(), context.counted());
                DeviceCounters {
                    allocations: pool.allocations(),
                    bytes: pool.bytes(),
                    bytes_in_use: pool.in_use(),
                    peak_bytes_in_use: pool.peak(),
                    dispatches: counted.dispatches,
                    submissions: counted.submissions,
                    waits: counted.waits,
                    bind_groups: counted.bind_groups,
                    pipelines: context.pipelines() as u64,
                }
            }
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0
    }

    /// Elements to which sections of a flat buffer are padded, so that each can be bound on its own.
    pub(crate) fn section_elements(&self) -> usize {
        match &self.0 {
            Backend::Cpu(_) => 1,
            Backend::Gpu(context) => (context.limits().storage_alignment / 4).max(1) as usize,
        }
    }

    /// Fails unless `other` is the same device.
    pub(crate) fn expect_same(&self, what: &str, other: &Self) -> Result<()> {
        if self == other {
            return Ok(());
        }
        Err(Error::DeviceMismatch {
            what: what.to_owned(),
            expected: self.to_string(),
            found: other.to_string(),
        })
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Backend::Cpu(one), Backend::Cpu(two)) => one.precision() == two.precision(),
            (Backend::Gpu(one), Backend::Gpu(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Backend::Cpu(host) => formatter.write_str(match host.precision() {
                Precision::F32 => "cpu",
                Precision::F64 => "reference",
            }),
            Backend::Gpu(context) => formatter.write_str(context.name()),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({self})")
    }
}

/// Runs the CPU twin with `$real` bound to the device's number type, and `$host` to its [`Host`] where it is asked for; or
/// the GPU's expression with its context.
macro_rules! on_device {
    ($device:expr, $real:ident => $cpu:expr, $context:ident => $gpu:expr $(,)?) => {
        $crate::device::on_device!($device, $real, _host => $cpu, $context => $gpu)
    };
    ($device:expr, $real:ident, $host:ident => $cpu:expr, $context:ident => $gpu:expr $(,)?) => {
        match $device.backend() {
            $crate::device::Backend::Cpu($host) => match $host.precision() {
                $crate::device::Precision::F32 => {
                    type $real = f32;
                    $cpu
                }
                $crate::device::Precision::F64 => {
                    type $real = f64;
                    $cpu
                }
            },
            $crate::device::Backend::Gpu($context) => $gpu,
        }
    };
}
pub(crate) use on_device;

//! Devices: the CPU or a GPU; their discovery and selection.

mod host;
mod store;

use std::fmt;
use std::sync::Arc;

use crate::gpu::{
    self, AdapterKind, AdapterSummary, Context, GpuOptions, KernelCall, PersistentReport, Tuning,
};
use crate::{Error, Result};

pub(crate) use host::{Host, Precision};
pub(crate) use store::MemoryBlock;

/// The environment variable that selects the device of [`Device::auto`]: `auto`, `cpu`, `reference`, `gpu`, `gpu:N` or a
/// part of an adapter's name.
pub const DEVICE_VARIABLE: &str = "REFRAIN_DEVICE";

/// A device that stores tensors and runs operations. Cheap to clone; clones are the same device.
///
/// ```
/// let device = refrain::Device::cpu();
/// assert_eq!(device.to_string(), "cpu");
/// ```
#[derive(Clone)]
pub struct Device(Backend);

/// The implementations of each operation: the CPU reference in either precision, or the GPU kernels.
#[derive(Clone)]
pub(crate) enum Backend {
    Cpu(Host),
    Gpu(Arc<Context>),
}

/// Counters of a device, for measurements and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// GPU buffers allocated so far; constant in a steady training loop.
    pub allocations: u64,
    /// Total size of all GPU buffers in bytes, in use or cached for reuse.
    pub bytes: u64,
    /// Size of the GPU buffers in use in bytes: those of live tensors and of pending transfers.
    pub bytes_in_use: u64,
    /// The maximum of `bytes_in_use` since the device was opened or [`Device::reset_peak`] was called.
    pub peak_bytes_in_use: u64,
    /// Kernel dispatches recorded so far.
    pub dispatches: u64,
    /// Submissions so far.
    pub submissions: u64,
    /// How often the host has waited for the GPU: to read a value, on request, or because too many submissions were in
    /// flight.
    pub waits: u64,
    /// Bind groups created so far; constant in a steady training loop once it has used every combination of its buffers.
    pub bind_groups: u64,
    /// Pipelines compiled so far; constant once a loop has run each of its kernels.
    pub pipelines: u64,
}

impl Device {
    /// The CPU, in 32-bit floats.
    ///
    /// All values returned by this function are the same device, so their tensors can be combined. Clones share the memory
    /// cached for reuse, which is freed with the last clone and the last of their tensors.
    pub fn cpu() -> Self {
        Self(Backend::Cpu(Host::new(Precision::F32)))
    }

    /// The CPU in 64-bit floats: the reference that every other device is compared with.
    pub fn reference() -> Self {
        Self(Backend::Cpu(Host::new(Precision::F64)))
    }

    /// A device that counts the memory of a GPU and has none; its operations compute nothing.
    pub(crate) fn dry() -> Self {
        Self(Backend::Gpu(Context::dry()))
    }

    /// Opens the GPU `name`: `gpu` (the best hardware adapter), `gpu:N` (the N-th of [`Device::list`]) or a part of an
    /// adapter's name, ignoring case. Only the last two can select a software adapter.
    ///
    /// Each call opens the adapter as a new device; clone a device to share it.
    ///
    /// Two environment variables enable optional features: [`TUNING_VARIABLE`](crate::tuning::TUNING_VARIABLE) the choices that
    /// `refrain tune` has stored for the adapter, [`PERSISTENT_VARIABLE`](crate::tuning::PERSISTENT_VARIABLE) the persistent
    /// strategy of recurrent layers.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] and, for `gpu`, [`Error::NoHardware`], which list the available devices; errors of the
    /// driver when it opens the adapter; [`Error::Config`] for an invalid value of
    /// [`PERSISTENT_VARIABLE`](crate::tuning::PERSISTENT_VARIABLE).
    pub fn gpu(name: &str) -> Result<Self> {
        Self::gpu_with(name, &GpuOptions::default())
    }

    /// As [`Device::gpu`], with options.
    ///
    /// # Errors
    /// As [`Device::gpu`]; [`Error::Config`] for a limit that is too low, and for options that exclude each other;
    /// [`Error::Unsupported`] for profiling if the adapter has no timestamps (`timestamps` is not in its
    /// [`AdapterSummary::features`]).
    pub fn gpu_with(name: &str, options: &GpuOptions) -> Result<Self> {
        options.expect_sensible()?;
        // Every name contains the empty string, which would select the first adapter.
        if name.trim().is_empty() {
            return Err(Self::not_found(name));
        }
        match Context::open(&gpu::choose(name), options)? {
            Some(context) => Ok(Self(Backend::Gpu(context))),
            None => Err(Self::not_found(name)),
        }
    }

    /// The error for a `name` that matches no adapter.
    fn not_found(name: &str) -> Error {
        match gpu::choose(name) {
            // All adapters, because none of them is hardware.
            gpu::AdapterRequest::Hardware => {
                Error::NoHardware { software: Self::list().into_iter().map(|found| found.name).collect() }
            }
            _ => Error::NoAdapter { wanted: name.to_owned(), available: Self::available() },
        }
    }

    /// Opens the device `name`: `cpu`, `reference` (the CPU in 64-bit floats), or a name that [`Device::gpu`] accepts.
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

    /// Opens the device named by [`DEVICE_VARIABLE`]. If it is not set: the best hardware GPU, or the CPU if there is
    /// none. A software adapter is never selected, because the CPU is faster.
    ///
    /// # Errors
    /// As [`Device::gpu`], if the variable is set or the GPU cannot be opened.
    pub fn auto() -> Result<Self> {
        let wanted = std::env::var_os(DEVICE_VARIABLE).unwrap_or_default();
        // A name that is not Unicode matches no adapter; the error shows it.
        match wanted.to_string_lossy().trim() {
            "" | "auto" => match Self::gpu("gpu") {
                Err(Error::NoHardware { .. }) => Ok(Self::cpu()),
                found => found,
            },
            name => Self::named(name),
        }
    }

    /// All GPU adapters in order of preference: discrete, integrated, virtual, other, software. Empty on a
    /// machine without a graphics driver.
    pub fn list() -> Vec<AdapterSummary> {
        gpu::summaries()
    }

    /// The names that [`Device::named`] accepts on this machine, for messages.
    fn available() -> Vec<String> {
        let adapters = Self::list().into_iter();
        let described = adapters.map(|found| format!("gpu:{} ({}, {})", found.index, found.name, found.kind));
        ["cpu", "reference"].map(str::to_owned).into_iter().chain(described).collect()
    }

    /// Whether this is a GPU; software adapters count as GPUs.
    pub fn is_gpu(&self) -> bool {
        matches!(self.0, Backend::Gpu(_))
    }

    /// The kind of the GPU; `None` for the CPU.
    pub fn adapter_kind(&self) -> Option<AdapterKind> {
        Some(self.context()?.kind())
    }

    /// The driver's description of the GPU; `None` for the CPU.
    pub fn adapter(&self) -> Option<&AdapterSummary> {
        Some(self.context()?.adapter())
    }

    /// The measured choices that this device uses; `None` if it uses only heuristics, and for the CPU.
    pub fn tuning(&self) -> Option<&Tuning> {
        self.context()?.choices().tuning()
    }

    /// Why this device does not use the stored choices although they were requested: their file cannot be read or is
    /// invalid, and the device uses heuristics. `None` if there was no error.
    pub fn tuning_warning(&self) -> Option<&str> {
        self.context()?.choices().warning()
    }

    /// The choices made for this device's work since it was opened. A device opened with them makes the same choices.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the CPU; [`Error::Config`] for a device opened without
    /// [`Journal::Choices`](crate::tuning::Journal::Choices).
    pub fn choices(&self) -> Result<Tuning> {
        let on_cpu = "only GPUs make choices; the CPU has one implementation of each operation";
        self.expect_gpu("choices", on_cpu)?.choices().noted()
    }

    /// Submits recorded work without waiting for it. Optimizers do this at the end of each step.
    ///
    /// # Errors
    /// Errors reported by the device since the last call.
    pub fn flush(&self) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.recorder().flush())
    }

    /// Submits recorded work and **waits** until it has completed. Does nothing on the CPU, where operations complete before
    /// they return.
    ///
    /// # Errors
    /// Errors reported by the device since the last call.
    pub fn synchronize(&self) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.recorder().synchronize())
    }

    /// Returns cached memory to the system or the driver; **waits** for the GPU. Useful before work with different buffer
    /// sizes.
    ///
    /// # Errors
    /// Errors reported by the device since the last call.
    pub fn release_unused(&self) -> Result<()> {
        match &self.0 {
            Backend::Cpu(host) => {
                host.store().release();
                Ok(())
            }
            Backend::Gpu(context) => context.recorder().release_unused(),
        }
    }

    /// The time of each kernel dispatch recorded since the last call of this function, in order. Excludes uploads,
    /// copies and clears. **Waits** for the GPU.
    ///
    /// ```no_run
    /// use refrain::tuning::Profiling;
    /// use refrain::{Device, GpuOptions, Tensor, ops};
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
    /// [`Error::Unsupported`] on the CPU; [`Error::Config`] for a device opened without
    /// [`Profiling::Kernels`](crate::tuning::Profiling::Kernels); errors reported by the device since the last call.
    pub fn profile(&self) -> Result<Vec<KernelCall>> {
        self.expect_gpu("profile", "the CPU runs no kernels; only GPUs are profiled")?.recorder().profile()
    }

    /// What this device has recorded about workgroups that wait for each other, as in
    /// [`RecurrentStrategy::Persistent`](crate::tuning::RecurrentStrategy::Persistent); `None` for the CPU.
    pub fn persistent_report(&self) -> Option<PersistentReport> {
        Some(self.context()?.waiting().report())
    }

    /// Resets [`DeviceCounters::peak_bytes_in_use`] to the bytes in use now.
    pub fn reset_peak(&self) {
        if let Some(context) = self.context() {
            context.pool().reset_peak();
        }
    }

    /// The device's counters; all zero for the CPU.
    pub fn counters(&self) -> DeviceCounters {
        let Some(context) = self.context() else { return DeviceCounters::default() };
        let (pool, counted) = (context.pool(), context.recorder().counted());
        DeviceCounters {
            allocations: pool.allocations(),
            bytes: pool.bytes(),
            bytes_in_use: pool.in_use(),
            peak_bytes_in_use: pool.peak(),
            dispatches: counted.dispatches,
            submissions: counted.submissions,
            waits: counted.waits,
            bind_groups: counted.bind_groups,
            pipelines: counted.pipelines,
        }
    }

    /// The context of a GPU.
    fn context(&self) -> Option<&Context> {
        match &self.0 {
            Backend::Cpu(_) => None,
            Backend::Gpu(context) => Some(context),
        }
    }

    fn expect_gpu(&self, what: &str, on_cpu: &str) -> Result<&Context> {
        let refused = || Error::Unsupported { what: what.to_owned(), message: on_cpu.to_owned() };
        self.context().ok_or_else(refused)
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0
    }

    /// The padding of sections of a flat buffer, in elements, so that each section can be bound on its own.
    pub(crate) fn section_elements(&self) -> usize {
        self.context().map_or(1, |context| (context.limits().storage_alignment / 4).max(1) as usize)
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
            Backend::Gpu(context) => formatter.write_str(&context.adapter().name),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({self})")
    }
}

/// Evaluates the CPU expression with `$real` bound to the device's number type and, if requested, `$host` to its
/// [`Host`]; or evaluates the GPU expression with the device's context.
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

//! For tests and diagnosis: options of a device that do not change results, its counters and reports, and deliberate
//! faults, for tests of programs that must survive a failing GPU.

use crate::device::Backend;
use crate::{Device, Result};

pub use crate::device::DeviceCounters;
pub use crate::gpu::{ParameterPath, PersistentLimits, PersistentReport, ShaderBuild};

/// Records a command that makes the driver reject the whole submission that contains it: from that submission on, each call
/// on `device` returns [`Error::DeviceLost`](crate::Error::DeviceLost). Does nothing on the CPU.
///
/// ```
/// use refrain::{Device, Error, Tensor, testing};
/// # let Ok(device) = Device::gpu("gpu:0") else { return Ok(()) };
/// let x = Tensor::zeros(&device, &[3])?;
/// testing::break_submission(&device)?;
/// assert!(matches!(x.download(), Err(Error::DeviceLost { .. })));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::DeviceLost`](crate::Error::DeviceLost), and out of memory.
pub fn break_submission(device: &Device) -> Result<()> {
    match device.backend() {
        Backend::Cpu(_) => Ok(()),
        Backend::Gpu(context) => context.break_submission(),
    }
}

/// Calls a kernel that is valid WGSL but that the driver rejects: only this call fails, and nothing is recorded. Does
/// nothing on the CPU.
///
/// # Errors
/// [`Error::Shader`](crate::Error::Shader) on every GPU.
pub fn refused_kernel(device: &Device) -> Result<()> {
    match device.backend() {
        Backend::Cpu(_) => Ok(()),
        Backend::Gpu(context) => context.refused_kernel(),
    }
}

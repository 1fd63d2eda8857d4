//! For tests of programs that must survive a failing GPU: faults made on purpose.

use crate::device::Backend;
use crate::{Device, Result};

/// Records a command that the driver refuses with the submission it is part of, and everything recorded beside it: from that
/// submission on, each call on `device` returns [`Error::DeviceLost`](crate::Error::DeviceLost). On the CPU, where calls are done when they return,
/// this does nothing.
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

/// Calls a kernel that compiles as WGSL and that the driver refuses: an error of this call alone, of which nothing is recorded. On
/// the CPU this does nothing.
///
/// # Errors
/// [`Error::Shader`](crate::Error::Shader) on every GPU.
pub fn refused_kernel(device: &Device) -> Result<()> {
    match device.backend() {
        Backend::Cpu(_) => Ok(()),
        Backend::Gpu(context) => context.refused_kernel(),
    }
}

//! Estimates of the memory of a run, checked before anything is allocated.

use refrain::{AdapterKind, Device, Error};

use crate::failure::{Failure, Result};
use crate::format::bytes;

/// The sizes of a run; sums saturate, because the sizes come from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// The number of weights.
    pub(crate) parameters: u64,
    /// Weights, gradients, optimizer moments, and the activations saved for the backward pass, in bytes.
    pub(crate) bytes: u64,
    /// The largest single buffer, in bytes.
    pub(crate) largest_buffer: u64,
}

impl Footprint {
    /// The footprint of `parameters` weights with `copies` arrays of their size, of activations of `activations` numbers,
    /// and of an array of activations of `widest` numbers.
    pub(crate) fn new(parameters: u128, copies: u128, activations: u128, widest: u128) -> Self {
        let bytes = |numbers: u128| u64::try_from(numbers.saturating_mul(4)).unwrap_or(u64::MAX);
        Self {
            parameters: u64::try_from(parameters).unwrap_or(u64::MAX),
            bytes: bytes(copies.saturating_mul(parameters).saturating_add(activations)),
            largest_buffer: bytes(parameters.max(widest)),
        }
    }

    /// Fails if this exceeds the limits or the memory of `device`.
    ///
    /// # Errors
    /// [`Error::ExceedsLimit`] with the required and the available size.
    pub(crate) fn expect_fits(&self, device: &Device) -> Result<()> {
        let name = device.to_string();
        let adapter = match device.is_gpu() {
            true => Device::list().into_iter().find(|adapter| adapter.name == name),
            false => None,
        };
        if let Some(adapter) = &adapter
            && self.largest_buffer > adapter.max_buffer_bytes
        {
            let what = format!("the largest buffer of this model on {name} (bytes)");
            let (needed, limit) = (self.largest_buffer, adapter.max_buffer_bytes);
            return Err(Error::ExceedsLimit { what, needed, limit }.into());
        }
        // Software and integrated adapters share the host's memory; a discrete one does not report its size.
        let shares_host = adapter
            .is_none_or(|adapter| matches!(adapter.kind, AdapterKind::Software | AdapterKind::Integrated));
        // The reference's numbers are twice as wide.
        let needed = if *device == Device::reference() { self.bytes.saturating_mul(2) } else { self.bytes };
        let available = available_bytes();
        if shares_host && needed > available {
            let (needed, available) = (bytes(needed), bytes(available));
            return Err(Failure::option(
                "--hidden",
                format!(
                    "needs {needed} of memory for weights, gradients, moments and activations, but the \
                     limit is the {available} that are free; use a smaller --hidden, --layers, --batch or --sequence"
                ),
            ));
        }
        Ok(())
    }
}

/// The memory that is still available to this process, from the machine or its control group.
fn available_bytes() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = system.available_memory();
    match system.cgroup_limits() {
        Some(limits) => machine.min(limits.free_memory),
        None => machine,
    }
}

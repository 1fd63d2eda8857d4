//! Bringing values to the host: where it waits for the GPU's results.

use super::context::Context;
use super::pool::Purpose;
use super::span::Span;
use crate::{Error, Result};

impl Context {
    /// Submits everything recorded so far and waits for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], and whatever the device reported.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.flush()?;
        self.wait()?;
        self.reclaim_all()?;
        self.faults().check()
    }

    /// Copies `span` to the host: submits everything recorded so far and waits for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] for the staging buffer, and whatever the device reported.
    pub(crate) fn download<T: bytemuck::Pod>(&self, span: Span<'_>) -> Result<Vec<T>> {
        let bytes = span.byte_len();
        let staging = self.pool().take(Purpose::Download, bytes, "a download")?;
        self.record_copy(span, &staging.raw.buffer, 0);
        self.flush()?;
        let slice = staging.raw.buffer.slice(0..bytes);
        let (sender, receiver) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |mapped| {
            // The receiver lives until the wait below is over.
            sender.send(mapped).ok();
        });
        self.wait()?;
        self.reclaim_all()?;
        let lost = |reason: String| self.faults().check().and(Err(Error::DeviceLost { reason }));
        match receiver.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(error.to_string()),
            Err(error) => return lost(error.to_string()),
        }
        let values = match slice.get_mapped_range() {
            // `pod_collect_to_vec` copies by bytes: the mapping need not be aligned for `T`.
            Ok(view) => bytemuck::pod_collect_to_vec(&view),
            Err(error) => return lost(error.to_string()),
        };
        staging.raw.buffer.unmap();
        self.faults().check()?;
        Ok(values)
    }
}

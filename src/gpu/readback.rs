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
        // What kernels say of waiting for each other comes along behind.
        let status = self.known_status();
        let (wanted, more) = (span.byte_len(), status.map_or(0, |status| status.byte_len()));
        let bytes = wanted + more;
        let staging = self.pool().take(Purpose::Download, bytes, "a download")?;
        self.record_copy(span, &staging.raw.buffer, 0);
        if let Some(status) = status {
            self.record_copy(status, &staging.raw.buffer, wanted);
        }
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
        let (values, words) = match slice.get_mapped_range() {
            // `pod_collect_to_vec` copies by bytes: the mapping need not be aligned for `T`.
            Ok(view) => {
                let (values, words) = view.split_at(wanted as usize);
                (bytemuck::pod_collect_to_vec(values), bytemuck::pod_collect_to_vec::<u8, u32>(words))
            }
            Err(error) => return lost(error.to_string()),
        };
        staging.raw.buffer.unmap();
        self.faults().check()?;
        self.learn(&words)?;
        Ok(values)
    }
}

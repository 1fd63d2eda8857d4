//! Bringing values to the host: where it waits for the GPU's results.

use std::sync::mpsc::{Receiver, channel};

use super::context::Context;
use super::pool::{Buffer, Purpose};
use super::span::Span;
use crate::{Error, Result};

/// A copy that was recorded for the host.
struct Staged {
    staging: Buffer,
    bytes: u64,
}

/// One that was asked for.
struct Arriving {
    staged: Staged,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Staged {
    /// Asks for the copy, which has been submitted.
    fn map(self) -> Arriving {
        let (sender, mapped) = channel();
        self.staging.raw.buffer.slice(0..self.bytes).map_async(wgpu::MapMode::Read, move |outcome| {
            // The receiver lives until the wait is over.
            sender.send(outcome).ok();
        });
        Arriving { staged: self, mapped }
    }
}

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
        let values = self.staged(span)?;
        // What kernels say of waiting for each other comes along.
        let status = self.known_status();
        let told = status.map(|status| self.staged(status.span)).transpose()?;
        self.flush()?;
        let values = values.map();
        let told = told.map(Staged::map);
        self.wait()?;
        self.reclaim_all()?;
        let values = self.arrived(values)?;
        let told = told.map(|told| self.arrived(told)).transpose()?;
        self.faults().check()?;
        if let (Some(status), Some(words)) = (status, told) {
            self.learn(status, &words)?;
        }
        Ok(values)
    }

    /// Records the copy of `span` to a buffer that the host can read.
    fn staged(&self, span: Span<'_>) -> Result<Staged> {
        let bytes = span.byte_len();
        let staging = self.pool().take(Purpose::Download, bytes, "a download")?;
        self.record_copy(span, &staging.raw.buffer, 0);
        Ok(Staged { staging, bytes })
    }

    /// What came.
    fn arrived<T: bytemuck::Pod>(&self, arriving: Arriving) -> Result<Vec<T>> {
        let lost = |reason: String| self.faults().check().and(Err(Error::DeviceLost { reason }));
        match arriving.mapped.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(error.to_string()),
            Err(error) => return lost(error.to_string()),
        }
        let Staged { staging, bytes } = &arriving.staged;
        let buffer = &staging.raw.buffer;
        let values = match buffer.slice(0..*bytes).get_mapped_range() {
            // `pod_collect_to_vec` copies by bytes: the mapping need not be aligned for `T`.
            Ok(view) => bytemuck::pod_collect_to_vec(&view),
            Err(error) => return lost(error.to_string()),
        };
        buffer.unmap();
        Ok(values)
    }
}

//! Copies values to the host, which waits for the GPU.

use std::ops::RangeBounds;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::context::Context;
use super::faults::Faults;
use super::pool::{Buffer, Purpose};
use super::span::Span;
use crate::Result;

/// The longest single wait for a buffer whose mapping another thread has yet to report.
const LOOK: Duration = Duration::from_millis(20);

/// A copy that was recorded for the host.
struct Staged {
    staging: Buffer,
    bytes: u64,
}

/// A requested mapping, and the channel that reports it.
pub(super) struct Mapping {
    reported: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Mapping {
    /// Requests the mapping of a range of `buffer`, to which a copy has been submitted.
    pub(super) fn request(buffer: &wgpu::Buffer, range: impl RangeBounds<u64>) -> Self {
        let (sender, reported) = channel();
        buffer.map_async(wgpu::MapMode::Read, range, move |outcome| {
            // The receiver exists until the wait is over.
            sender.send(outcome).ok();
        });
        Self { reported }
    }
}

impl Context {
    /// Submits all recorded work and waits for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.finish()?;
        self.faults().check()
    }

    /// Copies `span` to the host: submits all recorded work and waits for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], and [`Error::OutOfMemory`] for the staging buffer.
    pub(crate) fn download<T: bytemuck::Pod>(&self, span: Span<'_>) -> Result<Vec<T>> {
        self.faults().check()?;
        let values = self.staged(span)?;
        // Also reads the timeouts of persistent kernels.
        let status = self.known_status();
        let told = status.map(|status| self.staged(status.span)).transpose()?;
        self.finish()?;
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
        let bytes = span.inside()?.byte_len();
        let staging = self.pool().take(Purpose::Download, bytes, "a download")?;
        self.record_copy(span, staging.raw.buffer(), 0)?;
        Ok(Staged { staging, bytes })
    }

    /// The values of a copy whose submission is finished.
    fn arrived<T: bytemuck::Pod>(&self, Staged { staging, bytes }: Staged) -> Result<Vec<T>> {
        let read = || {
            let mapping = Mapping::request(staging.raw.buffer(), 0..bytes);
            self.mapped(&mapping)?;
            let view = staging.raw.buffer().get_mapped_range(0..bytes);
            let view = view.map_err(|error| self.faults().lost(error.to_string()))?;
            // `pod_collect_to_vec` copies bytes: the mapping need not be aligned for `T`.
            Ok(bytemuck::pod_collect_to_vec(&view))
        };
        let values = read();
        match &values {
            Ok(_) => staging.raw.buffer().unmap(),
            // The buffer may be mapped now or later.
            Err(_) => staging.discard(),
        }
        values
    }

    /// Waits until a buffer is mapped whose submission is finished. Any thread that polls the device may
    /// report it.
    pub(super) fn mapped(&self, mapping: &Mapping) -> Result<()> {
        let faults: &Faults = self.faults();
        let start = Instant::now();
        loop {
            self.poll(wgpu::PollType::Poll)?;
            match mapping.reported.recv_timeout(LOOK) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(faults.lost(error.to_string())),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(faults.lost("a download did not finish"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    faults.check()?;
                    if start.elapsed() > self.wait_limit() {
                        return Err(self.wait_expired(None));
                    }
                }
            }
        }
    }
}

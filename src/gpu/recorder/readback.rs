//! Copies values to the host, which waits for the GPU.

use super::Recorder;
use crate::gpu::driver::Mapping;
use crate::gpu::pool::{Buffer, Purpose};
use crate::gpu::profile::KernelCall;
use crate::gpu::span::Span;
use crate::{Error, Result};

/// A copy that was recorded for the host.
struct Staged {
    staging: Buffer,
    bytes: u64,
}

impl Recorder {
    /// Submits all recorded work and waits for it.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.finish()?;
        self.driver.faults.check()
    }

    /// Copies `span` to the host: submits all recorded work and waits for it.
    pub(crate) fn download<T: bytemuck::Pod>(&self, span: Span<'_>) -> Result<Vec<T>> {
        self.driver.faults.check()?;
        let values = self.staged(span)?;
        // Also reads the timeouts of persistent kernels.
        let status = self.waiting.known_status();
        let told = status.map(|status| self.staged(status.span)).transpose()?;
        self.finish()?;
        let values = self.arrived(values)?;
        let told = told.map(|told| self.arrived(told)).transpose()?;
        self.driver.faults.check()?;
        if let (Some(status), Some(words)) = (status, told) {
            self.waiting.learn(status, &words, |span| self.clear(span))?;
        }
        Ok(values)
    }

    /// Records the copy of `span` to a buffer that the host can read.
    fn staged(&self, span: Span<'_>) -> Result<Staged> {
        let span = span.inside()?;
        let (from, start, bytes) = (span.raw().buffer(), span.byte_offset(), span.byte_len());
        let staging = self.pool.take(Purpose::Download, bytes, "a download")?;
        let mut recorded = self.recorded();
        self.encoder(&mut recorded).copy_buffer_to_buffer(from, start, staging.raw.buffer(), 0, bytes);
        drop(recorded);
        Ok(Staged { staging, bytes })
    }

    /// The values of a copy whose submission is finished.
    fn arrived<T: bytemuck::Pod>(&self, Staged { staging, bytes }: Staged) -> Result<Vec<T>> {
        let read = || {
            let mapping = Mapping::request(staging.raw.buffer(), 0..bytes);
            self.driver.mapped(&mapping)?;
            let view = staging.raw.buffer().get_mapped_range(0..bytes);
            let view = view.map_err(|error| self.driver.faults.lost(error.to_string()))?;
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

    /// Returns the dispatches since the previous call. **Waits** for the GPU.
    pub(crate) fn profile(&self) -> Result<Vec<KernelCall>> {
        let Some(profiler) = &self.profiler else {
            let message =
                "this device was opened without: open it by `Device::gpu_with` and `Profiling::Kernels`";
            return Err(Error::config("profile", message));
        };
        self.flush()?;
        let submitted = std::mem::take(&mut self.recorded().tape.submitted);
        self.synchronize()?;
        let mut calls = Vec::with_capacity(submitted.iter().map(|(kernels, _)| kernels.len()).sum());
        for (kernels, buffer) in submitted {
            self.driver.mapped(&Mapping::request(&buffer, ..))?;
            let view =
                buffer.get_mapped_range(..).map_err(|error| Error::Gpu { message: error.to_string() })?;
            let timestamps: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
            calls.extend(self.recorded().tape.calls(profiler.period, kernels, &timestamps));
        }
        Ok(calls)
    }
}

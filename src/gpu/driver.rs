//! [`Driver`]: the device and the queue of an opened GPU, what they report, and waiting for submitted work.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::faults::Faults;
use crate::{Error, Result};

/// The longest single wait for a buffer whose mapping another thread has yet to report.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An opened GPU as its driver presents it.
pub(super) struct Driver {
    /// `None` in a dry run.
    handles: Option<(wgpu::Device, wgpu::Queue)>,
    pub(super) faults: Arc<Faults>,
    /// How long the host waits for one submission.
    wait_limit: Duration,
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

impl Driver {
    /// Opens `adapter` with all its limits.
    pub(super) fn open(
        adapter: &wgpu::Adapter,
        required_features: wgpu::Features,
        wait_limit: Duration,
    ) -> Result<Self> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("refrain"),
            required_features,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::Gpu { message: error.to_string() })?;
        let faults = Arc::new(Faults::default());
        let uncaptured = Arc::clone(&faults);
        // Calls that may fail have error scopes; an error outside of them lost recorded work.
        device.on_uncaptured_error(Arc::new(move |error| uncaptured.lose(error.to_string())));
        let lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            // `Destroyed` means that this program dropped the device.
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.lose(message);
            }
        });
        Ok(Self { handles: Some((device, queue)), faults, wait_limit })
    }

    /// The driver of a dry run, to which nothing is passed.
    pub(super) fn none() -> Self {
        Self { handles: None, faults: Arc::default(), wait_limit: Duration::MAX }
    }

    pub(super) fn is_dry(&self) -> bool {
        self.handles.is_none()
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.handles().0
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.handles().1
    }

    fn handles(&self) -> &(wgpu::Device, wgpu::Queue) {
        match &self.handles {
            Some(handles) => handles,
            None => unreachable!("a dry run passes nothing to a driver"),
        }
    }

    /// Waits for a submission, at most the limit.
    pub(super) fn wait_for(&self, index: wgpu::SubmissionIndex, user_kernel: Option<&str>) -> Result<()> {
        let timeout = Some(self.wait_limit);
        match self.poll_device(wgpu::PollType::Wait { submission_index: Some(index), timeout }) {
            Ok(_) => Ok(()),
            Err(Some(wgpu::PollError::Timeout)) => Err(self.wait_expired(user_kernel)),
            Err(_) => self.poll(wgpu::PollType::Poll),
        }
    }

    /// Marks the device as lost because a submission did not finish within the limit.
    fn wait_expired(&self, user_kernel: Option<&str>) -> Error {
        let seconds = self.wait_limit.as_secs_f64();
        let cause = match user_kernel {
            Some(name) => format!("it calls the kernel `{name}`, which has a user's WGSL in it"),
            None => "a longer `GpuOptions::wait_limit` allows for slower work".to_owned(),
        };
        self.faults.lost(format!("a submission did not end within {seconds} s; {cause}"))
    }

    /// Polls the device: the driver reports finished work and runs callbacks.
    pub(super) fn poll(&self, kind: wgpu::PollType) -> Result<()> {
        match self.poll_device(kind) {
            Ok(_) => self.faults.check(),
            Err(Some(error)) => Err(self.faults.lost(error.to_string())),
            Err(None) => Err(self.faults.lost("the driver failed during a poll")),
        }
    }

    /// `None` if `wgpu` panics, as it does for a device that the driver reports as lost during a wait.
    fn poll_device(&self, kind: wgpu::PollType) -> Result<wgpu::PollStatus, Option<wgpu::PollError>> {
        let poll = std::panic::AssertUnwindSafe(|| self.device().poll(kind));
        std::panic::catch_unwind(poll).map_or(Err(None), |polled| polled.map_err(Some))
    }

    /// Waits until a buffer is mapped whose submission is finished. Any thread that polls the device may
    /// report it.
    pub(super) fn mapped(&self, mapping: &Mapping) -> Result<()> {
        let faults = &self.faults;
        let start = Instant::now();
        loop {
            self.poll(wgpu::PollType::Poll)?;
            match mapping.reported.recv_timeout(POLL_INTERVAL) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(faults.lost(error.to_string())),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(faults.lost("a download did not finish"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    faults.check()?;
                    if start.elapsed() > self.wait_limit {
                        return Err(self.wait_expired(None));
                    }
                }
            }
        }
    }
}

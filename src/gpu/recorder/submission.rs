//! Submissions: passes recorded work to the driver and bounds the work in flight.
//!
//! After more than [`MAX_IN_FLIGHT`] submissions without a wait, the next one waits for the oldest, so that a
//! loop that never reads anything has bounded memory. Upload buffers return when their submission leaves that
//! window, not when the GPU finishes them: their number does not depend on which of the two is faster, and a
//! steady loop has allocated all of them after a few steps.

use std::sync::Arc;

use super::Recorder;
use crate::gpu::context::Context;
use crate::gpu::faults::scoped;
use crate::gpu::pool::{Purpose, Raw};
use crate::{Error, Result};

const MAX_IN_FLIGHT: usize = 3;

/// A submission that may be unfinished, and the upload buffers that it reads.
pub(super) struct Submitted {
    /// The number of the submission.
    number: u64,
    index: wgpu::SubmissionIndex,
    uploads: Vec<Raw>,
    user_kernel: Option<Arc<str>>,
}

impl Context {
    /// Submits all recorded work without waiting for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], also if the driver refuses the submission: the work of all threads in it is
    /// then lost.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut recorder = self.recorder();
        self.submit(&mut recorder)?;
        drop(recorder);
        self.faults().check()
    }

    /// Submits the work of `recorder`, if there is any.
    ///
    /// # Errors
    /// As [`Context::flush`].
    pub(super) fn submit(&self, recorder: &mut Recorder) -> Result<()> {
        if recorder.encoder.is_none() {
            return Ok(());
        }
        // Calls that may fail come first: on an error the recorded work is still complete and can be
        // submitted later.
        let uniforms = match &recorder.uniform_buffer {
            Some(buffer) => Some(self.uniform_commands(buffer, &recorder.uniforms)?),
            None => None,
        };
        let uniforms = uniforms.map(|(commands, staging)| {
            recorder.uploads.push(staging);
            commands
        });
        recorder.uniforms.clear();
        recorder.uniform_buffer = None;
        let mut status = None;
        let outcome = scoped(self.device(), || {
            drop(recorder.pass.take());
            if let Some(encoder) = &mut recorder.encoder {
                recorder.tape.cut(self.device(), encoder);
                status = self.copy_status(encoder);
            }
            let recorded = recorder.encoder.take().map(wgpu::CommandEncoder::finish);
            self.queue().submit(uniforms.into_iter().chain(recorded))
        });
        recorder.dispatches = 0;
        let (uploads, user_kernel) = (std::mem::take(&mut recorder.uploads), recorder.user_kernel.take());
        let index = match outcome {
            Ok(index) => index,
            Err(error) => {
                uploads.iter().for_each(|raw| self.pool().forget(raw));
                return Err(self
                    .faults()
                    .lost(format!("a submission failed, and its work is lost: {error}")));
            }
        };
        if let Some(status) = status {
            status.map();
        }
        recorder.counted.submissions += 1;
        let number = recorder.counted.submissions;
        recorder.last = Some((number, index.clone()));
        recorder.in_flight.push_back(Submitted { number, index, uploads, user_kernel });
        if recorder.in_flight.len() <= MAX_IN_FLIGHT {
            return self.poll(wgpu::PollType::Poll);
        }
        let Some(oldest) = recorder.in_flight.pop_front() else { return Ok(()) };
        recorder.counted.waits += 1;
        self.wait_for(oldest.index, oldest.user_kernel.as_deref())?;
        self.reclaim(oldest.uploads)
    }

    /// Submits all recorded work, waits for it and reclaims its upload buffers. Does not wait for work that
    /// other threads record meanwhile.
    pub(in crate::gpu) fn finish(&self) -> Result<()> {
        let mut recorder = self.recorder();
        self.submit(&mut recorder)?;
        recorder.counted.waits += 1;
        let user_kernel = recorder.in_flight.iter().find_map(|submitted| submitted.user_kernel.clone());
        let last = recorder.last.clone();
        drop(recorder);
        let Some((number, index)) = last else { return Ok(()) };
        self.wait_for(index, user_kernel.as_deref())?;
        let mut recorder = self.recorder();
        let finished = recorder.in_flight.iter().take_while(|submitted| submitted.number <= number).count();
        let finished: Vec<Submitted> = recorder.in_flight.drain(..finished).collect();
        drop(recorder);
        self.reclaim(finished.into_iter().flat_map(|submitted| submitted.uploads))
    }

    /// Waits for a submission, at most [`Context::wait_limit`].
    fn wait_for(&self, index: wgpu::SubmissionIndex, user_kernel: Option<&str>) -> Result<()> {
        let timeout = Some(self.wait_limit());
        match self.poll_device(wgpu::PollType::Wait { submission_index: Some(index), timeout }) {
            Ok(_) => Ok(()),
            Err(Some(wgpu::PollError::Timeout)) => Err(self.wait_expired(user_kernel)),
            Err(_) => self.poll(wgpu::PollType::Poll),
        }
    }

    /// Marks the device as lost because a submission did not finish within [`Context::wait_limit`].
    pub(in crate::gpu) fn wait_expired(&self, user_kernel: Option<&str>) -> Error {
        let seconds = self.wait_limit().as_secs_f64();
        let cause = match user_kernel {
            Some(name) => format!("it calls the kernel `{name}`, which has a user's WGSL in it"),
            None => "a longer `GpuOptions::wait_limit` allows for slower work".to_owned(),
        };
        self.faults().lost(format!("a submission did not end within {seconds} s; {cause}"))
    }

    /// Polls the device: the driver reports finished work and runs callbacks.
    pub(in crate::gpu) fn poll(&self, kind: wgpu::PollType) -> Result<()> {
        match self.poll_device(kind) {
            Ok(_) => self.faults().check(),
            Err(Some(error)) => Err(self.faults().lost(error.to_string())),
            Err(None) => Err(self.faults().lost("the driver failed during a poll")),
        }
    }

    /// `None` if `wgpu` panics, as it does for a device that the driver reports as lost during a wait.
    fn poll_device(&self, kind: wgpu::PollType) -> Result<wgpu::PollStatus, Option<wgpu::PollError>> {
        let poll = std::panic::AssertUnwindSafe(|| self.device().poll(kind));
        std::panic::catch_unwind(poll).map_or(Err(None), |polled| polled.map_err(Some))
    }

    /// Returns upload buffers that the GPU has read to their shelf, mapped.
    fn reclaim(&self, uploads: impl IntoIterator<Item = Raw>) -> Result<()> {
        for staging in uploads {
            let pool = Arc::clone(self.pool());
            let buffer = staging.buffer().clone();
            buffer.map_async(wgpu::MapMode::Write, .., move |mapped| {
                match mapped {
                    Ok(()) => pool.put(Purpose::Upload, staging),
                    // A buffer that cannot be mapped again belongs to a lost device and is dropped.
                    Err(_) => pool.forget(&staging),
                }
            });
        }
        // An idle buffer is mapped at the next poll.
        self.poll(wgpu::PollType::Poll)
    }
}

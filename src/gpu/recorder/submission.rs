//! Submissions: passes recorded work to the driver and bounds the work in flight.
//!
//! After more than [`MAX_IN_FLIGHT`] submissions without a wait, the next one waits for the oldest, so that a
//! loop that never reads anything has bounded memory. Upload buffers return when their submission leaves that
//! window, not when the GPU finishes them: their number does not depend on which of the two is faster, and a
//! steady loop has allocated all of them after a few steps.

use std::sync::Arc;

use super::{Recorded, Recorder};
use crate::Result;
use crate::gpu::faults::scoped;
use crate::gpu::pool::{Purpose, Raw};

const MAX_IN_FLIGHT: usize = 3;

/// A submission that may be unfinished, and the upload buffers that it reads.
pub(super) struct Submitted {
    /// The number of the submission.
    number: u64,
    index: wgpu::SubmissionIndex,
    uploads: Vec<Raw>,
    user_kernel: Option<Arc<str>>,
}

impl Recorder {
    /// Submits all recorded work without waiting for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], also if the driver refuses the submission: the work of all threads in it is
    /// then lost.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut recorded = self.recorded();
        self.submit(&mut recorded)?;
        drop(recorded);
        self.driver.faults.check()
    }

    /// Submits the work of `recorded`, if there is any.
    pub(super) fn submit(&self, recorded: &mut Recorded) -> Result<()> {
        if recorded.encoder.is_none() {
            return Ok(());
        }
        // Calls that may fail come first: on an error the recorded work is still complete and can be
        // submitted later.
        let uniforms = match &recorded.uniform_buffer {
            Some(buffer) => Some(self.uniform_commands(buffer, &recorded.uniforms)?),
            None => None,
        };
        let uniforms = uniforms.map(|(commands, staging)| {
            recorded.uploads.push(staging);
            commands
        });
        recorded.uniforms.clear();
        recorded.uniform_buffer = None;
        let mut status = None;
        let outcome = scoped(self.driver.device(), || {
            drop(recorded.pass.take());
            if let Some(encoder) = &mut recorded.encoder {
                recorded.tape.cut(self.driver.device(), encoder);
                status = self.waiting.copy_status(encoder);
            }
            let commands = recorded.encoder.take().map(wgpu::CommandEncoder::finish);
            self.driver.queue().submit(uniforms.into_iter().chain(commands))
        });
        recorded.dispatches = 0;
        let (uploads, user_kernel) = (std::mem::take(&mut recorded.uploads), recorded.user_kernel.take());
        let index = match outcome {
            Ok(index) => index,
            Err(error) => {
                uploads.iter().for_each(|raw| self.pool.forget(raw));
                return Err(self
                    .driver
                    .faults
                    .lost(format!("a submission failed, and its work is lost: {error}")));
            }
        };
        if let Some(status) = status {
            status.map();
        }
        recorded.counted.submissions += 1;
        let number = recorded.counted.submissions;
        recorded.last = Some((number, index.clone()));
        recorded.in_flight.push_back(Submitted { number, index, uploads, user_kernel });
        if recorded.in_flight.len() <= MAX_IN_FLIGHT {
            return self.driver.poll(wgpu::PollType::Poll);
        }
        let Some(oldest) = recorded.in_flight.pop_front() else { return Ok(()) };
        recorded.counted.waits += 1;
        self.driver.wait_for(oldest.index, oldest.user_kernel.as_deref())?;
        self.reclaim(oldest.uploads)
    }

    /// Submits all recorded work, waits for it and reclaims its upload buffers. Does not wait for work that
    /// other threads record meanwhile.
    pub(super) fn finish(&self) -> Result<()> {
        let mut recorded = self.recorded();
        self.submit(&mut recorded)?;
        recorded.counted.waits += 1;
        let user_kernel = recorded.in_flight.iter().find_map(|submitted| submitted.user_kernel.clone());
        let last = recorded.last.clone();
        drop(recorded);
        let Some((number, index)) = last else { return Ok(()) };
        self.driver.wait_for(index, user_kernel.as_deref())?;
        let mut recorded = self.recorded();
        let finished = recorded.in_flight.iter().take_while(|submitted| submitted.number <= number).count();
        let finished: Vec<Submitted> = recorded.in_flight.drain(..finished).collect();
        drop(recorded);
        self.reclaim(finished.into_iter().flat_map(|submitted| submitted.uploads))
    }

    /// Returns upload buffers that the GPU has read to their shelf, mapped.
    fn reclaim(&self, uploads: impl IntoIterator<Item = Raw>) -> Result<()> {
        for staging in uploads {
            let pool = Arc::clone(&self.pool);
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
        self.driver.poll(wgpu::PollType::Poll)
    }
}

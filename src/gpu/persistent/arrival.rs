//! How a timeout becomes known without a readback: each submission that may change the status copies it for the host, which
//! reads it once the submission is done, and waits for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::STATUS;
use crate::gpu::pool::Buffer;
use crate::gpu::span::Span;

/// Bytes of the status.
const BYTES: u64 = 4 * STATUS as u64;

/// The host's copy of the status; there is one, and while it is under way later submissions make none: what they would bring
/// stays in the status until it has been learnt.
pub(super) struct Arrival {
    staging: Buffer,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy)]
enum State {
    Idle,
    Underway,
    Here(Arrived),
}

/// What a copy brought, and how many stops had been seen when it was recorded.
#[derive(Clone, Copy)]
pub(super) struct Arrived {
    pub(super) words: [u32; STATUS],
    pub(super) timeouts: u64,
}

/// A copy that is part of a submission, to be asked for once that has been submitted.
pub(in crate::gpu) struct Copied<'a> {
    arrival: &'a Arrival,
    timeouts: u64,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arrival {
    pub(super) fn new(staging: Buffer) -> Self {
        Self { staging, state: Arc::new(Mutex::new(State::Idle)) }
    }

    /// Records a copy of `status`, unless another is under way or has not been learnt yet.
    pub(super) fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        status: Span<'_>,
        timeouts: u64,
    ) -> Option<Copied<'_>> {
        if !matches!(*lock(&self.state), State::Idle) {
            return None;
        }
        let (from, to) = (&status.raw().buffer, &self.staging.raw.buffer);
        encoder.copy_buffer_to_buffer(from, status.byte_offset(), to, 0, BYTES);
        Some(Copied { arrival: self, timeouts })
    }

    /// What has arrived since the last time that this was asked.
    pub(super) fn take(&self) -> Option<Arrived> {
        let mut state = lock(&self.state);
        let State::Here(arrived) = *state else { return None };
        *state = State::Idle;
        Some(arrived)
    }
}

impl Copied<'_> {
    /// Asks for the copy: it is here after a poll that finds the submission done.
    pub(in crate::gpu) fn map(self) {
        let Self { arrival: Arrival { staging, state }, timeouts } = self;
        *lock(state) = State::Underway;
        let (buffer, state) = (staging.raw.buffer.clone(), Arc::clone(state));
        staging.raw.buffer.map_async(wgpu::MapMode::Read, 0..BYTES, move |mapped| {
            let mut words = [0; STATUS];
            let read = mapped.is_ok()
                && buffer.get_mapped_range(0..BYTES).is_ok_and(|view| {
                    bytemuck::bytes_of_mut(&mut words).copy_from_slice(&view);
                    true
                });
            buffer.unmap();
            // A copy that cannot be read belongs to a lost device, which is reported elsewhere.
            *lock(&state) = if read { State::Here(Arrived { words, timeouts }) } else { State::Idle };
        });
    }
}

//! Reports timeouts to the host without a readback: each submission that may change the status copies it to a
//! staging buffer, which the host reads once the submission is finished, without waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::STATUS;
use crate::gpu::pool::Buffer;
use crate::gpu::span::Span;

/// Bytes of the status.
const BYTES: u64 = 4 * STATUS as u64;

/// The host's copy of the status. There is one; while it is in use, later submissions record no copy, and
/// timeouts remain in the status until the next copy.
pub(super) struct Arrival {
    staging: Buffer,
    state: Arc<Mutex<ArrivalState>>,
}

#[derive(Clone, Copy)]
enum ArrivalState {
    Idle,
    Underway,
    Here(Arrived),
}

/// The words of a copy, and how many timeouts had been seen when it was recorded.
#[derive(Clone, Copy)]
pub(super) struct Arrived {
    pub(super) words: [u32; STATUS],
    pub(super) timeouts: u64,
}

/// A copy that is part of a submission, to be mapped after that has been submitted.
pub(in crate::gpu) struct Copied<'a> {
    arrival: &'a Arrival,
    timeouts: u64,
}

fn lock(state: &Mutex<ArrivalState>) -> MutexGuard<'_, ArrivalState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arrival {
    pub(super) fn new(staging: Buffer) -> Self {
        Self { staging, state: Arc::new(Mutex::new(ArrivalState::Idle)) }
    }

    /// Records a copy of `status`, unless another is in flight or has not been read.
    pub(super) fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        status: Span<'_>,
        timeouts: u64,
    ) -> Option<Copied<'_>> {
        if !matches!(*lock(&self.state), ArrivalState::Idle) {
            return None;
        }
        let (from, to) = (status.raw().buffer(), self.staging.raw.buffer());
        encoder.copy_buffer_to_buffer(from, status.byte_offset(), to, 0, BYTES);
        Some(Copied { arrival: self, timeouts })
    }

    /// Takes the words of a finished copy.
    pub(super) fn take(&self) -> Option<Arrived> {
        let mut state = lock(&self.state);
        let ArrivalState::Here(arrived) = *state else { return None };
        *state = ArrivalState::Idle;
        Some(arrived)
    }
}

impl Copied<'_> {
    /// Requests the mapping of the copy, which completes at a poll after the submission is finished.
    pub(in crate::gpu) fn map(self) {
        let Self { arrival: Arrival { staging, state }, timeouts } = self;
        *lock(state) = ArrivalState::Underway;
        let (buffer, state) = (staging.raw.buffer().clone(), Arc::clone(state));
        staging.raw.buffer().map_async(wgpu::MapMode::Read, 0..BYTES, move |mapped| {
            let mut words = [0; STATUS];
            let read = mapped.is_ok()
                && buffer.get_mapped_range(0..BYTES).is_ok_and(|view| {
                    bytemuck::bytes_of_mut(&mut words).copy_from_slice(&view);
                    true
                });
            buffer.unmap();
            // A copy that cannot be read belongs to a lost device, which is reported elsewhere.
            *lock(&state) =
                if read { ArrivalState::Here(Arrived { words, timeouts }) } else { ArrivalState::Idle };
        });
    }
}

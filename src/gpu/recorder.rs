//! Gathers dispatches and copies into few submissions: one open compute pass until something else must happen.
//!
//! Work is submitted by [`Context::flush`], which optimizers call at the end of a training step and readbacks
//! call before they wait, and by itself after [`MAX_DISPATCHES`]. When a submission makes
//! more than [`MAX_IN_FLIGHT`] that have not been waited for, it waits for the oldest: a loop that never reads anything still keeps a
//! fixed memory ceiling.
//!
//! Upload buffers come back when their submission leaves that window, and not when the GPU happens to be done
//! with them: how many there are does not depend on who is faster, and a steady loop has them all after a few
//! steps.

use std::collections::VecDeque;
use std::sync::Arc;

use super::context::Context;
use super::groups::{BindGroups, Wanted};
use super::kernel::{Compiled, Kernel};
use super::pool::{Buffer, Purpose, Raw};
use super::profile::{Tape, Timer};
use super::span::{Bound, Span};
use crate::{Error, Result};

const MAX_DISPATCHES: usize = 4096;
const MAX_IN_FLIGHT: usize = 3;
const UNIFORM_BYTES: u64 = 1 << 20;

/// One call of a kernel.
pub(crate) struct Dispatch<'a, P> {
    pub(crate) kernel: &'static Kernel,
    /// Values of the kernel's override constants.
    pub(crate) constants: &'a [u32],
    /// The twin of the shader's `Parameters`.
    pub(crate) parameters: P,
    pub(crate) bindings: &'a [Bound<'a>],
    /// Workgroups along x, y and z.
    pub(crate) grid: [usize; 3],
}

/// What has been recorded and not yet submitted, and what has been submitted and not yet finished.
#[derive(Default)]
pub(super) struct Recorder {
    // Order matters when this is dropped: a pass ends before its encoder.
    pass: Option<Open>,
    encoder: Option<wgpu::CommandEncoder>,
    dispatches: usize,
    uniforms: Vec<u8>,
    uniform_buffer: Option<Buffer>,
    uploads: Vec<Raw>,
    in_flight: VecDeque<Submitted>,
    bind_groups: BindGroups,
    /// The pipeline of the dispatch before, which a loop over time asks for again.
    compiled: Option<Arc<Compiled>>,
    /// Of a profiled device: when which kernel ran.
    tape: Tape,
    counted: Counted,
}

/// The pass that dispatches are recorded into, and what is set in it.
struct Open {
    pass: wgpu::ComputePass<'static>,
    /// The number of the pipeline.
    pipeline: Option<usize>,
    /// The number of the bind group, where it has no dynamic offset.
    group: Option<u64>,
}

/// What was ever recorded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) dispatches: u64,
    pub(crate) submissions: u64,
    /// How often the host waited for the GPU.
    pub(crate) waits: u64,
    /// Bind groups made.
    pub(crate) bind_groups: u64,
}

/// A submission that may be unfinished, and the upload buffers that it reads.
struct Submitted {
    index: wgpu::SubmissionIndex,
    uploads: Vec<Raw>,
}

impl Recorder {
    /// Lets go of all cached bind groups, and with them of the buffers they hold.
    pub(super) fn forget_bind_groups(&mut self) {
        self.bind_groups.clear();
    }

    pub(super) fn tape(&mut self) -> &mut Tape {
        &mut self.tape
    }
}

impl Context {
    /// Records one call of a kernel.
    ///
    /// # Errors
    /// Whatever the device reported since the last call; out of memory for the parameters.
    pub(crate) fn dispatch<P: bytemuck::Pod>(&self, call: Dispatch<'_, P>) -> Result<()> {
        self.faults().check()?;
        debug_assert_eq!(call.bindings.len(), call.kernel.bindings.len(), "bindings of {}", call.kernel.name);
        debug_assert!(
            call.grid.iter().all(|&groups| (1..=self.limits().workgroups).contains(&groups)),
            "{} asks for a grid of {:?}",
            call.kernel.name,
            call.grid
        );
        let parameters = bytemuck::bytes_of(&call.parameters);
        let mut guard = self.recorder();
        let recorder = &mut *guard;
        if recorder.dispatches >= MAX_DISPATCHES || recorder.tape.is_full() {
            self.submit(recorder)?;
        }
        let offset = match self.immediates() {
            true => None,
            false => Some(self.push_uniform(recorder, parameters)?),
        };
        let timer =
            self.profiler().map(|profiler| recorder.tape.timer(profiler, self.device(), call.kernel.name));
        self.open_pass(recorder, timer.as_ref());
        let compiled = self.pipeline(&mut recorder.compiled, call.kernel, call.constants);
        let Some(open) = &mut recorder.pass else { unreachable!("opened above") };
        if open.pipeline != Some(compiled.id) {
            open.pass.set_pipeline(&compiled.pipeline);
            (open.pipeline, open.group) = (Some(compiled.id), None);
        }
        let uniform = offset.and(recorder.uniform_buffer.as_ref());
        let wanted = Wanted { kernel: call.kernel, compiled, uniform, bindings: call.bindings };
        let group = recorder.bind_groups.get(self.device(), &wanted);
        match offset {
            Some(offset) => open.pass.set_bind_group(0, &group.group, &[offset]),
            None => {
                if open.group != Some(group.number) {
                    open.pass.set_bind_group(0, &group.group, &[]);
                    open.group = Some(group.number);
                }
                open.pass.set_immediates(0, parameters);
            }
        }
        let [x, y, z] = call.grid.map(|groups| groups as u32);
        match timer {
            None => open.pass.dispatch_workgroups(x, y, z),
            Some(timer) => timer.dispatch(&mut open.pass, [x, y, z]),
        }
        recorder.dispatches += 1;
        recorder.counted.dispatches += 1;
        Ok(())
    }

    /// Records the upload of `bytes` to the start of `target`; runs in order with what was recorded before.
    pub(crate) fn upload(&self, target: &Buffer, bytes: &[u8]) -> Result<()> {
        let padded = (bytes.len() as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        let staging = self.stage(bytes, padded)?;
        let mut recorder = self.recorder();
        let encoder = self.encoder(&mut recorder);
        encoder.copy_buffer_to_buffer(&staging.buffer, 0, &target.raw.buffer, 0, padded);
        recorder.uploads.push(staging);
        Ok(())
    }

    /// Records the clearing of `span` to zero.
    pub(crate) fn clear(&self, span: Span<'_>) {
        let mut recorder = self.recorder();
        let (start, bytes) = (span.byte_offset(), span.byte_len());
        self.encoder(&mut recorder).clear_buffer(&span.raw().buffer, start, Some(bytes));
    }

    pub(super) fn record_copy(&self, from: Span<'_>, to: &wgpu::Buffer, offset: u64) {
        let mut recorder = self.recorder();
        let encoder = self.encoder(&mut recorder);
        encoder.copy_buffer_to_buffer(&from.raw().buffer, from.byte_offset(), to, offset, from.byte_len());
    }

    /// Submits what was recorded, without waiting for it.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut recorder = self.recorder();
        self.submit(&mut recorder)?;
        drop(recorder);
        self.faults().check()
    }

    /// What was ever recorded.
    pub(crate) fn counted(&self) -> Counted {
        let recorder = self.recorder();
        Counted { bind_groups: recorder.bind_groups.made(), ..recorder.counted }
    }

    fn submit(&self, recorder: &mut Recorder) -> Result<()> {
        drop(recorder.pass.take());
        if recorder.encoder.is_none() {
            return Ok(());
        }
        // What can fail comes first: then the recording is still whole, and can be submitted later.
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
        if let Some(encoder) = &mut recorder.encoder {
            recorder.tape.cut(self.device(), encoder);
        }
        let recorded = recorder.encoder.take().map(wgpu::CommandEncoder::finish);
        let index = self.queue().submit(uniforms.into_iter().chain(recorded));
        let uploads = std::mem::take(&mut recorder.uploads);
        recorder.in_flight.push_back(Submitted { index, uploads });
        recorder.dispatches = 0;
        recorder.counted.submissions += 1;
        if recorder.in_flight.len() <= MAX_IN_FLIGHT {
            return self.poll(wgpu::PollType::Poll);
        }
        let Some(Submitted { index, uploads }) = recorder.in_flight.pop_front() else { return Ok(()) };
        recorder.counted.waits += 1;
        self.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None })?;
        self.reclaim(uploads)
    }

    /// Takes back the upload buffers of everything submitted so far; the caller has waited for it.
    pub(super) fn reclaim_all(&self) -> Result<()> {
        let finished = std::mem::take(&mut self.recorder().in_flight);
        self.reclaim(finished.into_iter().flat_map(|submitted| submitted.uploads))
    }

    /// Waits for everything submitted so far.
    pub(super) fn wait(&self) -> Result<()> {
        self.recorder().counted.waits += 1;
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    pub(super) fn poll(&self, kind: wgpu::PollType) -> Result<()> {
        match self.device().poll(kind) {
            Ok(_) => Ok(()),
            // A lost device may surface here first: its own report says more.
            Err(error) => self.faults().check().and(Err(Error::DeviceLost { reason: error.to_string() })),
        }
    }

    /// A mapped upload buffer filled with `bytes`, and unmapped.
    fn stage(&self, bytes: &[u8], padded: u64) -> Result<Raw> {
        let raw = self.pool().take_raw(Purpose::Upload, padded, "an upload")?;
        {
            let mut view = raw
                .buffer
                .get_mapped_range_mut(0..padded)
                .map_err(|error| Error::Gpu { message: error.to_string() })?;
            view.slice(..bytes.len()).copy_from_slice(bytes);
        }
        raw.buffer.unmap();
        Ok(raw)
    }

    /// Puts upload buffers that the GPU has read back on their shelf, mapped.
    fn reclaim(&self, uploads: impl IntoIterator<Item = Raw>) -> Result<()> {
        for staging in uploads {
            let pool = Arc::clone(self.pool());
            let buffer = staging.buffer.clone();
            buffer.map_async(wgpu::MapMode::Write, .., move |mapped| {
                // A buffer that cannot be mapped again belongs to a lost device: let it go.
                if mapped.is_ok() {
                    pool.put(Purpose::Upload, staging);
                }
            });
        }
        // The mapping of an idle buffer is done at the next poll.
        self.poll(wgpu::PollType::Poll)
    }

    fn encoder<'r>(&self, recorder: &'r mut Recorder) -> &'r mut wgpu::CommandEncoder {
        drop(recorder.pass.take());
        recorder.encoder.get_or_insert_with(|| self.device().create_command_encoder(&Default::default()))
    }

    /// Sees to it that a pass is open: a new one for each timer that times whole passes.
    fn open_pass(&self, recorder: &mut Recorder, timer: Option<&Timer>) {
        let timestamp_writes = timer.and_then(Timer::around_pass);
        if recorder.pass.is_some() && timestamp_writes.is_none() {
            return;
        }
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let pass = self.encoder(recorder).begin_compute_pass(&descriptor).forget_lifetime();
        recorder.pass = Some(Open { pass, pipeline: None, group: None });
    }

    /// The pipeline of a dispatch: the one before where it is the same, for no more than a comparison.
    fn pipeline<'r>(
        &self,
        last: &'r mut Option<Arc<Compiled>>,
        kernel: &'static Kernel,
        constants: &[u32],
    ) -> &'r Compiled {
        let other = |last: &Arc<Compiled>| !last.is(kernel, constants);
        if last.as_ref().is_none_or(other) {
            *last = Some(self.compiled(kernel, constants));
        }
        let Some(compiled) = last else { unreachable!("set above") };
        compiled
    }

    fn push_uniform(&self, recorder: &mut Recorder, parameters: &[u8]) -> Result<u32> {
        let alignment = self.limits().uniform_alignment as usize;
        let start = recorder.uniforms.len().next_multiple_of(alignment);
        if (start + parameters.len()) as u64 > UNIFORM_BYTES {
            self.submit(recorder)?;
            return self.push_uniform(recorder, parameters);
        }
        if recorder.uniform_buffer.is_none() {
            let buffer = self.pool().take(Purpose::Uniform, UNIFORM_BYTES, "kernel parameters")?;
            recorder.uniform_buffer = Some(buffer);
        }
        recorder.uniforms.resize(start, 0);
        recorder.uniforms.extend_from_slice(parameters);
        Ok(start as u32)
    }

    /// The copy of all gathered parameters, to run before the dispatches that read them, and its staging buffer.
    fn uniform_commands(&self, buffer: &Buffer, uniforms: &[u8]) -> Result<(wgpu::CommandBuffer, Raw)> {
        let padded = (uniforms.len() as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        let staging = self.stage(uniforms, padded)?;
        let mut encoder = self.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&staging.buffer, 0, &buffer.raw.buffer, 0, padded);
        Ok((encoder.finish(), staging))
    }
}

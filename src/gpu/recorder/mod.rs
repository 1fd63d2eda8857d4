//! Collects dispatches and copies into few submissions. Dispatches share one compute pass until another
//! command must be recorded.
//!
//! Work is submitted by [`Recorder::flush`], which optimizers call at the end of a training step and readbacks
//! call before they wait, and automatically after [`MAX_DISPATCHES`]. See [`submission`].

mod readback;
mod submission;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::submission::Submitted;
use super::driver::Driver;
use super::groups::{BindGroupRequest, BindGroups};
use super::kernel::{Compiled, Fetched, Kernel, KernelCache};
use super::limits::Limits;
use super::persistent::Waiting;
use super::pool::{Buffer, Pool, Purpose, Raw};
use super::profile::{Profiler, Tape, Timer};
use super::span::{Bound, Span};
use crate::{Error, Result};

const MAX_DISPATCHES: usize = 4096;
const UNIFORM_BYTES: u64 = 1 << 20;

/// One dispatch of a kernel.
pub(crate) struct Dispatch<'a, P> {
    pub(crate) kernel: &'a Kernel,
    /// Values of the kernel's override constants.
    pub(crate) constants: &'a [u32],
    /// The parameters of the shader, as `parameters!` declares them.
    pub(crate) parameters: P,
    pub(crate) bindings: &'a [Bound<'a>],
    /// Workgroups along x, y and z.
    pub(crate) grid: [usize; 3],
}

/// What an opened GPU records, submits and reads back, and the parts that this uses.
pub(crate) struct Recorder {
    // Dropped first: its pass and encoder must end before the device does.
    pub(super) recorded: Mutex<Recorded>,
    pub(super) driver: Driver,
    pub(super) limits: Limits,
    pub(super) pool: Arc<Pool>,
    pub(super) kernels: KernelCache,
    pub(super) profiler: Option<Profiler>,
    pub(super) waiting: Waiting,
}

/// What has been recorded and not submitted, and what has been submitted and not finished.
#[derive(Default)]
pub(super) struct Recorded {
    // Dropped in this order: a pass must end before its encoder.
    pass: Option<Open>,
    encoder: Option<wgpu::CommandEncoder>,
    dispatches: usize,
    uniforms: Vec<u8>,
    uniform_buffer: Option<Buffer>,
    uploads: Vec<Raw>,
    /// The last custom kernel recorded since the last submission.
    user_kernel: Option<Arc<str>>,
    in_flight: VecDeque<Submitted>,
    /// The last submission.
    last: Option<(u64, wgpu::SubmissionIndex)>,
    bind_groups: BindGroups,
    /// The pipeline of the previous dispatch, which a time loop requests again.
    compiled: Option<Arc<Compiled>>,
    /// The measurements of a profiled device.
    tape: Tape,
    counted: Counted,
}

/// The open pass, and the state set in it.
struct Open {
    pass: wgpu::ComputePass<'static>,
    /// The number of the pipeline.
    pipeline: Option<usize>,
    /// The number of the bind group, if it has no dynamic offset.
    group: Option<u64>,
}

/// Counts of everything recorded so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) dispatches: u64,
    pub(crate) submissions: u64,
    /// How many times the host waited for the GPU.
    pub(crate) waits: u64,
    /// Bind groups created.
    pub(crate) bind_groups: u64,
    /// Pipelines compiled.
    pub(crate) pipelines: u64,
}

impl Recorder {
    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees all buffers that are kept for reuse. **Waits** for the GPU, which may still use them.
    pub(crate) fn release_unused(&self) -> Result<()> {
        self.synchronize()?;
        self.recorded().bind_groups.clear();
        self.pool.clear();
        // The driver frees unreferenced buffers at the next poll.
        self.driver.poll(wgpu::PollType::Poll)
    }

    /// Records one dispatch.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Shader`] for a custom kernel that the device refuses;
    /// [`Error::Internal`] for arguments that the kernel or the device does not allow; out of memory. Nothing
    /// is recorded on an error.
    pub(crate) fn dispatch<P: bytemuck::Pod>(&self, call: Dispatch<'_, P>) -> Result<()> {
        self.driver.faults.check()?;
        let sizes = [call.bindings.len(), call.constants.len(), size_of::<P>()];
        expect_allowed(call.kernel, sizes, call.grid, self.limits.workgroups)?;
        if self.driver.is_dry() {
            return Ok(());
        }
        let parameters = bytemuck::bytes_of(&call.parameters);
        let mut guard = self.recorded();
        let recorded = &mut *guard;
        if recorded.dispatches >= MAX_DISPATCHES || recorded.tape.is_full() {
            self.submit(recorded)?;
        }
        let offset = match self.kernels.immediates {
            true => None,
            false => Some(self.push_uniform(recorded, parameters)?),
        };
        let (last, groups) = (&mut recorded.compiled, &mut recorded.bind_groups);
        let compiled = self.pipeline(last, groups, call.kernel, call.constants)?;
        let uniform = offset.and(recorded.uniform_buffer.as_ref());
        let wanted = BindGroupRequest { kernel: call.kernel, compiled, uniform, bindings: call.bindings };
        let group = recorded.bind_groups.get(self.driver.device(), &wanted)?;
        // Nothing fails from here on: a dispatch is recorded completely or not at all.
        let tape = &mut recorded.tape;
        let timer =
            self.profiler.as_ref().map(|profiler| tape.timer(profiler, self.driver.device(), call.kernel));
        let open = self.open_pass(&mut recorded.pass, &mut recorded.encoder, timer.as_ref());
        if open.pipeline != Some(compiled.id) {
            open.pass.set_pipeline(&compiled.pipeline);
            (open.pipeline, open.group) = (Some(compiled.id), None);
        }
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
        if call.kernel.origin.is_user() && recorded.user_kernel.as_deref() != Some(&*call.kernel.name) {
            recorded.user_kernel = Some(call.kernel.name.as_ref().into());
        }
        recorded.dispatches += 1;
        recorded.counted.dispatches += 1;
        Ok(())
    }

    /// Records the upload of `bytes` to the start of `target`, in order with the other commands.
    pub(crate) fn upload(&self, target: &Buffer, bytes: &[u8]) -> Result<()> {
        self.driver.faults.check()?;
        let padded = (bytes.len() as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        let size = target.raw.size;
        Error::expect(padded <= size, || format!("an upload of {padded} bytes to a buffer of {size}"))?;
        if self.driver.is_dry() {
            return Ok(());
        }
        let staging = self.stage(bytes, padded)?;
        let mut recorded = self.recorded();
        let encoder = self.encoder(&mut recorded);
        encoder.copy_buffer_to_buffer(staging.buffer(), 0, target.raw.buffer(), 0, padded);
        recorded.uploads.push(staging);
        Ok(())
    }

    /// Records the clearing of `span` to zero.
    pub(crate) fn clear(&self, span: Span<'_>) -> Result<()> {
        self.driver.faults.check()?;
        let span = span.inside()?;
        if self.driver.is_dry() {
            return Ok(());
        }
        let mut recorded = self.recorded();
        let (start, bytes) = (span.byte_offset(), span.byte_len());
        self.encoder(&mut recorded).clear_buffer(span.raw().buffer(), start, Some(bytes));
        Ok(())
    }

    /// Counts of everything recorded so far.
    pub(crate) fn counted(&self) -> Counted {
        let pipelines = self.kernels.count() as u64;
        let recorded = self.recorded();
        Counted { bind_groups: recorded.bind_groups.created(), pipelines, ..recorded.counted }
    }

    /// An upload buffer that contains `bytes`, unmapped.
    fn stage(&self, bytes: &[u8], padded: u64) -> Result<Raw> {
        let raw = self.pool.take_raw(Purpose::Upload, padded, "an upload")?;
        let filled = raw.buffer().get_mapped_range_mut(0..padded).map(|mut view| {
            view.slice(..bytes.len()).copy_from_slice(bytes);
        });
        match filled {
            Ok(()) => {
                raw.buffer().unmap();
                Ok(raw)
            }
            Err(error) => {
                self.pool.forget(&raw);
                Err(Error::Gpu { message: error.to_string() })
            }
        }
    }

    fn encoder<'r>(&self, recorded: &'r mut Recorded) -> &'r mut wgpu::CommandEncoder {
        drop(recorded.pass.take());
        recorded
            .encoder
            .get_or_insert_with(|| self.driver.device().create_command_encoder(&Default::default()))
    }

    /// The open pass; a new one for each timer that measures whole passes.
    fn open_pass<'r>(
        &self,
        pass: &'r mut Option<Open>,
        encoder: &mut Option<wgpu::CommandEncoder>,
        timer: Option<&Timer>,
    ) -> &'r mut Open {
        let timestamp_writes = timer.and_then(Timer::around_pass);
        if timestamp_writes.is_some() {
            drop(pass.take());
        }
        pass.get_or_insert_with(|| {
            let encoder = encoder
                .get_or_insert_with(|| self.driver.device().create_command_encoder(&Default::default()));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let pass = encoder.begin_compute_pass(&descriptor).forget_lifetime();
            Open { pass, pipeline: None, group: None }
        })
    }

    /// The pipeline of a dispatch. If it is the previous one, this costs only a comparison.
    fn pipeline<'r>(
        &self,
        last: &'r mut Option<Arc<Compiled>>,
        groups: &mut BindGroups,
        kernel: &Kernel,
        constants: &[u32],
    ) -> Result<&'r Compiled> {
        let other = |last: &Arc<Compiled>| !last.is(kernel, constants);
        if last.as_ref().is_none_or(other) {
            let Fetched { compiled, dropped } =
                self.kernels.compiled(self.driver.device(), kernel, constants)?;
            if let Some(dropped) = dropped {
                groups.forget_pipeline(dropped);
            }
            *last = Some(compiled);
        }
        let Some(compiled) = last else { unreachable!("set above") };
        Ok(compiled)
    }

    fn push_uniform(&self, recorded: &mut Recorded, parameters: &[u8]) -> Result<u32> {
        let alignment = self.limits.uniform_alignment as usize;
        let start = recorded.uniforms.len().next_multiple_of(alignment);
        if (start + parameters.len()) as u64 > UNIFORM_BYTES {
            self.submit(recorded)?;
            return self.push_uniform(recorded, parameters);
        }
        if recorded.uniform_buffer.is_none() {
            let buffer = self.pool.take(Purpose::Uniform, UNIFORM_BYTES, "kernel parameters")?;
            recorded.uniform_buffer = Some(buffer);
        }
        recorded.uniforms.resize(start, 0);
        recorded.uniforms.extend_from_slice(parameters);
        Ok(start as u32)
    }

    /// The copy of all collected parameters, to run before the dispatches that read them, and its staging
    /// buffer.
    fn uniform_commands(&self, buffer: &Buffer, uniforms: &[u8]) -> Result<(wgpu::CommandBuffer, Raw)> {
        let padded = (uniforms.len() as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        let staging = self.stage(uniforms, padded)?;
        let mut encoder = self.driver.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(staging.buffer(), 0, buffer.raw.buffer(), 0, padded);
        Ok((encoder.finish(), staging))
    }
}

/// Checks a dispatch against `kernel` and against the most workgroups along an axis, `largest`: the numbers
/// of bindings, constants and parameter bytes, and that the grid is neither empty nor too large. The driver
/// would refuse it later, together with everything else in the submission.
fn expect_allowed(
    kernel: &Kernel,
    [bindings, constants, bytes]: [usize; 3],
    grid: [usize; 3],
    largest: usize,
) -> Result<()> {
    let allowed = bindings == kernel.bindings.len()
        && constants == kernel.constants.len()
        && bytes == kernel.parameter_bytes
        && grid.iter().all(|&groups| (1..=largest).contains(&groups));
    Error::expect(allowed, || {
        format!(
            "the kernel `{}` called with {bindings} bindings, {constants} constants, {bytes} bytes of parameters and a grid of \
             {grid:?}",
            kernel.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_its_kernel_or_the_device_does_not_allow_is_an_error_in_every_build() {
        for kernel in crate::ops::kernels() {
            let right = [kernel.bindings.len(), kernel.constants.len(), kernel.parameter_bytes];
            let call = |sizes, grid| expect_allowed(kernel, sizes, grid, 65535);
            assert!(call(right, [1, 65535, 1]).is_ok(), "{}", kernel.name);
            for grid in [[0, 1, 1], [1, 65536, 1], [1, 1, usize::MAX]] {
                assert!(matches!(call(right, grid), Err(Error::Internal { .. })), "{grid:?}");
            }
            for place in 0..right.len() {
                let mut wrong = right;
                wrong[place] += 1;
                assert!(matches!(call(wrong, [1; 3]), Err(Error::Internal { .. })), "{wrong:?}");
            }
        }
    }
}

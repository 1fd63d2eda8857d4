//! [`Context`]: one opened GPU and the parts it consists of.

use std::sync::{Arc, Mutex};

use super::adapters::{AdapterKind, AdapterRequest, AdapterSummary, find, summary};
use super::choices::Choices;
use super::driver::Driver;
use super::kernel::{IMMEDIATE_BYTES, KernelCache};
use super::limits::Limits;
use super::options::{GpuOptions, ParameterPath, ShaderBuild};
use super::persistent::Waiting;
use super::pool::{Buffer, Pool, Purpose};
use super::profile::Profiler;
use super::recorder::{Dispatch, Recorder};
use super::span::{Bound, Span};
use crate::{Error, Result};

/// An opened GPU.
pub(crate) struct Context {
    recorder: Recorder,
    adapter: AdapterSummary,
    choices: Choices,
}

impl Context {
    /// Opens the requested adapter with all its limits; `None` if there is none.
    pub(crate) fn open(wanted: &AdapterRequest, options: &GpuOptions) -> Result<Option<Arc<Self>>> {
        let Some((index, candidate)) = find(wanted) else { return Ok(None) };
        let adapter = &candidate.adapter;
        let summary = summary(index, &candidate);
        let choices = Choices::of(&summary, options);
        let persistent = options.persistent.is_allowed(options.recurrent)?;
        let has = adapter.limits();
        let immediates = options.parameters == ParameterPath::Fastest
            && adapter.features().contains(wgpu::Features::IMMEDIATES)
            && has.max_immediate_size >= IMMEDIATE_BYTES;
        let timestamps = Profiler::features(&summary.name, adapter.features(), options.profiling)?;
        let immediate = if immediates { wgpu::Features::IMMEDIATES } else { wgpu::Features::empty() };
        let driver = Driver::open(adapter, immediate | timestamps, options.wait_limit)?;
        let limits = limits(&has, options);
        let recorder = Recorder {
            recorded: Mutex::default(),
            limits,
            pool: Arc::new(Pool::new(Some(driver.device().clone()), limits.buffer_bytes)),
            kernels: KernelCache::new(options.pipelines, immediates, options.build == ShaderBuild::Checked),
            profiler: Profiler::new(driver.queue(), timestamps),
            waiting: Waiting::new(
                &adapter.get_info(),
                summary.kind,
                &has,
                options.persistent_limits,
                persistent,
            ),
            driver,
        };
        Ok(Some(Arc::new(Self { recorder, adapter: summary, choices })))
    }

    /// A context without a driver: operations allocate as on a GPU, in a pool that counts bytes and has no memory, and
    /// dispatch nothing. Shapes and limits are checked as usual.
    ///
    /// This is cheaper than a backend of its own, which would repeat what each operation allocates, and it cannot differ
    /// from them. It counts as a software adapter, which computes no sums in parts, and has limits that no tensor exceeds.
    pub(crate) fn dry() -> Arc<Self> {
        // Products of two of these fit 64 bits.
        const LARGEST: usize = 1 << 31;
        let recorder = Recorder {
            recorded: Mutex::default(),
            driver: Driver::none(),
            limits: Limits {
                binding_elements: LARGEST,
                workgroups: LARGEST,
                buffer_bytes: u64::MAX,
                storage_alignment: 4,
                uniform_alignment: 4,
            },
            pool: Arc::new(Pool::new(None, u64::MAX)),
            kernels: KernelCache::new(None, true, false),
            profiler: None,
            waiting: Waiting::default(),
        };
        Arc::new(Self { recorder, adapter: AdapterSummary::none(), choices: Choices::default() })
    }

    /// Whether this is [`Context::dry`].
    pub(crate) fn is_dry(&self) -> bool {
        self.recorder.driver.is_dry()
    }

    /// The adapter as the driver describes it.
    pub(crate) fn adapter(&self) -> &AdapterSummary {
        &self.adapter
    }

    pub(crate) fn kind(&self) -> AdapterKind {
        self.adapter.kind
    }

    /// The choices between implementations.
    pub(crate) fn choices(&self) -> &Choices {
        &self.choices
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.recorder.limits
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.recorder.pool
    }

    /// What is known about workgroups that wait for each other.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.recorder.waiting
    }

    /// Allocates `elements` four-byte values with undefined content.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], after the buffers kept for reuse have been freed.
    pub(crate) fn allocate(&self, elements: usize, what: &str) -> Result<Buffer> {
        let (bytes, pool) = (elements as u64 * 4, self.pool());
        match pool.take(Purpose::Storage, bytes, what) {
            Err(Error::OutOfMemory { .. }) => {
                self.recorder.release_unused()?;
                pool.take(Purpose::Storage, bytes, what)
            }
            taken => taken,
        }
    }

    /// Converts `span` to a binding.
    ///
    /// # Errors
    /// [`Error::ExceedsLimit`] if it is larger than one binding; operations split their work so that it is
    /// not.
    pub(crate) fn bind<'a>(&self, span: Span<'a>) -> Result<Bound<'a>> {
        span.bind(self.limits())
    }

    /// Records one dispatch: [`Recorder::dispatch`].
    pub(crate) fn dispatch<P: bytemuck::Pod>(&self, call: Dispatch<'_, P>) -> Result<()> {
        self.recorder.dispatch(call)
    }
}

fn limits(has: &wgpu::Limits, options: &GpuOptions) -> Limits {
    let alignment = u64::from(has.min_storage_buffer_offset_alignment);
    let binding = has.max_storage_buffer_binding_size;
    let binding = options.binding_bytes.map_or(binding, |asked| asked.min(binding));
    let workgroups = has.max_compute_workgroups_per_dimension;
    let workgroups = options.workgroups.map_or(workgroups, |asked| asked.min(workgroups));
    Limits {
        // A binding may begin up to one alignment before the first element.
        binding_elements: (binding.saturating_sub(alignment) / 4).max(1) as usize,
        workgroups: workgroups as usize,
        buffer_bytes: has.max_buffer_size,
        storage_alignment: alignment,
        uniform_alignment: u64::from(has.min_uniform_buffer_offset_alignment),
    }
}

//! [`Context`]: one opened GPU and the resources it owns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::adapters::{AdapterKind, AdapterSummary, Candidate, Wanted, find, summary};
use super::choices::{Choices, Journal, TuningSource};
use super::faults::Faults;
use super::kernel::{KernelCache, MAX_PIPELINES};
use super::limits::Limits;
use super::persistent::{Persistent, PersistentLimits, Waiting};
use super::pool::{Buffer, Pool, Purpose};
use super::products::MatmulVariant;
use super::profile::{Profiler, Profiling};
use super::recorder::Recorder;
use crate::{Error, Result};

/// Bytes of immediate data of this crate's largest kernel; every Vulkan device supports it.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;

/// The strategy of recurrent layers on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecurrentStrategy {
    /// Selects by the size of the layer and the kind of adapter.
    #[default]
    Auto,
    /// One dispatch for each time step.
    PerStep,
    /// Many steps per dispatch, for every layer whose step is one dispatch and whose values per row and step
    /// fit workgroup memory.
    Sequence,
    /// Many steps per dispatch, by workgroups that keep W_hh in workgroup memory and wait for each other at
    /// every step; for every layer whose step is one dispatch and whose W_hh fits the workgroups that run at
    /// once. `Auto` does not select it unless [`Persistent`](crate::tuning::Persistent) is on.
    Persistent,
}

/// Options for opening a GPU.
#[derive(Clone, Debug)]
pub(crate) struct ContextOptions {
    pub(crate) wanted: Wanted,
    pub(crate) checked: bool,
    pub(crate) allow_immediates: bool,
    pub(crate) profiling: Profiling,
    pub(crate) binding_bytes: Option<u64>,
    pub(crate) workgroups: Option<u32>,
    pub(crate) pipelines: Option<usize>,
    pub(crate) matmul: Option<MatmulVariant>,
    pub(crate) recurrent: RecurrentStrategy,
    pub(crate) persistent: Persistent,
    pub(crate) persistent_limits: PersistentLimits,
    pub(crate) tuning: TuningSource,
    pub(crate) journal: Journal,
    pub(crate) wait_limit: Duration,
}

/// An opened GPU.
pub(crate) struct Context {
    // Dropped first: its pass and encoder must end before the device does.
    recorder: Mutex<Recorder>,
    /// `None` in a dry run.
    driver: Option<(wgpu::Device, wgpu::Queue)>,
    adapter: AdapterSummary,
    limits: Limits,
    checked: bool,
    wait_limit: Duration,
    choices: Choices,
    waiting: Waiting,
    immediates: bool,
    profiler: Option<Profiler>,
    faults: Arc<Faults>,
    pool: Arc<Pool>,
    kernels: KernelCache,
}

impl Context {
    /// Opens the requested adapter with all its limits; `None` if there is none.
    pub(crate) fn open(options: &ContextOptions) -> Result<Option<Arc<Self>>> {
        let Some((index, candidate)) = find(&options.wanted) else { return Ok(None) };
        let summary = summary(index, &candidate);
        let choices = Choices::of(&summary, options);
        Self::from_candidate(&candidate, options, summary, choices).map(|context| Some(Arc::new(context)))
    }

    fn from_candidate(
        candidate: &Candidate,
        options: &ContextOptions,
        summary: AdapterSummary,
        choices: Choices,
    ) -> Result<Self> {
        let adapter = &candidate.adapter;
        let persistent = options.persistent.is_allowed(options.recurrent)?;
        let has = adapter.limits();
        let immediates = options.allow_immediates
            && adapter.features().contains(wgpu::Features::IMMEDIATES)
            && has.max_immediate_size >= IMMEDIATE_BYTES;
        let timestamps = Profiler::features(&summary.name, adapter.features(), options.profiling)?;
        let immediate = if immediates { wgpu::Features::IMMEDIATES } else { wgpu::Features::empty() };
        let required_features = immediate | timestamps;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("refrain"),
            required_features,
            required_limits: has.clone(),
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
        let limits = limits(&has, options);
        let profiler = Profiler::new(&queue, timestamps);
        let waiting =
            Waiting::new(&adapter.get_info(), summary.kind, &has, options.persistent_limits, persistent);
        Ok(Self {
            recorder: Mutex::new(Recorder::default()),
            pool: Arc::new(Pool::new(Some(device.clone()), limits.buffer_bytes)),
            driver: Some((device, queue)),
            adapter: summary,
            limits,
            checked: options.checked,
            wait_limit: options.wait_limit,
            choices,
            waiting,
            immediates,
            profiler,
            faults,
            kernels: KernelCache::new(options.pipelines.unwrap_or(MAX_PIPELINES)),
        })
    }

    /// A context without a driver: operations allocate as on a GPU, in a pool that counts bytes and has no memory, and
    /// dispatch nothing. Shapes and limits are checked as usual.
    ///
    /// This is cheaper than a backend of its own, which would repeat what each operation allocates, and it cannot differ
    /// from them. It counts as a software adapter, which computes no sums in parts, and has limits that no tensor exceeds.
    pub(crate) fn dry() -> Arc<Self> {
        // Products of two of these fit 64 bits.
        const LARGEST: usize = 1 << 31;
        Arc::new(Self {
            recorder: Mutex::default(),
            driver: None,
            adapter: AdapterSummary::none(),
            limits: Limits {
                binding_elements: LARGEST,
                workgroups: LARGEST,
                buffer_bytes: u64::MAX,
                storage_alignment: 4,
                uniform_alignment: 4,
            },
            checked: false,
            wait_limit: Duration::MAX,
            choices: Choices::default(),
            waiting: Waiting::default(),
            immediates: true,
            profiler: None,
            faults: Arc::default(),
            pool: Arc::new(Pool::new(None, u64::MAX)),
            kernels: KernelCache::new(0),
        })
    }

    /// Whether this is [`Context::dry`].
    pub(crate) fn is_dry(&self) -> bool {
        self.driver.is_none()
    }

    /// The adapter as the driver describes it.
    pub(crate) fn adapter(&self) -> &AdapterSummary {
        &self.adapter
    }

    pub(crate) fn name(&self) -> &str {
        &self.adapter.name
    }

    pub(crate) fn kind(&self) -> AdapterKind {
        self.adapter.kind
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The choices between implementations.
    pub(crate) fn choices(&self) -> &Choices {
        &self.choices
    }

    /// Allocates `elements` four-byte values with undefined content.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], after the buffers kept for reuse have been freed.
    pub(crate) fn allocate(&self, elements: usize, what: &str) -> Result<Buffer> {
        let bytes = elements as u64 * 4;
        match self.pool.take(Purpose::Storage, bytes, what) {
            Err(Error::OutOfMemory { .. }) => {
                self.release_unused()?;
                self.pool.take(Purpose::Storage, bytes, what)
            }
            taken => taken,
        }
    }

    /// Frees all buffers that are kept for reuse. **Waits** for the GPU, which may still use them.
    pub(crate) fn release_unused(&self) -> Result<()> {
        self.synchronize()?;
        self.recorder().forget_bind_groups();
        self.pool.clear();
        // The driver frees unreferenced buffers at the next poll.
        self.poll(wgpu::PollType::Poll)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.driver().0
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.driver().1
    }

    fn driver(&self) -> &(wgpu::Device, wgpu::Queue) {
        match &self.driver {
            Some(driver) => driver,
            None => unreachable!("a dry run passes nothing to a driver"),
        }
    }

    pub(super) fn checked(&self) -> bool {
        self.checked
    }

    /// How long the host waits for one submission.
    pub(super) fn wait_limit(&self) -> Duration {
        self.wait_limit
    }

    pub(super) fn immediates(&self) -> bool {
        self.immediates
    }

    pub(super) fn profiler(&self) -> Option<&Profiler> {
        self.profiler.as_ref()
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn kernels(&self) -> &KernelCache {
        &self.kernels
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(has: &wgpu::Limits, options: &ContextOptions) -> Limits {
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

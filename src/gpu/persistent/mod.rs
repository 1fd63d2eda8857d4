//! Whether workgroups of one dispatch may wait for each other on this device, as persistent kernels require.
//!
//! No graphics interface guarantees that a workgroup makes progress while another one waits for it. On GPUs
//! of NVIDIA, AMD and Intel, all workgroups that run at once make progress (Sorensen et al., OOPSLA 2016); on
//! some others they do not, and software adapters run as many at once as there are cores. So persistent
//! kernels are off unless enabled ([`Persistent`]), with three safeguards against wrong results:
//!
//! 1. `Auto` selects persistent kernels only on adapters of those vendors, through Vulkan, and after a
//!    self-test of how many workgroups run at once, and that they read each other's words correctly. The
//!    self-test runs once, when a layer first needs it.
//! 2. A workgroup that times out stops, and a second dispatch in the same submission completes the missing
//!    steps: `shaders/recurrent/persistent/workgroup.wgsl`. If that cannot complete them, every later readback
//!    returns an error.
//! 3. After a timeout at most half as many workgroups as that dispatch had may wait for each other, finally
//!    none. The host learns of a timeout when the submission is found to be finished, at a later submission or
//!    readback ([`arrival`]).
//!
//! The self-test measures how long a poll and an iteration of a completion take, which bounds the time of
//! waiting and of completions ([`self_test`]).

mod arrival;
mod pace;
mod permission;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use self::arrival::{Arrival, Arrived, Copied};
use super::adapters::AdapterKind;
use super::kernel::MAX_BINDINGS;
use super::limits::ELEMENTWISE_GROUP;
use super::pool::Buffer;
use super::span::Span;
use crate::{Error, Result};

pub(super) use self::pace::Pace;
use self::pace::{MOST_ITERATIONS, MOST_ITERATIONS_ON_SOFTWARE};
pub use self::permission::{PERSISTENT_VARIABLE, Persistent};

/// Limits of persistent kernels ([`RecurrentStrategy::Persistent`](crate::tuning::RecurrentStrategy::Persistent)),
/// whose workgroups wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistentLimits {
    /// The most workgroups that may wait for each other, at most those of the largest grid. `None`: as many
    /// as a self-test finds to run at once, when a layer first needs it. If the number is too large, results
    /// are correct but slow: workgroups time out, and one workgroup computes the missing steps.
    pub workgroups: Option<u32>,
    /// The spin limit: the most polls of an invocation per dispatch, at most 262,144 (the default), and on
    /// software adapters 16,384, since Mesa's driver ends the loops of an invocation after 65,536 iterations.
    /// In any case a dispatch waits at most a quarter of a second, by the time of a poll that the self-test
    /// measures.
    pub spin_limit: Option<u32>,
}

impl PersistentLimits {
    pub(crate) const LARGEST_SPIN_LIMIT: u32 = 1 << 18;
    const LARGEST_ON_SOFTWARE: u32 = 1 << 14;
}

/// What a device has observed of persistent kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistentReport {
    /// Whether `Auto` may select persistent kernels, by the adapter's vendor and [`Persistent`].
    pub trusted: bool,
    /// How many workgroups may wait for each other now; `None` before the self-test, and 0 where they may
    /// not.
    pub workgroups: Option<usize>,
    /// The time of a poll for another workgroup's word, as measured beside the self-test and rounded up. The
    /// spin limit is at most what takes a quarter of a second.
    pub poll: Option<Duration>,
    /// The time of a loop iteration of a completion, measured and rounded in the same way. It bounds the completions.
    pub iteration: Option<Duration>,
    /// How many dispatches had workgroups that wait for each other, without the self-test.
    pub dispatches: u64,
    /// How many timeouts the host has observed; timeouts between two observations count as one.
    pub timeouts: u64,
    /// The first timeout of the last observation: the step of its dispatch that was not computed, and the
    /// tile of the workgroup.
    pub last: Option<(u32, u32)>,
}

/// Vendors whose workgroups all make progress: NVIDIA, AMD, Intel.
const VENDORS: [u32; 3] = [0x10de, 0x1002, 0x8086];
/// Words of the status: how many workgroups the dispatch had that timed out; the step and the tile of the
/// first timeout; whether steps are lost. The spin limit follows them.
pub(super) const STATUS: usize = 4;
const STATUS_AND_LIMIT: usize = STATUS + 1;
/// The words that are cleared once read; a loss is permanent.
const PASSING: usize = 3;

/// The number of sizes of workgroup memory of the kernels: 1024 weights times a power of two.
pub(crate) const WEIGHT_CLASSES: u32 = 4;

/// Bytes of workgroup memory of a kernel with 1024 · 2^`weight_bits` weights.
pub(super) const fn workgroup_bytes(weight_bits: u32) -> u32 {
    (4096 << weight_bits) + 8192 + 64
}

/// What a device knows about workgroups that wait for each other.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(super) options: PersistentLimits,
    /// Whether workgroups of the adapter's vendor are known to make progress.
    trusted: bool,
    /// Whether the kernels fit the device and are enabled.
    pub(super) possible: bool,
    /// Whether the adapter is a software renderer.
    is_software: bool,
    /// The largest class of weights that fits workgroup memory.
    weight_bits: u32,
    /// The status on the device, and its copy to the host.
    status: OnceLock<(Buffer, Arrival)>,
    /// Held during the self-test: two at once would compete for workgroups.
    pub(super) testing: Mutex<()>,
    known: Mutex<ProgressRecord>,
    /// Dispatches whose workgroups wait for each other.
    pub(super) dispatches: AtomicU64,
    /// How many timeouts have been observed.
    timeouts: AtomicU64,
    /// Loop iterations of the completions recorded since the last submission.
    pub(super) iterations: AtomicUsize,
}

/// Observed timeouts, and the result of the self-test.
#[derive(Default)]
pub(super) struct ProgressRecord {
    pub(super) found: Option<usize>,
    pub(super) pace: Option<Pace>,
    last: Option<(u32, u32)>,
    /// Steps were lost: no value on this device can be trusted.
    lost: bool,
}

/// Where the status is, and how many timeouts had been observed when it was copied. Of two copies of the same
/// timeout only one counts.
#[derive(Clone, Copy)]
pub(super) struct PersistentStatus<'a> {
    pub(super) span: Span<'a>,
    timeouts: u64,
}

impl Waiting {
    pub(super) fn new(
        info: &wgpu::AdapterInfo,
        kind: AdapterKind,
        has: &wgpu::Limits,
        options: PersistentLimits,
        allowed: bool,
    ) -> Self {
        let bits = (0..WEIGHT_CLASSES).rev();
        let weight_bits =
            bits.into_iter().find(|&bits| workgroup_bytes(bits) <= has.max_compute_workgroup_storage_size);
        let fits = weight_bits.is_some()
            && has.max_storage_buffers_per_shader_stage >= MAX_BINDINGS as u32
            && has.max_compute_invocations_per_workgroup >= ELEMENTWISE_GROUP as u32;
        Self {
            options,
            // Through Vulkan, whose atomic loads have the semantics of WGSL's.
            trusted: info.backend == wgpu::Backend::Vulkan
                && matches!(kind, AdapterKind::Discrete | AdapterKind::Integrated)
                && VENDORS.contains(&info.vendor),
            possible: fits && allowed,
            is_software: kind == AdapterKind::Software,
            weight_bits: weight_bits.unwrap_or(0),
            ..Self::default()
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, ProgressRecord> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `Auto` may select kernels whose workgroups wait for each other.
    pub(crate) fn is_trusted(&self) -> bool {
        self.possible && self.trusted
    }

    /// The largest class of weights that a workgroup can hold.
    pub(crate) fn weight_bits(&self) -> u32 {
        self.weight_bits
    }

    /// What has been observed so far.
    pub(crate) fn report(&self) -> PersistentReport {
        let ProgressRecord { found, pace, last, .. } = *self.known();
        let dispatches = self.dispatches.load(Ordering::Relaxed);
        let timeouts = self.timeouts.load(Ordering::SeqCst);
        PersistentReport {
            trusted: self.is_trusted(),
            workgroups: found,
            poll: pace.map(|pace| pace.poll),
            iteration: pace.map(|pace| pace.iteration),
            dispatches,
            timeouts,
            last,
        }
    }

    /// The largest spin limit of this kind of adapter.
    pub(super) fn largest_spin_limit(&self) -> u32 {
        if self.is_software {
            PersistentLimits::LARGEST_ON_SOFTWARE
        } else {
            PersistentLimits::LARGEST_SPIN_LIMIT
        }
    }

    /// The spin limit; 0 before the self-test.
    pub(super) fn spin_limit(&self) -> u32 {
        let largest = self.largest_spin_limit();
        let limit = self.options.spin_limit.map_or(largest, |limit| limit.min(largest));
        self.known().pace.map_or(0, |pace| pace.polls(limit))
    }

    /// The most iterations of a completing workgroup per dispatch, however short they are.
    pub(super) fn most_iterations(&self) -> u32 {
        if self.is_software { MOST_ITERATIONS_ON_SOFTWARE } else { MOST_ITERATIONS }
    }

    /// The most iterations of a completing workgroup per dispatch; 0 before the self-test.
    pub(crate) fn completion_iterations(&self) -> usize {
        self.known().pace.map_or(0, |pace| pace.iterations(self.most_iterations()) as usize)
    }

    /// The most iterations of all completions of a submission; 0 before the self-test.
    pub(super) fn iterations_of_a_submission(&self) -> usize {
        self.known().pace.map_or(0, |pace| pace.iterations_of_a_submission() as usize)
    }

    /// The status and the spin limit, if it has been created.
    pub(super) fn status(&self) -> Option<Span<'_>> {
        self.status.get().map(|(status, _)| Span::new(status, 0, STATUS_AND_LIMIT))
    }

    /// The initial words of the status and the spin limit.
    pub(super) fn initial_status(&self) -> [u32; STATUS_AND_LIMIT] {
        [0, 0, 0, 0, self.spin_limit()]
    }

    /// Stores the status, and `staging` for its copies. If two threads create it at the same time, one is
    /// dropped.
    pub(super) fn create_status(&self, status: Buffer, staging: Buffer) -> Span<'_> {
        let (status, _) = self.status.get_or_init(|| (status, Arrival::new(staging)));
        Span::new(status, 0, STATUS_AND_LIMIT)
    }

    /// The status, if a kernel may have written to it.
    pub(super) fn known_status(&self) -> Option<PersistentStatus<'_>> {
        let (status, _) = self.status.get()?;
        Some(PersistentStatus {
            span: Span::new(status, 0, STATUS),
            timeouts: self.timeouts.load(Ordering::SeqCst),
        })
    }

    /// Records the copy of the status at the end of a submission, if that has kernels which may write to it.
    pub(super) fn copy_status(&self, encoder: &mut wgpu::CommandEncoder) -> Option<Copied<'_>> {
        let is_used = self.iterations.swap(0, Ordering::SeqCst) > 0;
        let (status, arrival) = self.status.get().filter(|_| is_used)?;
        arrival.copy(encoder, Span::new(status, 0, STATUS), self.timeouts.load(Ordering::SeqCst))
    }

    /// Handles the copy of a submission's status, if one is finished.
    pub(super) fn learn_arrived(&self, clear: impl FnOnce(Span<'_>) -> Result<()>) -> Result<()> {
        let Some((status, arrival)) = self.status.get() else { return Ok(()) };
        let Some(Arrived { words, timeouts }) = arrival.take() else { return Ok(()) };
        self.learn(PersistentStatus { span: Span::new(status, 0, STATUS), timeouts }, &words, clear)
    }

    /// Handles a copy of the status: reduces the number of workgroups after a timeout, and
    /// then clears the status by `clear`.
    ///
    /// # Errors
    /// [`Error::Gpu`] where steps were lost, from then on at every readback.
    pub(super) fn learn(
        &self,
        status: PersistentStatus<'_>,
        words: &[u32],
        clear: impl FnOnce(Span<'_>) -> Result<()>,
    ) -> Result<()> {
        let &[groups, step, place, lost] = words else { return Ok(()) };
        let mut known = self.known();
        known.lost |= lost != 0;
        if known.lost {
            let message = format!(
                "a recurrent layer could not complete its steps in a persistent kernel, and no value on this device can \
                 be trusted; open it anew with {PERSISTENT_VARIABLE}=0, and report this"
            );
            return Err(Error::Gpu { message });
        }
        if groups == 0 || self.timeouts.load(Ordering::SeqCst) != status.timeouts {
            return Ok(());
        }
        known.last = Some((step, place));
        if let Some(found) = &mut known.found {
            // A single workgroup does not wait: fewer than two count as none.
            let fewer = (*found).min(groups as usize) / 2;
            *found = if fewer < 2 { 0 } else { fewer };
        }
        // Clear first, then count: a copy recorded in between has the old count and is ignored.
        clear(status.span.slice(0..PASSING))?;
        self.timeouts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_with_more_workgroup_memory_hold_more_weights() {
        let bytes: Vec<u32> = (0..WEIGHT_CLASSES).map(workgroup_bytes).collect();
        // 16 KiB on every device, 48 KiB on those of NVIDIA.
        assert!(bytes[0] <= 16 << 10 && bytes[3] <= 48 << 10, "{bytes:?}");
        assert!(bytes.is_sorted(), "{bytes:?}");
    }
}

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
mod permission;
mod self_test;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use self::arrival::{Arrival, Arrived, Copied};
use self::self_test::Pace;
use super::context::Context;
use super::kernel::{MAX_BINDINGS, kernel, parameters};
use super::pool::{Buffer, Purpose};
use super::recorder::Dispatch;
use super::span::Span;
use super::{AdapterKind, ELEMENTWISE_GROUP};
use crate::{Error, Result};

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
const STATUS: usize = 4;
const STATUS_AND_LIMIT: usize = STATUS + 1;
/// The words that are cleared once read; a loss is permanent.
const PASSING: usize = 3;

parameters!(ClearParameters { count: u32, first: u32, zeros: u32 });

kernel!(CLEAR: "recurrent/persistent/clear_exchange" {
    files: ["recurrent/persistent/clear_exchange"],
    parameters: ClearParameters,
    constants: [],
    bindings: [Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&super::Kernel] = &[&CLEAR, self_test::KERNELS[0], self_test::KERNELS[1]];

/// The number of sizes of workgroup memory of the kernels: 1024 weights times a power of two.
pub(crate) const WEIGHT_CLASSES: u32 = 4;

/// Bytes of workgroup memory of a kernel with 1024 · 2^`weight_bits` weights.
pub(super) const fn workgroup_bytes(weight_bits: u32) -> u32 {
    (4096 << weight_bits) + 8192 + 64
}

/// What a device knows about workgroups that wait for each other.
#[derive(Default)]
pub(super) struct Waiting {
    options: PersistentLimits,
    /// Whether workgroups of the adapter's vendor are known to make progress.
    trusted: bool,
    /// Whether the kernels fit the device and are enabled.
    possible: bool,
    /// The largest class of weights that fits workgroup memory.
    weight_bits: u32,
    /// The status on the device, and its copy to the host.
    status: OnceLock<(Buffer, Arrival)>,
    /// Held during the self-test: two at once would compete for workgroups.
    testing: Mutex<()>,
    known: Mutex<Known>,
    dispatches: AtomicU64,
    /// How many timeouts have been observed.
    timeouts: AtomicU64,
    /// Loop iterations of the completions recorded since the last submission.
    iterations: AtomicUsize,
}

/// Observed timeouts, and the result of the self-test.
#[derive(Default)]
struct Known {
    found: Option<usize>,
    pace: Option<Pace>,
    last: Option<(u32, u32)>,
    /// Steps were lost: no value on this device can be trusted.
    lost: bool,
}

/// Where the status is, and how many timeouts had been observed when it was copied. Of two copies of the same
/// timeout only one counts.
#[derive(Clone, Copy)]
pub(super) struct Status<'a> {
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
            weight_bits: weight_bits.unwrap_or(0),
            status: OnceLock::new(),
            testing: Mutex::default(),
            known: Mutex::default(),
            dispatches: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            iterations: AtomicUsize::new(0),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// Whether `Auto` may select kernels whose workgroups wait for each other.
    pub(crate) fn trusts_waiting(&self) -> bool {
        self.waiting().possible && self.waiting().trusted
    }

    /// How many workgroups may wait for each other; 0 where they may not. The first call **waits** for the
    /// GPU: it runs the self-test.
    ///
    /// # Errors
    /// Any error that the device reports.
    pub(crate) fn waiting_workgroups(&self) -> Result<usize> {
        let waiting = self.waiting();
        if !waiting.possible {
            waiting.known().found = Some(0);
            return Ok(0);
        }
        self.learn_arrived()?;
        let _testing = waiting.testing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = waiting.known().found {
            return Ok(found);
        }
        let pace = self.measure_pace()?;
        waiting.known().pace = Some(pace);
        let found = match waiting.options.workgroups {
            // Even a single poll takes too long.
            _ if self.spin_limit() == 0 => 0,
            Some(given) => given as usize,
            None => self.probe()?,
        };
        let found = found.min(self.limits().workgroups);
        waiting.known().found = Some(found);
        Ok(found)
    }

    /// The largest class of weights that a workgroup can hold.
    pub(crate) fn weight_bits(&self) -> u32 {
        self.waiting().weight_bits
    }

    /// What has been observed so far.
    pub(crate) fn waiting_report(&self) -> PersistentReport {
        let Known { found, pace, last, .. } = *self.waiting().known();
        let dispatches = self.waiting().dispatches.load(Ordering::Relaxed);
        let timeouts = self.waiting().timeouts.load(Ordering::SeqCst);
        PersistentReport {
            trusted: self.trusts_waiting(),
            workgroups: found,
            poll: pace.map(|pace| pace.poll),
            iteration: pace.map(|pace| pace.iteration),
            dispatches,
            timeouts,
            last,
        }
    }

    /// The status, to which kernels write timeouts and from which they read the spin limit; initially zeros.
    pub(crate) fn waiting_status(&self) -> Result<Span<'_>> {
        let waiting = self.waiting();
        if waiting.status.get().is_none() {
            let buffer = self.allocate(STATUS_AND_LIMIT, "the status of persistent kernels")?;
            let mut words = [0; STATUS_AND_LIMIT];
            words[STATUS] = self.spin_limit();
            self.upload(&buffer, bytemuck::bytes_of(&words))?;
            let bytes = 4 * STATUS as u64;
            let staging = self.pool().take(Purpose::Download, bytes, "the status of persistent kernels")?;
            // If two threads create it at the same time, one is dropped.
            waiting.status.set((buffer, Arrival::new(staging))).ok();
        }
        let Some((status, _)) = waiting.status.get() else { unreachable!("set above") };
        Ok(Span::new(status, 0, STATUS_AND_LIMIT))
    }

    /// The status, if a kernel may have written to it.
    pub(super) fn known_status(&self) -> Option<Status<'_>> {
        let waiting = self.waiting();
        let (status, _) = waiting.status.get()?;
        Some(Status { span: Span::new(status, 0, STATUS), timeouts: waiting.timeouts.load(Ordering::SeqCst) })
    }

    /// Records the copy of the status at the end of a submission, if that has kernels which may write to it.
    pub(super) fn copy_status(&self, encoder: &mut wgpu::CommandEncoder) -> Option<Copied<'_>> {
        let waiting = self.waiting();
        let is_used = waiting.iterations.swap(0, Ordering::SeqCst) > 0;
        let (status, arrival) = waiting.status.get().filter(|_| is_used)?;
        arrival.copy(encoder, Span::new(status, 0, STATUS), waiting.timeouts.load(Ordering::SeqCst))
    }

    /// Handles the copy of a submission's status, if one is finished.
    ///
    /// # Errors
    /// Those of [`Context::learn`].
    fn learn_arrived(&self) -> Result<()> {
        let Some((status, arrival)) = self.waiting().status.get() else { return Ok(()) };
        let Some(Arrived { words, timeouts }) = arrival.take() else { return Ok(()) };
        self.learn(Status { span: Span::new(status, 0, STATUS), timeouts }, &words)
    }

    /// Handles a copy of the status: reduces the number of workgroups after a timeout.
    ///
    /// # Errors
    /// [`Error::Gpu`] where steps were lost, from then on at every readback.
    pub(super) fn learn(&self, status: Status<'_>, words: &[u32]) -> Result<()> {
        let &[groups, step, place, lost] = words else { return Ok(()) };
        let mut known = self.waiting().known();
        known.lost |= lost != 0;
        if known.lost {
            let message = format!(
                "a recurrent layer could not complete its steps in a persistent kernel, and no value on this device can \
                 be trusted; open it anew with {PERSISTENT_VARIABLE}=0, and report this"
            );
            return Err(Error::Gpu { message });
        }
        if groups == 0 || self.waiting().timeouts.load(Ordering::SeqCst) != status.timeouts {
            return Ok(());
        }
        known.last = Some((step, place));
        if let Some(found) = &mut known.found {
            // A single workgroup does not wait: fewer than two count as none.
            let fewer = (*found).min(groups as usize) / 2;
            *found = if fewer < 2 { 0 } else { fewer };
        }
        // Clear first, then count: a copy recorded in between has the old count and is ignored.
        self.clear(status.span.slice(0..PASSING))?;
        self.waiting().timeouts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Creates the exchange buffer of a dispatch: `words` words, of which the first `zeros` are zero and the
    /// others EMPTY.
    ///
    /// # Errors
    /// Out of memory, and any error that the device reports.
    fn empty_exchange(&self, zeros: usize, words: usize) -> Result<Buffer> {
        let exchange = self.allocate(words, "the exchange of a persistent kernel")?;
        let target = self.bind(Span::new(&exchange, 0, words))?;
        for piece in super::pieces(words, self.limits().elements(ELEMENTWISE_GROUP)) {
            self.dispatch(Dispatch {
                kernel: &CLEAR,
                constants: &[],
                parameters: ClearParameters {
                    count: piece.len() as u32,
                    first: piece.start as u32,
                    zeros: zeros as u32,
                },
                bindings: &[target],
                grid: [piece.len().div_ceil(ELEMENTWISE_GROUP), 1, 1],
            })?;
        }
        Ok(exchange)
    }

    /// The exchange buffer of a layer's dispatch, as [`Context::empty_exchange`]. `iterations` is the bound
    /// of its completion: if all completions of the submission could together take too long, the recorded
    /// work is submitted first.
    ///
    /// # Errors
    /// Those of [`Context::empty_exchange`].
    pub(crate) fn exchange(&self, zeros: usize, words: usize, iterations: usize) -> Result<Buffer> {
        let waiting = self.waiting();
        let before = waiting.iterations.load(Ordering::SeqCst);
        if before > 0 && before + iterations > self.iterations_of_a_submission() {
            self.flush()?;
        }
        waiting.iterations.fetch_add(iterations, Ordering::SeqCst);
        waiting.dispatches.fetch_add(1, Ordering::Relaxed);
        self.empty_exchange(zeros, words)
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

//! Whether workgroups of one dispatch may wait for each other here, which kernels that keep weights on chip need.
//!
//! No graphics interface promises that a workgroup goes on while another one waits for it. GPUs of NVIDIA, AMD and Intel let
//! all workgroups go on that run at once (Sorensen et al., OOPSLA 2016); some others do not, and software adapters run as
//! many at once as there are cores. So no device does it unless it was asked to ([`Persistent`]), and then three things stand
//! between a kernel that waits and a wrong number:
//!
//! 1. A device chooses such kernels by itself only on adapters of those makers, through Vulkan; and a self-test finds
//!    how many workgroups run at once and that what one writes reaches the others unharmed. It is made once, when a
//!    layer first asks.
//! 2. Who waits in vain stops, and what is missing is made up for in the same submission: `shaders/recurrent/persistent/workgroup.wgsl`.
//!    Should that miss something, every readback is an error from then on.
//! 3. That it happened is learnt when a submission with such a kernel is found to be done, at one of the next submissions or at
//!    a readback ([`arrival`]): from then on only half as many workgroups may wait as the dispatch had, in the end none.
//!
//! How long they wait, and how long a completion may take, is bounded by what the self-test measured ([`self_test`]).

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

/// How a device may let workgroups wait for each other, for kernels that keep weights on chip
/// ([`RecurrentStrategy::Persistent`](crate::RecurrentStrategy::Persistent)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistentLimits {
    /// How many workgroups may wait for each other, at most those of the largest grid. `None`: as many as a self-test finds
    /// to run at once, when a layer first asks. Too large a number costs time, and no correctness: who waits in vain
    /// stops, and what is missing is computed by one workgroup.
    pub workgroups: Option<u32>,
    /// The most polls of memory that an invocation spends on waiting in a dispatch, at most 262,144 (the default), and on
    /// software adapters 16,384: Mesa's driver ends the loops of an invocation after 65,536 iterations. Whatever the limit,
    /// no dispatch waits longer than a quarter of a second, by the time of a poll that the self-test measures.
    pub spin_limit: Option<u32>,
}

impl PersistentLimits {
    pub(crate) const LARGEST_SPIN_LIMIT: u32 = 1 << 18;
    const LARGEST_ON_SOFTWARE: u32 = 1 << 14;
}

/// What a device has seen of workgroups that wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistentReport {
    /// Whether layers choose it by themselves where it suits them: by the adapter's maker and [`Persistent`].
    pub trusted: bool,
    /// How many may wait for each other now; `None` as long as no layer has asked, and 0 where none may.
    pub workgroups: Option<usize>,
    /// How long a poll of memory takes here that waits for the word of another workgroup, and a turn of the loops that
    /// complete what is missing: measured beside the self-test, and rounded up. The bounds on waiting and on completion
    /// follow from them.
    pub poll: Option<Duration>,
    /// As [`PersistentReport::poll`].
    pub iteration: Option<Duration>,
    /// How many dispatches had workgroups that wait for each other, the self-test's apart.
    pub dispatches: u64,
    /// How many timeouts were seen: some workgroups had timed out since the one before.
    pub timeouts: u64,
    /// Of the last time: which step of its dispatch the first of them did not come to, and which of the dispatch's
    /// workgroups it was, in the order in which they began.
    pub last: Option<(u32, u32)>,
}

/// Makers of GPUs whose workgroups go on: NVIDIA, AMD, Intel.
const MAKERS: [u32; 3] = [0x10de, 0x1002, 0x8086];
/// Words of the status: how many workgroups a dispatch had of which some stopped; the step at which the first did; its
/// place; whether something is lost. Behind them is the spin limit.
const STATUS: usize = 4;
const STATUS_AND_LIMIT: usize = STATUS + 1;
/// Those of them that are done with once they are known: what is lost stays lost.
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

/// How many sizes of workgroup memory the kernels come in: 1024 weights times a power of two.
pub(crate) const WEIGHT_CLASSES: u32 = 4;

/// Bytes of workgroup memory of a kernel that holds 1024 · 2^`weight_bits` weights.
pub(super) const fn workgroup_bytes(weight_bits: u32) -> u32 {
    (4096 << weight_bits) + 8192 + 64
}

/// What a device knows of workgroups that wait for each other.
pub(super) struct Waiting {
    options: PersistentLimits,
    /// Whether the adapter's maker is known to let them go on.
    trusted: bool,
    /// Whether the kernels fit, and it was asked for.
    possible: bool,
    /// The largest class of weights that fits workgroup memory.
    weight_bits: u32,
    /// The status on the device, and how it comes to the host.
    status: OnceLock<(Buffer, Arrival)>,
    /// Held by who makes the self-test: two at once would take workgroups from each other.
    testing: Mutex<()>,
    known: Mutex<Known>,
    dispatches: AtomicU64,
    /// How many stops were seen.
    timeouts: AtomicU64,
    /// Turns of completions that were recorded since the last submission.
    iterations: AtomicUsize,
}

/// What was learnt, and the self-test.
#[derive(Default)]
struct Known {
    found: Option<usize>,
    pace: Option<Pace>,
    last: Option<(u32, u32)>,
    /// Something was missing for good: nothing that this device holds can be trusted.
    lost: bool,
}

/// The status as a readback is to bring it: where it is, and how many stops had been seen when it was copied. Of two
/// copies of the same stop only one counts.
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
            // Through Vulkan, whose atomic loads are what WGSL asks for.
            trusted: info.backend == wgpu::Backend::Vulkan
                && matches!(kind, AdapterKind::Discrete | AdapterKind::Integrated)
                && MAKERS.contains(&info.vendor),
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
    /// Whether kernels whose workgroups wait for each other are a choice here without being asked for.
    pub(crate) fn trusts_waiting(&self) -> bool {
        self.waiting().possible && self.waiting().trusted
    }

    /// How many workgroups may wait for each other; 0 where none may. The first call **waits** for the GPU: it makes the self-test.
    ///
    /// # Errors
    /// Whatever the device reports.
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
            // Not even one poll is short enough.
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

    /// What was seen so far.
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

    /// The status that kernels write timeouts to and read the spin limit from; zeros at first.
    pub(crate) fn waiting_status(&self) -> Result<Span<'_>> {
        let waiting = self.waiting();
        if waiting.status.get().is_none() {
            let result = self.allocate(STATUS_AND_LIMIT, "the status of workgroups that wait")?;
            let mut words = [0; STATUS_AND_LIMIT];
            words[STATUS] = self.spin_limit();
            self.upload(&result, bytemuck::bytes_of(&words))?;
            let bytes = 4 * STATUS as u64;
            let staging = self.pool().take(Purpose::Download, bytes, "the status of workgroups that wait")?;
            // Of two at the same time one is given back.
            waiting.status.set((result, Arrival::new(staging))).ok();
        }
        let Some((status, _)) = waiting.status.get() else { unreachable!("set above") };
        Ok(Span::new(status, 0, STATUS_AND_LIMIT))
    }

    /// The status, where a kernel may have written to it.
    pub(super) fn known_status(&self) -> Option<Status<'_>> {
        let waiting = self.waiting();
        let (status, _) = waiting.status.get()?;
        Some(Status { span: Span::new(status, 0, STATUS), timeouts: waiting.timeouts.load(Ordering::SeqCst) })
    }

    /// Records the copy of the status at the end of a submission, where that has kernels which may write to it.
    pub(super) fn copy_status(&self, encoder: &mut wgpu::CommandEncoder) -> Option<Copied<'_>> {
        let waiting = self.waiting();
        let is_used = waiting.iterations.swap(0, Ordering::SeqCst) > 0;
        let (status, arrival) = waiting.status.get().filter(|_| is_used)?;
        arrival.copy(encoder, Span::new(status, 0, STATUS), waiting.timeouts.load(Ordering::SeqCst))
    }

    /// Learns from the copy of a submission's status, if one has arrived.
    ///
    /// # Errors
    /// Those of [`Context::learn`].
    fn learn_arrived(&self) -> Result<()> {
        let Some((status, arrival)) = self.waiting().status.get() else { return Ok(()) };
        let Some(Arrived { words, timeouts }) = arrival.take() else { return Ok(()) };
        self.learn(Status { span: Span::new(status, 0, STATUS), timeouts }, &words)
    }

    /// Draws conclusions from a copy of the status.
    ///
    /// # Errors
    /// [`Error::Gpu`] where numbers are missing, from then on at every readback.
    pub(super) fn learn(&self, status: Status<'_>, words: &[u32]) -> Result<()> {
        let &[groups, step, place, lost] = words else { return Ok(()) };
        let mut known = self.waiting().known();
        known.lost |= lost != 0;
        if known.lost {
            let message = format!(
                "a recurrent layer did not come to its end on chip, and what this device holds cannot be trusted; \
                 open it anew with {PERSISTENT_VARIABLE}=0, and report this"
            );
            return Err(Error::Gpu { message });
        }
        if groups == 0 || self.waiting().timeouts.load(Ordering::SeqCst) != status.timeouts {
            return Ok(());
        }
        known.last = Some((step, place));
        if let Some(found) = &mut known.found {
            // One workgroup waits for nobody: fewer than two are none.
            let fewer = (*found).min(groups as usize) / 2;
            *found = if fewer < 2 { 0 } else { fewer };
        }
        // First the clearing, then the count: a copy that is recorded in between, with the count of before, is not learnt from.
        self.clear(status.span.slice(0..PASSING))?;
        self.waiting().timeouts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// What workgroups of one dispatch tell each other through: `words`, of which the first are zeros and all others what
    /// stands for nothing yet.
    ///
    /// # Errors
    /// Out of memory, and whatever the device reports.
    fn empty_exchange(&self, zeros: usize, words: usize) -> Result<Buffer> {
        let exchange = self.allocate(words, "what workgroups tell each other")?;
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

    /// That of a layer's dispatch, as [`Context::empty_exchange`]. `turns` are those that its completion may take: submits
    /// what was recorded where all completions of a submission could together take too long.
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
        // What every device has, and what NVIDIA's have.
        assert!(bytes[0] <= 16 << 10 && bytes[3] <= 48 << 10, "{bytes:?}");
        assert!(bytes.is_sorted(), "{bytes:?}");
    }
}

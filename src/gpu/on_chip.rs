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
//! 2. Who waits in vain stops, and what is missing is made up for in the same submission: `shaders/recurrent_on_chip.wgsl`.
//!    Should that miss something, every readback is an error from then on.
//! 3. That it happened is known at the next readback: from then on only half as many workgroups may wait as the dispatch
//!    had, in the end none.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::context::{Context, RecurrentTier};
use super::kernel::{MAX_BINDINGS, kernel, parameters};
use super::pool::Buffer;
use super::recorder::Dispatch;
use super::span::Span;
use super::{AdapterKind, ELEMENTWISE_GROUP};
use crate::{Error, Result};

/// The environment variable that turns the persistent strategy on for every device, by `1` or `on`, or forbids it, by `0` or
/// `off`: [`Persistent`].
pub const PERSISTENT_VARIABLE: &str = "REFRAIN_PERSISTENT";

/// Whether recurrent layers may choose [`RecurrentTier::OnChip`], the persistent strategy, by themselves. No GPU has
/// confirmed it yet, so it is off unless asked for.
///
/// Where it is on, layers still choose it only by size, on GPUs of NVIDIA, AMD and Intel through Vulkan, and after a
/// self-test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistent {
    /// What [`PERSISTENT_VARIABLE`] says; off where it is not set. A device whose
    /// [`GpuOptions::recurrent`](crate::GpuOptions::recurrent) is [`RecurrentTier::OnChip`] asks for it, too, unless the
    /// variable forbids it.
    #[default]
    Environment,
    /// Off, for choices of [`Tuning`](crate::Tuning) as well.
    Off,
    /// On, whatever the variable says.
    On,
}

impl Persistent {
    /// What is asked for: for [`Persistent::Environment`] what the variable says, if it is set.
    ///
    /// # Errors
    /// [`Error::Config`] for a value of the variable that means nothing.
    fn asked(self) -> Result<Self> {
        match self {
            Self::Environment => Self::said(std::env::var_os(PERSISTENT_VARIABLE).as_deref()),
            given => Ok(given),
        }
    }

    fn said(value: Option<&OsStr>) -> Result<Self> {
        let Some(value) = value else { return Ok(Self::Environment) };
        match value.to_str().map(str::trim) {
            Some("") => Ok(Self::Environment),
            Some("1" | "on") => Ok(Self::On),
            Some("0" | "off") => Ok(Self::Off),
            _ => {
                let message = format!(
                    "must be 1 or on, 0 or off, or not be set; it is `{}`",
                    value.to_string_lossy().escape_debug()
                );
                Err(Error::config(PERSISTENT_VARIABLE, message))
            }
        }
    }

    /// Whether a device that is opened with `recurrent` may use it at all.
    ///
    /// # Errors
    /// Those of [`Persistent::asked`].
    pub(super) fn is_allowed(self, recurrent: RecurrentTier) -> Result<bool> {
        Ok(match self.asked()? {
            Self::Environment => recurrent == RecurrentTier::OnChip,
            asked => asked == Self::On,
        })
    }
}

/// How a device may let workgroups wait for each other, for kernels that keep weights on chip
/// ([`RecurrentTier::OnChip`](crate::RecurrentTier::OnChip)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnChip {
    /// How many workgroups may wait for each other, at most those of the largest grid. `None`: as many as a self-test finds
    /// to run at once, when a layer first asks. Too large a number costs time, and no correctness: who waits in vain
    /// stops, and what is missing is computed by one workgroup.
    pub workgroups: Option<u32>,
    /// For how long they wait: 64 · 16^patience looks at memory in a dispatch, for a patience of 0 to 3. `None`: 3, up to
    /// some hundred milliseconds. On software adapters it is 2, and no more: Mesa's ends the loops of an invocation after
    /// 65,536 turns.
    pub patience: Option<u32>,
}

impl OnChip {
    pub(crate) const LARGEST_PATIENCE: u32 = 3;
    const LARGEST_ON_SOFTWARE: u32 = 2;
}

/// What a device has seen of workgroups that wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnChipReport {
    /// Whether layers choose it by themselves where it suits them: by the adapter's maker and [`Persistent`].
    pub trusted: bool,
    /// How many may wait for each other now; `None` as long as no layer has asked, and 0 where none may.
    pub workgroups: Option<usize>,
    /// How many dispatches had workgroups that wait for each other, the self-test's apart.
    pub dispatches: u64,
    /// How many stops were seen: at a readback, some had waited in vain since the one before.
    pub stops: u64,
    /// Of the last time: which step of its dispatch the first of them did not come to, and which of the dispatch's
    /// workgroups it was, in the order in which they began.
    pub last: Option<(u32, u32)>,
}

/// Makers of GPUs whose workgroups go on: NVIDIA, AMD, Intel.
const MAKERS: [u32; 3] = [0x10de, 0x1002, 0x8086];
/// The most workgroups that the self-test asks for.
const MOST: usize = 1024;
const ROUNDS: usize = 8;
/// Words of the status: how many workgroups a dispatch had of which some stopped; the step at which the first did; its
/// place; whether something is lost.
const STATUS: usize = 4;
/// Those of them that are done with once they are known: what is lost stays lost.
const PASSING: usize = 3;

parameters!(ClearParameters { count: u32, first: u32, zeros: u32 });
parameters!(ProbeParameters { groups: u32, rounds: u32 });

kernel!(CLEAR: "recurrent_on_chip_clear" {
    files: ["recurrent_on_chip_clear"],
    parameters: ClearParameters,
    constants: [],
    bindings: [Write],
});
kernel!(PROBE: "recurrent_on_chip_probe" {
    files: ["recurrent_wait", "recurrent_on_chip_probe"],
    parameters: ProbeParameters,
    constants: [("WEIGHT_BITS", WEIGHT_CLASSES), ("PATIENCE", 4)],
    bindings: [Write],
});

#[cfg(test)]
pub(crate) static KERNELS: &[&super::Kernel] = &[&CLEAR, &PROBE];

/// How many sizes of workgroup memory the kernels come in: 1024 weights times a power of two.
pub(crate) const WEIGHT_CLASSES: u32 = 4;

/// Bytes of workgroup memory of a kernel that holds 1024 · 2^`weight_bits` weights.
pub(super) const fn workgroup_bytes(weight_bits: u32) -> u32 {
    (4096 << weight_bits) + 8192 + 64
}

/// What a device knows of workgroups that wait for each other.
pub(super) struct Waiting {
    options: OnChip,
    /// Whether the adapter's maker is known to let them go on.
    trusted: bool,
    /// Whether the kernels fit, and it was asked for.
    possible: bool,
    /// The largest class of weights that fits workgroup memory.
    weight_bits: u32,
    status: OnceLock<Buffer>,
    /// Held by who makes the self-test: two at once would take workgroups from each other.
    testing: Mutex<()>,
    known: Mutex<Known>,
    dispatches: AtomicU64,
}

/// What readbacks brought, and the self-test.
#[derive(Default)]
struct Known {
    found: Option<usize>,
    stops: u64,
    last: Option<(u32, u32)>,
    /// Something was missing for good: nothing that this device holds can be trusted.
    lost: bool,
}

/// The status as a readback is to bring it: where it is, and how many stops had been seen when it was copied. Of two
/// readbacks that copy the same stop only one counts.
#[derive(Clone, Copy)]
pub(super) struct Status<'a> {
    pub(super) span: Span<'a>,
    stops: u64,
}

impl Waiting {
    pub(super) fn new(
        info: &wgpu::AdapterInfo,
        kind: AdapterKind,
        has: &wgpu::Limits,
        options: OnChip,
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
        let _testing = waiting.testing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = waiting.known().found {
            return Ok(found);
        }
        let found = match waiting.options.workgroups {
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

    /// The value of `PATIENCE`.
    pub(crate) fn patience(&self) -> u32 {
        let largest = match self.kind() {
            AdapterKind::Software => OnChip::LARGEST_ON_SOFTWARE,
            _ => OnChip::LARGEST_PATIENCE,
        };
        self.waiting().options.patience.map_or(largest, |patience| patience.min(largest))
    }

    /// What was seen so far.
    pub(crate) fn waiting_report(&self) -> OnChipReport {
        let Known { found, stops, last, .. } = *self.waiting().known();
        let dispatches = self.waiting().dispatches.load(Ordering::Relaxed);
        OnChipReport { trusted: self.trusts_waiting(), workgroups: found, dispatches, stops, last }
    }

    /// Where kernels write that they waited in vain; zeros from the start.
    pub(crate) fn waiting_status(&self) -> Result<Span<'_>> {
        let waiting = self.waiting();
        if waiting.status.get().is_none() {
            let made = self.allocate(STATUS, "the status of workgroups that wait")?;
            self.clear(Span::new(&made, 0, STATUS))?;
            // Of two at the same time one is given back.
            waiting.status.set(made).ok();
        }
        let Some(status) = waiting.status.get() else { unreachable!("set above") };
        Ok(Span::new(status, 0, STATUS))
    }

    /// The status, where a kernel may have written to it.
    pub(super) fn known_status(&self) -> Option<Status<'_>> {
        let waiting = self.waiting();
        let status = waiting.status.get()?;
        Some(Status { span: Span::new(status, 0, STATUS), stops: waiting.known().stops })
    }

    /// Draws conclusions from what a readback brought of the status.
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
        if groups == 0 || known.stops != status.stops {
            return Ok(());
        }
        known.stops += 1;
        known.last = Some((step, place));
        if let Some(found) = &mut known.found {
            // One workgroup waits for nobody: fewer than two are none.
            let fewer = (*found).min(groups as usize) / 2;
            *found = if fewer < 2 { 0 } else { fewer };
        }
        self.clear(status.span.slice(0..PASSING))
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

    /// That of a layer's dispatch, as [`Context::empty_exchange`].
    ///
    /// # Errors
    /// Those of [`Context::empty_exchange`].
    pub(crate) fn exchange(&self, zeros: usize, words: usize) -> Result<Buffer> {
        self.waiting().dispatches.fetch_add(1, Ordering::Relaxed);
        self.empty_exchange(zeros, words)
    }

    /// How many workgroups go on while they wait for each other: a power of two; 0 for fewer than two.
    fn probe(&self) -> Result<usize> {
        let mut found = 0;
        let mut groups = 2;
        while groups <= MOST.min(self.limits().workgroups) && self.all_go_on(groups)? {
            found = groups;
            groups *= 2;
        }
        Ok(found)
    }

    fn all_go_on(&self, groups: usize) -> Result<bool> {
        const HEAD: usize = 4;
        let words = HEAD + ROUNDS * groups * ELEMENTWISE_GROUP;
        if words > self.limits().binding_elements {
            return Ok(false);
        }
        let exchange = self.empty_exchange(HEAD, words)?;
        self.dispatch(Dispatch {
            kernel: &PROBE,
            constants: &[self.weight_bits(), self.patience()],
            parameters: ProbeParameters { groups: groups as u32, rounds: ROUNDS as u32 },
            bindings: &[self.bind(Span::new(&exchange, 0, words))?],
            grid: [groups, 1, 1],
        })?;
        let head: Vec<u32> = self.download(Span::new(&exchange, 0, HEAD))?;
        Ok(head[1..] == [0, 0, groups as u32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_persistent_strategy_is_off_unless_asked_for() {
        let allowed = |value: Option<&str>, recurrent| {
            let said = Persistent::said(value.map(OsStr::new)).expect("a value that means something");
            // What the variable said stands for it: no test sets this process's.
            match said {
                Persistent::Environment => recurrent == RecurrentTier::OnChip,
                asked => asked.is_allowed(recurrent).expect("not from the environment"),
            }
        };
        for recurrent in [RecurrentTier::Auto, RecurrentTier::Steps, RecurrentTier::Sequence] {
            assert!(!allowed(None, recurrent) && !allowed(Some(" "), recurrent));
            assert!(allowed(Some("1"), recurrent) && allowed(Some(" on "), recurrent));
            assert!(!allowed(Some("0"), recurrent) && !allowed(Some("off"), recurrent));
        }
        assert!(allowed(None, RecurrentTier::OnChip) && !allowed(Some("0"), RecurrentTier::OnChip));
    }

    #[test]
    fn a_value_that_means_nothing_is_an_error_that_says_what_does() {
        for value in ["true", "2", "On"] {
            let error = Persistent::said(Some(OsStr::new(value))).expect_err("means nothing");
            let message = error.to_string();
            assert!(matches!(error, Error::Config { .. }), "{message}");
            for part in [PERSISTENT_VARIABLE, "1 or on, 0 or off", value] {
                assert!(message.contains(part), "{part} in {message}");
            }
        }
    }

    #[test]
    fn adapters_with_more_workgroup_memory_hold_more_weights() {
        let bytes: Vec<u32> = (0..WEIGHT_CLASSES).map(workgroup_bytes).collect();
        // What every device has, and what NVIDIA's have.
        assert!(bytes[0] <= 16 << 10 && bytes[3] <= 48 << 10, "{bytes:?}");
        assert!(bytes.is_sorted(), "{bytes:?}");
    }
}

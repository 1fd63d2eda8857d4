//! Whether workgroups of one dispatch may wait for each other here, which kernels that keep weights on chip need.
//!
//! No graphics interface promises that a workgroup goes on while another one waits for it. GPUs of NVIDIA, AMD and Intel let
//! all workgroups go on that run at once (Sorensen et al., OOPSLA 2016); some others do not, and software adapters run as
//! many at once as there are cores. So three things stand between a kernel that waits and a wrong number:
//!
//! 1. A device chooses such kernels by itself only on adapters of those makers, through Vulkan; and a self-test finds how many workgroups run at once and that what one
//!    writes reaches the others unharmed. It is made once, when a layer first asks.
//! 2. Who waits in vain stops, and what is missing is made up for in the same submission: `shaders/recurrent_on_chip.wgsl`.
//! 3. That it happened is known at the next readback: from then on only half as many workgroups may wait, in the end none.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::context::Context;
use super::kernel::{MAX_BINDINGS, kernel, parameters};
use super::pool::Buffer;
use super::recorder::Dispatch;
use super::span::Span;
use super::{AdapterKind, ELEMENTWISE_GROUP};
use crate::{Error, Result};

/// `0` in this environment variable keeps every device from letting workgroups wait for each other.
pub const ON_CHIP_VARIABLE: &str = "REFRAIN_ONCHIP";

/// How a device may let workgroups wait for each other, for kernels that keep weights on chip
/// ([`RecurrentTier::OnChip`](crate::RecurrentTier::OnChip)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnChip {
    /// How many workgroups may wait for each other. `None`: as many as a self-test finds to run at once, when a layer
    /// first asks. Too large a number costs time, and no correctness: who waits in vain stops, and what is missing is
    /// computed by one workgroup.
    pub workgroups: Option<u32>,
    /// For how long they wait: 64 · 16^patience looks at memory in a dispatch, for a patience of 0 to 3. `None`: 3, up to
    /// some hundred milliseconds. On software adapters 2 is the most: Mesa's ends the loops of an invocation after 65,536
    /// turns.
    pub patience: Option<u32>,
}

impl OnChip {
    pub(crate) const LARGEST_PATIENCE: u32 = 3;
    const LARGEST_ON_SOFTWARE: u32 = 2;
}

/// What a device has seen of workgroups that wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnChipReport {
    /// How many may wait for each other now; `None` as long as no layer has asked.
    pub workgroups: Option<usize>,
    /// How many readbacks found that some had waited in vain.
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
/// Words of the status: whether a workgroup stopped; the step at which the first did; its place; whether something is lost.
const STATUS: usize = 4;

parameters!(ClearParameters { count: u32, first: u32, zeros: u32 });
parameters!(ProbeParameters { groups: u32, rounds: u32 });

kernel!(CLEAR: "recurrent_on_chip_clear" {
    files: ["recurrent_on_chip_clear"],
    parameters: ClearParameters,
    constants: [],
    bindings: [Write],
});
kernel!(PROBE: "recurrent_on_chip_probe" {
    files: ["recurrent_on_chip_probe"],
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

/// Whether the value of [`ON_CHIP_VARIABLE`] turns it off.
fn forbids(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.trim() == "0")
}

/// What a device knows of workgroups that wait for each other.
pub(super) struct Waiting {
    options: OnChip,
    /// Whether the adapter's maker is known to let them go on.
    trusted: bool,
    /// Whether the kernels fit, and nobody forbids it.
    possible: bool,
    /// The largest class of weights that fits workgroup memory.
    weight_bits: u32,
    found: OnceLock<AtomicUsize>,
    status: OnceLock<Buffer>,
    /// Something was missing for good: nothing that this device holds can be trusted.
    lost: AtomicBool,
    stops: AtomicU64,
    last: Mutex<Option<(u32, u32)>>,
}

impl Waiting {
    pub(super) fn new(
        info: &wgpu::AdapterInfo,
        kind: AdapterKind,
        has: &wgpu::Limits,
        options: OnChip,
    ) -> Self {
        let bits = (0..WEIGHT_CLASSES).rev();
        let weight_bits =
            bits.into_iter().find(|&bits| workgroup_bytes(bits) <= has.max_compute_workgroup_storage_size);
        let forbidden = forbids(std::env::var(ON_CHIP_VARIABLE).ok().as_deref());
        let fits = weight_bits.is_some()
            && has.max_storage_buffers_per_shader_stage >= MAX_BINDINGS as u32
            && has.max_compute_invocations_per_workgroup >= ELEMENTWISE_GROUP as u32;
        Self {
            options,
            // Through Vulkan, whose atomic loads are what WGSL asks for.
            trusted: info.backend == wgpu::Backend::Vulkan
                && matches!(kind, AdapterKind::Discrete | AdapterKind::Integrated)
                && MAKERS.contains(&info.vendor),
            possible: fits && !forbidden,
            weight_bits: weight_bits.unwrap_or(0),
            found: OnceLock::new(),
            status: OnceLock::new(),
            lost: AtomicBool::new(false),
            stops: AtomicU64::new(0),
            last: Mutex::new(None),
        }
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
            return Ok(0);
        }
        if let Some(found) = waiting.found.get() {
            return Ok(found.load(Ordering::Relaxed));
        }
        let found = match waiting.options.workgroups {
            Some(given) => given as usize,
            None => self.probe()?,
        };
        let found = found.min(self.limits().workgroups);
        Ok(waiting.found.get_or_init(|| AtomicUsize::new(found)).load(Ordering::Relaxed))
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
        let waiting = self.waiting();
        OnChipReport {
            workgroups: waiting.found.get().map(|found| found.load(Ordering::Relaxed)),
            stops: waiting.stops.load(Ordering::Relaxed),
            last: *waiting.last.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Where kernels write that they waited in vain; zeros from the start.
    pub(crate) fn waiting_status(&self) -> Result<Span<'_>> {
        let waiting = self.waiting();
        if waiting.status.get().is_none() {
            let made = self.allocate(STATUS, "the status of workgroups that wait")?;
            self.clear(Span::new(&made, 0, STATUS));
            // Of two at the same time one is given back.
            waiting.status.set(made).ok();
        }
        let Some(status) = waiting.status.get() else { unreachable!("set above") };
        Ok(Span::new(status, 0, STATUS))
    }

    /// The status, where a kernel may have written to it.
    pub(super) fn known_status(&self) -> Option<Span<'_>> {
        self.waiting().status.get().map(|status| Span::new(status, 0, STATUS))
    }

    /// Draws conclusions from what a readback brought of the status.
    ///
    /// # Errors
    /// [`Error::Gpu`] where numbers are missing, from then on at every readback.
    pub(super) fn learn(&self, words: &[u32]) -> Result<()> {
        let (&[stopped, step, place, lost], Some(status)) = (words, self.known_status()) else {
            return Ok(());
        };
        let waiting = self.waiting();
        if lost != 0 {
            waiting.lost.store(true, Ordering::Relaxed);
        }
        if waiting.lost.load(Ordering::Relaxed) {
            let message = format!(
                "a recurrent layer did not come to its end on chip, and what this device holds cannot be trusted; \
                 open it anew with {ON_CHIP_VARIABLE}=0, and report this"
            );
            return Err(Error::Gpu { message });
        }
        if stopped == 0 {
            return Ok(());
        }
        waiting.stops.fetch_add(1, Ordering::Relaxed);
        *waiting.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, place));
        if let Some(found) = waiting.found.get() {
            // One workgroup waits for nobody: fewer than two are none.
            let fewer = found.load(Ordering::Relaxed) / 2;
            found.store(if fewer < 2 { 0 } else { fewer }, Ordering::Relaxed);
        }
        self.clear(status);
        Ok(())
    }

    /// Writes zeros to the first words of `exchange`, and to all others what stands for nothing yet.
    pub(crate) fn clear_exchange(&self, exchange: &Buffer, zeros: usize, words: usize) -> Result<()> {
        let target = self.bind(Span::new(exchange, 0, words))?;
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
        Ok(())
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
        let exchange = self.allocate(words, "the self-test of workgroups that wait")?;
        self.clear_exchange(&exchange, HEAD, words)?;
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
    fn zero_and_nothing_else_forbids() {
        assert!(forbids(Some("0")) && forbids(Some(" 0 ")));
        assert!(!forbids(None) && !forbids(Some("")) && !forbids(Some("1")));
    }

    #[test]
    fn adapters_with_more_workgroup_memory_hold_more_weights() {
        let bytes: Vec<u32> = (0..WEIGHT_CLASSES).map(workgroup_bytes).collect();
        // What every device has, and what NVIDIA's have.
        assert!(bytes[0] <= 16 << 10 && bytes[3] <= 48 << 10, "{bytes:?}");
        assert!(bytes.is_sorted(), "{bytes:?}");
    }
}

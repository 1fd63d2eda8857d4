//! Memory of 32-bit tensors on the CPU, used again by the device that it was allocated for: the system clears new memory page
//! by page at first touch, which takes longer than much of the arithmetic on it, and a training loop asks for the same sizes at
//! every step.
//!
//! What a device has in use and what it keeps are together never more than the most that it had in use at once lately, and
//! [`SLACK`]: a loop takes as much memory as its largest step, whatever the shapes of the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The fewest elements of a buffer that is kept: the allocator is as fast for smaller ones.
const LEAST: usize = 1 << 15;
/// The most bytes that may be kept beyond the most that was in use at once. A buffer serves its own size only, so that a step
/// needs a little more than that.
const SLACK: usize = 8 << 20;
/// What part of the most that was in use the slack is at most.
const SLACK_PART: usize = 4;
/// Allocations after which the most that was in use before is forgotten: many times those of one training step.
const PERIOD: u32 = 4096;
/// Bytes given back to the allocator after which it is asked to give its own free memory back to the system.
const TRIM: usize = 4 << 20;

/// The memory that a device keeps for later; clones of a device share it.
#[derive(Default)]
pub(crate) struct Store(Mutex<FreeBlock>);

#[derive(Default)]
struct FreeBlock {
    /// Buffers that are not in use, the oldest first.
    buffers: VecDeque<Vec<f32>>,
    kept: usize,
    in_use: usize,
    /// The most bytes in use at once in this period and in the one before.
    peaks: [usize; 2],
    /// Sizes that were asked for, with the number of the last period in which they were.
    sizes: HashMap<usize, u64>,
    allocations: u32,
    period: u64,
    /// Bytes freed since the allocator was last asked to give its own free memory back.
    freed: usize,
}

fn bytes(buffer: &Vec<f32>) -> usize {
    buffer.capacity() * size_of::<f32>()
}

impl FreeBlock {
    fn take(&mut self, elements: usize) -> Option<Vec<f32>> {
        self.allocations += 1;
        if self.allocations == PERIOD {
            self.next_period();
        }
        if elements < LEAST {
            return None;
        }
        self.sizes.insert(elements, self.period);
        // The one that was used last is the likeliest to be in a cache.
        let place = self.buffers.iter().rposition(|buffer| buffer.len() == elements)?;
        let found = self.buffers.remove(place)?;
        self.kept -= bytes(&found);
        Some(found)
    }

    fn next_period(&mut self) {
        self.allocations = 0;
        self.period += 1;
        self.peaks = [self.in_use, self.peaks[0]];
        let oldest = self.period - 1;
        self.sizes.retain(|_, last| *last >= oldest);
        self.shrink();
    }

    fn begin(&mut self, bytes: usize) {
        self.in_use += bytes;
        self.peaks[0] = self.peaks[0].max(self.in_use);
        self.shrink();
    }

    fn end(&mut self, buffer: Vec<f32>) {
        self.in_use -= bytes(&buffer);
        // A size that is not asked for would only take the room of one that is.
        if buffer.len() == buffer.capacity() && self.sizes.contains_key(&buffer.len()) {
            self.kept += bytes(&buffer);
            self.buffers.push_back(buffer);
            self.shrink();
        } else {
            self.freed += bytes(&buffer);
            drop(buffer);
            self.trim();
        }
    }

    /// Frees the oldest buffers beyond the bound.
    fn shrink(&mut self) {
        let peak = self.peaks[0].max(self.peaks[1]);
        let bound = peak + SLACK.min(peak / SLACK_PART);
        while self.in_use + self.kept > bound {
            let Some(oldest) = self.buffers.pop_front() else { break };
            self.kept -= bytes(&oldest);
            self.freed += bytes(&oldest);
        }
        self.trim();
    }

    fn trim(&mut self) {
        if self.freed >= TRIM {
            self.freed = 0;
            return_free_memory();
        }
    }
}

impl Store {
    fn kept(&self) -> MutexGuard<'_, FreeBlock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept buffer of this size, with whatever values it has; `None` where there is none.
    pub(super) fn take(&self, elements: usize) -> Option<Vec<f32>> {
        self.kept().take(elements)
    }

    /// Frees all that is kept.
    pub(crate) fn release(&self) {
        let mut kept = self.kept();
        kept.buffers = VecDeque::new();
        kept.sizes = HashMap::new();
        kept.peaks = [kept.in_use, 0];
        (kept.kept, kept.freed) = (0, 0);
        drop(kept);
        return_free_memory();
    }
}

/// The values of a tensor, whose memory goes back to its device's store when it is dropped.
pub(crate) struct Block {
    values: Vec<f32>,
    /// None for values too few to be kept.
    store: Option<Arc<Store>>,
}

impl Block {
    pub(super) fn new(values: Vec<f32>, store: &Arc<Store>) -> Self {
        let store = (values.len() >= LEAST).then(|| Arc::clone(store));
        if let Some(store) = &store {
            store.kept().begin(bytes(&values));
        }
        Self { values, store }
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.kept().end(std::mem::take(&mut self.values));
        }
    }
}

/// Asks the allocator to give the memory that it holds free back to the system. That of glibc keeps tens of MiB for later
/// otherwise, the more the larger the buffers that were freed; others give large buffers back at once.
fn return_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim has no precondition, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    /// Elements of a MiB.
    const UNIT: usize = MIB / size_of::<f32>();

    /// A buffer of `mebibytes`, taken from `store` or new.
    fn block(store: &Arc<Store>, mebibytes: usize) -> Block {
        let elements = mebibytes * UNIT;
        Block::new(store.take(elements).unwrap_or_else(|| vec![0.0; elements]), store)
    }

    fn state(store: &Store) -> [usize; 2] {
        let kept = store.kept();
        [kept.in_use / MIB, kept.kept / MIB]
    }

    #[test]
    fn what_is_kept_and_in_use_is_never_more_than_was_in_use_and_the_slack() {
        let store = Arc::new(Store::default());
        let [one, two] = [block(&store, 30), block(&store, 10)];
        assert_eq!(state(&store), [40, 0]);
        drop((one, two));
        assert_eq!(state(&store), [0, 40]);
        // The same sizes again take no new memory.
        let [one, two] = [block(&store, 30), block(&store, 10)];
        assert_eq!(state(&store), [40, 0]);
        drop((one, two));
        // Others take the room of the oldest.
        let three = block(&store, 20);
        assert_eq!(state(&store), [20, 10]);
        drop(three);
        assert_eq!(state(&store), [0, 30]);
        store.release();
        assert_eq!(state(&store), [0, 0]);
    }

    #[test]
    fn a_shape_seen_once_is_forgotten() {
        let store = Arc::new(Store::default());
        drop(block(&store, 100));
        for _ in 0..2 * PERIOD {
            drop(block(&store, 1));
        }
        let [in_use, kept] = state(&store);
        assert_eq!(in_use, 0);
        assert!(kept * MIB <= MIB + SLACK, "{kept} MiB are kept");
    }

    #[test]
    fn buffers_of_sizes_that_are_not_asked_for_are_freed() {
        let store = Arc::new(Store::default());
        drop(Block::new(vec![0.0; UNIT], &store));
        assert_eq!(state(&store), [0, 0]);
        let mut spare = Vec::with_capacity(2 * UNIT);
        spare.resize(UNIT, 0.0);
        assert!(store.take(UNIT).is_none());
        drop(Block::new(spare, &store));
        assert_eq!(state(&store), [0, 0]);
        drop(Block::new(vec![0.0; UNIT], &store));
        assert_eq!(state(&store), [0, 1]);
    }
}

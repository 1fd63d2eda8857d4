//! A cache of free memory for 32-bit tensors on the CPU, per device. The system clears new memory page by page at first
//! touch, which takes longer than much of the arithmetic on it, and a training loop allocates the same sizes at every step.
//!
//! Memory in use plus cached memory never exceeds the recent peak of the memory in use by more than [`SLACK`]: a loop
//! needs as much memory as its largest step, whatever the shapes of the other steps.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The smallest cached buffer in elements; for smaller ones the allocator is as fast.
const LEAST: usize = 1 << 15;
/// The most cached bytes beyond the peak of the memory in use. A buffer is reused only for its own size, so a step needs
/// slightly more than that peak.
const SLACK: usize = 8 << 20;
/// The slack is at most this fraction of the peak: 1 / `SLACK_PART`.
const SLACK_PART: usize = 4;
/// The number of allocations after which an earlier peak expires: many times those of one training step.
const PERIOD: u32 = 4096;
/// The number of freed bytes after which the allocator is asked to return its free memory to the system.
const TRIM: usize = 4 << 20;

/// The cached memory of a device, shared by its clones.
#[derive(Default)]
pub(crate) struct Store(Mutex<FreeBlock>);

#[derive(Default)]
struct FreeBlock {
    /// Free buffers, the oldest first.
    buffers: VecDeque<Vec<f32>>,
    kept: usize,
    in_use: usize,
    /// The peak of the bytes in use, in this period and in the previous one.
    peaks: [usize; 2],
    /// Requested sizes, with the number of the last period in which they were requested.
    sizes: HashMap<usize, u64>,
    allocations: u32,
    period: u64,
    /// Bytes freed since the allocator was last asked to return its free memory.
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
        // The most recently used buffer is most likely in a cache.
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
        // A size that is no longer requested would displace one that is.
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

    /// Frees the oldest buffers until the limit holds.
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
    fn free_blocks(&self) -> MutexGuard<'_, FreeBlock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a cached buffer of this size, with arbitrary values; `None` if there is none.
    pub(crate) fn take(&self, elements: usize) -> Option<Vec<f32>> {
        self.free_blocks().take(elements)
    }

    /// Frees all cached buffers.
    pub(crate) fn release(&self) {
        let mut kept = self.free_blocks();
        kept.buffers = VecDeque::new();
        kept.sizes = HashMap::new();
        kept.peaks = [kept.in_use, 0];
        (kept.kept, kept.freed) = (0, 0);
        drop(kept);
        return_free_memory();
    }
}

/// The values of a tensor; when it is dropped, its memory returns to the device's store.
pub(crate) struct MemoryBlock {
    values: Vec<f32>,
    /// `None` for buffers too small to be cached.
    store: Option<Arc<Store>>,
}

impl MemoryBlock {
    pub(crate) fn new(values: Vec<f32>, store: &Arc<Store>) -> Self {
        let store = (values.len() >= LEAST).then(|| Arc::clone(store));
        if let Some(store) = &store {
            store.free_blocks().begin(bytes(&values));
        }
        Self { values, store }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for MemoryBlock {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.free_blocks().end(std::mem::take(&mut self.values));
        }
    }
}

/// Asks the allocator to return its free memory to the system. Otherwise glibc's keeps tens of MiB, more after larger
/// buffers were freed; other allocators return large buffers immediately.
fn return_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim has no precondition and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    /// Elements per MiB.
    const UNIT: usize = MIB / size_of::<f32>();

    /// A buffer of `mebibytes`, taken from `store` or newly allocated.
    fn block(store: &Arc<Store>, mebibytes: usize) -> MemoryBlock {
        let elements = mebibytes * UNIT;
        MemoryBlock::new(store.take(elements).unwrap_or_else(|| vec![0.0; elements]), store)
    }

    fn state(store: &Store) -> [usize; 2] {
        let kept = store.free_blocks();
        [kept.in_use / MIB, kept.kept / MIB]
    }

    #[test]
    fn what_is_kept_and_in_use_is_never_more_than_was_in_use_and_the_slack() {
        let store = Arc::new(Store::default());
        let [one, two] = [block(&store, 30), block(&store, 10)];
        assert_eq!(state(&store), [40, 0]);
        drop((one, two));
        assert_eq!(state(&store), [0, 40]);
        // Allocating the same sizes again needs no new memory.
        let [one, two] = [block(&store, 30), block(&store, 10)];
        assert_eq!(state(&store), [40, 0]);
        drop((one, two));
        // Another size displaces the oldest buffer.
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
        drop(MemoryBlock::new(vec![0.0; UNIT], &store));
        assert_eq!(state(&store), [0, 0]);
        let mut spare = Vec::with_capacity(2 * UNIT);
        spare.resize(UNIT, 0.0);
        assert!(store.take(UNIT).is_none());
        drop(MemoryBlock::new(spare, &store));
        assert_eq!(state(&store), [0, 0]);
        drop(MemoryBlock::new(vec![0.0; UNIT], &store));
        assert_eq!(state(&store), [0, 1]);
    }
}

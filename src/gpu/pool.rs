//! Reuse of device memory by size class, so that a steady training loop allocates nothing.
//!
//! A buffer returns to its class when the last tensor that uses it is dropped, even while recorded work still
//! reads it: commands on one queue run in the order they were recorded, so whoever gets the buffer next writes
//! it after that work is done.
//!
//! Of the unused buffers of a class the oldest is taken: so the same calls soon get the same buffers at each step of a loop,
//! and find the bind groups of the step before. The one given back last would depend on the order in which a step
//! before let go of them, and buffers would go on changing places for hundreds of steps.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Result};

const SMALLEST_CLASS: u64 = 256;
const FINE_CLASSES_FROM: u64 = 1 << 20;

/// What a buffer is for; decides its usage flags and which shelf it returns to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Read and written by shaders.
    Storage,
    /// Kernel parameters, where immediates are missing.
    Uniform,
    /// Written by the host, copied to the others. Returns to its shelf mapped.
    Upload,
    /// Copied to from the others, read by the host.
    Download,
}

impl Purpose {
    fn usages(self) -> wgpu::BufferUsages {
        use wgpu::BufferUsages as Usage;
        match self {
            Self::Storage => Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
            Self::Uniform => Usage::UNIFORM | Usage::COPY_DST,
            Self::Upload => Usage::MAP_WRITE | Usage::COPY_SRC,
            Self::Download => Usage::MAP_READ | Usage::COPY_DST,
        }
    }
}

/// A buffer with the number that tells it from every other one of the process.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) buffer: wgpu::Buffer,
    pub(super) id: u64,
}

/// Unused buffers by their numbers.
type Shelf = BTreeMap<u64, wgpu::Buffer>;

/// Shelves of unused buffers, and a count of all that were ever made.
pub(crate) struct Pool {
    device: wgpu::Device,
    largest: u64,
    shelves: Mutex<HashMap<(Purpose, u64), Shelf>>,
    allocations: AtomicU64,
    bytes: AtomicU64,
    in_use: AtomicU64,
    peak: AtomicU64,
}

/// Memory on the device, given back to the pool when dropped.
pub(crate) struct Buffer {
    pub(super) raw: Raw,
    purpose: Purpose,
    pool: Arc<Pool>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.put(self.purpose, self.raw.clone());
    }
}

/// The size of the smallest class that holds `bytes`: powers of two, with quarter steps above a mebibyte.
fn class(bytes: u64) -> u64 {
    let power = bytes.max(SMALLEST_CLASS).next_power_of_two();
    if power <= FINE_CLASSES_FROM {
        return power;
    }
    let quarter = power / 8;
    bytes.div_ceil(quarter) * quarter
}

impl Pool {
    pub(super) fn new(device: wgpu::Device, largest: u64) -> Self {
        Self {
            device,
            largest,
            shelves: Mutex::default(),
            allocations: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            in_use: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    /// How many buffers this pool ever asked the driver for.
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Bytes of all buffers that exist, in use or on a shelf.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the buffers that are in use.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The most bytes that were in use at once, since the last [`Pool::reset_peak`].
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Begins to look for the peak anew, from what is in use.
    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.in_use(), Ordering::Relaxed);
    }

    /// A buffer of at least `bytes`; its content is whatever was there before.
    pub(super) fn take(self: &Arc<Self>, purpose: Purpose, bytes: u64, what: &str) -> Result<Buffer> {
        let raw = self.take_raw(purpose, bytes, what)?;
        Ok(Buffer { raw, purpose, pool: Arc::clone(self) })
    }

    pub(super) fn take_raw(&self, purpose: Purpose, bytes: u64, what: &str) -> Result<Raw> {
        if bytes > self.largest {
            return Err(Error::ExceedsLimit {
                what: format!("a buffer for {what} (bytes)"),
                needed: bytes,
                limit: self.largest,
            });
        }
        let size = class(bytes).min(self.largest & !3);
        let unused = self.shelves().get_mut(&(purpose, size)).and_then(Shelf::pop_first);
        let raw = match unused {
            Some((id, buffer)) => Raw { buffer, id },
            None => self
                .allocate(purpose, size)
                .map_err(|()| Error::OutOfMemory { what: what.to_owned(), bytes })?,
        };
        let in_use = self.in_use.fetch_add(raw.buffer.size(), Ordering::Relaxed) + raw.buffer.size();
        self.peak.fetch_max(in_use, Ordering::Relaxed);
        Ok(raw)
    }

    pub(super) fn put(&self, purpose: Purpose, raw: Raw) {
        self.in_use.fetch_sub(raw.buffer.size(), Ordering::Relaxed);
        self.shelves().entry((purpose, raw.buffer.size())).or_default().insert(raw.id, raw.buffer);
    }

    /// Forgets all unused buffers.
    pub(super) fn clear(&self) {
        let freed: u64 =
            self.shelves().drain().flat_map(|(_, shelf)| shelf).map(|(_, buffer)| buffer.size()).sum();
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    fn allocate(&self, purpose: Purpose, size: u64) -> Result<Raw, ()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: purpose.usages(),
            mapped_at_creation: purpose == Purpose::Upload,
        });
        if pollster::block_on(memory.pop()).is_some() {
            return Err(());
        }
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(Raw { buffer, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    fn shelves(&self) -> std::sync::MutexGuard<'_, HashMap<(Purpose, u64), Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn classes_hold_what_they_are_asked_for_and_waste_little() {
        for bytes in [1, 255, 256, 257, 4096, 1 << 20, (1 << 20) + 1, 5_000_000, 123_456_789] {
            let size = class(bytes);
            assert!(size >= bytes && size.is_multiple_of(4), "{bytes} -> {size}");
            assert!(size <= bytes.max(256) * 2, "{bytes} -> {size}");
            if bytes > 1 << 20 {
                assert!(size <= bytes + bytes / 4 + 4, "{bytes} -> {size}");
            }
        }
    }
}

//! Reuse of device memory by size class, so that a steady training loop allocates nothing.
//!
//! A buffer returns to its class when the last tensor that uses it is dropped, even if recorded work still
//! reads it: commands on one queue run in the order in which they were recorded, so the next user writes it
//! after that work is done.
//!
//! The oldest unused buffer of a class is reused first. So the same calls get the same buffers at each step
//! of a loop after a few steps, and find the bind groups of the previous step. With the newest first, the
//! choice would depend on the order in which buffers were dropped, and buffers would change places for
//! hundreds of steps.
//!
//! The pool of a dry run has no device: its buffers are sizes without memory, exactly as requested and never reused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::faults::{refused, scoped};
use crate::{Error, Result};

/// Bytes between two classes of small buffers.
const FINEST: u64 = 256;
/// Classes per power of two, for larger buffers.
const CLASSES: u64 = 16;
/// A larger buffer is reused if its excess is at most the requested size divided by this.
const SPARE: u64 = 4;

/// What a buffer is used for; determines its usage flags and its shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Read and written by shaders.
    Storage,
    /// Kernel parameters, where immediates are not supported.
    Uniform,
    /// Written by the host and copied to other buffers. Returns to its shelf mapped.
    Upload,
    /// Copied to from other buffers and read by the host.
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

/// A buffer with a number that is unique in the process.
#[derive(Clone)]
pub(super) struct Raw {
    /// `None` in a dry run.
    buffer: Option<wgpu::Buffer>,
    /// Bytes.
    pub(super) size: u64,
    pub(super) id: u64,
}

impl Raw {
    /// The buffer of a driver. Call it only outside of dry runs.
    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        match &self.buffer {
            Some(buffer) => buffer,
            None => unreachable!("a dry run passes nothing to a driver"),
        }
    }
}

/// Unused buffers of one purpose and size, by their numbers.
type Shelf = BTreeMap<u64, Raw>;

/// Shelves by purpose and size; none is empty.
type Shelves = BTreeMap<(Purpose, u64), Shelf>;

/// The unused buffers, and a count of all buffers created.
#[derive(Default)]
pub(crate) struct Pool {
    /// `None` in a dry run.
    device: Option<wgpu::Device>,
    largest: u64,
    shelves: Mutex<Shelves>,
    allocations: AtomicU64,
    bytes: AtomicU64,
    in_use: AtomicU64,
    peak: AtomicU64,
}

/// Memory on the device, returned to the pool when dropped.
pub(crate) struct Buffer {
    pub(super) raw: Raw,
    purpose: Purpose,
    pool: Arc<Pool>,
    /// Whether the buffer must not be reused.
    discarded: bool,
}

impl Buffer {
    /// Drops a buffer whose state is unknown: it does not return to the pool.
    pub(super) fn discard(mut self) {
        self.discarded = true;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.discarded {
            false => self.pool.put(self.purpose, self.raw.clone()),
            true => self.pool.forget(&self.raw),
        }
    }
}

/// The size of the smallest class that holds `bytes`: larger by at most a sixteenth, or 255 bytes.
fn class(bytes: u64) -> u64 {
    let power = bytes.max(FINEST).next_power_of_two();
    let step = (power / (2 * CLASSES)).max(FINEST);
    bytes.max(FINEST).div_ceil(step) * step
}

/// Takes an unused buffer of `size`, or the smallest of those that are not much larger, so that batches of
/// varying lengths share buffers.
fn take_from(shelves: &mut Shelves, purpose: Purpose, size: u64) -> Option<Raw> {
    let largest = match purpose {
        Purpose::Storage => size + size / SPARE,
        _ => size,
    };
    let key = *shelves.range((purpose, size)..=(purpose, largest)).next()?.0;
    let shelf = shelves.get_mut(&key)?;
    let oldest = shelf.pop_first().map(|(_, raw)| raw);
    if shelf.is_empty() {
        shelves.remove(&key);
    }
    oldest
}

impl Pool {
    pub(super) fn new(device: Option<wgpu::Device>, largest: u64) -> Self {
        Self { device, largest, ..Self::default() }
    }

    /// How many buffers this pool has requested from the driver.
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Bytes of all buffers that exist, in use or unused.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the buffers in use.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The most bytes in use at once since the last [`Pool::reset_peak`].
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Resets the peak to the bytes in use now.
    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.in_use(), Ordering::Relaxed);
    }

    /// Returns a buffer of at least `bytes`, with undefined content.
    pub(super) fn take(self: &Arc<Self>, purpose: Purpose, bytes: u64, what: &str) -> Result<Buffer> {
        let raw = self.take_raw(purpose, bytes, what)?;
        Ok(Buffer { raw, purpose, pool: Arc::clone(self), discarded: false })
    }

    pub(super) fn take_raw(&self, purpose: Purpose, bytes: u64, what: &str) -> Result<Raw> {
        if bytes > self.largest {
            return Err(Error::ExceedsLimit {
                what: format!("a buffer for {what} (bytes)"),
                needed: bytes,
                limit: self.largest,
            });
        }
        let Some(device) = &self.device else {
            self.begin(bytes);
            return Ok(Raw { buffer: None, size: bytes, id: 0 });
        };
        let size = class(bytes).min(self.largest & !3);
        let unused = take_from(&mut self.shelves(), purpose, size);
        let raw = match unused {
            Some(raw) => raw,
            None => self.allocate(device, purpose, size).map_err(|error| match error {
                wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.to_owned(), bytes },
                other => refused(what, &other),
            })?,
        };
        self.begin(raw.size);
        Ok(raw)
    }

    /// Counts `bytes` as in use.
    fn begin(&self, bytes: u64) {
        let in_use = self.in_use.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(in_use, Ordering::Relaxed);
    }

    pub(super) fn put(&self, purpose: Purpose, raw: Raw) {
        self.in_use.fetch_sub(raw.size, Ordering::Relaxed);
        if self.device.is_some() {
            self.shelves().entry((purpose, raw.size)).or_default().insert(raw.id, raw);
        }
    }

    /// Removes a buffer in use from the counts.
    pub(super) fn forget(&self, raw: &Raw) {
        self.in_use.fetch_sub(raw.size, Ordering::Relaxed);
        self.bytes.fetch_sub(raw.size, Ordering::Relaxed);
    }

    /// Drops all unused buffers.
    pub(super) fn clear(&self) {
        let unused = std::mem::take(&mut *self.shelves());
        let freed: u64 = unused.into_values().flatten().map(|(_, raw)| raw.size).sum();
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    fn allocate(&self, device: &wgpu::Device, purpose: Purpose, size: u64) -> Result<Raw, wgpu::Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size,
            usage: purpose.usages(),
            mapped_at_creation: purpose == Purpose::Upload,
        };
        let buffer = scoped(device, || device.create_buffer(&descriptor))?;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(Raw { buffer: Some(buffer), size, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    fn shelves(&self) -> std::sync::MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn classes_hold_what_they_are_asked_for_and_waste_little() {
        for bytes in [1, 255, 256, 257, 4096, 4097, 8193, 1 << 20, (1 << 20) + 1, 5_000_000, 123_456_789] {
            let size = class(bytes);
            assert!(size >= bytes && size.is_multiple_of(4), "{bytes} -> {size}");
            assert!(size <= bytes + (bytes / 16).max(255), "{bytes} -> {size}");
            assert_eq!(class(size), size);
        }
    }
}

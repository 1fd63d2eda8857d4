//! Memory of 32-bit tensors on the CPU, used again: what the system gives anew it clears page by page at first touch, which
//! takes longer than much of the arithmetic on it, and a training loop asks for the same sizes at every step.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The least elements that are worth keeping: smaller memory comes from the allocator's own store.
const LEAST: usize = 1 << 15;
/// The most bytes that are kept for later, all buffers together; the oldest go first.
const MOST_BYTES: usize = 1 << 29;

/// Buffers that wait for their next use, the oldest first.
struct Store {
    buffers: VecDeque<Vec<f32>>,
    bytes: usize,
}

static STORE: Mutex<Store> = Mutex::new(Store { buffers: VecDeque::new(), bytes: 0 });

impl Store {
    fn take(&mut self, elements: usize) -> Option<Vec<f32>> {
        // The youngest is the likeliest to be in a cache.
        let place = self.buffers.iter().rposition(|buffer| buffer.len() == elements)?;
        let found = self.buffers.remove(place)?;
        self.bytes -= size_of_val(found.as_slice());
        Some(found)
    }

    fn give(&mut self, buffer: Vec<f32>) {
        self.bytes += size_of_val(buffer.as_slice());
        self.buffers.push_back(buffer);
        while self.bytes > MOST_BYTES {
            let Some(oldest) = self.buffers.pop_front() else { break };
            self.bytes -= size_of_val(oldest.as_slice());
        }
    }
}

/// Memory that was given back, with whatever stands in it; `None` where none of this size waits.
pub(super) fn take(elements: usize) -> Option<Vec<f32>> {
    if elements < LEAST {
        return None;
    }
    STORE.lock().unwrap_or_else(PoisonError::into_inner).take(elements)
}

/// Gives memory back.
pub(super) fn give(buffer: Vec<f32>) {
    // What has room to spare would hold more than is counted.
    if buffer.len() >= LEAST && buffer.len() == buffer.capacity() {
        STORE.lock().unwrap_or_else(PoisonError::into_inner).give(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_by_its_size_and_the_oldest_goes_first() {
        let mut store = Store { buffers: VecDeque::new(), bytes: 0 };
        for value in [1.0, 2.0] {
            store.give(vec![value; LEAST]);
        }
        assert!(store.take(LEAST + 1).is_none());
        assert_eq!(store.take(LEAST).map(|buffer| buffer[0]), Some(2.0));
        store.give(vec![3.0; LEAST]);
        let rest = MOST_BYTES - LEAST * size_of::<f32>();
        store.give(vec![4.0; rest / size_of::<f32>()]);
        assert_eq!(store.bytes, MOST_BYTES);
        assert_eq!(store.take(LEAST).map(|buffer| buffer[0]), Some(3.0));
        assert!(store.take(LEAST).is_none());
    }
}

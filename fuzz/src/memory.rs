//! An allocator that counts the bytes in use per thread, and their peak.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The limit per thread: an input that exceeds it ends the program before the machine runs out of memory.
const MOST: usize = 2 << 30;

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts per thread, and allocates from the system.
pub(crate) struct Counting;

/// Counts requested bytes; returns whether they are within the limit.
fn add(bytes: usize) -> bool {
    let count = || {
        let now = IN_USE.get().saturating_add(bytes);
        PEAK.set(PEAK.get().max(now));
        if now > MOST {
            return false;
        }
        IN_USE.set(now);
        true
    };
    count()
}

fn subtract(bytes: usize) {
    // A thread may free memory that another one allocated.
    IN_USE.set(IN_USE.get().saturating_sub(bytes));
}

// SAFETY: every call is passed on to the system's allocator with unchanged arguments, or fails like an allocation without
// memory. The counters are thread-local cells without destructors, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !add(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller guarantees the precondition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !add(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller guarantees the precondition.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller guarantees the precondition.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks exist while values are copied.
        if !add(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller guarantees the precondition.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        subtract(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

/// The peak of the bytes that this thread used during `run`, beyond those in use before.
pub(crate) fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.get();
    PEAK.set(before);
    let value = run();
    (value, PEAK.get() - before)
}

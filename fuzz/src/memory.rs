//! An allocator that counts what each thread has in use, and the most that it had.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// More than this is never given to one thread: a runaway input ends the program instead of the machine.
const MOST: usize = 2 << 30;

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts by thread, and takes the memory from the system.
pub(crate) struct Counting;

/// Counts bytes that are asked for; whether they may be given.
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
    // What another thread took may be given back here.
    IN_USE.set(IN_USE.get().saturating_sub(bytes));
}

// SAFETY: every call is passed on to the system's allocator with its arguments unchanged, or fails as one that is out of
// memory. The counters are cells of the thread without destructors, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !add(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !add(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist while values are copied.
        if !add(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        subtract(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

/// The most bytes that this thread had in use during `run`, beyond those before.
pub(crate) fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.get();
    PEAK.set(before);
    let value = run();
    (value, PEAK.get() - before)
}

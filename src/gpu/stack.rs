//! A large stack for shader compilers, which recurse as deep as the source nests.

use std::{io, thread};

/// naga, built without optimization, uses up to 40 KiB per level of nesting; `inspect/text.rs` bounds the
/// levels.
const BYTES: usize = 32 << 20;

/// Runs `work` on a thread with a stack of a known size, and waits for it.
pub(super) fn on_compiler_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("refrain compiler".into()).stack_size(BYTES);
        match thread.spawn_scoped(scope, work)?.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

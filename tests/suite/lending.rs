//! Devices that tests borrow: opened once for each adapter and options, by one test at a time, so that a kernel is compiled
//! once and not by every test that calls it. Software adapters take most of the suite's time for that.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use refrain::{Device, Result};

use crate::adapters::Outcome;

/// Number of an adapter, and the options in words.
type Key = (usize, String);

/// Devices that no test has, and that are never dropped.
static SHELF: LazyLock<Mutex<HashMap<Key, Vec<Device>>>> = LazyLock::new(Mutex::default);

thread_local! {
    // Never dropped: what a driver keeps for a thread may be gone before this is.
    /// What the test on this thread has borrowed.
    static HELD: RefCell<ManuallyDrop<HashMap<Key, Device>>> = RefCell::default();
}

fn shelf() -> MutexGuard<'static, HashMap<Key, Vec<Device>>> {
    SHELF.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device of this key that the test on this thread has, or that no test has; else what `open` opens.
///
/// # Errors
/// Those of `open`.
pub(crate) fn borrow(key: Key, open: impl FnOnce() -> Result<Device>) -> Result<Device> {
    if let Some(device) = HELD.with_borrow(|held| held.get(&key).cloned()) {
        return Ok(device);
    }
    let returned = shelf().get_mut(&key).and_then(Vec::pop);
    let device = match returned {
        Some(device) => device,
        None => open()?,
    };
    HELD.with_borrow_mut(|held| held.insert(key, device.clone()));
    Ok(device)
}

/// Runs a test and takes back what it borrowed, as good as new: with no memory in reserve, no peak and no errors. The devices
/// of a test that failed are not lent again.
pub(crate) fn lend(body: impl FnOnce() -> Outcome) -> Outcome {
    // A test that panicked left its own.
    HELD.set(ManuallyDrop::default());
    body()?;
    for (key, device) in ManuallyDrop::into_inner(HELD.take()) {
        let cleared = device.release_unused();
        if let Err(error) = cleared {
            std::mem::forget(device);
            return Err(format!("a device had this to say once the test was over: {error}").into());
        }
        device.reset_peak();
        shelf().entry(key).or_default().push(device);
    }
    Ok(())
}

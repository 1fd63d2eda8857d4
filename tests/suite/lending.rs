//! Devices that tests borrow: opened once for each adapter and options, by one test at a time, so that a kernel is compiled
//! once and not by every test that calls it. Software adapters take most of the suite's time for that.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, PoisonError};

use refrain::{Device, Result};

use crate::adapters::Outcome;

/// Number of an adapter, and the options in words.
type Key = (usize, String);

/// Devices that no test has, the one that came back last at the end.
static SHELF: Mutex<VecDeque<(Key, Device)>> = Mutex::new(VecDeque::new());
/// How many of them are kept: what a software driver makes of a device's kernels takes some hundred megabytes.
const MOST_IDLE: usize = 10;

thread_local! {
    // Never dropped: what a driver keeps for a thread may be gone before this is.
    /// What the test on this thread has borrowed.
    static HELD: RefCell<ManuallyDrop<HashMap<Key, Device>>> = RefCell::default();
}

fn shelf() -> MutexGuard<'static, VecDeque<(Key, Device)>> {
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
    let known = {
        let mut shelf = shelf();
        let place = shelf.iter().rposition(|(other, _)| *other == key);
        place.and_then(|place| shelf.remove(place))
    };
    let device = match known {
        Some((_, device)) => device,
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
        let forgotten = {
            let mut shelf = shelf();
            shelf.push_back((key, device));
            if shelf.len() > MOST_IDLE { shelf.pop_front() } else { None }
        };
        drop(forgotten);
    }
    Ok(())
}

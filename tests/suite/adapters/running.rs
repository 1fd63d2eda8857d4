//! How the body of a trial runs: with lent devices, beside others or alone, counted and timed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::Outcome;
use crate::lending::lend;

/// Tests named at the end as those that took longest.
const SLOWEST: usize = 12;

/// Whether a test may run beside others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    Welcome,
    Alone,
}

/// State shared by all trials: which tests ran on which adapter, and the lock that excludes others.
#[derive(Default)]
pub(super) struct Shared {
    /// Trials by the place where they ran.
    pub(super) ran: Mutex<BTreeMap<String, usize>>,
    took: Mutex<Vec<(Duration, String)>>,
    door: RwLock<()>,
}

impl Shared {
    /// Runs the body of a trial, and takes down where it ran and how long.
    pub(super) fn run(
        &self,
        place: &str,
        claim: &str,
        company: Company,
        body: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let timed = || {
            let start = Instant::now();
            let outcome = lend(body);
            let entry = (start.elapsed(), format!("{claim} on {place}"));
            self.took.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            outcome
        };
        let count = |ran: &mut BTreeMap<String, usize>| *ran.entry(place.to_owned()).or_default() += 1;
        count(&mut self.ran.lock().unwrap_or_else(PoisonError::into_inner));
        match company {
            Company::Welcome => {
                let _inside = self.door.read().unwrap_or_else(PoisonError::into_inner);
                timed()
            }
            Company::Alone => {
                let _inside = self.door.write().unwrap_or_else(PoisonError::into_inner);
                timed()
            }
        }
    }

    pub(super) fn print_slowest(&self) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap_or_else(PoisonError::into_inner));
        took.sort_unstable_by(|a, b| b.cmp(a));
        println!("slowest:");
        for (time, claim) in took.iter().take(SLOWEST) {
            println!("{:8.1} s  {claim}", time.as_secs_f64());
        }
    }
}

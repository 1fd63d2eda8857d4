//! Times repeated runs.

use std::time::Instant;

use crate::failure::Result;
use crate::values::{count, number};

/// The most runs, unless more are requested.
const MOST_RUNS: usize = 100;
/// Runs and seconds of warm-up.
const WARM_UP: (usize, f64) = (3, 0.2);
/// After this many seconds of runs, [`FEW_RUNS`] runs suffice; after a third of it, one run of warm-up does.
const LONG_SECONDS: f64 = 30.0;
const FEW_RUNS: usize = 3;

/// The length of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// The minimum number of runs.
    pub(crate) runs: usize,
    /// The minimum number of seconds.
    pub(crate) seconds: f64,
}

impl Effort {
    /// Rejects invalid values.
    pub(crate) fn validate(&self) -> Result<()> {
        const MOST: usize = 1_000_000;
        const LONGEST: f64 = 3600.0;
        count("--runs", self.runs, 1, MOST)?;
        let sensible = (0.0..=LONGEST).contains(&self.seconds);
        number("--seconds", self.seconds, sensible, "between 0 and 3600")
    }

    /// Whether `runs` runs that took `seconds` seconds suffice.
    pub(crate) fn is_enough(&self, runs: usize, seconds: f64) -> bool {
        let long = runs >= FEW_RUNS.min(self.runs) && seconds >= LONG_SECONDS.max(self.seconds);
        let full = runs >= MOST_RUNS.max(self.runs);
        long || full || (runs >= self.runs && seconds >= self.seconds)
    }
}

/// The distribution of run times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    pub(crate) runs: usize,
    pub(crate) median: f64,
    pub(crate) minimum: f64,
    /// (q₇₅ − q₂₅) / median.
    pub(crate) spread: f64,
}

impl Timing {
    /// The distribution of at least one run.
    fn of(seconds: &[f64]) -> Self {
        let median = median(seconds);
        Self {
            runs: seconds.len(),
            median,
            minimum: quantile(seconds, 0.0),
            spread: (quantile(seconds, 0.75) - quantile(seconds, 0.25)) / median,
        }
    }

    /// The time per repetition, for runs of `repeats` repetitions.
    pub(crate) fn each_of(self, repeats: usize) -> Self {
        let repeats = repeats as f64;
        Self { median: self.median / repeats, minimum: self.minimum / repeats, ..self }
    }
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The quantile `fraction` of `values`, linearly interpolated; NaN if there are none.
pub(crate) fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = fraction * sorted.len().saturating_sub(1) as f64;
    let below = place.floor();
    let value = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    value(below) + (place - below) * (value(place.ceil()) - value(below))
}

/// Warms up, then calls `run` until the measurement is complete; returns the run times and the results.
pub(crate) fn repeat<T>(effort: &Effort, mut run: impl FnMut() -> Result<T>) -> Result<(Timing, Vec<T>)> {
    let start = Instant::now();
    let mut warm = 0;
    loop {
        run()?;
        warm += 1;
        let seconds = start.elapsed().as_secs_f64();
        if (warm >= WARM_UP.0 && seconds >= WARM_UP.1) || seconds >= LONG_SECONDS / 3.0 {
            break;
        }
    }
    let (mut seconds, mut results, mut total) = (Vec::new(), Vec::new(), 0.0);
    while !effort.is_enough(seconds.len(), total) {
        let start = Instant::now();
        let result = run()?;
        seconds.push(start.elapsed().as_secs_f64());
        results.push(result);
        total += seconds[seconds.len() - 1];
    }
    Ok((Timing::of(&seconds), results))
}

/// As [`repeat`] for short work: `run` repeats it the number of times it is passed and waits once.
pub(crate) fn repeat_short(effort: &Effort, mut run: impl FnMut(usize) -> Result<()>) -> Result<Timing> {
    /// The minimum length of a run, long compared with one wait.
    const SECONDS: f64 = 0.01;
    const MOST: f64 = 1000.0;
    run(1)?;
    let start = Instant::now();
    run(1)?;
    let repeats = (SECONDS / start.elapsed().as_secs_f64()).ceil().clamp(1.0, MOST) as usize;
    let (timing, _) = repeat(effort, || run(repeats))?;
    Ok(timing.each_of(repeats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        let timing = Timing::of(&[4.0, 1.0, 2.0, 3.0, 5.0]);
        assert_eq!(timing, Timing { runs: 5, median: 3.0, minimum: 1.0, spread: 2.0 / 3.0 });
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(timing.each_of(2).median, 1.5);
        assert_eq!(timing.each_of(2).spread, 2.0 / 3.0);
    }

    #[test]
    fn enough_is_runs_and_seconds_or_very_many_or_very_long() {
        let effort = Effort { runs: 10, seconds: 1.0 };
        for (runs, seconds, enough) in [
            (9, 5.0, false),
            (10, 0.5, false),
            (10, 1.0, true),
            (100, 0.1, true),
            (2, 100.0, false),
            (3, 31.0, true),
        ] {
            assert_eq!(effort.is_enough(runs, seconds), enough, "{runs} runs, {seconds} s");
        }
        assert!(!Effort { runs: 500, seconds: 0.0 }.is_enough(100, 0.1));
        assert!(Effort { runs: 1, seconds: 0.0 }.is_enough(1, 0.0));
    }

    #[test]
    fn results_are_those_of_the_runs_that_count() {
        let mut calls = 0;
        let (timing, results) = repeat(&Effort { runs: 4, seconds: 0.0 }, || {
            calls += 1;
            std::thread::sleep(std::time::Duration::from_millis(5));
            Ok(calls)
        })
        .expect("nothing fails");
        assert_eq!((timing.runs, results.len()), (4, 4));
        assert!(results[0] > WARM_UP.0 && timing.minimum >= 0.005);
    }
}

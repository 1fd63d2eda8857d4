//! Warm-up, timed runs, and what is told of them, as in `../../peer.py`.

use std::time::{Duration, Instant};

const WARM_UP_RUNS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(200);
const MOST_RUNS: usize = 100;

/// Milliseconds of the timed runs.
pub(crate) struct Timing {
    /// How many there were.
    pub(crate) runs: usize,
    /// Their median.
    pub(crate) median: f64,
    /// The fastest.
    pub(crate) minimum: f64,
    /// Distance of the quartiles, by the median.
    pub(crate) spread: f64,
}

/// Times `run` after a warm-up, until both `runs` and `seconds` are reached or there were 100 runs.
///
/// `run` waits for its device, so that the wall clock counts all of its work.
///
/// # Errors
///
/// The first error of `run`.
pub(crate) fn measure<E>(
    mut run: impl FnMut() -> Result<(), E>,
    runs: usize,
    seconds: f64,
) -> Result<Timing, E> {
    let begin = Instant::now();
    let mut warm = 0;
    while warm < WARM_UP_RUNS || begin.elapsed() < WARM_UP {
        run()?;
        warm += 1;
    }
    let mut milliseconds = Vec::new();
    let begin = Instant::now();
    while milliseconds.len() < runs.max(1)
        || (begin.elapsed().as_secs_f64() < seconds && milliseconds.len() < MOST_RUNS)
    {
        let start = Instant::now();
        run()?;
        milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
    }
    milliseconds.sort_by(f64::total_cmp);
    let median = quantile(&milliseconds, 0.5);
    let spread = (quantile(&milliseconds, 0.75) - quantile(&milliseconds, 0.25)) / median;
    Ok(Timing { runs: milliseconds.len(), median, minimum: milliseconds[0], spread })
}

/// Quantile of sorted numbers, interpolated between neighbours.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = place.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

//! Finds the fastest of several implementations, and whether it is clearly faster than the current one.

use std::time::Instant;

use crate::bench::measure::{Effort, median, quantile};
use crate::failure::Result;

/// A challenger replaces the incumbent if its median is shorter by at least this factor, and three quarters of its
/// runs are shorter than three quarters of the incumbent's.
pub(crate) const MARGIN: f64 = 1.05;
/// The minimum length of a sample, reached by repetition: long compared with one wait.
const SAMPLE_SECONDS: f64 = 0.01;
const MOST_REPEATS: f64 = 1000.0;
/// Candidates slower than the fastest by this factor, in the shorter of two runs, are dropped.
const HOPELESS: f64 = 3.0;
/// The number of rounds that select the challenger.
const ROUNDS: usize = 3;

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The index of the fastest candidate other than the incumbent; 0, the incumbent's, if no other is nearly as fast.
    pub(crate) challenger: usize,
    /// Median seconds of the incumbent, which is the first candidate, and of the challenger.
    pub(crate) seconds: [f64; 2],
    /// Whether the challenger is clearly faster, or clearly slower.
    pub(crate) is_faster: bool,
    pub(crate) is_slower: bool,
}

impl Outcome {
    /// Computes the result from the samples of both.
    fn of(challenger: usize, [incumbent, other]: [&[f64]; 2]) -> Self {
        let seconds = [median(incumbent), median(other)];
        let clearly = |fast: &[f64], slow: &[f64]| {
            median(fast) * MARGIN <= median(slow) && quantile(fast, 0.75) < quantile(slow, 0.25)
        };
        Self {
            challenger,
            seconds,
            is_faster: clearly(other, incumbent),
            is_slower: clearly(incumbent, other),
        }
    }

    /// The incumbent's time divided by the challenger's.
    pub(crate) fn ratio(&self) -> f64 {
        self.seconds[0] / self.seconds[1]
    }
}

/// Finds the fastest of `count` candidates, of which the first is the incumbent, and compares the two in alternating runs.
/// The runs that decide are not those that selected the challenger, which would favour it. `run(candidate, repeats)` runs a
/// candidate repeatedly and waits once.
pub(crate) fn contest(
    effort: &Effort,
    count: usize,
    mut run: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Outcome> {
    let mut time = |way: usize, repeats: usize| -> Result<f64> {
        let start = Instant::now();
        run(way, repeats)?;
        Ok(start.elapsed().as_secs_f64() / repeats as f64)
    };
    let mut once = Vec::with_capacity(count);
    for way in 0..count {
        // The first run compiles shaders.
        time(way, 1)?;
        once.push(time(way, 1)?.min(time(way, 1)?));
    }
    let fastest = once.iter().copied().fold(f64::INFINITY, f64::min);
    let repeats = |way: usize| (SAMPLE_SECONDS / once[way]).ceil().clamp(1.0, MOST_REPEATS) as usize;
    let hopeful: Vec<usize> = (1..count).filter(|&way| once[way] <= HOPELESS * fastest).collect();
    let mut found = vec![Vec::with_capacity(ROUNDS); count];
    for _ in 0..if hopeful.len() > 1 { ROUNDS } else { 0 } {
        for &way in &hopeful {
            found[way].push(time(way, repeats(way))?);
        }
    }
    let challenger = match hopeful.as_slice() {
        [] => 0,
        [only] => *only,
        several => several
            .iter()
            .copied()
            .min_by(|&one, &two| median(&found[one]).total_cmp(&median(&found[two])))
            .unwrap_or(0),
    };
    // The incumbent is not compared with itself.
    let pair: &[usize] = if challenger == 0 { &[0] } else { &[0, challenger] };
    let mut samples = [Vec::new(), Vec::new()];
    let mut total = 0.0;
    while !effort.is_enough(samples[0].len(), total) {
        // The order alternates from round to round.
        let first = samples[0].len() % pair.len();
        for turn in 0..pair.len() {
            let place = (first + turn) % pair.len();
            let seconds = time(pair[place], repeats(pair[place]))?;
            samples[place].push(seconds);
            total += seconds * repeats(pair[place]) as f64;
        }
    }
    let other = &samples[pair.len() - 1];
    Ok(Outcome::of(challenger, [&samples[0], other]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_is_clearly_faster_takes_the_place() {
        let incumbent = [10.0, 10.1, 10.2, 10.3];
        let outcome = |other: &[f64]| Outcome::of(1, [&incumbent, other]);
        let faster = outcome(&[8.0, 8.1, 8.2, 8.3]);
        assert!(faster.is_faster && !faster.is_slower && faster.ratio() > 1.2);
        assert!(!outcome(&[9.8, 9.8, 9.9, 9.9]).is_faster, "less than the margin");
        assert!(!outcome(&[5.0, 5.0, 11.0, 11.0]).is_faster, "too uncertain");
        assert!(outcome(&[12.0, 12.0, 12.0]).is_slower);
        let same = Outcome::of(0, [&incumbent, &incumbent]);
        assert!(!same.is_faster && !same.is_slower && same.ratio() == 1.0);
    }

    #[test]
    fn the_fastest_way_is_found_and_hopeless_ones_are_not_run_again() {
        let milliseconds = [40, 400, 4, 60];
        let mut runs = [0; 4];
        let outcome = contest(&Effort { runs: 4, seconds: 0.0 }, 4, |way, repeats| {
            runs[way] += 1;
            std::thread::sleep(Duration::from_millis(milliseconds[way]) * repeats as u32);
            Ok(())
        })
        .expect("nothing fails");
        assert_eq!(outcome.challenger, 2);
        assert_eq!(runs[1], 3, "hopeless");
        assert!(runs[0] >= 3 + 4 && runs[2] >= 3 + 4, "{runs:?}");
    }

    #[test]
    fn one_way_alone_wins_nothing() {
        let mut runs = 0;
        let outcome = contest(&Effort { runs: 3, seconds: 0.0 }, 1, |_, _| {
            runs += 1;
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        })
        .expect("nothing fails");
        assert_eq!((outcome.challenger, outcome.is_faster, outcome.is_slower), (0, false, false));
        assert_eq!((outcome.ratio(), runs), (1.0, 3 + 3));
    }
}

//! How long a poll and an iteration of a completion take, and how many of them a dispatch may therefore run.

use std::time::Duration;

/// The longest that a dispatch may wait, and that the completions of a submission may take: together well
/// below the two seconds after which Windows resets a GPU.
const LONGEST: Duration = Duration::from_millis(250);
/// The most iterations of a completion, however short; on software adapters fewer, since the iterations of
/// waiting count too: see `ITERATIONS` in `src/ops/recurrent/gpu/strategy.rs`.
pub(super) const MOST_ITERATIONS: u32 = 1 << 23;
pub(super) const MOST_ITERATIONS_ON_SOFTWARE: u32 = 1 << 14;

/// Measured times of iterations.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Pace {
    pub(in crate::gpu) poll: Duration,
    pub(in crate::gpu) iteration: Duration,
}

impl Pace {
    /// The spin limit: polls of an invocation per dispatch, at most `limit`.
    pub(super) fn polls(self, limit: u32) -> u32 {
        iterations_within(LONGEST, self.poll, limit)
    }

    /// Iterations of a completing workgroup per dispatch, at most `most`.
    pub(super) fn iterations(self, most: u32) -> u32 {
        iterations_within(LONGEST, self.iteration, most)
    }

    /// Iterations of all completions of a submission.
    pub(super) fn iterations_of_a_submission(self) -> u32 {
        iterations_within(LONGEST, self.iteration, u32::MAX)
    }
}

/// How many iterations take at most `longest`, up to `most`.
fn iterations_within(longest: Duration, iteration: Duration, most: u32) -> u32 {
    let count = longest.as_nanos() / iteration.as_nanos().max(1);
    u32::try_from(count).unwrap_or(u32::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::PersistentLimits;

    #[test]
    fn waiting_and_completion_stay_under_half_a_second_whatever_an_iteration_takes() {
        let times = [1, 7, 30, 250, 999, 1_000, 12_345, 1_000_000, 249_999_999, 250_000_000];
        let paces = times
            .into_iter()
            .flat_map(|poll| times.map(|iteration| [poll, iteration].map(Duration::from_nanos)));
        for [poll, iteration] in paces {
            let pace = Pace { poll, iteration };
            for limit in [64, PersistentLimits::LARGEST_ON_SOFTWARE, PersistentLimits::LARGEST_SPIN_LIMIT] {
                let (polls, iterations) = (pace.polls(limit), pace.iterations(MOST_ITERATIONS));
                let all = pace.iterations_of_a_submission();
                assert!(
                    polls >= 1 && (1..=all).contains(&iterations),
                    "{pace:?}: {polls}, {iterations} of {all}"
                );
                assert!(
                    poll * polls + iteration * all <= Duration::from_millis(500),
                    "{pace:?}: {polls} polls, {all} iterations"
                );
            }
        }
        assert_eq!(
            iterations_within(LONGEST, Duration::from_secs(1), MOST_ITERATIONS),
            0,
            "too slow for even one"
        );
        assert_eq!(iterations_within(LONGEST, Duration::ZERO, MOST_ITERATIONS), MOST_ITERATIONS);
        assert_eq!(iterations_within(LONGEST, Duration::from_nanos(500), MOST_ITERATIONS), 500_000);
    }
}

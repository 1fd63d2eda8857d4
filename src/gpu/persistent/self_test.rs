//! The self-test of persistent kernels: how many workgroups run at once, and how long a poll and an iteration
//! of a completion take, which bounds both.

use std::time::{Duration, Instant};

use super::{PersistentLimits, WEIGHT_CLASSES};
use crate::Result;
use crate::gpu::kernel::{kernel, parameters};
use crate::gpu::recorder::Dispatch;
use crate::gpu::span::Span;
use crate::gpu::{AdapterKind, Context, ELEMENTWISE_GROUP};

/// The most workgroups that the self-test dispatches.
const MOST: usize = 1024;
const ROUNDS: usize = 8;
/// Words of its exchange buffer before the history.
const HEAD: usize = 4;
/// The longest that a dispatch may wait, and that the completions of a submission may take: together well
/// below the two seconds after which Windows resets a GPU.
const LONGEST: Duration = Duration::from_millis(250);
/// The most iterations of a completion, however short; on software adapters fewer, since the iterations of
/// waiting count too: see `ITERATIONS` in `src/ops/recurrent/gpu/strategy.rs`.
const MOST_ITERATIONS: u32 = 1 << 23;
const MOST_ITERATIONS_ON_SOFTWARE: u32 = 1 << 14;
/// The shortest measurement, so that the time of submission is small in comparison.
const LONG_ENOUGH: Duration = Duration::from_millis(5);

parameters!(ProbeParameters { groups: u32, rounds: u32, spin_limit: u32 });
parameters!(CompletionTimeParameters { iterations: u32 });

kernel!(PROBE: "recurrent/persistent/self_test" {
    files: ["recurrent/persistent/wait", "recurrent/persistent/self_test"],
    parameters: ProbeParameters,
    constants: [("WEIGHT_BITS", WEIGHT_CLASSES)],
    bindings: [Write],
});
kernel!(ITERATIONS: "recurrent/persistent/completion_time" {
    files: ["recurrent/persistent/completion_time"],
    parameters: CompletionTimeParameters,
    constants: [],
    bindings: [Write],
});

#[cfg(test)]
pub(super) const KERNELS: [&crate::gpu::Kernel; 2] = [&PROBE, &ITERATIONS];

/// Measured times of iterations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) poll: Duration,
    pub(super) iteration: Duration,
}

impl Pace {
    /// The spin limit: polls of an invocation per dispatch, at most `limit`.
    fn polls(self, limit: u32) -> u32 {
        iterations_within(LONGEST, self.poll, limit)
    }

    /// Iterations of a completing workgroup per dispatch, at most `most`.
    fn iterations(self, most: u32) -> u32 {
        iterations_within(LONGEST, self.iteration, most)
    }

    /// Iterations of all completions of a submission.
    fn iterations_of_a_submission(self) -> u32 {
        iterations_within(LONGEST, self.iteration, u32::MAX)
    }
}

/// How many iterations take at most `longest`, up to `most`.
fn iterations_within(longest: Duration, iteration: Duration, most: u32) -> u32 {
    let count = longest.as_nanos() / iteration.as_nanos().max(1);
    u32::try_from(count).unwrap_or(u32::MAX).min(most)
}

impl Context {
    /// Measures the time of a poll and of an iteration of a completion. **Waits** for the GPU.
    pub(super) fn measure_pace(&self) -> Result<Pace> {
        Ok(Pace { poll: self.time_of_a_poll()?, iteration: self.time_of_an_iteration()? })
    }

    /// The spin limit; 0 before the self-test.
    pub(super) fn spin_limit(&self) -> u32 {
        let largest = self.largest_spin_limit();
        let limit = self.waiting().options.spin_limit.map_or(largest, |limit| limit.min(largest));
        let pace = self.waiting().known().pace;
        pace.map_or(0, |pace| pace.polls(limit))
    }

    fn largest_spin_limit(&self) -> u32 {
        match self.kind() {
            AdapterKind::Software => PersistentLimits::LARGEST_ON_SOFTWARE,
            _ => PersistentLimits::LARGEST_SPIN_LIMIT,
        }
    }

    fn most_iterations(&self) -> u32 {
        match self.kind() {
            AdapterKind::Software => MOST_ITERATIONS_ON_SOFTWARE,
            _ => MOST_ITERATIONS,
        }
    }

    /// The most iterations of a completing workgroup per dispatch; 0 before the self-test.
    pub(crate) fn completion_iterations(&self) -> usize {
        let pace = self.waiting().known().pace;
        pace.map_or(0, |pace| pace.iterations(self.most_iterations()) as usize)
    }

    /// The most iterations of all completions of a submission; 0 before the self-test.
    pub(super) fn iterations_of_a_submission(&self) -> usize {
        let pace = self.waiting().known().pace;
        pace.map_or(0, |pace| pace.iterations_of_a_submission() as usize)
    }

    /// How many workgroups make progress while they wait for each other: a power of two; 0 for fewer than
    /// two.
    pub(super) fn probe(&self) -> Result<usize> {
        let mut found = 0;
        let mut groups = 2;
        while groups <= MOST.min(self.limits().workgroups) && self.all_go_on(groups)? {
            found = groups;
            groups *= 2;
        }
        Ok(found)
    }

    /// The time of one iteration, from as many as take [`LONG_ENOUGH`], up to `most`. **Waits** for the GPU.
    fn time_of_one(&self, most: u32, run: impl Fn(u32) -> Result<()>) -> Result<Duration> {
        const FIRST: u32 = 1 << 10;
        // Excludes earlier recorded work and the compilation of the kernel from the measurement.
        run(1)?;
        self.synchronize()?;
        let mut count = FIRST;
        loop {
            let begun = Instant::now();
            run(count)?;
            self.synchronize()?;
            let taken = begun.elapsed();
            if taken >= LONG_ENOUGH || count >= most {
                return Ok(taken / count + Duration::from_nanos(1));
            }
            count = (count * 4).min(most);
        }
    }

    /// The time of a poll: a single workgroup waits for a second one that is not dispatched.
    fn time_of_a_poll(&self) -> Result<Duration> {
        // The largest spin limit.
        let most = self.largest_spin_limit();
        self.time_of_one(most, |count| {
            let words = HEAD + 2 * ELEMENTWISE_GROUP;
            let exchange = self.empty_exchange(HEAD, words)?;
            self.dispatch(Dispatch {
                kernel: &PROBE,
                constants: &[self.weight_bits()],
                parameters: ProbeParameters { groups: 2, rounds: 1, spin_limit: count },
                bindings: &[self.bind(Span::new(&exchange, 0, words))?],
                grid: [1, 1, 1],
            })
        })
    }

    /// The time of a loop iteration of a completion.
    fn time_of_an_iteration(&self) -> Result<Duration> {
        const WORDS: usize = 4096;
        let exchange = self.empty_exchange(WORDS, WORDS)?;
        self.time_of_one(self.most_iterations(), |count| {
            self.dispatch(Dispatch {
                kernel: &ITERATIONS,
                constants: &[],
                parameters: CompletionTimeParameters { iterations: count },
                bindings: &[self.bind(Span::new(&exchange, 0, WORDS))?],
                grid: [1, 1, 1],
            })
        })
    }

    fn all_go_on(&self, groups: usize) -> Result<bool> {
        let words = HEAD + ROUNDS * groups * ELEMENTWISE_GROUP;
        if words > self.limits().binding_elements {
            return Ok(false);
        }
        let exchange = self.empty_exchange(HEAD, words)?;
        self.dispatch(Dispatch {
            kernel: &PROBE,
            constants: &[self.weight_bits()],
            parameters: ProbeParameters {
                groups: groups as u32,
                rounds: ROUNDS as u32,
                spin_limit: self.spin_limit(),
            },
            bindings: &[self.bind(Span::new(&exchange, 0, words))?],
            grid: [groups, 1, 1],
        })?;
        let head: Vec<u32> = self.download(Span::new(&exchange, 0, HEAD))?;
        Ok(head[1..] == [0, 0, groups as u32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

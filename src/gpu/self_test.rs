//! The self-test of persistent kernels: how many workgroups run at once, and how long a poll and an iteration
//! of a completion take, which bounds both.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::context::Context;
use super::kernel::{kernels, parameters};
use super::limits::ELEMENTWISE_GROUP;
use super::persistent::{Pace, WEIGHT_CLASSES};
use super::recorder::Dispatch;
use super::span::Span;
use crate::Result;

/// The most workgroups that the self-test dispatches.
const MOST: usize = 1024;
const ROUNDS: usize = 8;
/// Words of its exchange buffer before the history.
const HEAD: usize = 4;
/// The shortest measurement, so that the time of submission is small in comparison.
const LONG_ENOUGH: Duration = Duration::from_millis(5);

parameters!(ProbeParameters { groups: u32, rounds: u32, spin_limit: u32 });
parameters!(CompletionTimeParameters { iterations: u32 });

kernels! {
    PROBE: "recurrent/persistent/self_test" {
        uses: ["recurrent/persistent/wait"],
        parameters: ProbeParameters,
        constants: [("WEIGHT_BITS", WEIGHT_CLASSES)],
        bindings: [Write],
    }
    ITERATIONS: "recurrent/persistent/completion_time" {
        parameters: CompletionTimeParameters,
        bindings: [Write],
    }
}

impl Context {
    /// How many workgroups may wait for each other; 0 where they may not. The first call **waits** for the
    /// GPU: it runs the self-test.
    pub(crate) fn waiting_workgroups(&self) -> Result<usize> {
        let waiting = self.waiting();
        if !waiting.possible {
            waiting.known().found = Some(0);
            return Ok(0);
        }
        waiting.learn_arrived(|span| self.recorder().clear(span))?;
        let _testing = waiting.testing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = waiting.known().found {
            return Ok(found);
        }
        let pace = Pace { poll: self.time_of_a_poll()?, iteration: self.time_of_an_iteration()? };
        waiting.known().pace = Some(pace);
        let found = match waiting.options.workgroups {
            // Even a single poll takes too long.
            _ if waiting.spin_limit() == 0 => 0,
            Some(given) => given as usize,
            None => self.probe()?,
        };
        let found = found.min(self.limits().workgroups);
        waiting.known().found = Some(found);
        Ok(found)
    }

    /// How many workgroups make progress while they wait for each other: a power of two; 0 for fewer than
    /// two.
    fn probe(&self) -> Result<usize> {
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
        self.recorder().synchronize()?;
        let mut count = FIRST;
        loop {
            let begun = Instant::now();
            run(count)?;
            self.recorder().synchronize()?;
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
        let most = self.waiting().largest_spin_limit();
        self.time_of_one(most, |count| {
            let words = HEAD + 2 * ELEMENTWISE_GROUP;
            let exchange = self.empty_exchange(HEAD, words)?;
            self.dispatch(Dispatch {
                kernel: &PROBE,
                constants: &[self.waiting().weight_bits()],
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
        self.time_of_one(self.waiting().most_iterations(), |count| {
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
            constants: &[self.waiting().weight_bits()],
            parameters: ProbeParameters {
                groups: groups as u32,
                rounds: ROUNDS as u32,
                spin_limit: self.waiting().spin_limit(),
            },
            bindings: &[self.bind(Span::new(&exchange, 0, words))?],
            grid: [groups, 1, 1],
        })?;
        let head: Vec<u32> = self.recorder().download(Span::new(&exchange, 0, HEAD))?;
        Ok(head[1..] == [0, 0, groups as u32])
    }
}

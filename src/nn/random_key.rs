//! Which random numbers a training step draws.

use crate::random::Stream;

/// The random numbers of one training step: a seed and the step's number. Every mask of every layer is a function of
/// these two, so that nothing is stored for backward, and a step can be repeated on any device.
///
/// Give each step a number of its own: the same draw yields the same masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomKey {
    seed: u64,
    step: u64,
}

/// What a layer draws numbers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Dropout on outputs.
    Outputs = 0,
    /// Dropout on inputs, locked over time.
    Inputs = 1,
    /// Dropout on recurrent weights.
    Weights = 2,
    /// Dropout on the state where it enters a recurrent product, locked over time.
    States = 3,
    /// Zoneout.
    Zoneout = 4,
}

/// Numbers that a step may draw for different purposes in one place.
const PURPOSES: u64 = 16;
/// The stream of a seed that keys of steps are drawn from: parameters draw their first values from streams 0, 1, ...
const KEYS: u64 = u64::MAX;

impl RandomKey {
    /// The numbers of step `step` under `seed`.
    pub fn new(seed: u64, step: u64) -> Self {
        Self { seed, step }
    }

    /// The numbers for `purpose` of the layer whose first parameter has index `first` in its model.
    pub(crate) fn stream(&self, first: usize, purpose: Purpose) -> Stream {
        let keys = Stream::new(self.seed, KEYS);
        let word = |half: u64| u64::from(keys.bits(self.step.wrapping_mul(2).wrapping_add(half)));
        Stream::new(word(1) << 32 | word(0), first as u64 * PURPOSES + purpose as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_seed_step_layer_and_purpose_has_a_stream_of_its_own() {
        let mut streams = HashSet::new();
        let mut count = 0;
        for seed in [0, 1, 1 << 32, u64::MAX] {
            for step in [0, 1, 2, 1 << 31, 1 << 40] {
                for first in [0, 1, 2, 40] {
                    for purpose in [
                        Purpose::Outputs,
                        Purpose::Inputs,
                        Purpose::Weights,
                        Purpose::States,
                        Purpose::Zoneout,
                    ] {
                        let stream = RandomKey::new(seed, step).stream(first, purpose);
                        streams.insert([stream.bits(0), stream.bits(1), stream.bits(2), stream.bits(3)]);
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(streams.len(), count);
    }
}

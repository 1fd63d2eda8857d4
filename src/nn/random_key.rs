//! The random numbers of a training step.

use crate::random::Stream;

/// The key of one training step's random numbers: a seed and the number of the step. Every mask of every
/// layer is a function of the key, so that nothing is stored for the backward pass, and a step can be
/// repeated on any device.
///
/// Use a different step number for each step: the same key yields the same masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomKey {
    seed: u64,
    step: u64,
}

/// What the random numbers of a layer are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RandomPurpose {
    /// Dropout on outputs.
    Outputs = 0,
    /// Dropout on inputs, with one mask for all steps.
    Inputs = 1,
    /// Dropout on recurrent weights.
    Weights = 2,
    /// Dropout on the state in the recurrent product, with one mask for all steps.
    States = 3,
    /// Zoneout.
    Zoneout = 4,
}

/// Streams reserved for each layer, one per purpose.
const PURPOSES: u64 = 16;
/// The stream of a seed from which the keys of steps are computed; streams 0, 1, ... give the parameters'
/// initial values.
const KEYS: u64 = u64::MAX;

impl RandomKey {
    /// The key of step `step` under `seed`.
    pub fn new(seed: u64, step: u64) -> Self {
        Self { seed, step }
    }

    /// The stream for `purpose` of the layer whose first parameter has index `first` in its model.
    pub(crate) fn stream(&self, first: usize, purpose: RandomPurpose) -> Stream {
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
                        RandomPurpose::Outputs,
                        RandomPurpose::Inputs,
                        RandomPurpose::Weights,
                        RandomPurpose::States,
                        RandomPurpose::Zoneout,
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

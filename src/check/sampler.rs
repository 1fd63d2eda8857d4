//! Random inputs that are identical on every device.

use std::cell::Cell;
use std::ops::Range;

use crate::Result;
use crate::device::Device;
use crate::random::Stream;
use crate::tensor::Tensor;

/// Mean zero: sums are random walks, no larger than the largest of many results.
pub(crate) const CENTRED: Range<f64> = -1.0..1.0;
/// Of both signs, with a mean that prevents cancellation.
pub(crate) const LEANING: Range<f64> = -0.5..1.5;
/// No cancellation.
pub(crate) const POSITIVE: Range<f64> = 0.5..1.5;

/// The source of one case's inputs on one device: tensor n is sampled from stream n of the case's seed. All numbers are
/// rounded to f32 first, so that the reference and the device use the same inputs.
pub(crate) struct Sampler {
    device: Device,
    seed: u64,
    next: Cell<u64>,
    nudge: Option<Nudge>,
}

/// A small change of all numbers, each by its own fraction of `size`.
#[derive(Clone, Copy)]
pub(crate) struct Nudge {
    /// The seed of the fractions.
    pub(crate) direction: u64,
    /// The largest change relative to a number; may be negative.
    pub(crate) size: f64,
}

impl Sampler {
    pub(crate) fn new(device: &Device, seed: u64) -> Self {
        Self { device: device.clone(), seed, next: Cell::new(0), nudge: None }
    }

    /// As [`Sampler::new`], with all numbers changed by `nudge`.
    pub(crate) fn nudged(device: &Device, seed: u64, nudge: Nudge) -> Self {
        Self { nudge: Some(nudge), ..Self::new(device, seed) }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    fn stream(&self) -> Stream {
        let index = self.next.get();
        self.next.set(index + 1);
        Stream::new(self.seed, index)
    }

    /// Uniform numbers in `range`.
    pub(crate) fn values(&self, count: usize, range: Range<f64>) -> Vec<f32> {
        let stream = self.stream();
        let moved = |index: u64, value: f32| match self.nudge {
            Some(Nudge { direction, size }) => {
                let share = Stream::new(!self.seed, direction << 32 | self.next.get());
                value * (1.0 + size * share.uniform_between(index, -1.0, 1.0)) as f32
            }
            None => value,
        };
        let sampler = |index| moved(index, stream.uniform_between(index, range.start, range.end) as f32);
        (0..count as u64).map(sampler).collect()
    }

    pub(crate) fn tensor(&self, dimensions: &[usize], range: Range<f64>) -> Result<Tensor> {
        let values = self.values(dimensions.iter().product(), range);
        Tensor::from_slice(&self.device, dimensions, &values)
    }

    /// Random integers below `bound`.
    pub(crate) fn integers(&self, count: usize, bound: usize) -> Vec<u32> {
        let stream = self.stream();
        (0..count as u64).map(|index| (stream.uniform(index) * bound as f64) as u32).collect()
    }
}

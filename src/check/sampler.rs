//! Random inputs that are identical on every device.

use std::cell::Cell;
use std::ops::Range;

use crate::Result;
use crate::device::Device;
use crate::nn::{Model, ParameterSpec, Parameters, State};
use crate::random::Stream;
use crate::tensor::{Indices, Tensor};

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

    /// The parameters of `model`, each uniform in the range that `range` returns for its name.
    pub(crate) fn parameters(&self, model: &Model, range: impl Fn(&str) -> Range<f64>) -> Result<Parameters> {
        let mut parameters = model.initialize(&self.device)?;
        let sample = |spec: &ParameterSpec| self.values(spec.shape.elements(), range(&spec.name));
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
        let values: Vec<_> = model.specs().iter().map(|spec| (spec, wide(sample(spec)))).collect();
        let all = values.iter().map(|(spec, values)| (&*spec.name, spec.shape.dimensions(), &values[..]));
        parameters.set_all(all)?;
        Ok(parameters)
    }

    /// A state whose entries are uniform in ±1, for a cell state of width `cell` or none.
    pub(crate) fn state(&self, [places, batch, hidden]: [usize; 3], cell: Option<usize>) -> Result<State> {
        let part = |width| self.tensor(&[places, batch, width], CENTRED);
        let hidden = part(hidden)?;
        State::from_parts(&hidden, cell.map(part).transpose()?.as_ref())
    }

    /// The lengths of the rows of a batch, from 1 to `steps`, which is the first one's.
    pub(crate) fn lengths(&self, batch: usize, steps: usize) -> Result<Indices> {
        let mut lengths: Vec<u32> =
            self.integers(batch, steps).into_iter().map(|length| length + 1).collect();
        lengths[0] = steps as u32;
        Indices::from_slice(&self.device, &[batch], &lengths)
    }

    /// Random integers below `bound`.
    pub(crate) fn integers(&self, count: usize, bound: usize) -> Vec<u32> {
        let stream = self.stream();
        (0..count as u64).map(|index| (stream.uniform(index) * bound as f64) as u32).collect()
    }
}

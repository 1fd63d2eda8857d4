//! Checkpointing over time: a trace keeps the states at which segments of time begin, and backward runs each segment
//! again.
//!
//! Chen, Xu, Zhang & Guestrin (2016), "Training deep nets with sublinear memory cost", drop what layers made and compute
//! it again; Gruslys, Munos, Danihelka, Lanctot & Graves (2016), "Memory-efficient backpropagation through time", do so
//! over time. Here segments have equal lengths, and the last one's trace, with which backward begins, is kept.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::options::{Exclusive, Options};
use super::sequences::Mode;
use super::{Directions, Rnn, Sequences, State};
use crate::nn::model::expect_size;
use crate::nn::summary::{Cost, Counter, Signal};
use crate::ops::elementwise::copy_into;
use crate::ops::recurrent::{Truncation, block_steps};
use crate::tensor::{Indices, Tensor};
use crate::{Error, Result};

/// What a trace keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Checkpoints {
    /// Everything.
    #[default]
    None,
    /// The state of every so many steps.
    Every(usize),
    /// As much as so many bytes hold.
    Within(u64),
}

impl Checkpoints {
    /// The option that asks for it.
    fn option(self) -> Option<Exclusive> {
        match self {
            Self::None => None,
            Self::Every(_) => Some(Exclusive::Checkpointed),
            Self::Within(_) => Some(Exclusive::CheckpointedWithin),
        }
    }
}

impl Rnn {
    fn with_checkpoints(self, checkpoints: Checkpoints) -> Self {
        let options = self.options.instead_of(self.options.checkpoints.option(), checkpoints.option());
        Self { options: Options { checkpoints, ..options }, ..self }
    }

    /// With a trace of the states at every `every`-th step, and of the steps since the last of them; backward runs the
    /// other steps again, segment by segment (Chen et al. 2016, "Training deep nets with sublinear memory cost"; Gruslys
    /// et al. 2016, "Memory-efficient backpropagation through time"). Outputs and gradients have the same bits as
    /// without, for one more forward pass at most. For stacks that run forward only, without overlapping windows.
    ///
    /// `every` is rounded up to whole blocks in which gradients of weights are summed: the least number of steps with
    /// 512 rows, such as 16 for a batch of 32. The trace takes least with somewhat fewer than √T steps.
    ///
    /// What a whole training step then has in use at its peak is in
    /// [`Cost::training_bytes`](crate::nn::Cost::training_bytes).
    ///
    /// One LSTM layer of 128 units over 128 features, 32 rows: bytes of the trace, of which T · 16 KiB are the input, and
    /// the least time of nine for forward and backward on the CPU device, on two cores of a Xeon at 2.8 GHz:
    ///
    /// | T | whole | | `checkpointed` | | |
    /// |---|---|---|---|---|---|
    /// | 64 | 7.4 MB | 55 ms | 16 | 2.8 MB | 65 ms |
    /// | 256 | 29.4 MB | 232 ms | 32 | 7.6 MB | 281 ms |
    /// | 1024 | 117.5 MB | 960 ms | 32 | 21.0 MB | 1201 ms |
    ///
    /// ```
    /// use refrain::nn::{Cell, Model, Rnn};
    /// let cost = |stack: Rnn| {
    ///     let mut model = Model::new(1);
    ///     model.add("rnn", stack)?;
    ///     model.cost(1024, 32)
    /// };
    /// let whole = cost(Rnn::new(Cell::Lstm, 128, 128))?;
    /// let segments = cost(Rnn::new(Cell::Lstm, 128, 128).checkpointed(32))?;
    /// assert_eq!(whole.trace_bytes, 117_506_048);
    /// assert_eq!(segments.trace_bytes, 21_004_288);
    /// // All but the last of 32 segments are run again.
    /// assert_eq!(segments.backward - whole.backward, whole.forward / 32 * 31);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn checkpointed(self, every: usize) -> Self {
        self.with_checkpoints(Checkpoints::Every(every))
    }

    /// As [`Rnn::checkpointed`], with the longest segments whose trace takes at most `bytes` in 32-bit floats, input
    /// included, as [`Model::cost`](crate::nn::Model::cost) counts them; all steps in one where they fit. A pass for which
    /// no segment fits is an [`Error::Config`] that tells how many bytes would do.
    pub fn checkpointed_within(self, bytes: u64) -> Self {
        self.with_checkpoints(Checkpoints::Within(bytes))
    }

    /// What its traces keep, in words.
    pub(super) fn describe_checkpoints(&self) -> Option<String> {
        match self.options.checkpoints {
            Checkpoints::None => None,
            Checkpoints::Every(steps) => Some(format!("checkpointed {steps}")),
            Checkpoints::Within(bytes) => Some(format!("checkpointed within {bytes} bytes")),
        }
    }

    pub(super) fn validate_checkpoints(&self, name: &str) -> Result<()> {
        let option = match self.options.checkpoints {
            Checkpoints::None => return Ok(()),
            Checkpoints::Every(every) => {
                expect_size(name, "checkpointed", every)?;
                "checkpointed"
            }
            Checkpoints::Within(_) => "checkpointed_within",
        };
        let clash =
            |other: &str, message: &str| Err(Error::config(format!("{name}: {option} and {other}"), message));
        if self.directions != Directions::Forward {
            let message = "segments follow each other in time, and a direction that begins at the end has no state \
                           for the first: run forward, or keep everything";
            return clash("reverse or bidirectional", message);
        }
        if matches!(self.options.truncation, Truncation::SlidingWindows(_)) {
            let message =
                "windows reach over the ends of segments: truncate by `truncated`, or keep everything";
            return clash("windowed or truncated_every", message);
        }
        Ok(())
    }

    /// How many steps a segment has, of a pass over `steps` steps of `batch` rows; all of them without checkpoints.
    ///
    /// # Errors
    /// [`Error::Config`] for a budget that is too small.
    pub(super) fn segment_steps(&self, steps: usize, batch: usize) -> Result<usize> {
        let block = block_steps(batch);
        let bytes = match self.options.checkpoints {
            Checkpoints::None => return Ok(steps),
            Checkpoints::Every(every) => return Ok(every.min(steps).next_multiple_of(block).min(steps)),
            Checkpoints::Within(bytes) => bytes,
        };
        let needed = |segment: usize| self.fresh_cost(steps, batch, segment).trace_bytes;
        let mut least = u64::MAX;
        for segment in (1..=steps.div_ceil(block)).rev().map(|blocks| (blocks * block).min(steps)) {
            let needed = needed(segment);
            if needed <= bytes {
                return Ok(segment);
            }
            least = least.min(needed);
        }
        let message = format!(
            "{bytes} bytes do not hold what backward needs of {steps} steps of {batch} rows in any number of segments: \
             {least} bytes do"
        );
        Err(Error::config("checkpointed_within", message))
    }

    /// The cost of a pass in segments of `segment` steps, for a stack that keeps its own input.
    fn fresh_cost(&self, steps: usize, batch: usize, segment: usize) -> Cost {
        let [steps, rows] = [steps as u64, batch as u64];
        let mut counter = Counter::new(steps, rows, Signal::Fresh);
        self.count_segments(&mut counter, segment as u64);
        counter.cost
    }
}

/// A segment of time, and the state that it starts from.
pub(super) struct Segment {
    pub(super) steps: Range<usize>,
    pub(super) initial: State,
    lengths: Option<Indices>,
    resets: Option<Indices>,
}

impl Segment {
    /// The steps `steps` of a pass over `all` steps, with what `sequences` say of them.
    pub(super) fn cut(
        steps: Range<usize>,
        all: usize,
        initial: State,
        sequences: Sequences<'_>,
    ) -> Result<Self> {
        let Sequences { lengths, resets, .. } = sequences;
        if steps == (0..all) {
            let (lengths, resets) = (lengths.cloned(), resets.cloned());
            return Ok(Self { steps, initial, lengths, resets });
        }
        let (rows, count) = (initial.batch(), steps.len() as u32);
        let within = |&length: &u32| length.saturating_sub(steps.start as u32).min(count);
        let lengths = lengths.map(|lengths| {
            let within: Vec<u32> = lengths.values().iter().map(within).collect();
            Indices::from_slice(lengths.device(), &[rows], &within)
        });
        let resets = resets.map(|resets| {
            let own = &resets.values()[steps.start * rows..steps.end * rows];
            Indices::from_slice(resets.device(), &[steps.len(), rows], own)
        });
        let (lengths, resets) = (lengths.transpose()?, resets.transpose()?);
        Ok(Self { steps, initial, lengths, resets })
    }

    pub(super) fn sequences(&self, mode: Option<Mode>) -> Sequences<'_> {
        let (lengths, resets) = (self.lengths.as_ref(), self.resets.as_ref());
        Sequences { lengths, resets, mode, first: self.steps.start }
    }
}

/// What segments yield, as one tensor over all steps.
pub(super) struct Joined {
    steps: usize,
    all: Option<Tensor>,
}

impl Joined {
    /// Of `steps` steps.
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, all: None }
    }

    /// Takes what belongs to the steps `place` \[steps, B, F\].
    pub(super) fn put(&mut self, place: Range<usize>, part: Tensor) -> Result<()> {
        if place.len() == self.steps {
            self.all = Some(part);
            return Ok(());
        }
        let mut all = match self.all.take() {
            Some(all) => all,
            None => {
                let [_, rows, features] = part.shape().exactly("a segment", "[time, batch, features]")?;
                Tensor::unwritten(part.device(), &[self.steps, rows, features])?
            }
        };
        copy_into(all.view_mut()?.outer(place)?, part.view())?;
        self.all = Some(all);
        Ok(())
    }

    /// All of it, when every step has been put.
    pub(super) fn whole(self) -> Tensor {
        match self.all {
            Some(all) => all,
            None => unreachable!("a shape has at least one step"),
        }
    }
}

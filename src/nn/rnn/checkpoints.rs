//! Checkpointing over time: a trace keeps the states at which segments of time begin, and backward runs each segment
//! again.
//!
//! Chen, Xu, Zhang & Guestrin (2016), "Training deep nets with sublinear memory cost", drop what layers made and compute
//! it again; Gruslys, Munos, Danihelka, Lanctot & Graves (2016), "Memory-efficient backpropagation through time", do so
//! over time. Here segments have equal lengths, and the last one's trace, with which backward begins, is kept.

use std::ops::Range;

use super::sequences::Mode;
use super::{Sequences, State};
use crate::Result;
use crate::ops::elementwise::copy_into;
use crate::tensor::{Indices, Tensor};

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

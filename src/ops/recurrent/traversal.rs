//! [`Traversal`]: the direction of a layer, the lengths and resets of each row, and how far gradients flow
//! back.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::tensor::Indices;

/// The direction of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the first step of each row to its last.
    Forward,
    /// From the last valid step of each row to its first.
    Reverse,
}

/// How a time loop traverses a batch.
#[derive(Clone, Copy)]
pub(crate) struct Traversal<'a> {
    pub(crate) direction: Direction,
    /// The number of valid steps of each row [B], 0 to T; without lengths every row has T.
    pub(crate) lengths: Option<&'a Indices>,
    /// Reset mask [T, B]: a nonzero entry at step s separates steps s - 1 and s, so that neither state nor
    /// gradient crosses in either direction. Forward, step s starts from zeros; in reverse, step s - 1 does.
    pub(crate) resets: Option<&'a Indices>,
    /// How far gradients flow back.
    pub(crate) truncation: Truncation,
    /// How many steps of the sequence precede these in the forward direction; truncation counts from the
    /// sequence's start.
    pub(crate) first: usize,
}

/// How far gradients flow back through time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Truncation {
    /// To the first step.
    #[default]
    None,
    /// Not past a step whose number is a multiple of this.
    Chunks(usize),
    /// Overlapping windows.
    #[serde(rename = "windows")]
    SlidingWindows(SlidingWindows),
}

/// Truncated back-propagation through time, BPTT(h; h') of Williams & Peng (1990, "An efficient
/// gradient-based algorithm for on-line training of recurrent network trajectories"): every `every` steps,
/// the gradients of the outputs since the previous time flow back through `depth` steps. With `every` = 1 the
/// gradient of each output flows through its last `depth` steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlidingWindows {
    pub(crate) every: usize,
    pub(crate) depth: usize,
}

impl SlidingWindows {
    /// The last step of each window, in ascending order.
    pub(crate) fn ends(self, steps: usize) -> Vec<usize> {
        (0..steps).step_by(self.every).map(|start| (start + self.every).min(steps) - 1).collect()
    }

    /// The window that contains the gradient of output `t`.
    pub(crate) fn owner(self, t: usize) -> usize {
        t / self.every
    }

    pub(crate) fn owns(self, window: usize, t: usize) -> bool {
        self.owner(t) == window
    }
}

/// The state of a row before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The step is padding and computes nothing.
    Padding,
    Initial,
    Zero,
    Previous,
}

impl Traversal<'_> {
    pub(crate) fn reversed(&self) -> bool {
        self.direction == Direction::Reverse
    }

    /// Whether rows differ, or gradients stop within the sequence.
    pub(crate) fn has_step_flags(&self) -> bool {
        self.lengths.is_some() || self.resets.is_some() || self.truncation != Truncation::None
    }

    /// Checks lengths and resets against a batch of `rows` rows of `steps` steps.
    pub(crate) fn check(&self, steps: usize, rows: usize) -> Result<()> {
        if let Some(lengths) = self.lengths {
            lengths.shape().expect("lengths", &[rows])?;
            lengths.expect_below("lengths", steps + 1)?;
        }
        if let Some(resets) = self.resets {
            resets.shape().expect_time_first("resets", &[steps, rows])?;
        }
        Ok(())
    }

    /// Whether some rows have no steps: their final state is the initial one, and so is its gradient.
    pub(crate) fn has_empty_rows(&self) -> bool {
        self.lengths.is_some_and(|lengths| lengths.values().contains(&0))
    }

    /// The steps in the order of this direction.
    pub(crate) fn order(&self, steps: usize) -> Vec<usize> {
        self.order_of(0..steps)
    }

    /// The steps of a time chunk in the order of this direction.
    pub(crate) fn order_of(&self, steps: Range<usize>) -> Vec<usize> {
        match self.direction {
            Direction::Forward => steps.collect(),
            Direction::Reverse => steps.rev().collect(),
        }
    }

    /// The step before `t` in this direction.
    pub(crate) fn neighbour(&self, t: usize, steps: usize) -> Option<usize> {
        match self.direction {
            Direction::Forward => t.checked_sub(1),
            Direction::Reverse => (t + 1 < steps).then_some(t + 1),
        }
    }

    /// The step after `t` in this direction.
    pub(crate) fn successor(&self, t: usize, steps: usize) -> Option<usize> {
        match self.direction {
            Direction::Forward => (t + 1 < steps).then_some(t + 1),
            Direction::Reverse => t.checked_sub(1),
        }
    }

    pub(crate) fn chunk(&self) -> Option<usize> {
        match self.truncation {
            Truncation::Chunks(steps) => Some(steps),
            _ => None,
        }
    }

    pub(crate) fn windows(&self) -> Option<SlidingWindows> {
        match self.truncation {
            Truncation::SlidingWindows(windows) => Some(windows),
            _ => None,
        }
    }

    pub(crate) fn length(&self, row: usize, steps: usize) -> usize {
        self.lengths.map_or(steps, |lengths| lengths.values()[row] as usize)
    }

    /// How many steps of the row precede step `t` in this direction; `None` for padding.
    fn position(&self, t: usize, row: usize, steps: usize) -> Option<usize> {
        let length = self.length(row, steps);
        match self.direction {
            _ if t >= length => None,
            Direction::Forward => Some(t),
            Direction::Reverse => Some(length - 1 - t),
        }
    }

    pub(crate) fn before(&self, t: usize, row: usize, steps: usize, rows: usize) -> Before {
        match self.position(t, row, steps) {
            None => Before::Padding,
            Some(_) if self.starts_from_zeros(t, row, steps, rows) => Before::Zero,
            Some(0) => Before::Initial,
            Some(_) => Before::Previous,
        }
    }

    /// Whether a reset separates the valid step `t` of the row from the previous step in this direction.
    fn starts_from_zeros(&self, t: usize, row: usize, steps: usize, rows: usize) -> bool {
        let boundary = match self.direction {
            Direction::Forward => t,
            Direction::Reverse => t + 1,
        };
        let has_step_flags = |resets: &Indices| resets.values()[boundary * rows + row] != 0;
        boundary < self.length(row, steps) && self.resets.is_some_and(has_step_flags)
    }

    /// Whether a gradient flows from step `t` of the row to the state before it.
    pub(crate) fn flows(&self, t: usize, row: usize, steps: usize, rows: usize) -> bool {
        let chunk = self.chunk();
        let cut =
            |position: usize| chunk.is_some_and(|chunk| position != 0 && position.is_multiple_of(chunk));
        match self.before(t, row, steps, rows) {
            Before::Padding | Before::Zero => false,
            _ => self.position(t, row, steps).is_some_and(|position| !cut(self.first + position)),
        }
    }
}

//! The options of a case's cells beyond the standard equations, and the truncation of its gradients.

use crate::nn::Rnn;
use crate::ops::Activation;
use crate::ops::recurrent::{CellOptions, Reset, SlidingWindows, Truncation};

/// Options of the equations; all absent in [`CellChoices::NONE`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CellChoices {
    pub(super) peepholes: bool,
    pub(super) coupled: bool,
    pub(super) reset_before: bool,
    /// Functions of gates, candidate and output.
    pub(super) activations: Option<[Activation; 3]>,
    pub(super) clip_gates: Option<f32>,
    pub(super) clip_cell: Option<f32>,
    pub(super) clip_gradient: Option<f32>,
    /// The size P of the projected state.
    pub(super) projection: Option<usize>,
}

/// A sliding window: each output's gradient goes through its own step and `lags` steps before it.
pub(super) const fn sliding(lags: usize) -> Truncation {
    overlapping(1, lags + 1)
}

/// Truncation every `every` steps through `depth` steps.
pub(super) const fn overlapping(every: usize, depth: usize) -> Truncation {
    Truncation::SlidingWindows(SlidingWindows { every, depth })
}

/// How many gradients, besides the first, add up at a step.
pub(super) fn further_windows(truncation: Truncation) -> usize {
    match truncation {
        Truncation::None | Truncation::Chunks(_) => 0,
        Truncation::SlidingWindows(SlidingWindows { every, depth }) => depth.div_ceil(every) - 1,
    }
}

impl CellChoices {
    pub(super) const NONE: Self = Self {
        peepholes: false,
        coupled: false,
        reset_before: false,
        activations: None,
        clip_gates: None,
        clip_cell: None,
        clip_gradient: None,
        projection: None,
    };

    pub(super) fn of(self, stack: Rnn) -> Rnn {
        let Self { peepholes, coupled, activations, clip_gates, clip_cell, clip_gradient, .. } = self;
        let reset = if self.reset_before { Reset::BeforeProduct } else { Reset::AfterProduct };
        let options = CellOptions { peepholes, coupled, reset, activations, ..CellOptions::default() };
        let options = CellOptions { clip_gates, clip_cell, clip_gradient, ..options };
        let stack = stack.equations_with(|of_stack| *of_stack = options);
        match self.projection {
            Some(width) => stack.projection(width),
            None => stack,
        }
    }

    /// Describes the options that are set.
    pub(super) fn words(self) -> String {
        let names = |functions: [Activation; 3]| functions.map(Activation::name).join("/");
        let parts = [
            self.peepholes.then(|| "peepholes".to_owned()),
            self.coupled.then(|| "coupled".to_owned()),
            self.reset_before.then(|| "reset before".to_owned()),
            self.activations.map(names),
            self.clip_gates.map(|bound| format!("gates within {bound}")),
            self.clip_cell.map(|bound| format!("cell within {bound}")),
            self.clip_gradient.map(|bound| format!("gradient within {bound}")),
            self.projection.map(|width| format!("projected to {width}")),
        ];
        parts.into_iter().flatten().map(|part| format!(", {part}")).collect()
    }

    /// Whether some derivative is discontinuous.
    pub(super) fn have_kinks(self) -> bool {
        self.activations.is_some() || self.clip_gates.is_some() || self.clip_cell.is_some()
    }
}

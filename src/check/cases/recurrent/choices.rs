//! The options of a case's cells beyond the standard equations, and the truncation of its gradients.

use crate::nn::Rnn;
use crate::ops::Activation;

/// Options of the equations; all absent in [`Choices::NONE`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choices {
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

/// The truncation of gradients in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Truncation {
    None,
    /// At every step whose index is a multiple of this number.
    Chunks(usize),
    /// Each output's gradient goes through its own step and this number of steps before it.
    Windowed(usize),
    /// Every k1 steps through k2 steps.
    Every(usize, usize),
}

impl Choices {
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
        let Self { peepholes, coupled, reset_before, activations, .. } = self;
        let when = |given: bool, stack: Rnn, with: fn(Rnn) -> Rnn| if given { with(stack) } else { stack };
        let stack = when(peepholes, stack, Rnn::peepholes);
        let stack = when(coupled, stack, Rnn::coupled);
        let stack = when(reset_before, stack, Rnn::reset_before);
        let stack = match activations {
            Some([gates, candidate, output]) => stack.gate_activations(gates, candidate, output),
            None => stack,
        };
        let within = |bound: Option<f32>, stack: Rnn, clip: fn(Rnn, f32) -> Rnn| match bound {
            Some(bound) => clip(stack, bound),
            None => stack,
        };
        let stack = within(self.clip_gates, stack, Rnn::clip_gates);
        let stack = within(self.clip_cell, stack, Rnn::clip_cell);
        let stack = within(self.clip_gradient, stack, Rnn::clip_gradient);
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

impl Truncation {
    pub(super) fn of(self, stack: Rnn) -> Rnn {
        match self {
            Self::None => stack,
            Self::Chunks(steps) => stack.truncated(steps),
            Self::Windowed(lags) => stack.windowed(lags),
            Self::Every(every, depth) => stack.truncated_every(every, depth),
        }
    }

    /// How many gradients, besides the first, add up at a step.
    pub(super) fn further_windows(self) -> usize {
        match self {
            Self::None | Self::Chunks(_) => 0,
            Self::Windowed(lags) => lags,
            Self::Every(every, depth) => depth.div_ceil(every) - 1,
        }
    }

    pub(super) fn words(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Chunks(steps) => format!(", chunks of {steps}"),
            Self::Windowed(lags) => format!(", windows of {lags} lags"),
            Self::Every(every, depth) => format!(", every {every} steps {depth} back"),
        }
    }
}

//! Options of a stack besides its layers: dropout, merged directions, residual connections, a learned initial
//! state.

use serde::{Deserialize, Serialize};

use super::checkpoints::Checkpoints;
use super::{Directions, Rnn};
use crate::ops::Merge;
use crate::ops::dropout::expect_rate;
use crate::ops::recurrent::{CellOptions, Truncation};
use crate::{Error, Result};

/// The options of a stack. Absent ones are not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Options {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) dropout: f32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) input_dropout: f32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) weight_drop: f32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) recurrent_dropout: f32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) merge: Merge,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) residual: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) learned_initial_state: bool,
    /// P, the width of a projected hidden state.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) projection: Option<usize>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) truncation: Truncation,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) equations: CellOptions,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) checkpoints: Checkpoints,
    /// Two options that exclude each other, if both were selected.
    #[serde(skip)]
    pub(super) clash: Option<[Exclusive; 2]>,
}

/// Options that exclude others of their kind: directions, truncations, checkpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Exclusive {
    Reverse,
    Bidirectional,
    Truncated,
    Windowed,
    TruncatedEvery,
    Checkpointed,
    CheckpointedWithin,
}

impl Exclusive {
    /// The name of the builder function that selects it.
    fn name(self) -> &'static str {
        match self {
            Self::Reverse => "reverse",
            Self::Bidirectional => "bidirectional",
            Self::Truncated => "truncated",
            Self::Windowed => "windowed",
            Self::TruncatedEvery => "truncated_every",
            Self::Checkpointed => "checkpointed",
            Self::CheckpointedWithin => "checkpointed_within",
        }
    }
}

impl Options {
    /// These options, with `clash` set if `new` replaces another option.
    pub(super) fn instead_of(self, old: Option<Exclusive>, new: Option<Exclusive>) -> Self {
        match (old, new) {
            (Some(old), Some(new)) if old != new => Self { clash: self.clash.or(Some([old, new])), ..self },
            _ => self,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Rnn {
    /// Applies dropout at this rate to the outputs of every layer except the last, in training (PyTorch's
    /// `dropout`).
    pub fn dropout(self, rate: f32) -> Self {
        Self { options: Options { dropout: rate, ..self.options }, ..self }
    }

    /// Applies dropout at this rate to the inputs of every layer, in training, with one mask for all steps
    /// (Gal & Ghahramani 2016).
    pub fn input_dropout(self, rate: f32) -> Self {
        Self { options: Options { input_dropout: rate, ..self.options }, ..self }
    }

    /// Applies dropout at this rate to the state in the product with W_hh, in training, with one mask for all
    /// steps (Gal & Ghahramani 2016): a = W_hh (m h') + b_hh. The term z h' of a GRU is not masked.
    pub fn recurrent_dropout(self, rate: f32) -> Self {
        Self { options: Options { recurrent_dropout: rate, ..self.options }, ..self }
    }

    /// Applies dropout at this rate to the entries of every W_hh, in training, with one mask for a whole
    /// window and its gradient (Merity et al. 2018, "Regularizing and optimizing LSTM language models").
    pub fn weight_drop(self, rate: f32) -> Self {
        Self { options: Options { weight_drop: rate, ..self.options }, ..self }
    }

    /// Merges the outputs of both directions of every layer of a bidirectional stack.
    pub fn merge(self, merge: Merge) -> Self {
        Self { options: Options { merge, ..self.options }, ..self }
    }

    /// Adds each layer's input to its output where both have the same width: in every layer from the second
    /// on, and in the first if the stack has as many outputs as inputs (He et al. 2016). Dropout is applied
    /// before the sum.
    pub fn residual(self) -> Self {
        Self { options: Options { residual: true, ..self.options }, ..self }
    }

    /// Adds initial states to the parameters: `initial_hidden_l{l}` \[H\], and `initial_cell_l{l}` \[H\] for
    /// an LSTM, initialized to zero; those of the reverse direction end in `_reverse`.
    ///
    /// [`Layer::initial_state`](crate::nn::Layer::initial_state) copies them to a state. A pass that starts
    /// from this state adds to their gradients; a pass from another state does not. A reset inside a row
    /// starts from zeros.
    pub fn learned_initial_state(self) -> Self {
        Self { options: Options { learned_initial_state: true, ..self.options }, ..self }
    }

    /// Whether training uses random numbers.
    pub(super) fn is_random(&self) -> bool {
        let Options { dropout, input_dropout, weight_drop, recurrent_dropout, equations, .. } = self.options;
        let [hidden, cell] = equations.zoneout.unwrap_or_default();
        let rates = [dropout, input_dropout, weight_drop, recurrent_dropout, hidden, cell];
        rates.into_iter().any(|rate| rate > 0.0)
    }

    /// Whether layer `layer` adds its input to its output.
    pub(super) fn is_residual(&self, layer: usize) -> bool {
        self.options.residual && (layer > 0 || self.inputs == self.outputs())
    }

    pub(super) fn validate_options(&self, name: &str) -> Result<()> {
        let Options { dropout, input_dropout, weight_drop, merge, residual, .. } = self.options;
        if let Some([one, two]) = self.options.clash.map(|options| options.map(Exclusive::name)) {
            let message = "exclude each other: choose one of the two";
            return Err(Error::config(format!("{name}: {one} and {two}"), message));
        }
        self.validate_equations(name)?;
        self.validate_checkpoints(name)?;
        let rates = [
            ("dropout", dropout),
            ("input_dropout", input_dropout),
            ("weight_drop", weight_drop),
            ("recurrent_dropout", self.options.recurrent_dropout),
        ];
        for (option, rate) in rates {
            expect_rate(&format!("{name}: {option}"), rate)?;
        }
        let clash =
            |options: &str, message: String| Err(Error::config(format!("{name}: {options}"), message));
        if dropout > 0.0 && self.layers == 1 {
            let message = "applies between layers, and there is 1: use more layers, or input_dropout";
            return clash("dropout and layers", message.to_owned());
        }
        if merge != Merge::Concat && self.directions != Directions::Both {
            let message =
                format!("{merge:?} merges two directions, but the stack has one: make it bidirectional");
            let reverse = self.directions == Directions::Reverse;
            return clash(if reverse { "merge and reverse" } else { "merge and bidirectional" }, message);
        }
        if residual && !(0..self.layers).any(|layer| self.is_residual(layer)) {
            let (inputs, outputs) = (self.inputs, self.outputs());
            let message = format!(
                "a single layer of {inputs} inputs and {outputs} outputs has no residual connection: make \
                 them equal, or use more layers"
            );
            return clash("residual and layers", message);
        }
        Ok(())
    }
}

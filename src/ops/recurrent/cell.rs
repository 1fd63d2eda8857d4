//! What tells one recurrent layer from another, as its user names it.

use serde::{Deserialize, Serialize};

use super::custom::{self, CustomCell};
use crate::Result;
use crate::ops::Activation;

/// The pointwise equations of a recurrent layer: what a step does with its gates.
///
/// A cell is the only thing that tells one recurrent layer from another: one file in `shaders/cells/` and one arm
/// in each of the twin's two functions. With a = W_ih x + b_ih + W_hh h' + b_hh, row block by row block:
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cell {
    /// h = f(a) (Elman 1990, "Finding structure in time").
    Vanilla(Activation),
    /// Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate of Gers et al. 2000), gate rows i, f, g, o:
    /// i = σ(a_i), f = σ(a_f), g = tanh(a_g), o = σ(a_o); c = f c' + i g; h = o tanh(c).
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014) with the reset after the product, as PyTorch and cuDNN have it, gate
    /// rows r, z, n: r = σ(a_r), z = σ(a_z), n = tanh(W_in x + b_in + r (W_hn h' + b_hn)); h = (1 − z) n + z h'.
    Gru,
    /// A cell of the user's own.
    #[serde(with = "custom::by_name")]
    Custom(&'static dyn CustomCell),
}

impl Cell {
    /// The vanilla cell with tanh: PyTorch's default `nn.RNN`.
    pub const fn tanh() -> Self {
        Self::Vanilla(Activation::Tanh)
    }

    /// The vanilla cell with relu.
    pub const fn relu() -> Self {
        Self::Vanilla(Activation::Relu)
    }

    /// Its standard name: `lstm`, `gru`, or that of a vanilla cell's activation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vanilla(activation) => activation.name(),
            Self::Lstm => "lstm",
            Self::Gru => "gru",
            Self::Custom(cell) => cell.name(),
        }
    }

    /// How many blocks of `hidden` rows its weights have.
    pub fn gates(self) -> usize {
        match self {
            Self::Vanilla(_) => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
            Self::Custom(cell) => cell.gates(),
        }
    }

    /// Whether its state has a second part, c, beside h.
    pub fn has_cell_state(self) -> bool {
        match self {
            Self::Custom(cell) => cell.has_cell_state(),
            _ => self == Self::Lstm,
        }
    }

    /// How many parts its state has.
    pub(crate) fn planes(self) -> usize {
        1 + usize::from(self.has_cell_state())
    }

    /// Whether the last gate's recurrent part has a gradient of its own.
    pub(crate) fn last_gate_apart(self) -> bool {
        match self {
            Self::Custom(cell) => cell.last_gate_apart(),
            _ => self == Self::Gru,
        }
    }

    /// Whether backward needs more of a step than its gates and states.
    pub(crate) fn saves(self) -> bool {
        match self {
            Self::Custom(cell) => custom::saves(cell),
            _ => matches!(self, Self::Lstm | Self::Gru),
        }
    }

    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Vanilla(activation) => activation.validate(),
            Self::Lstm | Self::Gru => Ok(()),
            Self::Custom(cell) => custom::validate(cell),
        }
    }
}

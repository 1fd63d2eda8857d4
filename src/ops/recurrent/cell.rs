//! What tells one recurrent layer from another, as its user names it, and the equations of a step with all choices
//! made.

use serde::{Deserialize, Serialize};

use super::custom_cell::{self as custom, CustomCell};
use crate::ops::Activation;
use crate::ops::dropout::{expect_rate, threshold};
use crate::random::Stream;
use crate::{Error, Result};

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

    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Vanilla(activation) => activation.validate(),
            Self::Lstm | Self::Gru => Ok(()),
            Self::Custom(cell) => custom::validate(cell),
        }
    }
}

/// Where a GRU resets the state: h' in the product of the candidate gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reset {
    /// r (W_hn h' + b_hn).
    #[default]
    AfterProduct,
    /// W_hn (r h') + b_hn.
    BeforeProduct,
}

/// The choices that a user may make beside the cell. All absent: PyTorch's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CellOptions {
    /// The functions of a gated cell: gates, candidate, output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) activations: Option<[Activation; 3]>,
    /// f = 1 − i, without rows of its own.
    pub(crate) coupled: bool,
    /// Products and the cell state of an LSTM are normalised.
    pub(crate) layer_norm: bool,
    /// The gates of an LSTM see its cell state.
    pub(crate) peepholes: bool,
    pub(crate) reset: Reset,
    /// Bound of what enters the gates' functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_gates: Option<f32>,
    /// Bound of c.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_cell: Option<f32>,
    /// Bound of the gradient at the state that a step started from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_gradient: Option<f32>,
    /// How much of the hidden and of the cell state stays as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zoneout: Option<[f32; 2]>,
}

impl CellOptions {
    /// Fails for options that `cell` has no use for, naming both.
    pub(crate) fn validate(&self, layer: &str, cell: Cell) -> Result<()> {
        let lstm = cell == Cell::Lstm;
        let gated = lstm || cell == Cell::Gru;
        let ours = !matches!(cell, Cell::Custom(_));
        let needs = [
            ("peepholes", self.peepholes, lstm, "Cell::Lstm"),
            ("coupled", self.coupled, lstm, "Cell::Lstm"),
            ("clip_cell", self.clip_cell.is_some(), lstm, "Cell::Lstm"),
            ("reset_before", self.reset == Reset::BeforeProduct, cell == Cell::Gru, "Cell::Gru"),
            ("gate_activations", self.activations.is_some(), gated, "Cell::Lstm or Cell::Gru"),
            ("clip_gates", self.clip_gates.is_some(), ours, "the cells of this crate"),
            ("zoneout", self.zoneout.is_some(), ours, "the cells of this crate"),
        ];
        for (option, given, fits, wanted) in needs {
            if given && !fits {
                let message = format!("is an option of {wanted}, but the cell is {}", cell.name());
                return Err(Error::config(format!("{layer}: {option}"), message));
            }
        }
        self.validate_zoneout(layer, cell)?;
        let bounds = [
            ("clip_gates", self.clip_gates),
            ("clip_cell", self.clip_cell),
            ("clip_gradient", self.clip_gradient),
        ];
        for (option, bound) in bounds {
            if let Some(bound) = bound.filter(|bound| !(bound.is_finite() && *bound > 0.0)) {
                let message = format!("must be above 0 and finite, not {bound}");
                return Err(Error::config(format!("{layer}: {option}"), message));
            }
        }
        for activation in self.activations.into_iter().flatten() {
            activation.validate()?;
            let falls = match activation {
                Activation::LeakyRelu { slope: alpha }
                | Activation::Elu { alpha }
                | Activation::ThresholdedRelu { alpha } => alpha < 0.0,
                _ => false,
            };
            if falls {
                let (alpha, _) = activation.constants();
                let message = format!(
                    "{} needs alpha of at least 0 in a gate, not {alpha}: backward knows the gate's value alone",
                    activation.name()
                );
                return Err(Error::config(format!("{layer}: gate_activations"), message));
            }
        }
        Ok(())
    }
}

impl CellOptions {
    fn validate_zoneout(&self, layer: &str, cell: Cell) -> Result<()> {
        let Some([hidden, second]) = self.zoneout else { return Ok(()) };
        expect_rate(&format!("{layer}: zoneout"), hidden)?;
        expect_rate(&format!("{layer}: zoneout"), second)?;
        if second > 0.0 && !cell.has_cell_state() {
            let message = format!("the cell {} has no cell state to keep: let its rate be 0", cell.name());
            return Err(Error::config(format!("{layer}: zoneout and the cell"), message));
        }
        if self.peepholes {
            let message = "gates would see a cell state that is kept: choose one";
            return Err(Error::config(format!("{layer}: zoneout and peepholes"), message));
        }
        Ok(())
    }
}

/// The equations of a step: a cell with its options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Equations {
    pub(crate) cell: Cell,
    pub(crate) options: CellOptions,
    /// What zoneout draws its numbers from; without it, it is taken in expectation.
    pub(crate) noise: Option<Stream>,
}

impl Equations {
    /// How many blocks of rows the weights have.
    pub(crate) fn gates(&self) -> usize {
        self.cell.gates() - usize::from(self.options.coupled)
    }

    /// Whether backward reads the gates of a step. Of vanilla cells whose derivative is known from h it does not.
    pub(crate) fn reads_gates(&self) -> bool {
        let CellOptions { clip_gates, zoneout, .. } = self.options;
        let known_from_state = matches!(
            self.cell,
            Cell::Vanilla(Activation::Tanh | Activation::Relu | Activation::Sigmoid | Activation::Identity)
        );
        !known_from_state || clip_gates.is_some() || zoneout.is_some()
    }

    /// How many rows the peepholes have: one for each gate that sees the cell state.
    pub(crate) fn peepholes(&self) -> usize {
        match (self.options.peepholes, self.options.coupled) {
            (false, _) => 0,
            (true, false) => 3,
            (true, true) => 2,
        }
    }

    pub(crate) fn has_cell_state(&self) -> bool {
        self.cell.has_cell_state()
    }

    /// Whether the last gate's recurrent part has a gradient of its own.
    pub(crate) fn last_gate_apart(&self) -> bool {
        match self.cell {
            Cell::Custom(cell) => cell.last_gate_apart(),
            _ => self.cell == Cell::Gru && self.options.reset == Reset::AfterProduct,
        }
    }

    /// Whether the last gate's product is that of another array than the state.
    pub(crate) fn resets_before(&self) -> bool {
        self.options.reset == Reset::BeforeProduct
    }

    /// Whether backward needs more of a step than its gates and states.
    pub(crate) fn saves(&self) -> bool {
        match self.cell {
            Cell::Custom(cell) => custom::saves(cell),
            // The product that a GRU saves is another array, where it is normalised.
            Cell::Gru => !self.options.layer_norm,
            _ => self.cell == Cell::Lstm,
        }
    }

    /// The key and the stream of the noise, low words first: what a shader draws the same numbers from.
    pub(crate) fn words(&self) -> [u32; 4] {
        self.noise.map_or([0; 4], |noise| noise.words())
    }

    /// How much of its old hidden and cell state unit `place` of all steps' rows by units keeps; none without zoneout.
    /// Hidden states have the even numbers of the stream, cell states the odd ones.
    pub(crate) fn keeps(&self, place: usize) -> Option<[f64; 2]> {
        let rates = self.options.zoneout?;
        let Some(noise) = self.noise else { return Some(rates.map(f64::from)) };
        // A shader counts in 32 bits.
        let number = u64::from((place as u32).wrapping_mul(2));
        let keep = |part: u64, rate: f32| f64::from(u8::from(noise.bits(number + part) < threshold(rate)));
        Some([keep(0, rates[0]), keep(1, rates[1])])
    }

    /// The functions of gates, candidate and output.
    pub(crate) fn activations(&self) -> [Activation; 3] {
        self.options.activations.unwrap_or([Activation::Sigmoid, Activation::Tanh, Activation::Tanh])
    }
}

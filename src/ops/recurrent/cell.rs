//! [`Cell`], the kind of a recurrent layer, its options, and the equations that both determine.

use serde::{Deserialize, Serialize};

use super::custom_cell::CustomCell;
use crate::ops::Activation;
use crate::ops::dropout::{expect_rate, threshold};
use crate::random::Stream;
use crate::{Error, Result};

/// The pointwise equations of a recurrent layer.
///
/// A cell is one arm in each of the functions `forward`, `candidate` and `backward` of
/// `src/ops/recurrent/cpu/cells/mod.rs`, and one shader in `shaders/recurrent/cells/`; CONTRIBUTING.md has all
/// steps. With a = W_ih x + b_ih + W_hh h' + b_hh, split into one block of H rows per gate:
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cell {
    /// h = f(a) (Elman 1990, "Finding structure in time").
    Vanilla(Activation),
    /// Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate of Gers et al. 2000), gates in the
    /// order i, f, g, o: i = σ(a_i), f = σ(a_f), g = tanh(a_g), o = σ(a_o); c = f c' + i g; h = o tanh(c).
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014) with the reset after the product, as in PyTorch and cuDNN,
    /// gates in the order r, z, n: r = σ(a_r), z = σ(a_z), n = tanh(W_in x + b_in + r (W_hn h' + b_hn)); h =
    /// (1 − z) n + z h'.
    Gru,
    /// A user-defined cell. A file contains its name only.
    Custom(CustomCell),
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

    /// The name of the cell: `lstm`, `gru`, or that of a vanilla cell's activation.
    pub fn name(&self) -> &str {
        match self {
            Self::Vanilla(activation) => activation.name(),
            Self::Lstm => "lstm",
            Self::Gru => "gru",
            Self::Custom(cell) => cell.name(),
        }
    }

    /// The number of gates G: weights have G·H rows.
    pub fn gates(&self) -> usize {
        match self {
            Self::Vanilla(_) => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
            Self::Custom(cell) => cell.properties().gates,
        }
    }

    /// Whether the state has a cell state c beside h.
    pub fn has_cell_state(&self) -> bool {
        match self {
            Self::Custom(cell) => cell.properties().has_cell_state,
            _ => *self == Self::Lstm,
        }
    }
}

/// Where a GRU applies the reset gate in the candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reset {
    /// r (W_hn h' + b_hn).
    #[default]
    AfterProduct,
    /// W_hn (r h') + b_hn.
    BeforeProduct,
}

/// The options of a cell. By default all are absent, as in PyTorch's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CellOptions {
    /// The activations of a gated cell: gates, candidate, output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) activations: Option<[Activation; 3]>,
    /// Coupled gates of an LSTM: f = 1 − i, without weights of its own.
    pub(crate) coupled: bool,
    /// Layer normalisation of the products, and of the cell state of an LSTM.
    pub(crate) layer_norm: bool,
    /// Peepholes of an LSTM.
    pub(crate) peepholes: bool,
    pub(crate) reset: Reset,
    /// Clips the arguments of the gates' activations to ± this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_gates: Option<f32>,
    /// Clips c to ± this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_cell: Option<f32>,
    /// Clips the gradient of the previous state to ± this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_gradient: Option<f32>,
    /// The zoneout rates of the hidden and the cell state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zoneout: Option<[f32; 2]>,
}

impl CellOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// If an option does not apply to `cell`; the message names both.
    pub(crate) fn validate(&self, layer: &str, cell: &Cell) -> Result<()> {
        let lstm = *cell == Cell::Lstm;
        let gated = lstm || *cell == Cell::Gru;
        let ours = !matches!(cell, Cell::Custom(_));
        let needs = [
            ("peepholes", self.peepholes, lstm, "Cell::Lstm"),
            ("coupled", self.coupled, lstm, "Cell::Lstm"),
            ("clip_cell", self.clip_cell.is_some(), lstm, "Cell::Lstm"),
            ("reset_before", self.reset == Reset::BeforeProduct, *cell == Cell::Gru, "Cell::Gru"),
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
    fn validate_zoneout(&self, layer: &str, cell: &Cell) -> Result<()> {
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
pub(crate) struct Equations<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) options: CellOptions,
    /// The random stream of zoneout; without it, zoneout is computed in expectation.
    pub(crate) noise: Option<Stream>,
}

impl Equations<'_> {
    /// The number of gates that have weights of their own.
    pub(crate) fn gates(&self) -> usize {
        self.cell.gates() - usize::from(self.options.coupled)
    }

    /// Whether the backward pass reads the gates. It does not for a vanilla cell whose derivative is a
    /// function of h.
    pub(crate) fn reads_gates(&self) -> bool {
        let CellOptions { clip_gates, zoneout, .. } = self.options;
        let known_from_state = matches!(
            self.cell,
            Cell::Vanilla(Activation::Tanh | Activation::Relu | Activation::Sigmoid | Activation::Identity)
        );
        !known_from_state || clip_gates.is_some() || zoneout.is_some()
    }

    /// The number of rows of the peepholes: one for each gate that reads the cell state.
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

    /// Whether the gradient of the last gate's recurrent part differs from that of its input part.
    pub(crate) fn last_gate_apart(&self) -> bool {
        match self.cell {
            Cell::Custom(cell) => cell.properties().last_gate_apart,
            _ => *self.cell == Cell::Gru && self.options.reset == Reset::AfterProduct,
        }
    }

    /// Whether the operand of the last gate's product is r h' instead of h'.
    pub(crate) fn resets_before(&self) -> bool {
        self.options.reset == Reset::BeforeProduct
    }

    /// Whether the forward pass saves values beside gates and states.
    pub(crate) fn saves(&self) -> bool {
        match self.cell {
            Cell::Custom(cell) => cell.properties().saves,
            // With layer normalisation a GRU saves its product in another array.
            Cell::Gru => !self.options.layer_norm,
            _ => *self.cell == Cell::Lstm,
        }
    }

    /// The key and stream of the random numbers as shader parameters, low words first.
    pub(crate) fn words(&self) -> [u32; 4] {
        self.noise.map_or([0; 4], |noise| noise.words())
    }

    /// How much of the old hidden and cell state unit `place` keeps, counted over all steps' rows by units;
    /// none without zoneout. Hidden states use the even numbers of the stream, cell states the odd ones.
    pub(crate) fn keeps(&self, place: usize) -> Option<[f64; 2]> {
        let rates = self.options.zoneout?;
        let Some(noise) = self.noise else { return Some(rates.map(f64::from)) };
        // As in the shaders, modulo 2^32.
        let number = u64::from((place as u32).wrapping_mul(2));
        let keep = |part: u64, rate: f32| f64::from(u8::from(noise.bits(number + part) < threshold(rate)));
        Some([keep(0, rates[0]), keep(1, rates[1])])
    }

    /// The activations of gates, candidate and output.
    pub(crate) fn activations(&self) -> [Activation; 3] {
        self.options.activations.unwrap_or([Activation::Sigmoid, Activation::Tanh, Activation::Tanh])
    }
}

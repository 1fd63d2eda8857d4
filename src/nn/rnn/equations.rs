//! What the cells of a stack may have beside their standard equations, and how far gradients flow back through time.

use super::options::{Exclusive, Options};
use super::{Directions, Rnn};
use crate::nn::Cell;
use crate::nn::model::expect_size;
use crate::ops::Activation;
use crate::ops::recurrent::{CellOptions, Equations, Reset, SlidingWindows, Truncation};
use crate::{Error, Result};

/// The option that asks for a truncation.
fn option_of(truncation: Truncation) -> Option<Exclusive> {
    match truncation {
        Truncation::None => None,
        Truncation::Chunks(_) => Some(Exclusive::Truncated),
        Truncation::SlidingWindows(SlidingWindows { every: 1, .. }) => Some(Exclusive::Windowed),
        Truncation::SlidingWindows(_) => Some(Exclusive::TruncatedEvery),
    }
}

impl Rnn {
    fn with_equations(self, equations: CellOptions) -> Self {
        Self { options: Options { equations, ..self.options }, ..self }
    }

    fn with_truncation(self, truncation: Truncation) -> Self {
        let options = self.options.instead_of(option_of(self.options.truncation), option_of(truncation));
        Self { options: Options { truncation, ..options }, ..self }
    }

    /// With gates that see the cell state, in an LSTM (Gers, Schraudolph & Schmidhuber 2002): i = σ(a_i + p_i c'),
    /// f = σ(a_f + p_f c'), o = σ(a_o + p_o c). Parameters `weight_ch_l{l}` \[3, H\] with rows p_i, p_f, p_o; without the
    /// second where gates are [coupled](Rnn::coupled).
    pub fn peepholes(self) -> Self {
        let equations = CellOptions { peepholes: true, ..self.options.equations };
        self.with_equations(equations)
    }

    /// With f = 1 − i in an LSTM (Greff et al. 2017, the CIFG variant; ONNX `input_forget`): gate rows i, g, o, three
    /// instead of four.
    pub fn coupled(self) -> Self {
        let equations = CellOptions { coupled: true, ..self.options.equations };
        self.with_equations(equations)
    }

    /// With these functions in an LSTM or a GRU instead of σ, tanh and tanh: that of the gates i, f, o or r, z; that of
    /// the candidate g or n; that of the cell state on its way to h = o · function(c), which a GRU has no use for. They
    /// are ONNX's f, g and h.
    pub fn gate_activations(self, gates: Activation, candidate: Activation, output: Activation) -> Self {
        let activations = Some([gates, candidate, output]);
        let equations = CellOptions { activations, ..self.options.equations };
        self.with_equations(equations)
    }

    /// With everything that enters a gate's function kept between −`bound` and `bound` (ONNX `clip`). Where the bound
    /// holds, no gradient flows.
    pub fn clip_gates(self, bound: f32) -> Self {
        let equations = CellOptions { clip_gates: Some(bound), ..self.options.equations };
        self.with_equations(equations)
    }

    /// With the cell state of an LSTM kept between −`bound` and `bound` (Sak et al. 2014). Where the bound holds, no
    /// gradient flows.
    pub fn clip_cell(self, bound: f32) -> Self {
        let equations = CellOptions { clip_cell: Some(bound), ..self.options.equations };
        self.with_equations(equations)
    }

    /// With each entry of the gradient at the state that a step started from kept between −`bound` and `bound` on its way
    /// back through time (Graves 2013, section 2.1, keeps those of an LSTM so).
    pub fn clip_gradient(self, bound: f32) -> Self {
        let equations = CellOptions { clip_gradient: Some(bound), ..self.options.equations };
        self.with_equations(equations)
    }

    /// With the reset before the product in a GRU, as Cho et al. (2014) have it (ONNX `linear_before_reset` = 0, Keras
    /// `reset_after=False`): n = tanh(W_in x + b_in + W_hn (r h') + b_hn).
    pub fn reset_before(self) -> Self {
        let equations = CellOptions { reset: Reset::BeforeProduct, ..self.options.equations };
        self.with_equations(equations)
    }

    /// With a projection in an LSTM (Sak et al. 2014; PyTorch's `proj_size`): h = W_hr (o tanh(c)), with `weight_hr_l{l}`
    /// \[P, H\]. The hidden state and the output of a direction are P wide, the cell state H.
    pub fn projection(self, width: usize) -> Self {
        Self { options: Options { projection: Some(width), ..self.options }, ..self }
    }

    /// With truncated back-propagation through time: no gradient flows back past every `steps`-th step of a window,
    /// as if the state were detached there. Outputs stay the same.
    pub fn truncated(self, steps: usize) -> Self {
        self.with_truncation(Truncation::Chunks(steps))
    }

    /// With back-propagation in a window that slides: the gradient of each output goes through its own last `lags` + 1
    /// steps and no further (Williams & Peng 1990, h' = 1). Outputs stay the same; a backward pass costs `lags` + 1 times
    /// one without truncation. For stacks that run forward only.
    pub fn windowed(self, lags: usize) -> Self {
        self.truncated_every(1, lags.saturating_add(1))
    }

    /// With truncated back-propagation through time as Williams & Peng (1990) have it, k1 = `every` and k2 = `depth`:
    /// after every `every` steps the gradients at the outputs since the last time go back through `depth` steps. The last time
    /// is the end of the sequence, with the outputs that are left. For stacks that run forward only; `depth` is at least
    /// `every`.
    pub fn truncated_every(self, every: usize, depth: usize) -> Self {
        self.with_truncation(Truncation::SlidingWindows(SlidingWindows { every, depth }))
    }

    /// With units that keep their old state in training, each at each step with this probability: `hidden` for h, `cell`
    /// for the cell state of an LSTM (Krueger et al. 2017, "Zoneout"). In evaluation each state is the mean of both: h =
    /// p h' + (1 − p) h̃.
    pub fn zoneout(self, hidden: f32, cell: f32) -> Self {
        let equations = CellOptions { zoneout: Some([hidden, cell]), ..self.options.equations };
        self.with_equations(equations)
    }

    /// The cell with its options.
    pub(super) fn equations(&self) -> Equations {
        Equations { cell: self.cell, options: self.options.equations, noise: None }
    }

    /// How gradients are truncated, in words.
    pub(super) fn describe_truncation(&self) -> Option<String> {
        match self.options.truncation {
            Truncation::None => None,
            Truncation::Chunks(steps) => Some(format!("truncated {steps}")),
            Truncation::SlidingWindows(SlidingWindows { every: 1, depth }) => {
                Some(format!("windowed {}", depth - 1))
            }
            Truncation::SlidingWindows(SlidingWindows { every, depth }) => {
                Some(format!("truncated every {every}, {depth} back"))
            }
        }
    }

    pub(super) fn validate_equations(&self, name: &str) -> Result<()> {
        self.options.equations.validate(name, self.cell)?;
        self.validate_norms(name)?;
        let clash =
            |options: &str, message: String| Err(Error::config(format!("{name}: {options}"), message));
        if let Some(width) = self.options.projection {
            if self.cell != Cell::Lstm {
                let message = format!("is an option of Cell::Lstm, but the cell is {}", self.cell.name());
                return clash("projection", message);
            }
            if self.options.equations.zoneout.is_some() {
                let message =
                    "units keep h before it is projected, and the state after: choose one".to_owned();
                return clash("zoneout and projection", message);
            }
            if width == 0 || width >= self.hidden {
                let message = format!("must be between 1 and hidden - 1 = {}, not {width}", self.hidden - 1);
                return clash("projection and hidden", message);
            }
        }
        match self.options.truncation {
            Truncation::None => Ok(()),
            Truncation::Chunks(steps) => expect_size(name, "truncated", steps),
            Truncation::SlidingWindows(windows) if self.directions != Directions::Forward => {
                let windows = if windows.every == 1 { "windowed" } else { "truncated_every" };
                let direction = if self.directions == Directions::Both { "bidirectional" } else { "reverse" };
                let message = "a window looks back from an output to earlier steps: run forward, or truncate by \
                               `truncated`";
                clash(&format!("{windows} and {direction}"), message.to_owned())
            }
            Truncation::SlidingWindows(SlidingWindows { every, depth }) => {
                expect_size(name, "truncated_every", every)?;
                let option = if every == 1 && depth > 0 { "windowed" } else { "truncated_every" };
                expect_size(name, option, depth)?;
                if depth < every {
                    let message = format!(
                        "every {every} steps back through {depth} would lose outputs between: let the depth be at \
                         least {every}"
                    );
                    return clash("truncated_every", message);
                }
                Ok(())
            }
        }
    }
}

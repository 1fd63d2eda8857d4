//! Options of the cells of a stack, and truncated back-propagation through time.

use super::options::{Exclusive, Options};
use super::{Directions, Rnn};
use crate::nn::Cell;
use crate::nn::layer::expect_size;
use crate::ops::Activation;
use crate::ops::recurrent::{CellOptions, Equations, Reset, SlidingWindows, Truncation};
use crate::{Error, Result};

/// The option that selects a truncation.
fn option_of(truncation: Truncation) -> Option<Exclusive> {
    match truncation {
        Truncation::None => None,
        Truncation::Chunks(_) => Some(Exclusive::Truncated),
        Truncation::SlidingWindows(SlidingWindows { every: 1, .. }) => Some(Exclusive::Windowed),
        Truncation::SlidingWindows(_) => Some(Exclusive::TruncatedEvery),
    }
}

impl Rnn {
    /// The stack with the options of its cell changed by `change`.
    pub(crate) fn equations_with(mut self, change: impl FnOnce(&mut CellOptions)) -> Self {
        change(&mut self.options.equations);
        self
    }

    pub(crate) fn with_truncation(self, truncation: Truncation) -> Self {
        let options = self.options.instead_of(option_of(self.options.truncation), option_of(truncation));
        Self { options: Options { truncation, ..options }, ..self }
    }

    /// Adds peepholes to an LSTM (Gers, Schraudolph & Schmidhuber 2002): i = σ(a_i + p_i c'), f = σ(a_f + p_f
    /// c'), o = σ(a_o + p_o c). Parameters `weight_ch_l{l}` \[3, H\] with rows p_i, p_f, p_o; without p_f if
    /// gates are [coupled](Rnn::coupled).
    pub fn peepholes(self) -> Self {
        self.equations_with(|options| options.peepholes = true)
    }

    /// Couples the gates of an LSTM: f = 1 − i (Greff et al. 2017, the CIFG variant; ONNX `input_forget`). It
    /// then has three gates, in the order i, g, o.
    pub fn coupled(self) -> Self {
        self.equations_with(|options| options.coupled = true)
    }

    /// Replaces σ, tanh and tanh in an LSTM or a GRU by `gates` (i, f, o or r, z), `candidate` (g or n) and
    /// `output` (h = o · output(c), which a GRU does not use): ONNX's f, g and h.
    pub fn gate_activations(self, gates: Activation, candidate: Activation, output: Activation) -> Self {
        let activations = Some([gates, candidate, output]);
        self.equations_with(|options| options.activations = activations)
    }

    /// Clips the arguments of the gates' activations to \[−`bound`, `bound`\] (ONNX `clip`). No gradient
    /// flows where an argument is clipped.
    pub fn clip_gates(self, bound: f32) -> Self {
        self.equations_with(|options| options.clip_gates = Some(bound))
    }

    /// Clips the cell state of an LSTM to \[−`bound`, `bound`\] (Sak et al. 2014). No gradient flows where it
    /// is clipped.
    pub fn clip_cell(self, bound: f32) -> Self {
        self.equations_with(|options| options.clip_cell = Some(bound))
    }

    /// Clips each entry of the gradient of the state before each step to \[−`bound`, `bound`\] in the
    /// backward pass (Graves 2013, section 2.1, does so in an LSTM).
    pub fn clip_gradient(self, bound: f32) -> Self {
        self.equations_with(|options| options.clip_gradient = Some(bound))
    }

    /// Applies the reset gate of a GRU before the product, as Cho et al. (2014) (ONNX `linear_before_reset` =
    /// 0, Keras `reset_after=False`): n = tanh(W_in x + b_in + W_hn (r h') + b_hn).
    pub fn reset_before(self) -> Self {
        self.equations_with(|options| options.reset = Reset::BeforeProduct)
    }

    /// Adds a projection to an LSTM (Sak et al. 2014; PyTorch's `proj_size`): h = W_hr (o tanh(c)), with
    /// `weight_hr_l{l}` \[P, H\] and P = `width`. The hidden state and the output of a direction have P
    /// features, the cell state H.
    pub fn projection(self, width: usize) -> Self {
        Self { options: Options { projection: Some(width), ..self.options }, ..self }
    }

    /// Truncates back-propagation through time: no gradient flows past every `steps`-th step of a window, as
    /// if the state were detached there. Outputs do not change.
    pub fn truncated(self, steps: usize) -> Self {
        self.with_truncation(Truncation::Chunks(steps))
    }

    /// Truncates back-propagation to a sliding window: the gradient of each output flows through its last
    /// `steps` + 1 steps (Williams & Peng 1990, a window that ends at every step). Outputs do not change; a backward
    /// pass costs `steps` + 1 times one without truncation. For forward stacks only.
    pub fn windowed(self, steps: usize) -> Self {
        self.truncated_every(1, steps.saturating_add(1))
    }

    /// Truncated back-propagation through time as Williams & Peng (1990), with k1 = `every` and k2 = `depth`: after every
    /// `every` steps, and after the last of the batch's T steps, the gradients of the outputs since the previous time flow
    /// back through `depth` steps. These times are the same for all rows, whatever their lengths. For forward stacks only;
    /// `depth` must be at least `every`.
    pub fn truncated_every(self, every: usize, depth: usize) -> Self {
        self.with_truncation(Truncation::SlidingWindows(SlidingWindows { every, depth }))
    }

    /// Zoneout (Krueger et al. 2017): in training, each unit keeps its old state at each step with
    /// probability `hidden` for h and `cell` for the cell state of an LSTM. In evaluation each state is the
    /// expectation: h = p h' + (1 − p) h̃.
    pub fn zoneout(self, hidden: f32, cell: f32) -> Self {
        self.equations_with(|options| options.zoneout = Some([hidden, cell]))
    }

    /// The cell with its options.
    pub(super) fn equations(&self) -> Equations<'_> {
        Equations { cell: &self.cell, options: self.options.equations, noise: None }
    }

    /// A description of the truncation.
    pub(crate) fn describe_truncation(&self) -> Option<String> {
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
        self.options.equations.validate(name, &self.cell)?;
        self.validate_norms(name)?;
        let clash =
            |options: &str, message: String| Err(Error::config(format!("{name}: {options}"), message));
        if let Some(width) = self.options.projection {
            if self.cell != Cell::Lstm {
                let message = format!("is an option of Cell::Lstm, but the cell is {}", self.cell.name());
                return clash("projection", message);
            }
            if self.options.equations.zoneout.is_some() {
                let message = "cannot be combined: choose one of the two".to_owned();
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
                let message = "windows require a forward stack: use one, or `truncated` instead";
                clash(&format!("{windows} and {direction}"), message.to_owned())
            }
            Truncation::SlidingWindows(SlidingWindows { every, depth }) => {
                expect_size(name, "truncated_every", every)?;
                let option = if every == 1 && depth > 0 { "windowed" } else { "truncated_every" };
                expect_size(name, option, depth)?;
                if depth < every {
                    let message = format!(
                        "every {every} steps back through {depth} would give some outputs no gradient: the depth must be \
                         at least {every}"
                    );
                    return clash("truncated_every", message);
                }
                Ok(())
            }
        }
    }
}

//! Options of a stack besides its layers: dropout, merged directions, residual connections, a learned initial
//! state, checkpoints.

use serde::{Deserialize, Serialize};

use super::{Directions, Rnn};
use crate::nn::layer::expect_size;
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

/// What a trace keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Checkpoints {
    /// Everything.
    #[default]
    None,
    /// The state of every so many steps.
    Every(usize),
    /// As much as so many bytes hold.
    Within(u64),
}

impl Checkpoints {
    /// The option that asks for it.
    fn option(self) -> Option<Exclusive> {
        match self {
            Self::None => None,
            Self::Every(_) => Some(Exclusive::Checkpointed),
            Self::Within(_) => Some(Exclusive::CheckpointedWithin),
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

    fn with_checkpoints(self, checkpoints: Checkpoints) -> Self {
        let options = self.options.instead_of(self.options.checkpoints.option(), checkpoints.option());
        Self { options: Options { checkpoints, ..options }, ..self }
    }

    /// Stores only the state of every `every`-th step, and the steps since the last of them; backward computes the other
    /// steps again, segment by segment (Chen et al. 2016, "Training deep nets with sublinear memory cost"; Gruslys
    /// et al. 2016, "Memory-efficient backpropagation through time"). Outputs and gradients have the same bits as
    /// without, for one more forward pass at most. For stacks that run forward only, without overlapping windows.
    ///
    /// `every` is rounded up to whole blocks in which gradients of weights are summed: the least number of steps with
    /// 512 rows, such as 16 for a batch of 32. The trace is smallest for `every` a little below √T.
    ///
    /// What a whole training step then has in use at its peak is in
    /// [`Cost::training_bytes`](crate::nn::Cost::training_bytes).
    ///
    /// One LSTM layer of 128 units over 128 features, 32 rows: bytes of the trace, of which T · 16 KiB are the input, and
    /// the least time of nine for forward and backward on the CPU device, on two cores of a Xeon at 2.8 GHz:
    ///
    /// | T | whole | | `checkpointed` | | |
    /// |---|---|---|---|---|---|
    /// | 64 | 7.4 MB | 55 ms | 16 | 2.8 MB | 65 ms |
    /// | 256 | 29.4 MB | 232 ms | 32 | 7.6 MB | 281 ms |
    /// | 1024 | 117.5 MB | 960 ms | 32 | 21.0 MB | 1201 ms |
    ///
    /// ```
    /// use refrain::nn::{Cell, Model, Rnn};
    /// let cost = |stack: Rnn| {
    ///     let mut model = Model::new(1);
    ///     model.add("rnn", stack)?;
    ///     model.cost(1024, 32)
    /// };
    /// let whole = cost(Rnn::new(Cell::Lstm, 128, 128))?;
    /// let segments = cost(Rnn::new(Cell::Lstm, 128, 128).checkpointed(32))?;
    /// assert_eq!(whole.trace_bytes, 117_506_048);
    /// assert_eq!(segments.trace_bytes, 21_004_288);
    /// // All but the last of 32 segments are run again.
    /// assert_eq!(segments.backward - whole.backward, whole.forward / 32 * 31);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn checkpointed(self, every: usize) -> Self {
        self.with_checkpoints(Checkpoints::Every(every))
    }

    /// As [`Rnn::checkpointed`], with the longest segments whose trace takes at most `bytes` in 32-bit floats, input
    /// included, as [`Model::cost`](crate::nn::Model::cost) counts them; one segment if everything fits. A pass for which
    /// no segment fits is an [`Error::Config`] that names the least number of bytes that suffices.
    pub fn checkpointed_within(self, bytes: u64) -> Self {
        self.with_checkpoints(Checkpoints::Within(bytes))
    }

    /// What its traces keep, in words.
    fn describe_checkpoints(&self) -> Option<String> {
        match self.options.checkpoints {
            Checkpoints::None => None,
            Checkpoints::Every(steps) => Some(format!("checkpointed {steps}")),
            Checkpoints::Within(bytes) => Some(format!("checkpointed within {bytes} bytes")),
        }
    }

    fn validate_checkpoints(&self, name: &str) -> Result<()> {
        let option = match self.options.checkpoints {
            Checkpoints::None => return Ok(()),
            Checkpoints::Every(every) => {
                expect_size(name, "checkpointed", every)?;
                "checkpointed"
            }
            Checkpoints::Within(_) => "checkpointed_within",
        };
        let clash =
            |other: &str, message: &str| Err(Error::config(format!("{name}: {option} and {other}"), message));
        if self.directions != Directions::Forward {
            let message = "segments follow each other in time, and a direction that begins at the end has no state \
                           for the first: run forward, or keep everything";
            return clash("reverse or bidirectional", message);
        }
        if matches!(self.options.truncation, Truncation::SlidingWindows(_)) {
            let message =
                "windows reach over the ends of segments: truncate by `truncated`, or keep everything";
            return clash("windowed or truncated_every", message);
        }
        Ok(())
    }

    /// Features of its input.
    pub(in crate::nn) fn reads(&self) -> usize {
        self.inputs
    }

    /// Entries of the matrices that are multiplied with the stack's input, and of all others.
    pub(in crate::nn) fn matrix_entries(&self) -> [usize; 2] {
        let directions = self.directions.all().len();
        let wide = directions * self.equations().gates() * self.hidden;
        let projection = directions * self.options.projection.map_or(0, |width| width * self.hidden);
        let upper = (self.layers - 1) * wide * self.outputs();
        [wide * self.inputs, upper + self.layers * (wide * self.hidden_width() + projection)]
    }

    /// Its cell, depth, directions and options in words.
    pub(in crate::nn) fn describe(&self) -> String {
        let Self { layers, directions, options, .. } = self;
        let rate = |name: &str, rate: f32| (rate > 0.0).then(|| format!("{name} {rate}"));
        let parts = [
            Some(self.cell.name().to_owned()),
            (*layers > 1).then(|| format!("{layers} layers")),
            match directions {
                Directions::Forward => None,
                Directions::Reverse => Some("reverse".to_owned()),
                Directions::Both => Some("both directions".to_owned()),
            },
            (options.merge != Merge::Concat).then(|| format!("{:?}", options.merge).to_lowercase()),
            self.describe_truncation(),
            self.describe_checkpoints(),
            rate("dropout", options.dropout),
            rate("input dropout", options.input_dropout),
            rate("weight drop", options.weight_drop),
            rate("recurrent dropout", options.recurrent_dropout),
            options.equations.zoneout.map(|[hidden, cell]| format!("zoneout {hidden} {cell}")),
            self.has_layer_norm().then(|| "layer norm".to_owned()),
            options.residual.then(|| "residual".to_owned()),
            options.learned_initial_state.then(|| "learned initial state".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
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
